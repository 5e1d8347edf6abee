"""The tables of the report: metrics, recall per predicate, failures and issues by type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scenerl.metrics.registry import MetricSpec, ordered, spec_or_plain
from scenerl.report.schemas import Interval, Metrics, MetricValue, PredicateRecall

TOO_MANY_PREDICATES = 60

Results = Sequence[tuple[str, int, Metrics]]
"""Stage name, palette index and metrics of the stages that were evaluated against one target."""


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
    known = ordered(name for _, _, result in results for name in result.known)
    columns = [spec_or_plain(name) for name in (known if names is None else names) if name in known]
    cells = [_column(column, [result.known.get(column.name) for _, _, result in results]) for column in columns]
    rows = tuple((name, index, tuple(column[row] for column in cells)) for row, (name, index, _) in enumerate(results))
    return MetricTable(target, tuple(columns), rows)


def _column(column: MetricSpec, values: Sequence[MetricValue | None]) -> list[Cell | None]:
    known = [(item.value, item.interval or (item.value, item.value)) for item in values if item]
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
        value, interval = item.value, item.interval
        text = "\u2013".join(_number(end * factor) for end in interval) if interval else ""
        whisker = (percent(interval[0]), percent(interval[1])) if interval else None
        best = is_best(value, interval or (value, value))
        cells.append(Cell(_number(value * factor), text, percent(value), whisker, best))
    return cells


@dataclass(frozen=True, slots=True)
class PredicateRow:
    """``count`` in the training data or else the test data, as ``bar`` in percent of the largest; recalls in [0, 1]."""

    predicate: str
    count: int
    bar: float
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
    supports = {
        name: recall.num_targets or 0 for _, _, result in results for name, recall in result.per_predicate.items()
    }
    if not supports:
        return None
    order = sorted(supports, key=lambda name: (-frequencies.get(name, 0), -supports[name], name))
    counts = {name: frequencies.get(name, 0) if frequencies else supports[name] for name in order}
    most = max(counts.values()) or 1
    none = PredicateRecall()
    rows = tuple(
        PredicateRow(
            name,
            counts[name],
            round(100 * counts[name] / most, 1),
            tuple(result.per_predicate.get(name, none).recall for _, _, result in results),
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
