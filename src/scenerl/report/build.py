"""A manifest to a page: reads every input, has the tables, curves and cards made, and renders the template."""

from __future__ import annotations

import base64
import hashlib
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from scenerl import __version__
from scenerl.data.jsonl import parse_row, read_jsonl
from scenerl.report import charts, gallery
from scenerl.report.curves import curve_groups, read_log
from scenerl.report.hits import compare
from scenerl.report.manifest import Manifest, Stage, Target
from scenerl.report.predictions import image_id_of, read_outline, read_predictions, stream_predictions
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
from scenerl.runs import atomic_write_text
from scenerl.types import Example, SceneGraph

STAGE_COLORS = 8
"""Stages beyond these take the colours again; shapes tell them apart."""

COMPARED = 2000
"""Test images that are looked at for differences between stages, at most; drawn at random."""

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
        ValueError: an input is not what it should be; the message names the file.
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
    cards, num_test, notes = _gallery(manifest, outlines, num_images, seed)
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
            cards=cards,
            gallery_data=_gallery_data(manifest, cards),
            num_test=num_test,
            settings=settings,
            reliability=reliability,
            reliability_side=SIDE,
            gallery_target=manifest.targets[-1].name,
            other_targets=[target.name for target in manifest.targets[:-1]],
            notes=notes,
            **_assets(),
        )
    )


def write_report(manifest: Manifest, out: Path, num_images: int = gallery.DEFAULT_IMAGES, seed: int = 0) -> int:
    """Build the report and put it at ``out``, whole or not at all.

    Returns:
        Its size in bytes.

    Raises:
        ValueError: an input is not what it should be, or ``out`` cannot be written.
    """
    page = build_report(manifest, num_images, seed)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(out, page)
    except OSError as error:
        raise ValueError(f"{out}: cannot be written ({error.strerror})") from None
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


def _gallery(
    manifest: Manifest, outlines: Mapping[str, Outline], num_images: int, seed: int
) -> tuple[list[gallery.Card], int, list[str]]:
    """The cards, the number of test images, and remarks about inputs that do not fit each other."""
    target = manifest.targets[-1]
    image_ids = list(dict.fromkeys(image_id_of(row) for _, row in read_jsonl(target.path)))
    if not image_ids:
        raise ValueError(f"{target.path}: there are no rows in it")
    notes = []
    for name, outline in outlines.items():
        strange = len(outline.statuses.keys() - set(image_ids))
        absent = len(set(image_ids) - outline.statuses.keys())
        if strange:
            notes.append(f"{name}: {strange} predictions are about images that {target.path.name} does not have.")
        if absent:
            notes.append(f"{name}: {absent} of {len(image_ids)} images have no prediction.")
    failed = {
        name: [image_id for image_id, status in outline.statuses.items() if status != "ok"]
        for name, outline in outlines.items()
    }
    files = [stage.predictions for stage in manifest.stages if stage.predictions]
    differences = {}
    if len(image_ids) > num_images and len(files) > 1:
        looked_at = random.Random(seed).sample(image_ids, min(len(image_ids), max(COMPARED, num_images)))
        differences = _differences(_examples(target, looked_at), files)
    chosen = gallery.choose(image_ids, failed, num_images, seed, differences)
    examples = _examples(target, chosen)
    others = [_examples(other, chosen) for other in manifest.targets[:-1]]
    predictions = [read_predictions(path, chosen) for path in files]
    cards = [
        gallery.make_card(
            examples[image_id],
            [found.get(image_id) for found in predictions],
            [found[image_id].graph if image_id in found else None for found in others],
            len(chosen),
        )
        for image_id in chosen
    ]
    return cards, len(image_ids), notes


def _differences(examples: Mapping[str, Example], files: Sequence[Path]) -> dict[str, float]:
    """How far the best and the worst F1 of an image are apart."""
    of_relations = any(example.graph.relations for example in examples.values())
    scores: dict[str, list[float]] = {}
    for path in files:
        for prediction in stream_predictions(path, examples):
            hits = compare(prediction.graph or SceneGraph(), examples[prediction.image_id].graph)
            scores.setdefault(prediction.image_id, []).append(hits.f1(of_relations))
    return {image_id: max(found) - min(found) for image_id, found in scores.items()}


def _examples(target: Target, image_ids: Sequence[str]) -> dict[str, Example]:
    wanted, examples = set(image_ids), {}
    for number, row in read_jsonl(target.path):
        if image_id_of(row) in wanted:
            example, _ = parse_row(row, f"{target.path}, row {number}", target.path.parent / "images")
            examples.setdefault(image_id_of(row), example)
    return examples


def _gallery_data(manifest: Manifest, cards: Sequence[gallery.Card]) -> dict:
    """What the script draws the gallery from; ``stages`` are the places of those that have predictions."""
    return {
        "stages": [index for index, stage in enumerate(manifest.stages) if stage.predictions],
        "names": [short(stage.name) for stage in manifest.stages],
        "others": [short(target.name) for target in manifest.targets[:-1]],
        "cards": [card.values for card in cards],
    }


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
