"""The command `eval`: which files, what is asked of them, and what is told at the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from scenerl.answers import OutputFormat
from scenerl.answers.dialogue import Conversation
from scenerl.config.options import EvalOptions
from scenerl.data.vocabulary import Vocabulary
from scenerl.errors import DataError, UserError
from scenerl.evaluate.conventions import described_conventions, mapper, metric_options, wants_mapping
from scenerl.evaluate.table import print_comparison, print_report
from scenerl.evaluate.training_data import read_training
from scenerl.files import atomic_write_text, check_out
from scenerl.metrics import (
    Mapped,
    MetricOptions,
    Pair,
    Report,
    compare,
    evaluate,
    evaluate_subsets,
    map_pairs,
    misspelled,
)
from scenerl.predictions import OUTPUTS, Names, Truth, read_predictions, read_truth, sniff, write_predictions
from scenerl.predictions.checks import check_box_format, check_format
from scenerl.predictions.notes import shown
from scenerl.predictions.pairing import MISSING, NOTHING, pair_up
from scenerl.progress import progress_bar

DETECTION_LISTS = ("coco", "ovdeval")
"""Inputs that list detections: an image that is not in them has none, which is no failure."""


@dataclass(frozen=True)
class Evaluation:
    """What the files of a run of the command turned out to be."""

    options: EvalOptions
    metric_options: MetricOptions
    vocabulary: Vocabulary | None
    conversation: Conversation
    truth: Truth
    names: Names


def run_eval(options: EvalOptions, console: Console | None = None) -> None:
    """Evaluate predictions, print the table to ``console`` (the terminal by default) and write metrics.json.

    Raises:
        UserError: a file or a row that cannot be used; the message names it and what is allowed.
    """
    console = console or Console()
    if bool(options.compare) == bool(options.pred):
        raise UserError("eval needs a file of predictions, or --compare with two of them; see `scenerl eval --help`")
    exports = _exports(options)
    inputs = [options.pred, *options.compare, options.data, options.train, options.vocabulary, options.map_table]
    check_out(options.out, inputs)
    for name, path in exports:
        check_out(path, [*inputs, options.out], "export")
        check_out(OUTPUTS[name].beside(path), [*inputs, options.out], "export, the ground truth beside it")
    subsets = options.input == "ovdeval" and options.pred is not None and options.pred.is_dir()
    if exports and (options.compare or subsets):
        raise UserError("export writes the predictions of one file; it goes neither with --compare nor with a folder")
    if subsets and wants_mapping(options):
        raise UserError("labels are mapped in files, not in a folder of subsets; leave map_… out")
    if subsets:
        report, warnings = _run_subsets(options)
        content = _described(report, options, warnings)
        print_report(content, console)
        _finish(content.to_json(), content.warnings, options, console)
        return
    setup = _prepare(options)
    training = (None, None) if options.train is None else read_training(options.train, options.train_split)
    if options.compare:
        warnings: list[str] = []
        sides = [_pairs(setup, path, warnings)[0] for path in options.compare]
        used: list[list[Mapped]] = []
        if wants_mapping(options):
            sides, used = zip(*(_map_labels(setup, pairs, warnings) for pairs in sides), strict=True)
        with progress_bar("metrics", None):
            found = compare(*sides, setup.metric_options, *training)
        print_comparison(found, tuple(map(str, options.compare)), console)
        described = evaluate([], setup.metric_options, *training).options
        content = {
            "compare": found.to_json(),
            "options": {**described, **described_conventions(options)},
            "warnings": warnings,
        }
        if wants_mapping(options):
            content["mappings"] = [[entry.to_json() for entry in listed] for listed in used]
            console.print(f"Labels mapped first: {len(used[0])} of A, {len(used[1])} of B")
        _finish(content, warnings, options, console)
        return
    warnings = []
    pairs, counts = _pairs(setup, options.pred, warnings)
    if setup.metric_options.task != "det" and all(example.query is not None for example in setup.truth.examples):
        warnings.append(f"{options.data} is annotated for detection; use --task det")
    with progress_bar("metrics", None):
        report = evaluate(pairs, setup.metric_options, *training)
    report = replace(report, counts={**report.counts, **counts}, mapped=_mapped(setup, pairs, training, warnings))
    report = _described(report, options, warnings)
    for name, path in exports:
        beside = write_predictions(name, path, setup.truth.examples, [pair.result for pair in pairs])
        console.print(f"Written to {path}, the ground truth to {beside}", highlight=False, markup=False)
    print_report(report, console)
    _finish(report.to_json(), report.warnings, options, console)


def _exports(options: EvalOptions) -> list[tuple[str, Path]]:
    """The formats and files of ``--export``."""
    found = []
    for target in options.export:
        name, equals, path = target.partition("=")
        if not equals or not path:
            raise DataError(f"export: {target!r} is not FORMAT=FILE")
        if name not in OUTPUTS:
            raise DataError(f"export: unknown format {name!r}; allowed: {', '.join(OUTPUTS)}")
        found.append((name, Path(path)))
    return found


def _prepare(options: EvalOptions) -> Evaluation:
    vocabulary = None if options.vocabulary is None else Vocabulary.read(options.vocabulary)
    truth = read_truth(options.data, options.split)
    names = truth.names
    if not names.predicates and vocabulary is not None:
        names = Names(names.objects, vocabulary.predicates)
    # Where labels are to be mapped, those outside the vocabulary have to be kept.
    closed = None if wants_mapping(options) else vocabulary
    output_format = OutputFormat(
        format=options.format,
        template=options.envelope,
        objects=closed and closed.objects,
        predicates=closed and closed.predicates,
        box_format=options.frame,
    )
    return Evaluation(options, metric_options(options, names), vocabulary, Conversation(output_format), truth, names)


def _pairs(setup: Evaluation, path: Path, warnings: list[str]) -> tuple[list[Pair], dict[str, int]]:
    """Predictions with their ground truth, and the counts of what was odd; warnings are added to."""
    options = setup.options
    name = sniff(path) if options.input == "auto" else options.input
    predictions = read_predictions(path, name, setup.names)
    missing = NOTHING if name in DETECTION_LISTS else MISSING
    pairs, counts, odd = pair_up(predictions, setup.truth, setup.conversation, missing, wants_mapping(options))
    box_formats = {
        entry.row.get("frame", options.frame) for entry in predictions.entries.values() if entry.row is not None
    }
    box_format = box_formats.pop() if len(box_formats) == 1 else "pixels"
    suspicious = check_box_format(setup.truth.examples, [pair.result for pair in pairs], box_format)
    suspicious += predictions.other_tasks(setup.metric_options.task)
    if all(pair.result.graph is None for pair in pairs):
        suspicious += check_format(predictions.answers(), setup.conversation.output_format)
    warnings += odd + [f"{path}: {sentence}" for sentence in suspicious]
    labels, predicates = _target_vocabulary(setup)
    near = misspelled(pairs, labels, predicates)
    counts["misspelled_labels"] = sum(entry.count for entry in near)
    if near and not wants_mapping(options):
        listed = shown([f"{entry.label!r} ({entry.count} times) for {entry.to!r}" for entry in near])
        warnings.append(
            f"{counts['misspelled_labels']} labels differ from a target's by case or spelling alone: {listed}"
        )
    return pairs, counts


def _target_vocabulary(setup: Evaluation) -> tuple[list[str], list[str]]:
    if setup.vocabulary is not None:
        return list(setup.vocabulary.objects), list(setup.vocabulary.predicates)
    graphs = [example.graph for example in setup.truth.examples]
    labels = dict.fromkeys(entry.label for graph in graphs for entry in graph.objects)
    predicates = dict.fromkeys(entry.predicate for graph in graphs for entry in graph.relations)
    names = setup.names
    return [*dict.fromkeys([*names.objects.values(), *labels])], [*dict.fromkeys([*names.predicates, *predicates])]


def _map_labels(setup: Evaluation, pairs: list[Pair], warnings: list[str]) -> tuple[list[Pair], list[Mapped]]:
    """The pairs with labels mapped, and every mapping used; what leads nowhere is added to the warnings."""
    labels, predicates = _target_vocabulary(setup)
    changed, used = map_pairs(pairs, mapper(setup.options), labels, predicates)
    known = {"objects": set(labels), "predicates": set(predicates)}
    if outside := [f"{entry.label!r} to {entry.to!r}" for entry in used if entry.to not in known[entry.kind]]:
        warnings.append(f"{len(outside)} labels were mapped to what is no target's label either: {shown(outside)}")
    return changed, used


def _mapped(setup: Evaluation, pairs: list[Pair], training: tuple, warnings: list[str]) -> dict[str, object]:
    """The metrics with labels mapped, and every mapping; empty where nothing is to be mapped."""
    if not wants_mapping(setup.options):
        return {}
    changed, used = _map_labels(setup, pairs, warnings)
    with progress_bar("metrics of mapped labels", None):
        report = evaluate(changed, setup.metric_options, *training)
    return {
        "metrics": {name: metric.to_json() for name, metric in report.metrics.items()},
        "mappings": [entry.to_json() for entry in used],
    }


def _run_subsets(options: EvalOptions) -> tuple[Report, list[str]]:
    """OVDEval: a folder of annotations and a folder of results, a file per subset in each."""
    folder = Path(options.data)
    files = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if not files:
        raise DataError(f"{folder} holds no *.json; --data of ovdeval is its folder of annotations")
    subsets, warnings = {}, []
    chosen = metric_options(replace(options, protocol=options.protocol or "ovdeval"), Names())
    for file in files:
        found = [path for end in ("", "_results") if (path := options.pred / f"{file.stem}{end}.json").is_file()]
        if not found:
            raise DataError(f"{options.pred} holds neither {file.stem}.json nor {file.stem}_results.json")
        part = replace(options, pred=found[0], data=str(file), protocol=options.protocol or "ovdeval")
        subsets[file.stem] = _pairs(_prepare(part), found[0], warnings)[0]
    with progress_bar("metrics", None):
        return evaluate_subsets(subsets, chosen), warnings


def _described(report: Report, options: EvalOptions, warnings: list[str]) -> Report:
    return replace(
        report, warnings=[*report.warnings, *warnings], options={**report.options, **described_conventions(options)}
    )


def _finish(content: Mapping, warnings: list[str], options: EvalOptions, console: Console) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(options.out, json.dumps(content, indent=1, allow_nan=False) + "\n")
        console.print(f"Written to {options.out}", highlight=False, markup=False)
