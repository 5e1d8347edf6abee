"""Scene graphs of the demo's world with things that training never shows, and test sets of just those.

They are some triplets, and lamps in the right half of the picture, or large lamps and small books; a further test set
is of a world that looks different.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scenerl.data.synthetic import CELLS, Look, scene, sparse
from scenerl.data.synthetic_rows import Annotated, Progress, write_scenes
from scenerl.types import Example, SceneGraph, SceneObject

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
UNSEEN_SIZES = {"lamp": 9, "book": 4}
"""Classes to the size in cells that training does not show; others have 6."""
KINDS = ("triplets", "places", "other")
"""Of the scenes that training does not show, where nothing else is said."""
OTHER_LOOK = Look(num_objects=4, colour_spread=40, brightness=0.8)


def make_graphs(
    out: Path,
    num_train: int,
    num_test: int,
    seed: int,
    progress: Progress | None = None,
    keep: float = 0.5,
    kinds: Sequence[str] = KINDS,
) -> None:
    """Write ``train.jsonl``, ``test.jsonl`` (both sparse), and with every relation ``test_complete.jsonl`` and a file
    for each kind of scene that training does not show; these are half as long.

    Args:
        keep: probability with which an annotator mentions a relation.
        kinds: ``triplets``, ``places``, ``sizes`` and ``other`` (look); the remaining arguments are those of
            :func:`scenerl.data.synthetic.make`.
    """
    complete = {kind: (num_test // 2, kind, {"complete": kind}) for kind in kinds}
    splits = {
        "train": (num_train, "seen", {"sparse": "train"}),
        "test": (num_test, "seen", {"sparse": "test", "complete": "test_complete"}),
    }

    def annotate(name: str, seed: int, size: int, split: str) -> Annotated:
        key = f"{seed}/study/{name}"
        image, graph = _suitable(key, size, split, kinds)
        return image, {
            "complete": Example(name, size, size, graph),
            "sparse": Example(name, size, size, sparse(graph, f"{key}/sparse", keep)),
        }

    write_scenes(out, annotate, splits | complete, seed, 112, progress)


def num_graphs(num_train: int, num_test: int, kinds: Sequence[str] = KINDS) -> int:
    """How many scenes :func:`make_graphs` draws."""
    return num_train + num_test + len(kinds) * (num_test // 2)


def _suitable(key: str, size: int, split: str, kinds: Sequence[str]):
    """The first scene of a key that suits a split."""
    attempt = 0
    while True:
        image, graph = scene(f"{key}/{attempt}", size, OTHER_LOOK if split == "other" else Look())
        if split == "other" or _split_of(graph, size, kinds) == split:
            return image, graph
        attempt += 1


def _split_of(graph: SceneGraph, size: int, kinds: Sequence[str]) -> str:
    """``seen``, the one of the kinds that a scene shows, or nothing where it shows several."""
    objects = graph.objects
    triplets = {(objects[r.subject].label, r.predicate, objects[r.object].label) for r in graph.relations}
    found = {
        "triplets": bool(triplets & UNSEEN_TRIPLETS),
        "places": any(o.label == UNSEEN_PLACE and o.box[0] + o.box[2] > size for o in objects),
        "sizes": any(UNSEEN_SIZES.get(o.label) == _num_cells(o, size) for o in objects),
    }
    unseen = [kind for kind in kinds if found.get(kind)]
    return "" if len(unseen) > 1 else next(iter(unseen), "seen")


def _num_cells(item: SceneObject, size: int) -> int:
    x1, y1, x2, y2 = item.box
    return round((x2 - x1) * (y2 - y1) * (CELLS / size) ** 2)
