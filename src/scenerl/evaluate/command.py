"""The command `eval`: reads the files, evaluates or compares, prints the table and writes metrics.json."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from scenerl.commands.eval import EvalOptions
from scenerl.config.convert import near_misses
from scenerl.data.ground_truth import Names
from scenerl.errors import DataError, UserError
from scenerl.evaluate.conventions import described_conventions, label_mapper, metric_options
from scenerl.evaluate.evaluation import Evaluation
from scenerl.evaluate.models import KEYS, Model, read_model, read_models
from scenerl.evaluate.paper import SUFFIXES, paper_table
from scenerl.evaluate.table import print_comparison, print_models, print_report
from scenerl.files import atomic_write_text, check_out
from scenerl.metrics import (
    Mapped,
    ModelComparison,
    Report,
    compare,
    compare_all,
    evaluate,
    evaluate_subsets,
)
from scenerl.metrics.registry import METRICS, headline, is_registered, ordered
from scenerl.plugins import is_own
from scenerl.predictions import (
    OUTPUTS,
    truth_path,
    write_predictions,
)
from scenerl.predictions.notes import SHOWN
from scenerl.progress import progress_bar


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
        content, found = _compare(evaluation, models, console), None
        warnings, unread = evaluation.warnings, evaluation.unread
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
        content, found = report.to_json(), ModelComparison({models[0].name: report}, {})
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


def _written(options: EvalOptions, content: dict, found: ModelComparison | None) -> str:
    suffix = options.out.suffix.lower()
    if suffix not in SUFFIXES or found is None:
        return json.dumps(content, indent=1, allow_nan=False) + "\n"
    names = ordered({name for report in found.reports.values() for name in report.metrics})
    return paper_table(found, names if suffix == ".csv" and not options.metrics else _shown(options, names), suffix)


def _shown(options: EvalOptions, names: Collection[str]) -> list[str]:
    """The metrics that tables show, of those there are; functions of the user's own are added."""
    given = [name for name in options.metrics if not is_own(name)]
    own = [name.rpartition(":")[2] for name in options.metrics if is_own(name)]
    if given == ["all"] or (not given and not headline(names)):
        return ordered(names)
    for name in given:
        if name not in names:
            raise UserError(f"metrics: {name!r} is not there{near_misses(name, names)}; all: every one")
    return [*(given or headline(names)), *own]


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
    for name in options.metrics:
        if name != "all" and not is_own(name) and not is_registered(name):
            known = {spec.name.replace("@K", f"@{k}") for spec in METRICS for k in options.ks}
            raise UserError(f"metrics: unknown metric {name!r}{near_misses(name, known)}; all: every one")
    if options.compare and options.out is not None and options.out.suffix.lower() in SUFFIXES:
        raise UserError(f"out: --compare writes JSON; for {options.out.suffix}, name the files without --compare")
    files = options.compare or [options.pred, *options.others]
    # Two files that are compared may be the same.
    models = [read_model(str(file), options) for file in files] if options.compare else read_models(files, options)
    exports = []
    for target in options.export:
        name, equals, path = target.partition("=")
        if not equals or not path:
            raise DataError(f"export: {target!r} is not FORMAT=FILE")
        if name not in OUTPUTS:
            raise DataError(f"export: unknown format {name!r}; allowed: {', '.join(OUTPUTS)}")
        exports.append((name, Path(path)))
    paths = [path for model in models for path in (model.path, model.names)]
    inputs = [*paths, options.data, options.train, options.vocabulary, options.map_table, options.map_similarity]
    outputs = [] if options.out is None else [(options.out, "out")]
    for name, path in exports:
        outputs += [(path, "export"), (truth_path(name, path), "export, the ground truth beside it")]
    written: set[Path] = set()
    for path, name in outputs:
        check_out(path, inputs, name)
        if path.resolve() in written:
            raise DataError(f"{name}: {path} is written by this command already; choose another name")
        written.add(path.resolve())
    if _is_folder_of_subsets(options) and any(map(is_own, options.metrics)):
        raise UserError("metrics: functions of your own are for files of predictions, not for a folder of subsets")
    if exports and (options.compare or len(models) > 1 or _is_folder_of_subsets(options)):
        raise UserError(
            "export writes the predictions of one file; it goes neither with several or --compare nor with a folder"
        )
    if options.out is not None and options.out.suffix.lower() not in ("", ".json", *SUFFIXES):
        raise UserError(f"out: {options.out.suffix} cannot be written; allowed: .json, {', '.join(SUFFIXES)}")
    return models, exports


def _evaluate(evaluation: Evaluation, model: Model, exports: list[tuple[str, Path]], console: Console) -> Report:
    """The report of one file, which is exported, too, where that is wanted."""
    truth = evaluation.truth
    pairs, counts = evaluation.pairs(model)
    _say(evaluation, console)
    evaluation.check_task()
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


def _evaluate_all(evaluation: Evaluation, models: Sequence[Model], console: Console) -> tuple[dict, ModelComparison]:
    """The content of metrics.json for several files, and the comparison, which is printed."""
    options = evaluation.options
    sides, counts = {}, {}
    for model in models:
        pairs, counts[model.name] = evaluation.pairs(model)
        sides[model.name] = evaluation.mapped(pairs)[0] if evaluation.mapper else pairs
    _say(evaluation, console)
    with progress_bar("metrics", None):
        found = compare_all(sides, evaluation.conventions, *evaluation.training)
    evaluation.check_task()
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


def _compare(evaluation: Evaluation, models: Sequence[Model], console: Console) -> dict:
    """The content of metrics.json for two files; the table is printed."""
    options = evaluation.options
    sides = [evaluation.pairs(model)[0] for model in models]
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
