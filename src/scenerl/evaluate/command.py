"""The command `eval`: reads the files, evaluates or compares, prints the table and writes metrics.json."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from rich.console import Console

from scenerl.answers.dialogue import Conversation
from scenerl.answers.formats import FORMATS
from scenerl.answers.recognise import closest
from scenerl.commands.eval import EvalOptions
from scenerl.config.convert import near_misses
from scenerl.data.ground_truth import Names, load_ground_truth
from scenerl.data.triplets import read_training
from scenerl.data.vocabulary import Vocabulary
from scenerl.errors import DataError, UserError
from scenerl.evaluate.categories import named, read_category_names
from scenerl.evaluate.conventions import described_conventions, label_mapper, metric_options
from scenerl.evaluate.models import KEYS, Model, read_models
from scenerl.evaluate.paper import SUFFIXES, paper_table
from scenerl.evaluate.table import print_comparison, print_models, print_report
from scenerl.files import atomic_write_text, check_out
from scenerl.metrics import (
    ComparisonOfAll,
    Mapped,
    Pair,
    Report,
    compare,
    compare_all,
    evaluate,
    evaluate_subsets,
    map_pairs,
    misspelled,
)
from scenerl.metrics.registry import headline, ordered
from scenerl.predictions import (
    DETECTION_LISTS,
    OUTPUTS,
    Predictions,
    RawPrediction,
    read_predictions,
    sniff,
    truth_path,
    write_predictions,
)
from scenerl.predictions.checks import check_box_format, check_format, is_unread, why_unread
from scenerl.predictions.notes import SHOWN, shown
from scenerl.predictions.pairing import MISSING, NOTHING, pair_up
from scenerl.predictions.reading import reading_of
from scenerl.progress import progress_bar
from scenerl.types import ParseResult

LOOKED_AT = 50
"""Answers of a model that could not be read whose look is described."""
UNREAD = 0.95
"""Share of a model's answers that cannot be read from which the command fails."""


def run_eval(options: EvalOptions, console: Console | None = None) -> int:
    """Evaluate predictions, print the table to ``console`` (the terminal by default) and write it.

    Returns:
        The exit code: 1 where nearly no answer of a model could be read.

    Raises:
        UserError: a file or a row that cannot be used; the message names it and what is allowed.
    """
    console = console or Console()
    models, exports = _check_files(options)
    unread: list[str] = []
    if options.compare:
        evaluation = Evaluation(options)
        content, warnings, found = _compare(evaluation, console), evaluation.warnings, None
    elif len(models) > 1:
        evaluation = Evaluation(options)
        content, found = _evaluate_all(evaluation, models, console)
        warnings, unread = evaluation.warnings, evaluation.unread
    else:
        if _is_folder_of_subsets(options):
            report, warnings = _evaluate_subsets(options)
        else:
            evaluation = Evaluation(models[0].options)
            report = _evaluate(evaluation, models[0], exports, console)
            warnings, unread = evaluation.warnings, evaluation.unread
        print_report(report, _shown(options, report.metrics), console)
        content, found = report.to_json(), ComparisonOfAll({models[0].name: report}, {})
    if not _is_folder_of_subsets(options) and evaluation.closest:
        content["closest"] = evaluation.closest
        for name, looks in evaluation.closest.items():
            listed = "; ".join(f"{look} ({count})" for look, count in list(looks.items())[:SHOWN])
            console.print(f"Failed answers of {name}: {listed}", highlight=False, markup=False, soft_wrap=True)
    content["warnings"] += warnings
    content["options"] |= described_conventions(options)
    if not _is_folder_of_subsets(options) and evaluation.recognised:
        content["options"]["recognised"] = evaluation.recognised
    for warning in content["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    if options.out is not None:
        atomic_write_text(options.out, _written(options, content, found))
        console.print(f"Written to {options.out}", highlight=False, markup=False)
    for sentence in unread:
        print(f"scenerl: error: {sentence}", file=sys.stderr)
    return int(bool(unread))


def _written(options: EvalOptions, content: dict, found: ComparisonOfAll | None) -> str:
    suffix = options.out.suffix.lower()
    if suffix not in SUFFIXES or found is None:
        return json.dumps(content, indent=1, allow_nan=False) + "\n"
    names = ordered({name for report in found.reports.values() for name in report.metrics})
    return paper_table(found, names if suffix == ".csv" and not options.metrics else _shown(options, names), suffix)


def _shown(options: EvalOptions, names: Collection[str]) -> list[str]:
    """The metrics that tables show, of those there are."""
    if not options.metrics:
        return headline(names) or ordered(names)
    if options.metrics == ["all"]:
        return ordered(names)
    for name in options.metrics:
        if name not in names:
            raise UserError(f"metrics: {name!r} is not there{near_misses(name, names)}; all: every one")
    return list(options.metrics)


def _is_folder_of_subsets(options: EvalOptions) -> bool:
    return options.input == "ovdeval" and options.pred is not None and options.pred.is_dir()


def _check_files(options: EvalOptions) -> tuple[list[Model], list[tuple[str, Path]]]:
    """Refuse options that contradict each other or would write over inputs, before anything is read.

    Returns:
        The files of predictions, and the formats and files of ``--export``.
    """
    if bool(options.compare) == bool(options.pred):
        raise UserError(
            "eval needs one or more files of predictions, or --compare with two of them; see `scenerl eval --help`"
        )
    if options.compare and options.out is not None and options.out.suffix.lower() in SUFFIXES:
        raise UserError(f"out: --compare writes JSON; for {options.out.suffix}, name the files without --compare")
    models = [] if options.pred is None else read_models([str(options.pred), *options.others], options)
    exports = []
    for target in options.export:
        name, equals, path = target.partition("=")
        if not equals or not path:
            raise DataError(f"export: {target!r} is not FORMAT=FILE")
        if name not in OUTPUTS:
            raise DataError(f"export: unknown format {name!r}; allowed: {', '.join(OUTPUTS)}")
        exports.append((name, Path(path)))
    paths = [path for model in models for path in (model.path, model.names)]
    inputs = [*paths, *options.compare, options.data, options.train, options.vocabulary, options.map_table]
    check_out(options.out, inputs)
    for name, path in exports:
        check_out(path, [*inputs, options.out], "export")
        check_out(truth_path(name, path), [*inputs, options.out], "export, the ground truth beside it")
    if exports and (options.compare or len(models) > 1 or _is_folder_of_subsets(options)):
        raise UserError(
            "export writes the predictions of one file; it goes neither with several or --compare nor with a folder"
        )
    return models, exports


class Evaluation:
    """One ground truth and the conventions; reads files of predictions against them.

    Attributes:
        truth: the ground truth.
        conventions: of the metrics.
        mapper: maps labels that are no target's; None where none are mapped.
        training: triplet types and predicate counts of the training data, None where there are none.
        warnings: about the files read so far.
        recognised: what was found out about how they are to be read, by name of the model.
        closest: what a sample of the answers that could not be read look like, with counts, by name of the model.
        unread: a sentence for each of which nearly no answer could be read.
    """

    def __init__(self, options: EvalOptions) -> None:
        self.options = options
        self.vocabulary = None if options.vocabulary is None else Vocabulary.read(options.vocabulary)
        self.truth = load_ground_truth(options.data, options.split)
        self.names = self.truth.names
        if not self.names.predicates and self.vocabulary is not None:
            self.names = Names(self.names.objects, self.vocabulary.predicates)
        self.conventions = metric_options(options, self.names)
        self.mapper = label_mapper(options)
        # Labels outside the vocabulary have to be kept where they are to be mapped.
        self.closed = None if self.mapper else self.vocabulary
        self.training = (None, None) if options.train is None else read_training(options.train, options.train_split)
        self.warnings: list[str] = []
        self.recognised: dict[str, list[str]] = {}
        self.closest: dict[str, dict[str, int]] = {}
        self.unread: list[str] = []

    @cached_property
    def target_vocabulary(self) -> tuple[list[str], list[str]]:
        """Labels and predicates of the vocabulary, or else those of the ground truth."""
        if self.vocabulary is not None:
            return list(self.vocabulary.objects), list(self.vocabulary.predicates)
        graphs = [example.graph for example in self.truth.examples]
        labels = [item.label for graph in graphs for item in graph.objects]
        predicates = [item.predicate for graph in graphs for item in graph.relations]
        return (
            list(dict.fromkeys([*self.names.objects.values(), *labels])),
            list(dict.fromkeys([*self.names.predicates, *predicates])),
        )

    def pairs(self, model: Model, answers: dict[str, str | None] | None = None) -> tuple[list[Pair], dict[str, int]]:
        """The predictions in a file with their ground truth, and the counts of what was odd.

        Args:
            answers: takes the texts of raw answers by image id, where they are wanted.
        """
        path, options, truth = model.path, model.options, self.truth
        kind = sniff(path) if options.input == "auto" else options.input
        predictions, said = self._predictions(model, kind)
        found = [predictions.entries.get(example.image_id) for example in truth.examples]
        answered = [(entry, example) for entry, example in zip(found, truth.examples, strict=True) if entry is not None]
        if answers is not None:
            rows = ((example.image_id, entry.row) for entry, example in answered if entry.row is not None)
            answers.update((image_id, row.get("answer")) for image_id, row in rows)
        conversation, recognised = reading_of(options, self.closed, answered)
        if said + recognised:
            self.recognised[model.name] = said + recognised
        missing = NOTHING if kind in DETECTION_LISTS else MISSING
        pairs, counts, odd = pair_up(predictions, truth, conversation, missing, self.mapper is not None)
        self.warnings += odd
        rows = [entry.row for entry in predictions.entries.values() if entry.row is not None]
        own = FORMATS[conversation.output_format.format].box_format or conversation.output_format.box_format
        box_formats = {row.get("frame", own) for row in rows}
        box_format = box_formats.pop() if len(box_formats) == 1 else "pixels"
        suspicious = check_box_format(truth.examples, [pair.result for pair in pairs], box_format)
        suspicious += predictions.other_tasks(self.conventions.task)
        if all(pair.result.graph is None for pair in pairs):
            suspicious += check_format(predictions.answers(), conversation.output_format)
        self.warnings += [f"{path}: {sentence}" for sentence in suspicious]
        self._note_unread(model, [pair.result for pair in pairs], found, conversation)
        near = misspelled(pairs, *self.target_vocabulary)
        counts["misspelled_labels"] = sum(entry.count for entry in near)
        if near and self.mapper is None:
            listed = shown([f"{entry.label!r} ({entry.count} times) for {entry.to!r}" for entry in near])
            self.warnings.append(
                f"{counts['misspelled_labels']} labels differ from a target's by case or spelling alone: {listed}"
            )
        return pairs, counts

    def _predictions(self, model: Model, kind: str) -> tuple[Predictions, list[str]]:
        """What a file holds; categories that are numbers get their names, and a sentence says whence."""
        if kind not in DETECTION_LISTS:
            return read_predictions(model.path, kind, self.names), []
        candidates = {}
        if model.names is not None:
            candidates = read_category_names(model.names)
        elif self.options.vocabulary is not None and not self.names.objects:
            candidates = read_category_names(self.options.vocabulary)
        read = partial(read_predictions, model.path, kind)
        return named(read, self.truth.examples, self.names, candidates, model.path)

    def _note_unread(
        self,
        model: Model,
        results: Sequence[ParseResult],
        found: Sequence[RawPrediction | None],
        conversation: Conversation,
    ) -> None:
        """Note what the answers that could not be read look like, and where nearly all are such, with the likeliest
        reason."""
        answered = [
            (entry.row, example.query, result)
            for entry, example, result in zip(found, self.truth.examples, results, strict=True)
            if entry is not None and entry.row is not None
        ]
        unread = [(row, query, result) for row, query, result in answered if is_unread(result)]
        if not unread:
            return
        format_name = conversation.output_format.format
        looks = Counter(closest(row.get("answer"), query, format_name) for row, query, _ in unread[:LOOKED_AT])
        self.closest[model.name] = dict(looks.most_common())
        if len(unread) < UNREAD * len(answered):
            return
        texts = [(row.get("answer"), query) for row, query, _ in unread]
        reason = why_unread(texts, [result for _, _, result in unread], conversation.output_format)
        self.unread.append(
            f"{model.path}: {len(unread)} of {len(answered)} answers could not be read as {format_name!r}; {reason}"
        )

    def mapped(self, pairs: list[Pair]) -> tuple[list[Pair], list[Mapped]]:
        """The pairs with labels mapped, and every mapping used."""
        labels, predicates = self.target_vocabulary
        changed, used = map_pairs(pairs, self.mapper, labels, predicates)
        known = {"objects": set(labels), "predicates": set(predicates)}
        if outside := [f"{entry.label!r} to {entry.to!r}" for entry in used if entry.to not in known[entry.kind]]:
            self.warnings.append(
                f"{len(outside)} labels were mapped to what is no target's label either: {shown(outside)}"
            )
        return changed, used


def _evaluate(evaluation: Evaluation, model: Model, exports: list[tuple[str, Path]], console: Console) -> Report:
    """The report of one file, which is exported, too, where that is wanted."""
    options, truth = evaluation.options, evaluation.truth
    pairs, counts = evaluation.pairs(model)
    _say(evaluation, console)
    if evaluation.conventions.task != "det" and all(example.query is not None for example in truth.examples):
        evaluation.warnings.append(f"{options.data} is annotated for detection; use --task det")
    with progress_bar("metrics", None):
        report = evaluate(pairs, evaluation.conventions, *evaluation.training)
    mapped = {}
    if evaluation.mapper:
        changed, used = evaluation.mapped(pairs)
        with progress_bar("metrics of mapped labels", None):
            metrics = evaluate(changed, evaluation.conventions, *evaluation.training).metrics
        mapped["metrics"] = {name: metric.to_json() for name, metric in metrics.items()}
        mapped["mappings"] = [entry.to_json() for entry in used]
    for name, path in exports:
        beside = write_predictions(name, path, truth.examples, [pair.result for pair in pairs])
        console.print(f"Written to {path}, the ground truth to {beside}", highlight=False, markup=False)
    return replace(report, counts={**report.counts, **counts}, mapped=mapped)


def _say(evaluation: Evaluation, console: Console) -> None:
    for name, sentences in evaluation.recognised.items():
        for sentence in sentences:
            console.print(f"{name}: {sentence}", highlight=False, markup=False, soft_wrap=True)


def _evaluate_all(evaluation: Evaluation, models: Sequence[Model], console: Console) -> tuple[dict, ComparisonOfAll]:
    """The content of metrics.json for several files, and the comparison, which is printed."""
    options = evaluation.options
    sides, counts = {}, {}
    for model in models:
        pairs, counts[model.name] = evaluation.pairs(model)
        sides[model.name] = evaluation.mapped(pairs)[0] if evaluation.mapper else pairs
    _say(evaluation, console)
    with progress_bar("metrics", None):
        found = compare_all(sides, evaluation.conventions, *evaluation.training)
    names = {name for report in found.reports.values() for name in report.metrics}
    print_models(found, _shown(options, names), console)
    content: dict = {"models": {}, "pairs": [], "options": {}, "warnings": []}
    if options.resamples and 2 * len(found.pairs) > 0.05 * (options.resamples + 1):
        evaluation.warnings.append(
            f"no corrected p-value can be below 0.05 with {options.resamples} resamples for {len(found.pairs)} pairs; "
            "raise --resamples"
        )
    for model in models:
        report = replace(found.reports[model.name], warnings=[])
        described = report.to_json()
        content["options"] = described.pop("options")
        described["counts"] |= counts[model.name]
        own = {key: getattr(model.options, key) for key in KEYS}
        content["models"][model.name] = {"predictions": str(model.path), **own, **described}
    for (a, b), differences in found.pairs.items():
        tests = {name: entry.to_json() for name, entry in differences.items()}
        content["pairs"].append({"a": a, "b": b, "metrics": tests})
    return content, found


def _compare(evaluation: Evaluation, console: Console) -> dict:
    """The content of metrics.json for two files; the table is printed."""
    options = evaluation.options
    sides = [evaluation.pairs(Model(path.stem, path, options))[0] for path in options.compare]
    _say(evaluation, console)
    mappings: list[list[Mapped]] = []
    if evaluation.mapper:
        sides, mappings = zip(*map(evaluation.mapped, sides), strict=True)
    with progress_bar("metrics", None):
        found = compare(*sides, evaluation.conventions, *evaluation.training)
    print_comparison(found, tuple(map(str, options.compare)), console)
    described = evaluate([], evaluation.conventions, *evaluation.training).options
    content = {"compare": found.to_json(), "options": described, "warnings": []}
    if evaluation.mapper:
        content["mappings"] = [[entry.to_json() for entry in listed] for listed in mappings]
        console.print(f"Labels mapped first: {len(mappings[0])} of A, {len(mappings[1])} of B")
    return content


def _evaluate_subsets(options: EvalOptions) -> tuple[Report, list[str]]:
    """The report of OVDEval, a folder of annotations and a folder of results with a file per subset, and warnings."""
    if label_mapper(options):
        raise UserError("labels are mapped in files, not in a folder of subsets; leave map_… out")
    folder = Path(options.data)
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if not files:
        raise DataError(f"{folder} holds no *.json; --data of ovdeval is its folder of annotations")
    options_of_all = replace(options, protocol=options.protocol or "ovdeval")
    subsets, warnings = {}, []
    for file in files:
        names = [f"{file.stem}.json", f"{file.stem}_results.json"]
        found = next((path for name in names if (path := options.pred / name).is_file()), None)
        if found is None:
            raise DataError(f"{options.pred} holds neither {names[0]} nor {names[1]}")
        evaluation = Evaluation(replace(options_of_all, data=str(file)))
        subsets[file.stem], _ = evaluation.pairs(Model(file.stem, found, evaluation.options))
        warnings += evaluation.warnings
    with progress_bar("metrics", None):
        return evaluate_subsets(subsets, metric_options(options_of_all, Names())), warnings
