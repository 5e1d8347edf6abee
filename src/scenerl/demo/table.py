"""The table that a demo ends with."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from scenerl.metrics.registry import headline, spec


def headline_table(title: str, stages: Mapping[str, Mapping[str, dict]]) -> Table:
    """Stages as rows and headline metrics as columns, each with its 95 % interval.

    Args:
        title: what the stages were measured against.
        stages: title of a stage to the ``metrics`` of its metrics.json.
    """
    names = headline({name for metrics in stages.values() for name in metrics})
    table = Table(title=title, title_justify="left")
    table.add_column("stage")
    for name in names:
        table.add_column(spec(name).title, justify="right")
    for stage, metrics in stages.items():
        table.add_row(stage, *(_cell(metrics.get(name)) for name in names))
    return table


def _cell(metric: dict | None) -> str:
    if metric is None or metric["value"] is None:
        return "–"
    text = f"{metric['value']:.3f}"
    if metric.get("interval"):
        low, high = metric["interval"]
        text += f"\n{low:.2f}–{high:.2f}"
    return text
