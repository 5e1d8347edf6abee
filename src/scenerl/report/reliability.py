"""Calibration as `scenerl eval` found it, made into a drawing: how often a prediction of confidence p is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scenerl.report.schemas import Metrics, Reliability
from scenerl.report.text import short

SIDE, MARGIN = 200, 30
TITLES = {"objects": "Objects", "relations": "Relations"}


@dataclass(frozen=True, slots=True)
class Curve:
    """One stage's curve: SVG path data, dots as (x, y, radius, text), and the text of its error."""

    name: str
    index: int
    path: str
    dots: tuple[tuple[float, float, float, str], ...]
    ece: str


@dataclass(frozen=True, slots=True)
class ReliabilityChart:
    """A square of SIDE with MARGIN at its left and bottom. Ticks are (x, y, text) in pixels from the upper left."""

    target: str
    title: str
    curves: tuple[Curve, ...]
    ticks: tuple[tuple[float, float, str], ...]


def reliability_charts(target: str, results: Sequence[tuple[str, int, Metrics]]) -> list[ReliabilityChart]:
    """A chart of objects and one of relations, of the stages that have them.

    Args:
        target: the ground truth's name.
        results: stage name, palette index and metrics.
    """
    charts = []
    for kind, title in TITLES.items():
        found = [(name, index, result.calibration.get(kind)) for name, index, result in results]
        curves = tuple(_curve(name, index, curve) for name, index, curve in found if curve and curve.points)
        if curves:
            ticks = tuple((*_place(share, share), f"{share:g}") for share in (0.0, 0.5, 1.0))
            charts.append(ReliabilityChart(target, title, curves, ticks))
    return charts


def _curve(name: str, index: int, curve: Reliability) -> Curve:
    most = max(count for _, _, count in curve.points)
    places = [_place(confidence, accuracy) for confidence, accuracy, _ in curve.points]
    dots = tuple(
        # The area of a dot is the bin's share of the largest bin.
        (
            *place,
            round(1.5 + 4 * (count / most) ** 0.5, 1),
            f"{short(name)}: {accuracy:.2f} right at {confidence:.2f}, {count:,}",
        )
        for place, (confidence, accuracy, count) in zip(places, curve.points, strict=True)
    )
    path = "M" + "L".join(f"{x:g} {y:g}" for x, y in places)
    return Curve(name, index, path, dots, "" if curve.ece is None else f"{curve.ece:.3f}")


def _place(confidence: float, accuracy: float) -> tuple[float, float]:
    inner = SIDE - MARGIN - 8
    return round(MARGIN + confidence * inner, 1), round(8 + (1 - accuracy) * inner, 1)
