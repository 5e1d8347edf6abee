"""The tables of the report: headline metrics, recall per predicate, failures and issues by type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scenerl.errors import UserError
from scenerl.json_files import read_json
from scenerl.report.reliability import Reliability, read_reliability
from scenerl.types import FAILURES, ISSUES

HEADLINE = (
    "failure_rate",
    "Recall",
    "R@50",
    "mR@50",
    "triplet_precision",
    "triplet_f1",
    "AP50",
    "relations_per_image",
)
DETECTION_HEADLINE = (
    "failure_rate",
    "AP",
    "AP50",
    "object_precision",
    "object_recall",
    "object_f1",
    "F1_mean",
    "objects_per_image",
)
TITLES = {
    "failure_rate": "Failure rate",
    "triplet_precision": "Triplet precision",
    "triplet_recall": "Triplet recall",
    "triplet_f1": "Triplet F1",
    "object_precision": "Object precision",
    "object_recall": "Object recall",
    "object_f1": "Object F1",
    "relations_per_image": "Relations per image",
    "objects_per_image": "Objects per image",
    "duplicates_per_image": "Duplicates per image",
    "object_hallucination": "Hallucinated objects",
    "relation_hallucination": "Hallucinated relations",
    "greedy_precision": "Greedy precision",
    "greedy_recall": "Greedy recall",
    "F1_mean": "F1 over IoUs",
}
LOWER_IS_BETTER = ("failure_rate", "duplicates_per_image", "object_hallucination", "relation_hallucination")
NO_DIRECTION = ("relations_per_image", "objects_per_image")
TOO_MANY_PREDICATES = 60
_ENDLESS = 1e300  # also what keeps NaN and integers beyond a float out


@dataclass(frozen=True, slots=True)
class StageResults:
    """What metrics.json says about one stage and one target; everything may be missing in it."""

    values: Mapping[str, tuple[float, tuple[float, float] | None]]
    per_predicate: Mapping[str, tuple[float | None, int | None]]
    failures: Mapping[str, int] | None
    options: Mapping[str, Any]
    counts: Mapping[str, Any]
    calibration: Mapping[str, Reliability] = field(default_factory=dict)


def read_metrics(path: Path) -> StageResults:
    """A metrics.json as ``scenerl eval`` writes it.

    Raises:
        UserError: it is not JSON or not of that schema; the message names the file.
    """
    data = read_json(path, "metrics as `scenerl eval` writes them")
    if not isinstance(data, dict) or not isinstance(data.get("metrics"), dict):
        raise UserError(f"{path}: no object 'metrics' in it; expected a file that `scenerl eval` wrote")
    values = {}
    for name, item in data["metrics"].items():
        if not isinstance(item, dict) or "value" not in item:
            raise UserError(f"{path}: metrics[{name!r}] is not an object with 'value' and 'interval'")
        value, interval = _finite(item["value"]), item.get("interval")
        if value is None:
            continue
        if isinstance(interval, list) and len(interval) == 2 and None not in (ends := tuple(map(_finite, interval))):
            values[name] = value, ends
        else:
            values[name] = value, None
    per_predicate = {}
    for name, item in _section(data, "per_predicate", path).items():
        if not isinstance(item, dict):
            raise UserError(f"{path}: per_predicate[{name!r}] is not an object with 'recall' and 'num_targets'")
        support = _finite(item.get("num_targets"))
        per_predicate[name] = _finite(item.get("recall")), None if support is None else int(support)
    counts = _section(data, "failures", path)
    failures = {name: int(count) for name, count in counts.items() if _finite(count) is not None}
    return StageResults(
        values,
        per_predicate,
        failures if "failures" in data else None,
        _section(data, "options", path),
        _section(data, "counts", path),
        {
            name: read_reliability(item, f"{path}: calibration")
            for name, item in _section(data, "calibration", path).items()
        },
    )


@dataclass(frozen=True, slots=True)
class Cell:
    """One value: its text, the text of its interval, bar and whisker as percentages of the column's scale."""

    text: str
    interval: str = ""
    bar: float = 0.0
    whisker: tuple[float, float] | None = None
    best: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """A metric: its key, title, unit ("%" or "") and direction ("up", "down" or "")."""

    key: str
    title: str
    unit: str
    direction: str


@dataclass(frozen=True, slots=True)
class MetricTable:
    """Metrics of all stages against one target. Rows are (stage name, palette index, cells, None where unknown)."""

    target: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, int, tuple[Cell | None, ...]], ...]


def metric_table(
    target: str, results: Sequence[tuple[str, int, StageResults]], keys: Sequence[str] | None
) -> MetricTable:
    """The table of some metrics; those that no stage has are left out. ``keys=None`` takes all there are."""
    if keys is None:
        keys = list(dict.fromkeys(key for _, _, result in results for key in result.values))
    keys = [key for key in keys if any(key in result.values for _, _, result in results)]
    cells = [_column_cells(key, [result.values.get(key) for _, _, result in results]) for key in keys]
    rows = tuple((name, index, tuple(column[row] for column in cells)) for row, (name, index, _) in enumerate(results))
    return MetricTable(target, tuple(map(_column, keys)), rows)


def headline_keys(results: Sequence[StageResults]) -> tuple[str, ...]:
    """The metrics that a summary shows: of scene graphs, or of detection where no relation was evaluated. Recall never
    stands there without precision and the number of relations, which it rewards."""
    scene_graphs = any("Recall" in result.values or "R@50" in result.values for result in results)
    return HEADLINE if scene_graphs else DETECTION_HEADLINE


@dataclass(frozen=True, slots=True)
class PredicateRow:
    """``frequency`` in the training data or None; ``support`` in the test data or None; recalls per stage in [0, 1]."""

    predicate: str
    frequency: int | None
    frequency_bar: float
    support: int | None
    recalls: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class PredicateTable:
    """Recall per predicate of all stages against one target, most frequent predicates first."""

    target: str
    stages: tuple[tuple[str, int], ...]
    rows: tuple[PredicateRow, ...]
    more: tuple[PredicateRow, ...]
    has_frequency: bool


def predicate_table(
    target: str, results: Sequence[tuple[str, int, StageResults]], frequencies: Mapping[str, int]
) -> PredicateTable | None:
    """The table, or None where no stage has recalls per predicate. Beyond 60 predicates the rarer ones are ``more``."""
    results = [item for item in results if item[2].per_predicate]
    supports = {name: support for _, _, result in results for name, (_, support) in result.per_predicate.items()}
    if not supports:
        return None
    order = sorted(supports, key=lambda name: (-frequencies.get(name, 0), -(supports[name] or 0), name))
    most = max((frequencies.get(name, 0) if frequencies else supports[name] or 0 for name in order), default=0) or 1
    rows = tuple(
        PredicateRow(
            name,
            frequencies.get(name, 0) if frequencies else None,
            round(100 * (frequencies.get(name, 0) if frequencies else supports[name] or 0) / most, 1),
            supports[name],
            tuple(result.per_predicate.get(name, (None, None))[0] for _, _, result in results),
        )
        for name in order
    )
    stages = tuple((name, index) for name, index, _ in results)
    return PredicateTable(target, stages, rows[:TOO_MANY_PREDICATES], rows[TOO_MANY_PREDICATES:], bool(frequencies))


@dataclass(frozen=True, slots=True)
class CountTable:
    """Counts by type and stage. Rows are (type, meaning, cells of (count, share of ``totals`` in percent))."""

    stages: tuple[tuple[str, int], ...]
    totals: tuple[int, ...]
    rows: tuple[tuple[str, str, tuple[tuple[int, float], ...]], ...]


def count_table(stages: Sequence[tuple[str, int, Mapping[str, int], int]], meanings: Mapping[str, str]) -> CountTable:
    """Counts by type.

    Args:
        stages: (name, palette index, type to count, total that the counts are shares of).
        meanings: known types in their order; others come after them.
    """
    present = {kind for _, _, counts, _ in stages for kind, count in counts.items() if count}
    kinds = [kind for kind in meanings if kind in present] + sorted(present - set(meanings))
    rows = tuple(
        (
            kind,
            meanings.get(kind, ""),
            tuple(
                (counts.get(kind, 0), round(100 * counts.get(kind, 0) / total, 1) if total else 0.0)
                for _, _, counts, total in stages
            ),
        )
        for kind in kinds
    )
    return CountTable(tuple((name, index) for name, index, _, _ in stages), tuple(item[3] for item in stages), rows)


def failure_table(stages: Sequence[tuple[str, int, Mapping[str, int], int]]) -> CountTable:
    """Answers that could not be read, by type; totals are numbers of images."""
    return count_table(stages, FAILURES)


def issue_table(stages: Sequence[tuple[str, int, Counter, int]]) -> CountTable:
    """Elements that were dropped from answers, by type; totals are numbers of images."""
    return count_table(stages, ISSUES)


def _column(key: str) -> Column:
    direction = "" if key in NO_DIRECTION else "down" if key in LOWER_IS_BETTER else "up"
    return Column(key, TITLES.get(key, key), "%" if _is_share(key) else "", direction)


def _is_share(key: str) -> bool:
    return not key.endswith("_per_image")


def _column_cells(key: str, values: Sequence[tuple[float, tuple[float, float] | None] | None]) -> list[Cell | None]:
    known = [item for item in values if item is not None]
    factor = 100 if _is_share(key) else 1
    scale = max((max(value, *(interval or ())) if interval else value for value, interval in known), default=0.0) or 1.0
    direction = _column(key).direction
    best = None
    if direction and len({value for value, _ in known}) > 1:
        best = (max if direction == "up" else min)(value for value, _ in known)
    cells: list[Cell | None] = []
    for item in values:
        if item is None:
            cells.append(None)
            continue
        value, interval = item
        cells.append(
            Cell(
                _number(value * factor),
                f"{_number(interval[0] * factor)}\u2013{_number(interval[1] * factor)}" if interval else "",
                _percent(value / scale),
                (_percent(interval[0] / scale), _percent(interval[1] / scale)) if interval else None,
                value == best,
            )
        )
    return cells


def _percent(share: float) -> float:
    return round(100 * min(max(share, 0.0), 1.0), 1)


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _ENDLESS:
        return None
    return float(value)


def _section(data: dict, key: str, path: Path) -> dict:
    value = data.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{path}: {key} is {type(value).__name__}; allowed: an object")
    return value
