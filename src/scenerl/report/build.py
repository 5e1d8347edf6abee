"""Inputs to a page: reads every file, has the tables, curves and cards made, and renders the template."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from scenerl import __version__
from scenerl.errors import UserError
from scenerl.files import atomic_write_text
from scenerl.metrics import MetricOptions
from scenerl.metrics.file import read_metrics
from scenerl.metrics.registry import headline
from scenerl.report import charts, gallery
from scenerl.report.answers import Outline, outline
from scenerl.report.chart_files import write_charts
from scenerl.report.curves import CurveGroup, curve_groups, read_log
from scenerl.report.drawing import asset
from scenerl.report.inputs import Inputs
from scenerl.report.settings import read_settings, settings_table
from scenerl.report.tables import BarTable, Results, count_table, metric_table, predicate_table
from scenerl.report.text import short, visible
from scenerl.types import FAILURES, ISSUES

STAGE_COLORS = 8
"""Stages beyond these take the colours again; shapes tell them apart."""

ASSETS = {
    "style": ("page.css", "drawing.css", "gallery.css"),
    "script": ("dom.js", "charts.js", "scene.js", "graph.js", "gallery.js", "filters.js"),
}


def build_report(inputs: Inputs, num_images: int = gallery.DEFAULT_IMAGES, seed: int = 0) -> str:
    """The report as one HTML document that needs nothing else and loads nothing from the network.

    Args:
        num_images: images in the gallery, at most; see :func:`scenerl.report.gallery.choose`.
        seed: of the choice of images.

    Raises:
        UserError: an input is not what it should be; the message names the file.
    """
    stages = list(enumerate(inputs.stages))
    results, groups = _results(inputs), _groups(inputs)
    outlines = {stage.name: outline(stage.predictions) for _, stage in stages if stage.predictions}
    settings = [
        (stage.name, n, read_settings(stage.predictions), outlines[stage.name].merged_from)
        for n, stage in stages
        if stage.predictions
    ]
    failures, issues = _count_tables(inputs, results, outlines)
    # The gallery matches as the metrics against its target do.
    shown = {name: gallery.options_of(result.options) for name, _, result in results.get(inputs.targets[-1].name, ())}
    options = {name: shown.get(name, MetricOptions()) for name in outlines}
    names = {name for rows in results.values() for _, _, result in rows for name in result.known}
    predicates = {name: predicate_table(rows, inputs.predicate_counts) for name, rows in results.items()}
    values = {
        "title": inputs.title,
        "version": __version__,
        "today": date.today().isoformat(),
        "stages": [stage.name for _, stage in stages],
        "tables": [metric_table(name, rows, headline(names)) for name, rows in results.items()],
        "all_tables": [metric_table(name, rows) for name, rows in results.items()],
        "about": [(name, rows[0][2].options, rows[0][2].counts) for name, rows in results.items()],
        "groups": groups,
        "charts": charts,
        "predicate_tables": {name: table for name, table in predicates.items() if table},
        "failures": failures,
        "issues": issues,
        "gallery": gallery.gather(inputs, outlines, options, num_images, seed),
        "settings": settings_table(settings),
        "reliability": _reliability(results),
        "gallery_target": inputs.targets[-1].name,
        "other_targets": [target.name for target in inputs.targets[:-1]],
    }
    return templates().get_template("page.html.j2").render(**values, **_assets())


def write_report(inputs: Inputs, out: Path, num_images: int = gallery.DEFAULT_IMAGES, seed: int = 0) -> int:
    """Build the report and put it at ``out``, whole or not at all.

    Returns:
        Its size in bytes.

    Raises:
        UserError: an input is not what it should be, or ``out`` cannot be written.
    """
    page = build_report(inputs, num_images, seed)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(out, page)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None
    return len(page.encode("utf-8"))


def write_chart_files(inputs: Inputs, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write the report's charts as files of their own (:func:`scenerl.report.chart_files.write_charts`).

    Raises:
        UserError: as :func:`build_report`; or there is no chart.
    """
    groups, reliability = _groups(inputs), _reliability(_results(inputs))
    if not groups and not reliability:
        raise UserError("charts: there is none to write; they come from --logs, and from metrics of scored predictions")
    return write_charts(templates(), groups, reliability, folder, formats)


def _results(inputs: Inputs) -> dict[str, Results]:
    """The metrics of the stages that have them, by target."""
    results: dict[str, Results] = {}
    for target in inputs.targets:
        found = [
            (stage.name, n, read_metrics(stage.metrics[target.name], stage.name))
            for n, stage in enumerate(inputs.stages)
            if target.name in stage.metrics
        ]
        if found:
            results[target.name] = found
    return results


def _groups(inputs: Inputs) -> list[CurveGroup]:
    return curve_groups([(stage.name, n, read_log(stage.log)) for n, stage in enumerate(inputs.stages) if stage.log])


def _reliability(results: Mapping[str, Results]) -> list[charts.ReliabilityChart]:
    return [chart for name, rows in results.items() for chart in charts.reliability_charts(name, rows)]


def _count_tables(
    inputs: Inputs, results: Mapping[str, Results], outlines: Mapping[str, Outline]
) -> tuple[BarTable, BarTable]:
    """Failures as the evaluation counted them, where there is one (it knows of missing answers), else as the
    predictions say; issues from the predictions."""
    rows = [row for found in reversed(results.values()) for row in found]  # the first target's win
    evaluated = {name: result for name, _, result in rows if result.failures is not None}
    failures, issues = [], []
    for index, stage in enumerate(inputs.stages):
        found, result = outlines.get(stage.name), evaluated.get(stage.name)
        num_images = len(found.statuses) if found else 0
        if result:
            images = result.counts.get("images", num_images)
            failures.append((stage.name, index, result.failures, images if isinstance(images, int) else 0))
        elif found:
            failures.append((stage.name, index, found.failures, num_images))
        if found:
            issues.append((stage.name, index, found.issues, num_images))
    return count_table(failures, FAILURES), count_table(issues, ISSUES)


def _assets() -> dict:
    """The style and the script, which are ours and stand in the page as they are; its policy allows no others."""
    assets = {}
    for name, files in ASSETS.items():
        text = asset(*files)
        digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
        assets |= {name: Markup(text), f"{name}_hash": f"sha256-{digest}"}
    return assets


def templates() -> Environment:
    """The report's templates, which escape every text."""
    environment = Environment(
        loader=PackageLoader("scenerl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Whatever is not a number is made visible and free of lone surrogates, which UTF-8 cannot hold.
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters["number"] = charts.number
    environment.filters["short"] = short
    environment.globals["stage_colors"] = STAGE_COLORS
    return environment
