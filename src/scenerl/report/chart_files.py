"""The charts of a report as files for a paper: SVG, and PDF with the package svglib."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from scenerl.files import whole_file
from scenerl.report import charts
from scenerl.report.charts import LineChart, ReliabilityChart
from scenerl.report.curves import CurveGroup
from scenerl.report.drawing import asset

_TITLE, _ENTRY = 24, 16
"""Pixels of a chart's title above it, and of an entry of the legend below it."""


def write_charts(
    environment: Environment,
    groups: Sequence[CurveGroup],
    reliability: Sequence[ReliabilityChart],
    folder: Path,
    formats: Sequence[str],
) -> list[Path]:
    """Write a file of each chart and format.

    Args:
        environment: of the report's templates.
        groups, reliability: the charts of the report.
        formats: ``svg``, ``pdf``.

    Raises:
        ModuleNotFoundError: PDF without svglib.
    """
    if "pdf" in formats:
        import svglib  # noqa: F401 - missing, it ends the command before anything is written
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in _charts(environment, groups, reliability):
        for suffix in formats:
            written.append(folder / f"{name}.{suffix}")
            with whole_file(written[-1]) as draft:
                draft.write_bytes(text.encode("utf-8") if suffix == "svg" else _pdf(text))
    return written


def _charts(
    environment: Environment, groups: Sequence[CurveGroup], reliability: Sequence[ReliabilityChart]
) -> Iterator[tuple[str, str]]:
    """The name, without a suffix, and the SVG of each chart."""
    template, style = environment.get_template("chart.svg.j2"), Markup(_style())
    for group in groups:
        for curve in (*group.shown, *group.more):
            yield f"{_slug(group.name)}_{_slug(curve.key)}", line_chart_svg(environment, curve.chart, curve.title)
    for chart in reliability:
        legend = [(curve.name, curve.index, f"ECE {curve.ece}" if curve.ece else "") for curve in chart.curves]
        title = f"{chart.title}, against {chart.target}"
        yield (
            f"calibration_{_slug(chart.title)}_{_slug(chart.target)}",
            template.render(
                chart=chart, lines=False, title=title, style=style, **_frame((charts.SIDE, charts.SIDE), legend)
            ),
        )


def line_chart_svg(environment: Environment, chart: LineChart, title: str, x_title: str = "step") -> str:
    """A chart of lines as the text of an SVG file, with its legend.

    Args:
        environment: of the report's templates.
        chart: the chart.
        title: above it. x_title: under its horizontal axis.
    """
    legend = [
        (line.name, line.index, f"{charts.number(line.first)} to {charts.number(line.last)}") for line in chart.lines
    ]
    return environment.get_template("chart.svg.j2").render(
        chart=chart,
        lines=True,
        title=title,
        x_title=x_title,
        style=Markup(_style()),
        **_frame((charts.WIDTH, charts.HEIGHT + 14), legend),
    )


def _frame(size: tuple[int, int], legend: list[tuple[str, int, str]]) -> dict:
    width = max(size[0], 260)
    top = _TITLE + size[1] + _ENTRY
    return {
        "charts": charts,
        "width": width,
        "height": top + _ENTRY * len(legend),
        "legend": legend,
        "legend_top": top,
    }


def _style() -> str:
    """The page's light colours, without variables."""
    colors = dict(re.findall(r"--(\w+): (#\w+)", asset("page.css").partition("@media")[0]))
    rules = [
        f"text {{ font-family: Helvetica, Arial, sans-serif; font-size: 10.5px; fill: {colors['ink']}; }}",
        ".name { font-size: 12px; font-weight: bold; }",
        f".grid {{ fill: none; stroke: {colors['line']}; }} .tick {{ fill: {colors['soft']}; }}",
        f".cursor {{ fill: none; stroke: {colors['soft']}; stroke-dasharray: 3 3; }}",
    ]
    for n in range(8):
        color = colors[f"s{n}"]
        rules.append(f".s{n} .line {{ fill: none; stroke: {color}; stroke-width: 2; }}")
        rules.append(f".s{n} .raw {{ fill: none; stroke: {color}; stroke-width: 1; opacity: .35; }}")
        rules.append(f".s{n} .stop {{ fill: {color}; stroke: #ffffff; stroke-width: 1; }}")
    return " ".join(rules)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:80] or "chart"


def _pdf(text: str) -> bytes:
    from reportlab.graphics import renderPDF
    from svglib.svglib import svg2rlg

    return renderPDF.drawToString(svg2rlg(io.BytesIO(text.encode("utf-8"))))
