"""The command `eval`: reads the files, evaluates or compares, prints the table and writes metrics.json."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from rich.console import Console

from scenerl.commands.eval import EvalOptions
from scenerl.data.ground_truth import Names, load_ground_truth
from scenerl.data.triplets import read_training
from scenerl.data.vocabulary import Vocabulary
from scenerl.errors import DataError, UserError
from scenerl.evaluate.conventions import described_conventions, label_mapper, metric_options
from scenerl.evaluate.table import print_comparison, print_report
from scenerl.files import atomic_write_text, check_out
from scenerl.metrics import Mapped, Pair, Report, compare, evaluate, evaluate_subsets, map_pairs, misspelled
from scenerl.predictions import DETECTION_LISTS, OUTPUTS, read_predictions, sniff, truth_path, write_predictions
from scenerl.predictions.checks import check_box_format, check_format
from scenerl.predictions.notes import shown
from scenerl.predictions.pairing import MISSING, NOTHING, pair_up
from scenerl.predictions.row import conversation_of
from scenerl.progress import progress_bar


def run_eval(options: EvalOptions, console: Console | None = None) -> None:
    """Evaluate predictions, print the table to ``console`` (the terminal by default) and write metrics.json.

    Raises:
        UserError: a file or a row that cannot be used; the message names it and what is allowed.
    """
    console = console or Console()
    exports = _check_files(options)
    if options.compare:
        evaluation = Evaluation(options)
        content, warnings = _compare(evaluation, console), evaluation.warnings
    else:
        if _is_folder_of_subsets(options):
            report, warnings = _evaluate_subsets(options)
        else:
            evaluation = Evaluation(options)
            report, warnings = _evaluate(evaluation, exports, console), evaluation.warnings
        print_report(report, console)
        content = report.to_json()
    content["warnings"] += warnings
    content["options"] |= described_conventions(options)
    for warning in content["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    if options.out is not None:
        atomic_write_text(options.out, json.dumps(content, indent=1, allow_nan=False) + "\n")
        console.print(f"Written to {options.out}", highlight=False, markup=False)


def _is_folder_of_subsets(options: EvalOptions) -> bool:
    return options.input == "ovdeval" and options.pred is not None and options.pred.is_dir()


def _check_files(options: EvalOptions) -> list[tuple[str, Path]]:
    """Refuse options that contradict each other or would write over inputs, before anything is read.

    Returns:
        The formats and files of ``--export``.
    """
    if bool(options.compare) == bool(options.pred):
        raise UserError("eval needs a file of predictions, or --compare with two of them; see `scenerl eval --help`")
    exports = []
    for target in options.export:
        name, equals, path = target.partition("=")
        if not equals or not path:
            raise DataError(f"export: {target!r} is not FORMAT=FILE")
        if name not in OUTPUTS:
            raise DataError(f"export: unknown format {name!r}; allowed: {', '.join(OUTPUTS)}")
        exports.append((name, Path(path)))
    inputs = [options.pred, *options.compare, options.data, options.train, options.vocabulary, options.map_table]
    inputs.append(options.map_similarity)
    outputs = [] if options.out is None else [(options.out, "out")]
    for name, path in exports:
        outputs += [(path, "export"), (truth_path(name, path), "export, the ground truth beside it")]
    written: set[Path] = set()
    for path, name in outputs:
        check_out(path, inputs, name)
        if path.resolve() in written:
            raise DataError(f"{name}: {path} is written by this command already; choose another name")
        written.add(path.resolve())
    if exports and (options.compare or _is_folder_of_subsets(options)):
        raise UserError("export writes the predictions of one file; it goes neither with --compare nor with a folder")
    return exports


class Evaluation:
    """One ground truth and the conventions; reads files of predictions against them.

    Attributes:
        truth: the ground truth.
        conventions: of the metrics.
        conversation: how raw answers are parsed.
        mapper: maps labels that are no target's; None where none are mapped.
        training: triplet types and predicate counts of the training data, None where there are none.
        warnings: about the files read so far.
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
        closed = None if self.mapper else self.vocabulary
        self.conversation = conversation_of(options, closed)
        self.training = (None, None) if options.train is None else read_training(options.train, options.train_split)
        self.warnings: list[str] = []

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

    def pairs(self, path: Path) -> tuple[list[Pair], dict[str, int]]:
        """The predictions in a file with their ground truth, and the counts of what was odd."""
        kind = sniff(path) if self.options.input == "auto" else self.options.input
        predictions = read_predictions(path, kind, self.names)
        missing = NOTHING if kind in DETECTION_LISTS else MISSING
        pairs, counts, odd = pair_up(predictions, self.truth, self.conversation, missing, self.mapper is not None)
        self.warnings += odd
        rows = [entry.row for entry in predictions.entries.values() if entry.row is not None]
        box_formats = {str(row.get("frame", self.options.frame)) for row in rows}
        box_format = box_formats.pop() if len(box_formats) == 1 else "pixels"
        suspicious = check_box_format(self.truth.examples, [pair.result for pair in pairs], box_format)
        suspicious += predictions.other_tasks(self.conventions.task)
        if all(pair.result.graph is None for pair in pairs):
            suspicious += check_format(predictions.answers(), self.conversation.output_format)
        self.warnings += [f"{path}: {sentence}" for sentence in suspicious]
        near = misspelled(pairs, *self.target_vocabulary)
        counts["misspelled_labels"] = sum(entry.count for entry in near)
        if near and self.mapper is None:
            listed = shown([f"{entry.label!r} ({entry.count} times) for {entry.to!r}" for entry in near])
            self.warnings.append(
                f"{counts['misspelled_labels']} labels differ from a target's by case or spelling alone: {listed}"
            )
        return pairs, counts

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


def _evaluate(evaluation: Evaluation, exports: list[tuple[str, Path]], console: Console) -> Report:
    """The report of one file, which is exported, too, where that is wanted."""
    options, truth = evaluation.options, evaluation.truth
    pairs, counts = evaluation.pairs(options.pred)
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


def _compare(evaluation: Evaluation, console: Console) -> dict:
    """The content of metrics.json for two files; the table is printed."""
    options = evaluation.options
    sides = [evaluation.pairs(path)[0] for path in options.compare]
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
        subsets[file.stem], _ = evaluation.pairs(found)
        warnings += evaluation.warnings
    with progress_bar("metrics", None):
        return evaluate_subsets(subsets, metric_options(options_of_all, Names())), warnings
