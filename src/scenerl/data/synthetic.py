"""Synthetic scenes: coloured shapes with exact boxes and relations, annotated as incompletely as real data sets are.

Scenes hold three objects of different classes on a raster of 10 x 10 cells, so that every box is exact in steps of 100
on the 0-1000 scale. Each pair of objects stands in exactly one relation, which the picture alone decides; scenes in
which people would not agree on it, because a pair is almost near or almost diagonal, are not drawn. How the pairs come
about makes the predicates long-tailed (``left of`` about fifteen times as common as ``in``).

The *complete* annotation lists every relation. The *sparse* one imitates Visual Genome: an annotator mentions each
relation with probability one half, in no particular order. A model that imitates such annotations learns to stop early,
because at every point "nothing more" is likelier than any single relation that is left: that is what reinforcement
learning can mend. Training rows are sparse; the test split is written both ways.

For detection, scenes hold four objects, some of one class, and an annotator finds each with probability 0.6.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from scenerl.data.records import Record
from scenerl.data.synthetic_rows import Annotated, Progress, read_scenes, write_scenes
from scenerl.types import Box, Example, Relation, SceneGraph, SceneObject

CELLS = 10
NUM_OBJECTS = 3  # a crowded scene may end with two
CLASSES = ("apple", "book", "box", "grape", "lamp", "leaf")
PREDICATES = ("left of", "above", "near", "on", "in", "behind")
KEEP_PROBABILITY = 0.5
KEEP_BOX_PROBABILITY = 0.6
NUM_ABSENT = 2
"""Classes of a detection query that are not in the picture."""
_FREQUENCY = {"apple": 0.24, "book": 0.20, "leaf": 0.17, "lamp": 0.14, "grape": 0.13, "box": 0.12}
_COLOUR = {
    "apple": (215, 50, 50),
    "book": (60, 90, 220),
    "box": (150, 95, 40),
    "grape": (150, 60, 200),
    "lamp": (235, 195, 30),
    "leaf": (50, 170, 60),
}
_NEAR_GAP = 1
_KEEP_NEAR = 0.3  # of the places that happen to be near something; all of them would make near twice as common
_APART = 3  # objects that are not near are this far apart, so that nothing is almost near
_DOMINANCE = 1.5  # how much larger the offset in the relation's direction is than the other: nothing is almost diagonal
_SPECIAL = (("on", 0.45), ("in", 0.35), ("behind", 0.2))


@dataclass(frozen=True, slots=True)
class Look:
    """How the scenes of a set look.

    Attributes:
        num_objects: of a scene; a crowded one may end with fewer.
        repeats: whether a class may occur twice in a scene.
        colour_spread: how far a channel of an object's colour may be from its class's, out of 255.
        brightness: of the background, 1 for daylight.
    """

    num_objects: int = NUM_OBJECTS
    repeats: bool = False
    colour_spread: int = 15
    brightness: float = 1.0


DAYLIGHT = Look()
CROWDED = Look(num_objects=4, repeats=True)
"""Of the scenes for detection."""

Cells = tuple[int, int, int, int]
Colour = tuple[int, int, int]


def gap(a: Cells, b: Cells) -> int:
    """Distance between two boxes in cells along the axis that separates them most; negative when they overlap."""
    return max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3])


def _fits(box: Cells, others: list[Cells]) -> bool:
    inside = box[0] >= 0 and box[1] >= 0 and box[2] <= CELLS and box[3] <= CELLS
    return inside and all(gap(box, other) >= 1 and _is_clear(box, other) for other in others)


def _free_box(rng: random.Random, label: str) -> Cells:
    low, high = (4, 5) if label == "box" else (2, 3)
    width = rng.randint(low, high)
    height = max(low, min(high, width + rng.randint(-1, 1)))
    x, y = rng.randint(0, CELLS - width), rng.randint(0, CELLS - height)
    return x, y, x + width, y + height


def _arranged_box(rng: random.Random, predicate: str, anchor: Cells) -> Cells:
    """A box for a new subject that stands in ``predicate`` to ``anchor``."""
    ax1, ay1, ax2, ay2 = anchor
    if predicate == "on":
        width, height = rng.randint(2, 3), rng.randint(2, 3)
        x = (ax1 + ax2 - width + rng.randint(0, 1)) // 2
        return x, ay1 - height, x + width, ay1
    if predicate == "in":
        size = 2
        x, y = rng.randint(ax1 + 1, ax2 - 1 - size), rng.randint(ay1 + 1, ay2 - 1 - size)
        return x, y, x + size, y + size
    # behind: shifted sideways so that about a third of it is covered
    width, height = 3, rng.randint(2, 3)
    x = ax2 - 1 if rng.random() < 0.5 else ax1 - width + 1
    y = ay1 + rng.randint(0, 1)
    return x, y, x + width, y + height


def _offset(a: Cells, b: Cells) -> tuple[float, float]:
    return (b[0] + b[2] - a[0] - a[2]) / 2, (b[1] + b[3] - a[1] - a[3]) / 2


def _is_clear(a: Cells, b: Cells) -> bool:
    """Whether a person would agree which relation the pair stands in: not almost near, not diagonal.

    What is near stands side by side, so that it is not taken for what is on top.
    """
    distance, (dx, dy) = gap(a, b), _offset(a, b)
    if distance <= _NEAR_GAP:
        return abs(dx) >= _DOMINANCE * abs(dy)
    return distance >= _APART and max(abs(dx), abs(dy)) >= _DOMINANCE * min(abs(dx), abs(dy))


def _relation(i: int, a: Cells, j: int, b: Cells) -> tuple[int, str, int]:
    """The relation that a pair without special arrangement stands in."""
    if gap(a, b) <= _NEAR_GAP:
        return i, "near", j
    dx, dy = _offset(a, b)
    if abs(dx) > abs(dy):
        return (i, "left of", j) if dx > 0 else (j, "left of", i)
    return (i, "above", j) if dy > 0 else (j, "above", i)


def _compose(rng: random.Random, look: Look) -> tuple[list[tuple[str, Cells]], dict[tuple[int, int], str]]:
    """Objects in drawing order, and the special relations by (subject, object) index."""
    placed: list[tuple[str, Cells]] = []
    special: dict[tuple[int, int], str] = {}
    for _ in range(200):
        if len(placed) == look.num_objects:
            break
        label = rng.choices(list(_FREQUENCY), list(_FREQUENCY.values()))[0]
        if not look.repeats and any(label == other for other, _ in placed):
            continue
        taken = {index for pair in special for index in pair}
        free = [k for k in range(len(placed)) if k not in taken]
        if free and rng.random() < 0.25:
            predicate = rng.choices([p for p, _ in _SPECIAL], [w for _, w in _SPECIAL])[0]
            anchors = [k for k in free if predicate != "in" or placed[k][0] == "box"]
            if predicate == "behind":  # of two shapes of one colour nobody sees which is behind
                anchors = [k for k in anchors if placed[k][0] != label]
            if not anchors or (predicate == "in" and label == "box"):
                continue
            anchor = rng.choice(anchors)
            box = _arranged_box(rng, predicate, placed[anchor][1])
            others = [b for k, (_, b) in enumerate(placed) if k != anchor]
            if not (_fits(box, others) and _fits(box, [])):
                continue
            special[len(placed), anchor] = predicate
        else:
            box = _free_box(rng, label)
            others = [b for _, b in placed]
            if not _fits(box, others):
                continue
            if min((gap(box, other) for other in others), default=CELLS) <= _NEAR_GAP and rng.random() > _KEEP_NEAR:
                continue
        placed.append((label, box))
    return placed, special


def _draw_shape(draw: ImageDraw.ImageDraw, label: str, box: tuple[float, ...], colour: Colour) -> None:
    x1, y1, x2, y2 = box
    if label in ("apple", "grape"):
        draw.ellipse(box, fill=colour)
    elif label == "book":
        draw.rectangle(box, fill=colour)
    elif label == "box":
        draw.rectangle(box, outline=colour, width=4)
    elif label == "leaf":
        draw.polygon([(x1, y2), ((x1 + x2) / 2, y1), (x2, y2)], fill=colour)
    else:  # lamp: a four-pointed star that touches all four sides of its box
        cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
        tips = [(cx, y1), (x2, cy), (cx, y2), (x1, cy)]
        inner = [(cx + dx * (x2 - x1) / 6, cy + dy * (y2 - y1) / 6) for dx, dy in ((1, -1), (1, 1), (-1, 1), (-1, -1))]
        draw.polygon([point for pair in zip(tips, inner, strict=True) for point in pair], fill=colour)


def background(rng: random.Random, size: int, brightness: float = 1.0) -> Image.Image:
    """Light that falls in from one corner: red fades from left to right, blue from top to bottom.

    The vision tower knows positions only relative to each other; the light tells a small one where in the picture a
    patch is, as sky and ground do in photographs.
    """
    fade = np.linspace(255, 155, size)
    pixels = np.empty((size, size, 3))
    pixels[..., 0] = fade[None, :]
    pixels[..., 1] = rng.randint(205, 255)
    pixels[..., 2] = fade[:, None]
    return Image.fromarray((pixels * brightness).round().astype(np.uint8))


def _graph(placed: list[tuple[str, Cells]], special: dict[tuple[int, int], str], size: int) -> SceneGraph:
    """Objects by class then place, relations by subject then object, boxes in pixels."""
    order = sorted(range(len(placed)), key=placed.__getitem__)
    relations = [(order.index(s), predicate, order.index(o)) for (s, o), predicate in special.items()]
    relations += [
        _relation(first, placed[order[first]][1], second, placed[order[second]][1])
        for first, second in combinations(range(len(order)), 2)
        if not {(order[first], order[second]), (order[second], order[first])} & special.keys()
    ]
    objects = (SceneObject(placed[k][0], pixels(placed[k][1], size)) for k in order)
    return SceneGraph(tuple(objects), tuple(Relation(*relation) for relation in sorted(relations)))


def pixels(cells: Cells, size: int) -> Box:
    """A box in pixels of an image that is ``size`` pixels wide."""
    return tuple(round(value * size / CELLS, 2) for value in cells)


def scene(seed: str, size: int = 112, look: Look = DAYLIGHT) -> tuple[Image.Image, SceneGraph]:
    """One scene with its complete graph.

    Args:
        seed: any text; the same text gives the same scene.
        size: width and height of the image in pixels.
        look: number of objects, colours and light.

    Returns:
        The image, and its graph: objects by class then place, relations by subject then object, boxes in pixels.
    """
    rng = random.Random(seed)
    placed, special = _compose(rng, look)
    image = background(rng, size, look.brightness)
    draw = ImageDraw.Draw(image)
    hidden = {subject for (subject, _), predicate in special.items() if predicate == "behind"}
    for index in sorted(range(len(placed)), key=lambda k: k not in hidden):  # what is behind is drawn first
        label, box = placed[index]
        _draw_shape(
            draw, label, tuple(value * (size / CELLS) for value in box), varied(rng, _COLOUR[label], look.colour_spread)
        )
    return image, _graph(placed, special, size)


def varied(rng: random.Random, colour: Colour, spread: int = 15) -> Colour:
    """A colour of which each channel differs from another's by at most ``spread``."""
    return tuple(max(0, min(255, channel + rng.randint(-spread, spread))) for channel in colour)


def sparse(graph: SceneGraph, seed: str, keep: float = KEEP_PROBABILITY) -> SceneGraph:
    """The graph as a hurried annotator gives it: every relation with probability ``keep``, in random order.

    One is always there, as in VG150, which leaves out images without any.
    """
    rng = random.Random(seed)
    kept = [relation for relation in graph.relations if rng.random() < keep]
    if graph.relations and not kept:
        kept = [rng.choice(graph.relations)]
    rng.shuffle(kept)
    return SceneGraph(graph.objects, tuple(kept))


def detection(graph: SceneGraph, seed: str, keep: float = 1.0) -> tuple[SceneGraph, tuple[str, ...]]:
    """A detection task on a scene: the boxes that answer it, and its query.

    The query lists the classes in the picture and two that are not. A hurried annotator finds every object with
    probability ``keep``, in random order; one is always found.
    """
    rng = random.Random(seed)
    present = {item.label for item in graph.objects}
    absent = [label for label in CLASSES if label not in present]
    query = tuple(sorted([*present, *rng.sample(absent, min(NUM_ABSENT, len(absent)))]))
    objects = graph.objects
    if keep < 1:
        found = [item for item in objects if rng.random() < keep] or [rng.choice(objects)]
        objects = tuple(rng.sample(found, len(found)))
    return SceneGraph(objects), query


def _annotated(name: str, seed: int, size: int, _split: str) -> Annotated:
    key = f"{seed}/{name}"
    image, graph = scene(key, size)
    return image, {
        "detection": _detection_example(name, size, graph, key),
        "complete": Example(name, size, size, graph),
        "sparse": Example(name, size, size, sparse(graph, f"{key}/sparse")),
    }


def _crowded(name: str, seed: int, size: int, _split: str) -> Annotated:
    key = f"{seed}/crowded/{name}"
    image, graph = scene(key, size, CROWDED)
    return image, {
        "complete": _detection_example(name, size, graph, key),
        "sparse": _detection_example(name, size, graph, key, KEEP_BOX_PROBABILITY),
    }


def _detection_example(name: str, size: int, graph: SceneGraph, key: str, keep: float = 1.0) -> Example:
    found, query = detection(graph, f"{key}/query", keep)
    return Example(name, size, size, found, query=query)


def make(
    out_dir: Path, num_train: int, num_test: int, seed: int = 0, size: int = 112, progress: Progress | None = None
) -> None:
    """Write ``train.jsonl``, ``test.jsonl`` (sparse), ``test_complete.jsonl``, the same as detection queries
    (``train_det.jsonl``, ``test_det.jsonl``), and ``images/``.

    The splits come from different seeds, so no scene is shared. Arguments and errors as for
    :func:`~scenerl.data.synthetic_rows.write_scenes`.
    """
    train = {"detection": "train_det", "sparse": "train"}
    test = {"detection": "test_det", "complete": "test_complete", "sparse": "test"}
    write_scenes(
        out_dir, _annotated, {"train": (num_train, "", train), "test": (num_test, "", test)}, seed, size, progress
    )


def make_detection(
    out_dir: Path, num_train: int, num_test: int, seed: int = 0, size: int = 112, progress: Progress | None = None
) -> None:
    """Write detection tasks on crowded scenes: ``train.jsonl`` (sparse), ``test.jsonl`` (complete), and ``images/``.

    Arguments and errors as for :func:`~scenerl.data.synthetic_rows.write_scenes`.
    """
    splits = {"train": (num_train, "", {"sparse": "train"}), "test": (num_test, "", {"complete": "test"})}
    write_scenes(out_dir, _crowded, splits, seed, size, progress)


def read(argument: str, split: str | None = None) -> Iterator[Record]:
    """``synthetic:count=100,seed=0``; splits ``sparse`` (as training data is annotated) and ``complete``."""
    return read_scenes("synthetic", _annotated, {"sparse": "sparse", "complete": "complete"}, argument, split)
