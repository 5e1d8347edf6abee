"""The tables of the report: metrics, recall per predicate, failures and issues by type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenerl.errors import UserError
from scenerl.json_files import read_json
from scenerl.metrics.registry import MetricSpec, ordered, spec_or_plain
from scenerl.report.reliability import Reliability, read_reliability

TOO_MANY_PREDICATES = 60
_ENDLESS = 1e300  # also what keeps NaN and integers beyond a float out

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class StageResults:
    """What metrics.json says about one stage and one target; everything may be missing in it.

    ``values`` holds value and interval of each metric, ``per_predicate`` recall and number of targets.
    """

    values: Mapping[str, tuple[float, Interval | None]]
    per_predicate: Mapping[str, tuple[float | None, int | None]]
    failures: Mapping[str, int] | None
    options: Mapping[str, Any]
    counts: Mapping[str, Any]
    calibration: Mapping[str, Reliability]


Results = Sequence[tuple[str, int, StageResults]]
"""Stage name, palette index and results of the stages that were evaluated against one target."""


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
        if (value := _finite(item["value"])) is not None:
            interval = item.get("interval")
            ends = tuple(map(_finite, interval)) if isinstance(interval, list) and len(interval) == 2 else (None,)
            values[name] = value, None if None in ends else ends
    per_predicate = {}
    for name, item in _section(data, "per_predicate", path).items():
        if not isinstance(item, dict):
            raise UserError(f"{path}: per_predicate[{name!r}] is not an object with 'recall' and 'num_targets'")
        support = _finite(item.get("num_targets"))
        per_predicate[name] = _finite(item.get("recall")), None if support is None else int(support)
    failures = _section(data, "failures", path)
    return StageResults(
        values,
        per_predicate,
        {name: int(count) for name, count in failures.items() if _finite(count) is not None}
        if "failures" in data
        else None,
        _section(data, "options", path),
        _section(data, "counts", path),
        {name: read_reliability(item, f"{path}: {name}") for name, item in _section(data, "calibration", path).items()},
    )


@dataclass(frozen=True, slots=True)
class Cell:
    """One value: its text, the text of its interval, bar and whisker as percentages of the column's scale.

    ``best``: better than every other stage, and no interval overlaps its own.
    """

    text: str
    interval: str
    bar: float
    whisker: Interval | None
    best: bool


@dataclass(frozen=True, slots=True)
class MetricTable:
    """Metrics of all stages against one target. Rows are (stage name, palette index, cells, None where unknown)."""

    target: str
    columns: tuple[MetricSpec, ...]
    rows: tuple[tuple[str, int, tuple[Cell | None, ...]], ...]


def metric_table(target: str, results: Results, names: Sequence[str] | None = None) -> MetricTable:
    """The table of some metrics, by default of all; those that no stage has are left out."""
    known = ordered(name for _, _, result in results for name in result.values)
    columns = [spec_or_plain(name) for name in (known if names is None else names) if name in known]
    cells = [_column(column, [result.values.get(column.name) for _, _, result in results]) for column in columns]
    rows = tuple((name, index, tuple(column[row] for column in cells)) for row, (name, index, _) in enumerate(results))
    return MetricTable(target, tuple(columns), rows)


def _column(column: MetricSpec, values: Sequence[tuple[float, Interval | None] | None]) -> list[Cell | None]:
    known = [(value, interval or (value, value)) for value, interval in filter(None, values)]
    factor = 100 if column.unit == "%" else 1
    scale = max((max(value, *ends) for value, ends in known), default=0.0) or 1.0

    def percent(value: float) -> float:
        return round(100 * min(max(value / scale, 0.0), 1.0), 1)

    def is_best(value: float, ends: Interval) -> bool:
        others = list(known)
        others.remove((value, ends))
        if not column.better or not others:
            return False
        return all((low > ends[1]) if column.better == "lower" else (high < ends[0]) for _, (low, high) in others)

    cells: list[Cell | None] = []
    for item in values:
        if item is None:
            cells.append(None)
            continue
        value, interval = item
        text = "\u2013".join(_number(end * factor) for end in interval) if interval else ""
        whisker = (percent(interval[0]), percent(interval[1])) if interval else None
        best = is_best(value, interval or (value, value))
        cells.append(Cell(_number(value * factor), text, percent(value), whisker, best))
    return cells


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


def predicate_table(target: str, results: Results, frequencies: Mapping[str, int]) -> PredicateTable | None:
    """The table, or None where no stage has recalls per predicate. Beyond 60 predicates the rarer ones are ``more``."""
    results = [item for item in results if item[2].per_predicate]
    supports = {name: support for _, _, result in results for name, (_, support) in result.per_predicate.items()}
    if not supports:
        return None
    order = sorted(supports, key=lambda name: (-frequencies.get(name, 0), -(supports[name] or 0), name))
    counts = {name: frequencies.get(name, 0) if frequencies else supports[name] or 0 for name in order}
    most = max(counts.values()) or 1
    rows = tuple(
        PredicateRow(
            name,
            frequencies.get(name, 0) if frequencies else None,
            round(100 * counts[name] / most, 1),
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
        stages: (name, palette index, type to count, number of images).
        meanings: known types in their order; others come after them.
    """
    present = {kind for _, _, counts, _ in stages for kind, count in counts.items() if count}
    kinds = [kind for kind in meanings if kind in present] + sorted(present - set(meanings))

    def cell(count: int, total: int) -> tuple[int, float]:
        return count, round(100 * count / total, 1) if total else 0.0

    rows = tuple(
        (kind, meanings.get(kind, ""), tuple(cell(counts.get(kind, 0), total) for _, _, counts, total in stages))
        for kind in kinds
    )
    return CountTable(tuple((name, index) for name, index, _, _ in stages), tuple(item[3] for item in stages), rows)


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
