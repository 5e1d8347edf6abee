"""Detection by phrases that training never asks for, of words that it shows in others: attributes and negation.

A query is a coloured shape (``red circle``) or a kind of shape in any other colour (``circle not red``); something in
the picture always fits. An annotator overlooks objects, as in the detection demo. Some phrases of either kind are never
asked in training; a test set is of just those. The model knew all names before, as a pretrained one does, and no
negation.
"""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image, ImageDraw

from scenerl.data.synthetic import CELLS, KEEP_BOX_PROBABILITY, Cells, background, gap, pixels, varied
from scenerl.data.synthetic_rows import Annotated, Progress, write_scenes
from scenerl.types import Example, SceneGraph, SceneObject

COLOURS = {"red": (215, 50, 50), "green": (40, 150, 60), "blue": (60, 90, 220)}
KINDS = ("circle", "square")
NAMES = tuple(f"{colour} {kind}" for colour in COLOURS for kind in KINDS)
NEGATIONS = tuple(f"{kind} not {colour}" for colour in COLOURS for kind in KINDS)
UNSEEN_NAMES = ("blue circle", "green square")
UNSEEN_NEGATIONS = ("circle not green", "square not blue")
_SPLITS = {
    "seen": tuple(phrase for phrase in (*NAMES, *NEGATIONS) if phrase not in {*UNSEEN_NAMES, *UNSEEN_NEGATIONS}),
    "names": UNSEEN_NAMES,
    "negations": UNSEEN_NEGATIONS,
}
_NUM_OBJECTS, _WIDTH = 4, 3  # of a scene; of each in cells
_TRIES = 200  # places; a crowded scene may end with fewer objects
_ASKED = 0.7  # of the objects are of the kind that is asked for, so that a phrase often fits several

Shapes = list[tuple[str, Cells]]
"""Names and places of the objects of a scene."""


def fits(phrase: str, name: str) -> bool:
    """Whether a phrase means an object of that name.

    >>> [fits("circle not red", name) for name in ("blue circle", "red circle", "blue square")]
    [True, False, False]
    """
    kind, negated, excluded = phrase.partition(" not ")
    colour = name.split()[0]
    return (name.endswith(kind) and colour != excluded) if negated else name == phrase


def make(out: Path, num_train: int, num_test: int, seed: int, progress: Progress | None = None) -> None:
    """Write ``train.jsonl`` (sparse), ``test.jsonl``, ``names.jsonl`` and ``negations.jsonl`` (complete), and
    ``shapes.jsonl``, which names every object in the images of ``train.jsonl``.

    Arguments are those of :func:`scenerl.data.synthetic_detection.make`.
    """
    splits = {
        "train": (num_train, "seen", {"sparse": "train", "shapes": "shapes"}),
        "test": (num_test, "seen", {"complete": "test"}),
        "names": (num_test, "names", {"complete": "names"}),
        "negations": (num_test, "negations", {"complete": "negations"}),
    }
    write_scenes(out, _annotated, splits, seed, 112, progress)


def num_scenes(num_train: int, num_test: int) -> int:
    """How many scenes :func:`make` draws."""
    return num_train + 3 * num_test


def _annotated(name: str, seed: int, size: int, split: str) -> Annotated:
    rng = random.Random(f"{seed}/combinations/{name}")
    phrase = rng.choice(_SPLITS[split])
    found: Shapes = []
    while not found:
        shapes = _compose(rng, phrase)
        found = [(phrase, cells) for label, cells in shapes if fits(phrase, label)]
    kept = [item for item in found if rng.random() < KEEP_BOX_PROBABILITY] or [rng.choice(found)]
    return _draw(rng, shapes, size), {
        "complete": _example(name, size, found, (phrase,)),
        "sparse": _example(name, size, kept, (phrase,)),
        "shapes": _example(name, size, shapes, NAMES),
    }


def _compose(rng: random.Random, phrase: str) -> Shapes:
    asked = next(kind for kind in KINDS if kind in phrase)
    (other,) = {*KINDS} - {asked}
    shapes: Shapes = []
    for _ in range(_TRIES):
        if len(shapes) == _NUM_OBJECTS:
            break
        x, y = rng.randint(0, CELLS - _WIDTH), rng.randint(0, CELLS - _WIDTH)
        cells = x, y, x + _WIDTH, y + _WIDTH
        if all(gap(cells, place) >= 1 for _, place in shapes):
            kind = asked if rng.random() < _ASKED else other
            shapes.append((f"{rng.choice(list(COLOURS))} {kind}", cells))
    return shapes


def _draw(rng: random.Random, shapes: Shapes, size: int) -> Image.Image:
    image = background(rng, size)
    canvas = ImageDraw.Draw(image)
    for name, cells in shapes:
        colour, kind = name.split()
        outline = canvas.ellipse if kind == "circle" else canvas.rectangle
        outline(tuple(value * size / CELLS for value in cells), fill=varied(rng, COLOURS[colour]))
    return image


def _example(name: str, size: int, labelled: Shapes, query: tuple[str, ...]) -> Example:
    objects = tuple(SceneObject(label, pixels(cells, size)) for label, cells in labelled)
    return Example(name, size, size, SceneGraph(objects), query=query)
