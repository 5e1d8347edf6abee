"""Synthetic open-vocabulary detection: coloured shapes, described by attribute, position and relation.

A scene holds three shapes. A query is one phrase, as it is one description in D³: ``red square``
(attributes), ``leftmost circle``, ``topmost circle`` (position among the circles) or ``square above the circle``
(relation, only where there is at most one circle). A phrase that fits nothing in the image mostly differs by a
word from what is there: a hard negative, as D³ and OVDEval have them. Every phrase is absent equally often, so that the
query alone says nothing. A phrase on which people would not agree, because two shapes are almost equally far left, is
no query.

What differs is how often a phrase is absent: one query in four with *few negatives*, as in detection data made from
boxes, one in two with *negatives*. A model that imitates the first learns that every query is present.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from scenerl.data.records import Record
from scenerl.data.synthetic import (
    CELLS,
    Cells,
    background,
    gap,
    pixels,
    varied,
)
from scenerl.data.synthetic_rows import Annotated, Progress, read_scenes, write_scenes
from scenerl.types import Example, SceneGraph, SceneObject

COLOURS = {"red": (215, 50, 50), "green": (40, 150, 60), "blue": (60, 90, 220)}
SHAPES = ("circle", "square")
NUM_SHAPES = 3  # a crowded scene may end with fewer
ABSENT = {"few_negatives": 0.25, "negatives": 0.5}
"""Split to the probability that the phrase of a query is absent."""
NAMES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
PHRASES = (
    *NAMES,
    *(f"{word} {shape}" for shape in SHAPES for word in ("leftmost", "topmost")),
    *(f"{shape} above the {other}" for shape in SHAPES for other in SHAPES if shape != other),
)
"""All phrases of queries."""
_CLEARLY = 2  # cells by which one shape is further left, or higher, than another


@dataclass(frozen=True, slots=True)
class Shape:
    """A coloured shape and its place in cells of the raster."""

    colour: str
    shape: str
    cells: Cells

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


def compose(rng: random.Random) -> tuple[Shape, ...]:
    """Shapes at random places, none touching another."""
    placed: list[Shape] = []
    for _ in range(200):
        if len(placed) == NUM_SHAPES:
            break
        width = rng.randint(3, 4)
        x, y = rng.randint(0, CELLS - width), rng.randint(0, CELLS - width)
        cells = x, y, x + width, y + width
        if all(gap(cells, other.cells) >= 1 for other in placed):
            placed.append(Shape(rng.choice(list(COLOURS)), rng.choice(SHAPES), cells))
    return tuple(placed)


def draw(shapes: tuple[Shape, ...], seed: str, size: int = 112) -> Image.Image:
    """The picture of a scene, ``size`` pixels wide and high; ``seed`` varies its background and colours."""
    rng = random.Random(seed)
    image = background(rng, size)
    canvas = ImageDraw.Draw(image)
    for item in shapes:
        outline = canvas.ellipse if item.shape == "circle" else canvas.rectangle
        outline(tuple(value * size / CELLS for value in item.cells), fill=varied(rng, COLOURS[item.colour]))
    return image


def phrases(shapes: tuple[Shape, ...]) -> dict[str, tuple[int, ...]]:
    """Which of :data:`PHRASES` may be the query of a scene, with the indices of the shapes they fit, none where absent.

    >>> left, right = Shape("red", "circle", (0, 0, 2, 2)), Shape("blue", "circle", (5, 5, 7, 7))
    >>> found = phrases((left, right))
    >>> found["red circle"], found["leftmost circle"], found["red square"], found["circle above the square"]
    ((0,), (0,), (), ())
    """
    found: dict[str, tuple[int, ...]] = {}
    of_shape = {shape: [n for n, item in enumerate(shapes) if item.shape == shape] for shape in SHAPES}
    for shape, members in of_shape.items():
        for colour in COLOURS:
            found[f"{colour} {shape}"] = tuple(n for n in members if shapes[n].colour == colour)
        for word, axis in (("leftmost", 0), ("topmost", 1)):
            order = sorted(members, key=lambda n: shapes[n].cells[axis])
            if len(order) < 2 or shapes[order[1]].cells[axis] - shapes[order[0]].cells[axis] >= _CLEARLY:
                found[f"{word} {shape}"] = tuple(order[:1])
        for other, others in of_shape.items():
            if other == shape or len(others) > 1:
                continue
            if not others:
                found[f"{shape} above the {other}"] = ()
                continue
            higher = {n: _middle(shapes[others[0]]) - _middle(shapes[n]) for n in members}
            if all(abs(offset) >= _CLEARLY for offset in higher.values()):
                found[f"{shape} above the {other}"] = tuple(n for n, offset in higher.items() if offset > 0)
    return found


def _middle(item: Shape) -> float:
    return (item.cells[1] + item.cells[3]) / 2


def draw_query(seed: str, split: str = "negatives") -> tuple[str, tuple[Shape, ...]]:
    """A phrase and a scene for it; ``split`` is a key of :data:`ABSENT`, ``seed`` any text.

    The phrase comes first, then whether it is absent, then scenes until one suits both.
    """
    rng = random.Random(seed)
    phrase = rng.choice(PHRASES)
    is_absent = rng.random() < ABSENT[split]
    while True:
        shapes = compose(rng)
        fitting = phrases(shapes).get(phrase)
        if fitting is not None and is_absent == (not fitting):
            return phrase, shapes


def example(phrase: str, shapes: tuple[Shape, ...], image_id: str, size: int = 112) -> Example:
    """A query of a scene with its complete answer, boxes in pixels; the image is left out."""
    found = tuple(SceneObject(phrase, pixels(shapes[n].cells, size)) for n in phrases(shapes)[phrase])
    return Example(image_id, size, size, SceneGraph(found), query=(phrase,))


def _annotated(name: str, seed: int, size: int, split: str) -> Annotated:
    key = f"{seed}/detection/{name}"
    phrase, shapes = draw_query(key, split)
    named = SceneGraph(tuple(SceneObject(item.name, pixels(item.cells, size)) for item in shapes))
    return draw(shapes, key, size), {
        "phrase": example(phrase, shapes, name, size),
        "shapes": Example(name, size, size, named, query=NAMES),
    }


def num_scenes(num_train: int, num_test: int) -> dict[str, tuple[int, str]]:
    """File of rows to its number of scenes and the split of their queries, as :func:`make` writes them."""
    return {
        "test": (num_test, "negatives"),
        "train": (num_train, "few_negatives"),
    }


def make(
    out_dir: Path, num_train: int, num_test: int, seed: int = 0, size: int = 112, progress: Progress | None = None
) -> None:
    """Write ``train.jsonl`` (few negatives), ``test.jsonl`` (negatives) and ``shapes.jsonl``.

    Images go to ``images/``. No scene is in both of the first two. ``shapes.jsonl`` names every shape in the
    images of ``train.jsonl`` by colour and shape: a closed-vocabulary task. Arguments and errors as for
    :func:`~scenerl.data.synthetic_rows.write_scenes`.
    """
    splits = {
        file: (count, split, {"phrase": file} | ({"shapes": "shapes"} if file == "train" else {}))
        for file, (count, split) in num_scenes(num_train, num_test).items()
    }
    write_scenes(out_dir, _annotated, splits, seed, size, progress)


def read(argument: str, split: str | None = None) -> Iterator[Record]:
    """``synthetic_detection:count=100,seed=0``; splits ``negatives`` and ``few_negatives``."""
    splits = dict.fromkeys(("negatives", "few_negatives"), "phrase")
    return read_scenes("synthetic_detection", _annotated, splits, argument, split)
