"""The data of the study: the demo's worlds with things that training never shows, and test sets of just those.

Scene graphs: some triplets, and lamps in the right half of the picture; besides, a world that looks different.
Detection, with negation among its phrases: a combination of attributes, a position, a relation and a negation, each of
whose words occurs in other phrases.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from scenerl.data.synthetic import CELLS, Annotated, Look, Progress, scene, sparse, write_scenes
from scenerl.data.synthetic_detection import NEGATIONS, PHRASES, RL_SHARE, Shape, annotated, compose, draw_query
from scenerl.types import Example, SceneGraph

UNSEEN_TRIPLETS = frozenset(
    {
        ("apple", "left of", "book"),
        ("leaf", "left of", "lamp"),
        ("grape", "above", "apple"),
        ("book", "above", "leaf"),
        ("apple", "near", "leaf"),
        ("book", "on", "leaf"),
        ("apple", "in", "box"),
    }
)
UNSEEN_PLACE = "lamp"
"""The class that training shows in the left half only."""
OTHER_LOOK = Look(num_objects=4, colour_spread=40, brightness=0.8)
UNSEEN_PHRASES = {
    "combinations": "green square",
    "positions": "topmost square",
    "relations": "square above the circle",
    "negations": "circle that is not red",
}
"""Kind to the phrase that training never asks for. No training scene has a green square."""


def make_graphs(
    out: Path, num_train: int, num_test: int, seed: int, progress: Progress | None = None, keep: float = 0.5
) -> None:
    """Write ``train.jsonl``, ``test.jsonl`` (both sparse), and with every relation ``test_complete.jsonl``,
    ``triplets.jsonl``, ``places.jsonl`` and ``other.jsonl``; these three are half as long.

    Args:
        keep: probability with which an annotator mentions a relation; the remaining arguments are those of
            :func:`scenerl.data.synthetic.make`.
    """
    complete = {kind: (num_test // 2, kind, {"complete": kind}) for kind in ("triplets", "places", "other")}
    splits = {
        "train": (num_train, "seen", {"sparse": "train"}),
        "test": (num_test, "seen", {"sparse": "test", "complete": "test_complete"}),
    }

    def annotate(name: str, seed: int, size: int, split: str) -> Annotated:
        key = f"{seed}/study/{name}"
        image, graph = _suitable(key, size, split)
        return image, {
            "complete": Example(name, size, size, graph),
            "sparse": Example(name, size, size, sparse(graph, f"{key}/sparse", keep)),
        }

    write_scenes(out, annotate, splits | complete, seed, 112, progress)


def num_graphs(num_train: int, num_test: int) -> int:
    """How many scenes :func:`make_graphs` draws."""
    return num_train + num_test + 3 * (num_test // 2)


def _suitable(key: str, size: int, split: str):
    """The first scene of a key that suits a split."""
    attempt = 0
    while True:
        image, graph = scene(f"{key}/{attempt}", size, OTHER_LOOK if split == "other" else Look())
        if split == "other" or _split_of(graph, size) == split:
            return image, graph
        attempt += 1


def _split_of(graph: SceneGraph, size: int) -> str:
    """``seen``, ``triplets``, ``places``, or nothing where both are new."""
    objects = graph.objects
    triplets = {(objects[r.subject].label, r.predicate, objects[r.object].label) for r in graph.relations}
    unseen = [
        kind
        for kind, is_unseen in {
            "triplets": bool(triplets & UNSEEN_TRIPLETS),
            "places": any(o.label == UNSEEN_PLACE and o.box[0] + o.box[2] > size for o in objects),
        }.items()
        if is_unseen
    ]
    return "" if len(unseen) > 1 else next(iter(unseen), "seen")


def make_queries(out: Path, num_train: int, num_test: int, seed: int, progress: Progress | None = None) -> None:
    """Write ``train.jsonl`` (few absent phrases), ``train_negatives.jsonl``, ``test.jsonl`` (half of them absent),
    ``shapes.jsonl`` (every shape in the images of ``train.jsonl``), and, a quarter as long as the test, a file for each
    kind of :data:`UNSEEN_PHRASES`.

    Arguments as for :func:`scenerl.data.synthetic.make`.
    """
    seen = [phrase for phrase in (*PHRASES, *NEGATIONS) if phrase not in UNSEEN_PHRASES.values()]

    def annotate(name: str, seed: int, size: int, split: str) -> Annotated:
        key = f"{seed}/study/{name}"
        kind, _, absent = split.rpartition(" ")
        query = (
            draw_query(key, absent, [UNSEEN_PHRASES[kind]], _compose)
            if kind
            else draw_query(key, absent, seen, _compose_seen)
        )
        return annotated(*query, key, name, size)

    splits = {
        "train": (num_train, "few_negatives", {"phrase": "train", "shapes": "shapes"}),
        "train_negatives": (num_train // RL_SHARE, "negatives", {"phrase": "train_negatives"}),
        "test": (num_test, "negatives", {"phrase": "test"}),
    }
    unseen = {kind: (num_test // 4, f"{kind} negatives", {"phrase": kind}) for kind in UNSEEN_PHRASES}
    write_scenes(out, annotate, splits | unseen, seed, 112, progress)


def num_queries(num_train: int, num_test: int) -> int:
    """How many scenes :func:`make_queries` draws."""
    return num_train + num_train // RL_SHARE + num_test + len(UNSEEN_PHRASES) * (num_test // 4)


def _compose(rng: random.Random) -> tuple[Shape, ...]:
    """Shapes whose edges stand on half cells, so that a box may be nearly right."""
    return tuple(replace(shape, cells=_shifted(rng, shape.cells)) for shape in compose(rng))


def _shifted(rng: random.Random, cells: tuple[float, ...]) -> tuple[float, ...]:
    x1, y1, x2, y2 = (value + rng.choice((0.0, 0.5)) for value in cells)
    return x1, y1, min(x2, CELLS), min(y2, CELLS)


def _compose_seen(rng: random.Random) -> tuple[Shape, ...]:
    while True:
        shapes = _compose(rng)
        if all(shape.name != UNSEEN_PHRASES["combinations"] for shape in shapes):
            return shapes
