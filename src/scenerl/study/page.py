"""The page of claims, in Markdown, and its figures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from scenerl import __version__
from scenerl.files import atomic_write_text
from scenerl.report.build import templates
from scenerl.report.chart_files import line_chart_svg
from scenerl.report.charts import line_chart
from scenerl.study.claims import CLAIMS, Claim, Result, judge, verdict_of
from scenerl.study.experiments import DENSITIES, DENSITY, density_name
from scenerl.study.measures import Mean, Measured, mean

FIGURES = "claims"
"""Folder of the figures, beside the page."""
REWARDS = {"hard_recall": "Hard Recall", "f1": "F1", "precision": "F0.5"}
"""Models of the experiments on density to the names of their rewards."""
_GAINS = {"complete/Recall": "Recall", "complete/triplet_f1": "F1", "complete/triplet_precision": "precision"}
_KEPT = re.compile(r"<!-- notes (\w+) -->\n(.*?)<!-- end of notes -->\n", re.DOTALL)


def write_page(out: Path, seeds: Sequence[int], page: Path) -> None:
    """Write a study's page and its figures. What stands between marks for notes in an earlier page is kept.

    Args:
        out: the study's folder.
        seeds: the seeds that are counted.
        page: the Markdown file; its figures go to the folder ``claims`` beside it.
    """
    measured = Measured(out, seeds)
    earlier = page.read_text(encoding="utf-8") if page.is_file() else ""
    notes = dict(_KEPT.findall(earlier))
    figures = dict(_figures(measured))
    (page.parent / FIGURES).mkdir(parents=True, exist_ok=True)
    for name, (_, svg) in figures.items():
        atomic_write_text(page.parent / FIGURES / f"{name}.svg", svg)
    atomic_write_text(page, "\n".join(_page(measured, notes, figures)) + "\n")


def _page(measured: Measured, notes: dict[str, str], figures: dict[str, tuple[str, str]]) -> Iterator[str]:
    yield "# What the papers claim, on small models"
    yield ""
    yield (
        f"Written by `scenerl study` of SceneRL {__version__}, with {len(measured.seeds)} seeds: small models on drawn "
        "scenes, greedy answers, settings in `study/experiments.py`. A verdict is that of differences seed by seed: a "
        "claim *holds* where the 95 % interval (Student's t over seeds) of every difference is on its side of zero, "
        "is the *opposite* where on the other, and *does not hold* where zero is inside. A claim that does not hold "
        "here may hold for models of billions of parameters: this says what follows from the method alone. Shares are "
        "fractions of one. Notes are written by hand; the rest by the command."
    )
    yield ""
    results = {claim.name: [judge(comparison, measured) for comparison in claim.comparisons] for claim in CLAIMS}
    yield "| | claim | source | the paper's numbers | ours, with 95 % intervals over seeds | verdict |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for number, claim in enumerate(CLAIMS, start=1):
        yield (
            f"| {number} | [{claim.text}](#{number}-{claim.name}) | {claim.source} | {claim.paper} "
            f"| {_summary(claim, results[claim.name])} | {verdict_of(results[claim.name])} |"
        )
    yield ""
    for number, claim in enumerate(CLAIMS, start=1):
        yield from _section(number, claim, results[claim.name])
        yield from _figure_lines(claim.name, figures)
        yield from _notes(claim.name, notes)
    yield from _density(measured)
    yield from _figure_lines("density", figures)
    yield from _notes("density", notes)


def _section(number: int, claim: Claim, results: list[Result]) -> Iterator[str]:
    yield f"## {number} {claim.name}"
    yield ""
    yield claim.text
    yield ""
    yield "| compared | first | second | difference | verdict |"
    yield "| --- | --- | --- | --- | --- |"
    for comparison, result in zip(claim.comparisons, results, strict=True):
        first, second = result.values
        limit = comparison.other if isinstance(comparison.other, float) else None
        yield (
            f"| {comparison.text} | {_text(first)} | {limit if limit is not None else _text(second)} "
            f"| {_text(result.difference, sign=True)} | {result.verdict} |"
        )
    yield ""


def _density(measured: Measured) -> Iterator[str]:
    yield "## Annotation density"
    yield ""
    yield (
        "How does RL's gain over SFT depend on how sparse the annotations are, and what does each reward do to the "
        "number of relations? Each relation of the training data is annotated with the probability in the first column "
        "(one is always). Gains over SFT, against complete annotations:"
    )
    yield ""
    yield "| annotated | reward | Recall of SFT | gain | F1 of SFT | gain | relations per image, SFT | RL | seeds |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for keep in DENSITIES:
        for model, title in REWARDS.items():
            cells = []
            for metric in ("complete/Recall", "complete/triplet_f1"):
                rows = measured.values(f"{density_name(keep)}/sft/{metric}", f"{density_name(keep)}/{model}/{metric}")
                cells.append(_text(mean([a for a, _ in rows])) if rows else "–")
                cells.append(_text(mean([b - a for a, b in rows]), sign=True) if rows else "–")
            for name in ("sft", model):
                rows = measured.values(f"{density_name(keep)}/{name}/complete/relations_per_image")
                cells.append(_text(mean([a for (a,) in rows])) if rows else "–")
            yield f"| {keep} | {title} | {' | '.join(cells)} | {len(rows)} |"
    yield ""


def _notes(name: str, notes: dict[str, str]) -> Iterator[str]:
    yield f"<!-- notes {name} -->"
    yield from notes.get(name, "").splitlines()
    yield "<!-- end of notes -->"
    yield ""


def _figure_lines(section: str, figures: dict[str, tuple[str, str]]) -> Iterator[str]:
    found = [(name, title) for name, (title, _) in figures.items() if name.startswith(f"{section}_")]
    for name, title in found:
        yield f"![{title}]({FIGURES}/{name}.svg)"
    if found:
        yield ""


def _figures(measured: Measured) -> Iterator[tuple[str, tuple[str, str]]]:
    """Name of each figure, which begins with that of its section, to its title and its SVG."""
    for metric, name in _GAINS.items():
        yield from _density_figure(
            measured, f"density_{metric.rpartition('/')[2].lower()}", f"Gain in {name} over SFT", metric, over_sft=True
        )
    yield from _density_figure(
        measured, "density_relations", "Relations per image", "complete/relations_per_image", over_sft=False
    )
    graphs = density_name(DENSITY)
    models = {"after SFT": f"{graphs}/hard_recall", "Zero": f"{graphs}/zero"}
    curves = [
        (name, index, measured.curve(f"{model}/log/rewards/hard_recall/mean"))
        for index, (name, model) in enumerate(models.items())
    ]
    if all(points for *_, points in curves):
        title = "Hard Recall, sampled"
        yield "rl_curve", (title, line_chart_svg(templates(), line_chart(curves), title))


def _density_figure(
    measured: Measured, figure: str, title: str, metric: str, over_sft: bool
) -> Iterator[tuple[str, tuple[str, str]]]:
    series, intervals = [], []
    models = REWARDS if over_sft else {"sft": "SFT", **REWARDS}
    for index, (model, name) in enumerate(models.items()):
        points, ends = [], []
        for keep in sorted(DENSITIES):
            rows = measured.values(f"{density_name(keep)}/{model}/{metric}", f"{density_name(keep)}/sft/{metric}")
            if rows:
                found = mean([value - base if over_sft else value for value, base in rows])
                points.append((keep, found.value))
                ends.append((found.low, found.high))
        if points:
            series.append((name, index + over_sft, points))
            intervals.append(ends)
    if series:
        chart = line_chart(series, intervals)
        yield figure, (title, line_chart_svg(templates(), chart, title, "share of relations annotated"))


def _summary(claim: Claim, results: list[Result]) -> str:
    """Each comparison of a claim in a line of a cell."""
    lines = []
    for comparison, result in zip(claim.comparisons, results, strict=True):
        first, second = result.values
        if first:
            lines.append(f"{comparison.text}: {_text(first)}" + (f" and {_text(second)}" if second else ""))
    return "<br>".join(lines) or "–"


def _text(found: Mean | None, sign: bool = False) -> str:
    if found is None:
        return "–"
    value = f"{found.value:+.3f}" if sign else f"{found.value:.3f}"
    return value if found.half is None else f"{value} ± {found.half:.3f}"
