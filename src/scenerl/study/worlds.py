"""Scene graphs of the demo's world with things that training never shows, and test sets of just those.

They are some triplets, and lamps in the right half of the picture; a further test set is of a world that looks
different.
"""

from __future__ import annotations

from pathlib import Path

from scenerl.data.synthetic import Look, scene, sparse
from scenerl.data.synthetic_rows import Annotated, Progress, write_scenes
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
