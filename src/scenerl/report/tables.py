"""The tables of the report: metrics, recall per predicate, failures and issues by type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scenerl.metrics.file import Interval, Metrics, MetricValue, PredicateRecall
from scenerl.metrics.registry import MetricSpec, ordered, spec_or_plain

TOO_MANY_PREDICATES = 60

BarRow = tuple[str, str, Sequence[tuple[float, str] | None]]

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
class BarTable:
    """Rows of bars. Columns are (title, palette index, unit); without an index it is no stage's column. Rows are (name,
    meaning, cells of (bar in percent, text)), None where nothing is known; ``more`` are rows to be unfolded."""

    columns: tuple[tuple[str, int | None, str], ...]
    rows: Sequence[BarRow]
    more: Sequence[BarRow] = ()


def predicate_table(results: Results, frequencies: Mapping[str, int]) -> BarTable | None:
    """Recall per predicate, most frequent predicates first, or None where no stage has it. The first column is the
    number in the training data or else the test data. Beyond 60 predicates the rarer ones are ``more``."""
    results = [item for item in results if item[2].per_predicate]
    supports = {
        name: recall.num_targets or 0 for _, _, result in results for name, recall in result.per_predicate.items()
    }
    if not supports:
        return None
    counts = {name: frequencies.get(name, 0) for name in supports} if frequencies else supports
    most = max(counts.values()) or 1

    def cells(name: str) -> list[tuple[float, str] | None]:
        found = [result.per_predicate.get(name, PredicateRecall()).recall for _, _, result in results]
        count = (round(100 * counts[name] / most, 1), f"{counts[name]:,}")
        return [count, *(None if one is None else (round(100 * one, 1), f"{100 * one:.0f}") for one in found)]

    order = sorted(supports, key=lambda name: (-frequencies.get(name, 0), -supports[name], name))
    rows = [(name, "", cells(name)) for name in order]
    first = ("In training" if frequencies else "In the test set", None, "")
    columns = (first, *((name, index, "%") for name, index, _ in results))
    return BarTable(columns, rows[:TOO_MANY_PREDICATES], rows[TOO_MANY_PREDICATES:])


def count_table(stages: Sequence[tuple[str, int, Mapping[str, int], int]], meanings: Mapping[str, str]) -> BarTable:
    """Counts by type, as shares of the images.

    Args:
        stages: (name, palette index, type to count, number of images).
        meanings: known types in their order; others come after them.
    """
    present = {kind for _, _, counts, _ in stages for kind, count in counts.items() if count}
    kinds = [kind for kind in meanings if kind in present] + sorted(present - set(meanings))

    def cell(count: int, total: int) -> tuple[float, str]:
        return min(round(100 * count / total, 1), 100.0) if total else 0.0, f"{count:,}"

    rows = [
        (
            kind.replace("_", " "),
            meanings.get(kind, ""),
            [cell(counts.get(kind, 0), total) for _, _, counts, total in stages],
        )
        for kind in kinds
    ]
    return BarTable(tuple((name, index, f"of {total:,}") for name, index, _, total in stages), rows)


def _number(value: float) -> str:
    return f"{value:.1f}" if abs(value) < 1000 else f"{value:,.0f}"
