"""Graphs as columns: flat arrays over a whole data set, so that Python walks every graph once and numpy does the rest.

Suffixes: N images, P predictions, T targets, R relations of one side, O its objects.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from operator import attrgetter

import numpy as np

from scenerl.types import SceneGraph, SceneObject

Array = np.ndarray

_LABEL, _BOX, _SCORE = attrgetter("label"), attrgetter("box"), attrgetter("score")
_SUBJECT, _PREDICATE, _OBJECT = attrgetter("subject"), attrgetter("predicate"), attrgetter("object")


class Codes(defaultdict):
    """Text to a number, counted from 0 in the order of first use."""

    def __init__(self) -> None:
        super().__init__(count().__next__)

    def of(self, texts: Sequence[str]) -> Array:
        return np.fromiter(map(self.__getitem__, texts), np.int64, len(texts))


@dataclass(frozen=True, slots=True)
class ObjectColumns:
    """Objects of one side in the order of images and emission; ``score_O`` is NaN where there is none."""

    image_O: Array
    label_O: Array
    box_O: Array
    score_O: Array

    def __len__(self) -> int:
        return len(self.image_O)


@dataclass(frozen=True, slots=True)
class RelationColumns:
    """Relations of one side; ``subject_R`` and ``object_R`` are indices into that side's object columns."""

    image_R: Array
    subject_R: Array
    predicate_R: Array
    object_R: Array
    score_R: Array

    def __len__(self) -> int:
        return len(self.image_R)


def object_columns(lists: Sequence[Sequence[SceneObject]], labels: Codes) -> ObjectColumns:
    """One list of objects per image as columns; new labels get codes."""
    objects = list(chain.from_iterable(lists))
    box = np.fromiter(chain.from_iterable(map(_BOX, objects)), np.float64, 4 * len(objects)).reshape(-1, 4)
    return ObjectColumns(
        image_O=_image_of(lists),
        label_O=labels.of(list(map(_LABEL, objects))),
        box_O=box,
        score_O=np.array(list(map(_SCORE, objects)), dtype=np.float64),  # None becomes NaN
    )


def relation_columns(graphs: Sequence[SceneGraph], predicates: Codes) -> RelationColumns:
    """The relations of one graph per image as columns; new predicates get codes."""
    lists = [graph.relations for graph in graphs]
    relations = list(chain.from_iterable(lists))
    image_R = _image_of(lists)
    num_objects = np.fromiter((len(graph.objects) for graph in graphs), np.int64, len(graphs))
    first_R = (np.cumsum(num_objects) - num_objects)[image_R]
    return RelationColumns(
        image_R=image_R,
        subject_R=np.fromiter(map(_SUBJECT, relations), np.int64, len(relations)) + first_R,
        predicate_R=predicates.of(list(map(_PREDICATE, relations))),
        object_R=np.fromiter(map(_OBJECT, relations), np.int64, len(relations)) + first_R,
        score_R=np.array(list(map(_SCORE, relations)), dtype=np.float64),
    )


def _image_of(lists: Sequence[Sequence]) -> Array:
    return np.repeat(np.arange(len(lists)), np.fromiter(map(len, lists), np.int64, len(lists)))


def positions(group_X: Array) -> Array:
    """Position of each element within its group, counted from 0; equal groups stand together."""
    index = np.arange(len(group_X))
    starts = np.ones(len(group_X), dtype=bool)
    starts[1:] = group_X[1:] != group_X[:-1]
    return index - np.maximum.accumulate(np.where(starts, index, 0))


def join(key_P: Array, key_T: Array) -> tuple[Array, Array]:
    """All index pairs with equal keys, sorted by the first index, then by the second."""
    order = np.argsort(key_T, kind="stable")
    keys = key_T[order]
    low = np.searchsorted(keys, key_P, "left")
    number = np.searchsorted(keys, key_P, "right") - low
    first = np.repeat(np.arange(len(key_P)), number)
    within = np.arange(len(first)) - np.repeat(np.cumsum(number) - number, number)
    return first, order[np.repeat(low, number) + within]
