"""A manifest to a page: reads every input, has the tables, curves and cards made, and renders the template."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from scenerl import __version__
from scenerl.errors import UserError
from scenerl.files import atomic_write_text
from scenerl.report import charts, gallery
from scenerl.report.curves import curve_groups, read_log
from scenerl.report.manifest import Manifest, Stage
from scenerl.report.predictions import read_outline
from scenerl.report.reliability import SIDE, reliability_charts
from scenerl.report.settings import read_settings, settings_table
from scenerl.report.tables import (
    CountTable,
    StageResults,
    failure_table,
    headline_keys,
    issue_table,
    metric_table,
    predicate_table,
    read_metrics,
)
from scenerl.report.text import short, visible

STAGE_COLORS = 8
"""Stages beyond these take the colours again; shapes tell them apart."""

ASSETS = {
    "style": ("page.css", "gallery.css"),
    "script": ("dom.js", "charts.js", "graph.js", "gallery.js", "filters.js"),
}


@dataclass
class Outline:
    """What all answers of a stage come to: ``statuses`` by image, ``failures`` and ``issues`` by type, and how many
    answers were merged into one, 0 where none were."""

    statuses: dict[str, str] = field(default_factory=dict)
    failures: Counter = field(default_factory=Counter)
    issues: Counter = field(default_factory=Counter)
    merged_from: int = 0


def build_report(manifest: Manifest, num_images: int = gallery.DEFAULT_IMAGES, seed: int = 0) -> str:
    """The report as one HTML document that needs nothing else and loads nothing from the network.

    Args:
        manifest: the inputs.
        num_images: images in the gallery, at most; see :func:`scenerl.report.gallery.choose`.
        seed: of the choice of images.

    Raises:
        UserError: an input is not what it should be; the message names the file.
    """
    results = {
        target.name: [
            (stage.name, index, read_metrics(stage.metrics[target.name]))
            for index, stage in enumerate(manifest.stages)
            if target.name in stage.metrics
        ]
        for target in manifest.targets
    }
    results = {name: rows for name, rows in results.items() if rows}
    all_results = [result for rows in results.values() for _, _, result in rows]
    logs = [(stage.name, index, read_log(stage.log)) for index, stage in enumerate(manifest.stages) if stage.log]
    outlines = {stage.name: _outline(stage) for stage in manifest.stages if stage.predictions}
    groups = curve_groups(logs)
    predicates = [predicate_table(name, rows, manifest.predicate_counts) for name, rows in results.items()]
    failures, issues = _count_tables(manifest, results, outlines)
    statuses = {name: outline.statuses for name, outline in outlines.items()}
    shown = gallery.gather(manifest, statuses, num_images, seed)
    keys = headline_keys(all_results)
    settings = settings_table(
        [
            (stage.name, index, read_settings(stage.predictions, outlines[stage.name].merged_from))
            for index, stage in enumerate(manifest.stages)
            if stage.predictions
        ]
    )
    reliability = [
        chart
        for name, rows in results.items()
        for chart in reliability_charts(name, [(stage, index, result.calibration) for stage, index, result in rows])
    ]
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=manifest.title,
            version=__version__,
            stages=[stage.name for stage in manifest.stages],
            tables=[metric_table(name, rows, keys) for name, rows in results.items()],
            all_tables=[metric_table(name, rows, None) for name, rows in results.items()],
            about=[(name, rows[0][2].options, rows[0][2].counts) for name, rows in results.items()],
            groups=groups,
            chart_data=_chart_data(groups),
            charts=charts,
            predicate_tables=[table for table in predicates if table],
            failures=failures,
            issues=issues,
            gallery=shown,
            settings=settings,
            reliability=reliability,
            reliability_side=SIDE,
            gallery_target=manifest.targets[-1].name,
            other_targets=[target.name for target in manifest.targets[:-1]],
            **_assets(),
        )
    )


def write_report(manifest: Manifest, out: Path, num_images: int = gallery.DEFAULT_IMAGES, seed: int = 0) -> int:
    """Build the report and put it at ``out``, whole or not at all.

    Returns:
        Its size in bytes.

    Raises:
        UserError: an input is not what it should be, or ``out`` cannot be written.
    """
    page = build_report(manifest, num_images, seed)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(out, page)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None
    return len(page.encode("utf-8"))


def _outline(stage: Stage) -> Outline:
    outline = Outline()
    for image_id, status, issues, num_answers in read_outline(stage.predictions):
        outline.statuses[image_id] = status
        outline.merged_from = max(outline.merged_from, num_answers)
        if status != "ok":
            outline.failures[status] += 1
        outline.issues.update(issues)
    return outline


def _count_tables(
    manifest: Manifest, results: Mapping, outlines: Mapping[str, Outline]
) -> tuple[CountTable, CountTable]:
    """Failures as the evaluation counted them, where there is one (it knows of missing answers), else as the
    predictions say; issues from the predictions."""
    evaluated: dict[str, StageResults] = {}
    for rows in results.values():
        for name, _, result in rows:
            if result.failures is not None:
                evaluated.setdefault(name, result)
    failures, issues = [], []
    for index, stage in enumerate(manifest.stages):
        outline = outlines.get(stage.name)
        if stage.name in evaluated:
            result = evaluated[stage.name]
            images = result.counts.get("images", len(outline.statuses) if outline else 0)
            failures.append((stage.name, index, result.failures, images if isinstance(images, int) else 0))
        elif outline:
            failures.append((stage.name, index, outline.failures, len(outline.statuses)))
        if outline:
            issues.append((stage.name, index, outline.issues, len(outline.statuses)))
    return failure_table(failures), issue_table(issues)


def _chart_data(groups: list) -> dict:
    """What the script needs to tell values under the pointer."""
    return {
        curve.id: {
            "range": curve.chart.x_range,
            "lines": [
                {
                    "name": short(line.name),
                    "index": line.index,
                    "steps": line.steps,
                    "values": [float(f"{value:.5g}") for value in line.values],
                }
                for line in curve.chart.lines
            ],
        }
        for group in groups
        for curve in (*group.shown, *group.more)
    }


def _assets() -> dict:
    """The style and the script, which are ours and stand in the page as they are; its policy allows no others."""
    folder = resources.files("scenerl.report") / "templates"
    assets = {}
    for name, files in ASSETS.items():
        text = "".join((folder / file).read_text(encoding="utf-8") for file in files)
        digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
        assets |= {name: Markup(text), f"{name}_hash": f"sha256-{digest}"}
    return assets


def _environment() -> Environment:
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
