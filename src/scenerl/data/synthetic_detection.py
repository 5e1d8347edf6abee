"""Synthetic open-vocabulary detection: coloured shapes asked for by attribute, position and relation.

A scene holds three shapes. What may be asked for is a phrase: ``red square`` (attributes), ``leftmost circle``,
``topmost circle`` (position among the circles) and ``square above the circle`` (relation, asked only where at most one
circle is there). A query asks for two phrases. Those that fit nothing in the image differ by a word or two from what
is there: hard negatives, as D³ and OVDEval have them. One object may answer several phrases and two objects one. A
phrase on which people would not agree, because two shapes are almost equally far left, is not asked for.

Boxes are complete, in the order of the query. What differs is the question: with *few negatives*, as detection data
made from boxes have them, one phrase in ten is absent; with *negatives*, one in two. A model that imitates answers to
the first learns that what is asked for is there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageDraw

from scenerl.data.jsonl import example_to_row, write_jsonl
from scenerl.data.synthetic import CELLS, Cells, background, gap
from scenerl.types import Example, SceneGraph, SceneObject

COLOURS = {"red": (215, 50, 50), "green": (40, 150, 60), "blue": (60, 90, 220)}
SHAPES = ("circle", "square", "triangle")
NUM_ASKED = 2
NUM_SHAPES = 3  # a crowded scene may end with fewer
ABSENT = {"few_negatives": 0.1, "negatives": 0.5}
"""Way of asking to the probability that a phrase asked for is absent."""
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


def _compose(rng: random.Random) -> tuple[Shape, ...]:
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


def _draw(draw: ImageDraw.ImageDraw, shape: str, box: tuple[float, ...], colour: tuple[int, int, int]) -> None:
    x1, y1, x2, y2 = box
    if shape == "circle":
        draw.ellipse(box, fill=colour)
    elif shape == "square":
        draw.rectangle(box, fill=colour)
    else:
        draw.polygon([(x1, y2), ((x1 + x2) / 2, y1), (x2, y2)], fill=colour)


def scene(seed: str, size: int = 112) -> tuple[Image.Image, tuple[Shape, ...]]:
    """One scene and what stands in it.

    Args:
        seed: any text; the same text gives the same scene.
        size: width and height of the image in pixels.
    """
    rng = random.Random(seed)
    shapes = _compose(rng)
    image = background(rng, size)
    draw = ImageDraw.Draw(image)
    for item in shapes:
        colour = tuple(max(0, min(255, channel + rng.randint(-15, 15))) for channel in COLOURS[item.colour])
        _draw(draw, item.shape, tuple(value * size / CELLS for value in item.cells), colour)
    return image, shapes


def phrases(shapes: tuple[Shape, ...]) -> dict[str, tuple[int, ...]]:
    """Every phrase that may be asked of a scene, with the indices of the shapes that it fits, none where it is absent.

    >>> left, right = Shape("red", "circle", (0, 0, 2, 2)), Shape("blue", "circle", (5, 5, 7, 7))
    >>> found = phrases((left, right))
    >>> found["red circle"], found["leftmost circle"], found["red square"], found["square above the triangle"]
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


def ask(shapes: tuple[Shape, ...], seed: str, asking: str = "negatives") -> tuple[str, ...]:
    """The phrases asked of a scene, present and absent ones in mixed order; ``asking`` is a key of :data:`ABSENT`."""
    rng = random.Random(seed)
    found = phrases(shapes)
    present = [phrase for phrase, fitting in found.items() if fitting]
    absent = [phrase for phrase, fitting in found.items() if not fitting]
    number = min(sum(rng.random() >= ABSENT[asking] for _ in range(NUM_ASKED)), len(present))
    query = rng.sample(present, number) + rng.sample(absent, min(NUM_ASKED - number, len(absent)))
    rng.shuffle(query)
    return tuple(query)


def answer(shapes: tuple[Shape, ...], query: tuple[str, ...], size: int = 112) -> SceneGraph:
    """The complete answer to a query: boxes in pixels, in the order of the query."""
    found = phrases(shapes)
    return SceneGraph(tuple(_detection(phrase, shapes[n], size) for phrase in query for n in found[phrase]))


def _detection(label: str, item: Shape, size: int) -> SceneObject:
    return SceneObject(label, tuple(round(value * size / CELLS, 2) for value in item.cells))


def example(shapes: tuple[Shape, ...], key: str, image_id: str, asking: str = "negatives", size: int = 112) -> Example:
    """A question about a scene with its answer; the image is left out. ``key`` seeds the question."""
    query = ask(shapes, f"{key}/{asking}", asking)
    return Example(image_id, size, size, answer(shapes, query, size), query=query)


def make(
    out_dir: Path,
    num_train: int = 8000,
    num_test: int = 384,
    seed: int = 0,
    size: int = 112,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write ``train.jsonl`` (few negatives), ``train_negatives.jsonl``, ``test.jsonl`` (negatives), ``shapes.jsonl``.

    Images go to ``images/``. The training files ask different questions about the same scenes. ``shapes.jsonl`` names
    every shape of these scenes once, by colour and shape: a closed-vocabulary task. The splits come from different
    seeds, so no scene is shared. Row files are written last and whole.

    Args:
        progress: called with 1 after each scene.

    Raises:
        ValueError: a split without scenes, or scenes narrower than 28 pixels.
    """
    for name, value, least in (("num_train", num_train, 1), ("num_test", num_test, 1), ("size", size, 28)):
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}")
    out_dir = Path(out_dir)
    images = out_dir / "images"
    images.mkdir(parents=True, exist_ok=True)
    everything = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
    for split, count in (("test", num_test), ("train", num_train)):
        rows: dict[str, list[dict]] = {"few_negatives": [], "negatives": [], "shapes": []}
        for index in range(count):
            name = f"{split}_{index:05d}"
            key = f"{seed}/detection/{name}"
            image, shapes = scene(key, size)
            image.save(images / f"{name}.png", compress_level=1)
            for asking in ABSENT:
                rows[asking].append(example_to_row(example(shapes, key, name, asking, size), f"{name}.png"))
            graph = SceneGraph(tuple(_detection(item.name, item, size) for item in shapes))
            rows["shapes"].append(example_to_row(Example(name, size, size, graph, query=everything), f"{name}.png"))
            if progress:
                progress(1)
        if split == "test":
            write_jsonl(out_dir / "test.jsonl", rows["negatives"])
        else:
            write_jsonl(out_dir / "shapes.jsonl", rows["shapes"])
            write_jsonl(out_dir / "train_negatives.jsonl", rows["negatives"])
            write_jsonl(out_dir / "train.jsonl", rows["few_negatives"])


def load(count: int = 100, seed: int = 0, size: int = 112, asking: str = "negatives") -> Iterator[Example]:
    """Scenes made on the fly, without files; images as PNG bytes."""
    import io

    for index in range(count):
        name = f"stream_{index:05d}"
        key = f"{seed}/detection/{name}"
        image, shapes = scene(key, size)
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        yield replace(example(shapes, key, name, asking, size), image=buffer.getvalue())
