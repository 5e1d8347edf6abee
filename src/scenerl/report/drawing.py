"""A scene graph as the values that ``scene.js`` and ``graph.js`` draw, in the report and in the app."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources

from scenerl.boxes import as_boxes, clip
from scenerl.predictions.row import LAST
from scenerl.report.text import short
from scenerl.types import SceneGraph

NUM_COLORS = 8
MAX_BOXES, MAX_RELATIONS = 100, 60


def asset(*names: str) -> str:
    """Style sheets or scripts from the templates, joined."""
    folder = resources.files("scenerl.report") / "templates"
    return "".join((folder / name).read_text(encoding="utf-8") for name in names)


def palette(labels: Iterable[str]) -> dict[str, int]:
    """A colour for each label, in the order in which they come."""
    return {label: place % NUM_COLORS for place, label in enumerate(dict.fromkeys(labels))}


def drawn_objects(
    graph: SceneGraph,
    image_wh: tuple[int, int],
    colors: Mapping[str, int],
    matched: Sequence[bool] = (),
    votes: Sequence[int | None] = (),
) -> list[list]:
    """A row for each of the first objects: label, colour, matched (0 or 1), score, votes, x, y, width and height.

    The box is clipped to the image and in its pixels; the last four are missing where nothing of it is in the image.

    Args:
        matched: whether each object matches one of the ground truth; empty: all do.
        votes: of each object, where answers were merged.
    """
    clipped = clip(as_boxes([item.box for item in graph.objects]), image_wh).round(1).tolist()
    rows = []
    for n, (item, (x1, y1, x2, y2)) in enumerate(zip(graph.objects[:MAX_BOXES], clipped, strict=False)):
        row = [
            short(item.label),
            colors[item.label],
            int(matched[n]) if matched else 1,
            rounded(item.score),
            votes[n] if votes else None,
        ]
        rows.append([*row, x1, y1, round(x2 - x1, 1), round(y2 - y1, 1)] if x2 > x1 and y2 > y1 else row)
    return rows


def rounded(score: float | None) -> float | None:
    """A score as it is shown; one that was no finite number is not."""
    return None if score is None or score <= LAST else round(score, 3)
