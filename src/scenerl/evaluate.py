"""The command `eval`: a file of predictions and a data set in, a table and metrics.json out. Needs no torch."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scenerl.answers import AnswerStyle, parse_answer
from scenerl.config.options import EvalOptions
from scenerl.data import DataError, load
from scenerl.data.rows import excerpt, label_of
from scenerl.data.vocabulary import Vocabulary
from scenerl.metrics import MetricOptions, Pair, Report, evaluate
from scenerl.metrics.options import Triplet
from scenerl.runs import atomic_write_text
from scenerl.types import FAILURES, Example, Issue, ParseResult, Relation, SceneGraph, SceneObject

MISSING = ParseResult("no_answer", None)
_SHOWN_IDS = 5


@dataclass
class Predictions:
    """What a file of predictions holds: a row per image id, and what was left out on the way."""

    path: Path
    rows: dict[str, tuple[int, dict]] = field(default_factory=dict)
    ignored_samples: int = 0
    warnings: list[str] = field(default_factory=list)


def run_eval(options: EvalOptions, console: Console | None = None) -> None:
    """Evaluate predictions, print the table to ``console`` (the terminal by default) and write metrics.json.

    Raises:
        ValueError: a file or a row that cannot be used; the message names it and what is allowed.
    """
    vocabulary = None if options.vocabulary is None else Vocabulary.read(options.vocabulary)
    metric_options = _metric_options(options, vocabulary)
    style = AnswerStyle(
        format=options.format,
        envelope=options.envelope,
        objects=vocabulary and vocabulary.objects,
        predicates=vocabulary and vocabulary.predicates,
        frame=options.frame,
    )
    predictions = read_predictions(options.pred)
    examples = list(load(options.data, options.split))
    pairs, counts = pair_up(predictions, examples, style)
    if options.task == "sgdet" and all(example.query is not None for example in examples):
        predictions.warnings.append(f"{options.data} is annotated for detection; use --task det")
    training_triplets = None if options.train is None else read_training_triplets(options.train)
    report = evaluate(pairs, metric_options, training_triplets)
    report = replace(
        report,
        counts={**report.counts, **counts},
        warnings=[*report.warnings, *predictions.warnings],
        options={
            **report.options,
            "predictions": str(options.pred),
            "data": options.data,
            "split": options.split,
            "train": options.train,
            "format": options.format,
            "envelope": options.envelope,
            "frame": options.frame,
        },
    )
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(options.out, json.dumps(report.to_json(), indent=1, allow_nan=False) + "\n")
    console = console or Console()
    print_report(report, console)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if options.out is not None:
        console.print(f"Written to {options.out}", highlight=False, markup=False)


def _metric_options(options: EvalOptions, vocabulary: Vocabulary | None) -> MetricOptions:
    if options.absent_as_zero and vocabulary is None:
        raise ValueError("absent_as_zero needs to know which predicates there are; give --vocabulary FILE.json")
    return MetricOptions(
        task=options.task,
        ks=tuple(options.ks),
        iou_threshold=options.iou_threshold,
        plus_one=options.plus_one,
        hits="one_to_one" if options.one_to_one else "one_to_many",
        absent_predicates_as_zero=options.absent_as_zero,
        predicates=vocabulary and vocabulary.predicates,
        bootstrap_samples=options.resamples,
        seed=options.seed,
    )


def read_predictions(path: Path) -> Predictions:
    """The rows of a JSONL file of predictions by image id; of several samples of an image, the first (sample 0).

    A last line that breaks off (a run that was killed) is left out with a warning.

    Raises:
        DataError: the file is missing or empty, a row is not a JSON object, lacks ``image_id``, or has the id of an
            earlier row.
    """
    predictions = Predictions(Path(path))
    for number, row in _rows(predictions):
        image_id = row.get("image_id")
        if isinstance(image_id, bool) or not isinstance(image_id, str | int):
            raise DataError(
                f"{path}, row {number}: image_id must be a text or a whole number, found "
                f"{excerpt(image_id) if 'image_id' in row else 'none'}"
            )
        if row.get("sample", 0) != 0:
            predictions.ignored_samples += 1
            continue
        # Data rows have the white space of their ids tidied as well.
        earlier = predictions.rows.setdefault(" ".join(str(image_id).split()), (number, row))
        if earlier[0] != number:
            raise DataError(
                f"{path}, row {number}: the image_id {excerpt(image_id)} is that of row {earlier[0]} "
                "already; one answer per image is expected"
            )
    if predictions.ignored_samples:
        predictions.warnings.append(
            f"{predictions.ignored_samples} rows with sample above 0 were left out; metrics are of sample 0"
        )
    if not predictions.rows:
        raise DataError(f"{path} holds no prediction; expected a row per image with 'image_id' and 'answer'")
    return predictions


def _rows(predictions: Predictions) -> Iterator[tuple[int, dict]]:
    path = predictions.path
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    if not line.endswith(b"\n"):
                        predictions.warnings.append(f"{path}, row {number}: the last row breaks off; it was left out")
                        return
                    raise DataError(f"{path}, row {number}: not JSON ({error}): {excerpt(line)}") from error
                if not isinstance(row, dict):
                    raise DataError(f"{path}, row {number}: a row must be a JSON object, found {excerpt(row)}")
                yield number, row
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a JSONL file of predictions") from error


def pair_up(
    predictions: Predictions, examples: Sequence[Example], style: AnswerStyle
) -> tuple[list[Pair], dict[str, int]]:
    """Predictions with their ground truth, one pair per example and in their order.

    An image without a prediction counts as a failed answer; predictions of unknown images are left out. Both are
    counted and put on the predictions' warnings.

    Returns:
        The pairs and the counts.

    Raises:
        DataError: a row cannot be used, or no image id is known.
    """
    known = {example.image_id for example in examples}
    unknown = [image_id for image_id in predictions.rows if image_id not in known]
    if len(unknown) == len(predictions.rows):
        raise DataError(
            f"{predictions.path}: none of its {len(unknown)} image ids is in the data; the first is "
            f"{excerpt(unknown[0])}, the data's first is {excerpt(examples[0].image_id)}"
        )
    pairs, missing, num_bad_scores = [], [], 0
    for example in examples:
        result = MISSING
        if example.image_id in predictions.rows:
            number, row = predictions.rows[example.image_id]
            reader = _RowReader(f"{predictions.path}, row {number}")
            result = reader.result(row, style, example)
            num_bad_scores += reader.num_bad_scores
        else:
            missing.append(example.image_id)
        pairs.append(Pair(example.image_id, result, example.graph, example.image_wh))
    for ids, text in (
        (missing, "images have no prediction and count as empty"),
        (unknown, "predictions are of images that the data does not have and were left out"),
    ):
        if ids:
            shown = ", ".join(excerpt(image_id) for image_id in ids[:_SHOWN_IDS])
            predictions.warnings.append(f"{len(ids)} {text}: {shown}{', …' if len(ids) > _SHOWN_IDS else ''}")
    if num_bad_scores:
        predictions.warnings.append(f"{num_bad_scores} scores are not finite numbers and were taken as missing")
    return pairs, {
        "predictions": len(predictions.rows),
        "missing_answers": len(missing),
        "unknown_images": len(unknown),
        "ignored_samples": predictions.ignored_samples,
        "bad_scores": num_bad_scores,
    }


class _RowReader:
    """One prediction row to a parse result; ``where`` names file and row in errors."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.num_bad_scores = 0

    def result(self, row: Mapping, style: AnswerStyle, example: Example) -> ParseResult:
        if "status" in row or isinstance(row.get("graph"), Mapping):
            return self._parsed(row)
        # Objects beside an answer are ground truth, as in the rows that `score` reads: never taken for a prediction.
        if "answer" not in row:
            raise DataError(f"{self.where}: neither 'answer' nor a parsed 'graph'; one of them is expected")
        input_wh = row.get("input_wh")
        if input_wh is not None:
            input_wh = tuple(self._numbers(input_wh, 2, "input_wh"))
        return parse_answer(
            row["answer"],
            replace(style, frame=row.get("frame", style.frame)),
            example.image_wh,
            input_wh,
            truncated=row.get("finish_reason") == "length",
        )

    def _parsed(self, row: Mapping) -> ParseResult:
        status = row.get("status", "ok")
        if status != "ok" and status not in FAILURES:
            raise DataError(f"{self.where}: unknown status {excerpt(status)}; allowed: ok, {', '.join(FAILURES)}")
        issues = []
        for n, issue in enumerate(self._list(row.get("issues", []), "issues")):
            if not isinstance(issue, Mapping) or not isinstance(issue.get("kind"), str):
                raise DataError(f"{self.where}: issues[{n}] must be an object with a 'kind', found {excerpt(issue)}")
            issues.append(Issue(issue["kind"], str(issue.get("where", "")), str(issue.get("detail", ""))))
        if status != "ok":
            return ParseResult(status, None, tuple(issues))
        if not isinstance(row.get("graph"), Mapping):
            raise DataError(f"{self.where}: status 'ok' needs a 'graph' object, found {excerpt(row.get('graph'))}")
        return ParseResult("ok", self._graph(row["graph"]), tuple(issues))

    def _graph(self, graph: Mapping) -> SceneGraph:
        """A parsed graph, boxes in pixels of the original image."""
        objects: list[SceneObject] = []
        index: dict[str, int] = {}
        for n, item in enumerate(self._list(graph.get("objects"), "objects")):
            name = self._text(item, "id", f"objects[{n}]")
            if index.setdefault(name, n) != n:
                raise DataError(f"{self.where}: objects[{n}] has the id {excerpt(name)} of objects[{index[name]}]")
            box = tuple(self._numbers(item.get("bbox"), 4, f"bbox of objects[{n}]"))
            objects.append(SceneObject(label_of(name), box, self._score(item)))
        relations = []
        for n, item in enumerate(self._list(graph.get("relationships", []), "relationships")):
            ends = [self._text(item, key, f"relationships[{n}]") for key in ("subject", "predicate", "object")]
            for end in (ends[0], ends[2]):
                if end not in index:
                    raise DataError(f"{self.where}: relationships[{n}] names {excerpt(end)}, which is no object's id")
            relations.append(Relation(index[ends[0]], ends[1], index[ends[2]], self._score(item)))
        return SceneGraph(tuple(objects), tuple(relations))

    def _score(self, item: Mapping) -> float | None:
        score = item.get("score")
        if score is None:
            return None
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            self.num_bad_scores += 1
            return None
        return float(score)

    def _list(self, value: object, name: str) -> list:
        if not isinstance(value, list):
            raise DataError(f"{self.where}: {name} must be a list, found {excerpt(value)}")
        return value

    def _text(self, item: object, key: str, name: str) -> str:
        value = item.get(key) if isinstance(item, Mapping) else None
        if not isinstance(value, str):
            raise DataError(f"{self.where}: {name} must be an object with a text {key!r}, found {excerpt(item)}")
        return value

    def _numbers(self, value: object, count: int, name: str) -> list[float]:
        numbers = value if isinstance(value, list) else []
        if len(numbers) != count or not all(
            isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < 1e12
            for number in numbers
        ):
            raise DataError(f"{self.where}: {name} must be {count} finite numbers, found {excerpt(value)}")
        return [float(number) for number in numbers]


def read_training_triplets(source: str) -> set[Triplet]:
    """Label triplets of the training data.

    Args:
        source: a data source, or a ``.json`` file with a list of [subject, predicate, object], bare or under
            ``triplets`` as ``scenerl data stats --triplets_out`` writes it.

    Raises:
        DataError: the file or a row of it cannot be used.
    """
    if Path(source).suffix != ".json":
        return {example.graph.triplet(relation) for example in load(source) for relation in example.graph.relations}
    allowed = "expected a JSON list of [subject, predicate, object], bare or under 'triplets'"
    try:
        value = json.loads(Path(source).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror}); {allowed}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source}: not JSON ({error}); {allowed}") from error
    entries = value.get("triplets") if isinstance(value, dict) else value
    if not isinstance(entries, list):
        raise DataError(f"{source}: {allowed}")
    for n, entry in enumerate(entries):
        if not (isinstance(entry, list) and len(entry) == 3 and all(isinstance(part, str) for part in entry)):
            raise DataError(f"{source}, entry {n}: {allowed}, found {excerpt(entry)}")
    return {(subject, predicate, object_) for subject, predicate, object_ in entries}


def print_report(report: Report, console: Console) -> None:
    """The metrics as a table, then failures, issues and what the averages leave out."""
    table = Table(title=f"{report.counts['images']} images", title_justify="left")
    for title, justify in (("metric", "left"), ("value", "right"), ("95 % interval", "right"), ("over", "right")):
        table.add_column(title, justify=justify)
    for name, metric in report.metrics.items():
        if metric.value is None:
            table.add_row(name, "–", Text(metric.note or "", style="dim"), "")
            continue
        interval = "" if metric.interval is None else f"{metric.interval[0]:.4f} – {metric.interval[1]:.4f}"
        table.add_row(name, f"{metric.value:.4f}", interval, str(metric.support))
    console.print(table)
    for title, counted in (("Failures", report.failures), ("Issues", report.issues)):
        if counted:
            listed = ", ".join(f"{name} {count}" for name, count in counted.items())
            console.print(Text(f"{title}: {listed}"), soft_wrap=True)
    if "absent_predicates" in report.counts:
        treated = "count as 0 in" if report.options["absent_predicates_as_zero"] else "are left out of"
        absent = report.counts["absent_predicates"]
        console.print(Text(f"{absent} predicates have no target and {treated} mean recall."))
