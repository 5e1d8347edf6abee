"""The table that a demo ends with."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table


def headline_table(title: str, columns: Mapping[str, str], stages: Mapping[str, Mapping[str, dict]]) -> Table:
    """Stages as rows and headline metrics as columns, each with its 95 % interval.

    Args:
        title: what the stages were measured against.
        columns: name of a metric to the head of its column.
        stages: shown name to the ``metrics`` of its metrics.json.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("stage")
    for name in columns.values():
        table.add_column(name, justify="right")
    for shown, metrics in stages.items():
        table.add_row(shown, *(_cell(metrics.get(key)) for key in columns))
    return table


def _cell(metric: dict | None) -> str:
    if metric is None or metric["value"] is None:
        return "–"
    text = f"{metric['value']:.3f}"
    if metric.get("interval"):
        low, high = metric["interval"]
        text += f"\n{low:.2f}–{high:.2f}"
    return text
