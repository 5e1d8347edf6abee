"""Flat arrays over a whole data set: objects and relations as columns, and which prediction fits which target.

Python walks every graph once; every metric is numpy on these arrays. Suffixes: N images, P predictions, T targets,
O objects and R relations of one side, C candidates (pairs of a prediction and a target that fit each other).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import TYPE_CHECKING

import numpy as np

from scenerl.boxes import hull_of_pairs, iou_of_pairs, share_inside
from scenerl.metrics.protocols import MetricOptions, Pair, Triplet
from scenerl.metrics.provided_objects import with_provided_objects
from scenerl.types import SceneGraph, SceneObject

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Array = np.ndarray

COCO_IOU = 0.5
CROWDED = 10
"""COCO filtered leaves out, per image, categories with more target boxes than this (VLM-R1)."""

_DENSE = 2**12  # numbers up to which a matrix is dense: importing scipy.sparse takes a third of the start-up of `eval`
_EMPTY = SceneGraph()


class Codes(defaultdict):
    """Text to a number, counted from 0 in the order of first use."""

    def __init__(self) -> None:
        super().__init__(count().__next__)


@dataclass(frozen=True, slots=True)
class ObjectColumns:
    """Objects of one side in the order of images and emission; ``score_O`` is NaN where there is none."""

    image_O: Array
    label_O: Array
    box_O: Array
    score_O: Array

    def __len__(self) -> int:
        return len(self.image_O)

    def select(self, keep_O: Array) -> ObjectColumns:
        return ObjectColumns(self.image_O[keep_O], self.label_O[keep_O], self.box_O[keep_O], self.score_O[keep_O])

    @property
    def keys(self) -> Array:
        """(O,) numbers that are equal for objects of one image and label; they rise with the image."""
        return (self.image_O << 32) + self.label_O


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


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pairs that may count as a match: indices of predictions and targets, sorted by prediction, and their IoU."""

    prediction_C: Array
    target_C: Array
    iou_C: Array | None = None

    def select(self, keep_C: Array) -> Candidates:
        iou_C = None if self.iou_C is None else self.iou_C[keep_C]
        return Candidates(self.prediction_C[keep_C], self.target_C[keep_C], iou_C)


@dataclass(frozen=True, slots=True)
class Objects:
    """All objects. ``fits`` follow the options' IoU; ``coco`` are pairs of equal label with plain IoU >= 0.5.

    ``crowd_P`` is the share of each prediction that lies on its class's best fitting crowd region, 0 without one: COCO
    counts a prediction there neither as right nor as wrong. ``order_P`` is COCO's order of the predictions: by falling
    score, 1 where there is none; of equal scores that of the first image in :func:`coco_order`, then the first emitted.
    """

    predicted: ObjectColumns
    target: ObjectColumns
    fits: Candidates
    coco: Candidates
    crowd_P: Array
    order_P: Array

    @property
    def score_P(self) -> Array:
        """Scores that rank predictions: 1 where there is none."""
        return np.where(np.isnan(self.predicted.score_O), 1.0, self.predicted.score_O)

    def select(self, keep_P: Array) -> Objects:
        """Some of the predictions against all targets."""
        number = np.cumsum(keep_P) - 1
        chosen = (entry.select(keep_P[entry.prediction_C]) for entry in (self.fits, self.coco))
        fits, coco = (replace(entry, prediction_C=number[entry.prediction_C]) for entry in chosen)
        order_P = number[self.order_P[keep_P[self.order_P]]]
        return Objects(self.predicted.select(keep_P), self.target, fits, coco, self.crowd_P[keep_P], order_P)


@dataclass(frozen=True, slots=True)
class Relations:
    """All relations. ``fits``: three labels and both boxes fit. ``phrase_fits``: three labels and the box around both
    objects fit. ``pair_fits``: subject and object fit, whatever the predicate; its targets are the (subject, object)
    pairs of the targets, numbered over the data set, of image ``image_Q``. ``unseen_T`` marks target triplet types that
    training lacks (None without a list of training triplets).
    """

    predicted: RelationColumns
    target: RelationColumns
    predicates: tuple[str, ...]
    fits: Candidates
    phrase_fits: Candidates
    pair_fits: Candidates
    image_Q: Array
    unseen_T: Array | None


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set with its predictions as flat arrays.

    The parser dropped ``dropped_objects_N`` and ``dropped_relations_N`` elements from the answers, of the relations
    ``dropped_duplicates_N`` because they repeat an earlier one.
    """

    num_images: int
    objects: Objects
    relations: Relations
    dropped_objects_N: Array
    dropped_relations_N: Array
    dropped_duplicates_N: Array


def collect(
    pairs: Sequence[Pair], options: MetricOptions, training_triplets: Collection[Triplet] | None = None
) -> DataSet:
    """Walk the graphs once and lay them out as flat arrays.

    Args:
        pairs: one per image. An answer that failed counts as an empty graph.
        options: the conventions.
        training_triplets: label triplets that training has, for zR@K.
    """
    results = [pair.result for pair in pairs]
    graphs = [result.graph or _EMPTY for result in results]
    if options.task in ("sgcls", "predcls"):
        graphs = [
            with_provided_objects(graph, pair.target, options.task) for graph, pair in zip(graphs, pairs, strict=True)
        ]
    targets = [pair.target for pair in pairs]
    labels, predicates = Codes(), Codes()
    predicted = object_columns([graph.objects for graph in graphs], labels)
    target = object_columns([graph.objects for graph in targets], labels)
    crowds = object_columns([pair.crowds for pair in pairs], labels)
    if options.filtered:
        keys, number = np.unique(target.keys, return_counts=True)
        crowded = keys[number > CROWDED]
        predicted, target = (side.select(~np.isin(side.keys, crowded)) for side in (predicted, target))
    turn_N = coco_order([pair.image_id for pair in pairs])
    objects = _objects(predicted, target, crowds, turn_N, options)
    if options.task == "det":
        graphs = targets = []
    found, wanted = relation_columns(graphs, predicates), relation_columns(targets, predicates)
    unseen_T = None
    if training_triplets is not None:
        unseen = (graph.triplet(entry) not in training_triplets for graph in targets for entry in graph.relations)
        unseen_T = np.fromiter(unseen, bool, len(wanted))
    return DataSet(
        num_images=len(pairs),
        objects=objects,
        relations=_relations(found, wanted, objects, tuple(predicates), unseen_T, options),
        dropped_objects_N=np.array([result.num_dropped_objects for result in results], dtype=float),
        dropped_relations_N=np.array([result.num_dropped_relations for result in results], dtype=float),
        dropped_duplicates_N=np.array(
            [result.ok * sum(issue.kind == "duplicate_relation" for issue in result.issues) for result in results],
            dtype=float,
        ),
    )


def object_columns(lists: Sequence[Sequence[SceneObject]], labels: Codes) -> ObjectColumns:
    """One list of objects per image as columns; new labels get codes."""
    objects = list(chain.from_iterable(lists))
    return ObjectColumns(
        image_O=_image_of(lists),
        label_O=np.fromiter(map(labels.__getitem__, [entry.label for entry in objects]), np.int64, len(objects)),
        box_O=np.fromiter(chain.from_iterable(entry.box for entry in objects), float, 4 * len(objects)).reshape(-1, 4),
        score_O=np.array([entry.score for entry in objects], dtype=np.float64),  # None becomes NaN
    )


def relation_columns(graphs: Sequence[SceneGraph], predicates: Codes) -> RelationColumns:
    """The relations of one graph per image as columns; new predicates get codes."""
    lists = [graph.relations for graph in graphs]
    relations = list(chain.from_iterable(lists))
    image_R = _image_of(lists)
    num_objects = np.array([len(graph.objects) for graph in graphs], dtype=np.int64)
    first_R = (np.cumsum(num_objects) - num_objects)[image_R]
    return RelationColumns(
        image_R=image_R,
        subject_R=np.fromiter((entry.subject for entry in relations), np.int64, len(relations)) + first_R,
        predicate_R=np.fromiter((predicates[entry.predicate] for entry in relations), np.int64, len(relations)),
        object_R=np.fromiter((entry.object for entry in relations), np.int64, len(relations)) + first_R,
        score_R=np.array([entry.score for entry in relations], dtype=np.float64),
    )


def _image_of(lists: Sequence[Sequence]) -> Array:
    return np.repeat(np.arange(len(lists)), [len(entries) for entries in lists])


def per_image(image_X: Array, num_images: int) -> Array:
    """(N,) how many elements each image has."""
    return np.bincount(image_X, minlength=num_images).astype(float)


def starts(*group_X: Array) -> Array:
    """(X,) bool: where a group begins; elements with the same numbers in all arrays stand together."""
    first = np.ones(len(group_X[0]), dtype=bool)
    if len(first) > 1:
        first[1:] = np.any([numbers[1:] != numbers[:-1] for numbers in group_X], axis=0)
    return first


def positions(group_X: Array) -> Array:
    """Position of each element within its group, counted from 0; equal groups stand together."""
    index = np.arange(len(group_X))
    return index - np.maximum.accumulate(np.where(starts(group_X), index, 0))


def pairs_within(key_X: Array) -> tuple[Array, Array]:
    """All pairs of elements with equal keys, each once: indices of the later and of the earlier one."""
    order = np.argsort(key_X, kind="stable")
    place = positions(key_X[order])  # each is the later one of so many pairs
    first = np.repeat(np.arange(len(order)) - place, place)
    within = np.arange(len(first)) - np.repeat(np.cumsum(place) - place, place)
    return np.repeat(order, place), order[first + within]


def join(key_P: Array, key_T: Array) -> tuple[Array, Array]:
    """All index pairs with equal keys, sorted by the first index, then by the second."""
    order = np.argsort(key_T, kind="stable")
    keys = key_T[order]
    low = np.searchsorted(keys, key_P, "left")
    number = np.searchsorted(keys, key_P, "right") - low
    first = np.repeat(np.arange(len(key_P)), number)
    within = np.arange(len(first)) - np.repeat(np.cumsum(number) - number, number)
    return first, order[np.repeat(low, number) + within]


def one_to_one(candidates: Candidates) -> tuple[Array, Array]:
    """A largest set of candidates in which no prediction and no target occurs twice.

    Returns:
        Two integer arrays of equal length, prediction and target indices. How many targets of one image and one label
        are matched does not depend on the order of either side.
    """
    if max(map(_most_often, (candidates.prediction_C, candidates.target_C))) <= 1:
        return candidates.prediction_C, candidates.target_C
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import maximum_bipartite_matching

    # Only those that have a candidate take part: most of a large data set has none.
    rows, row_C = np.unique(candidates.prediction_C, return_inverse=True)
    columns, column_C = np.unique(candidates.target_C, return_inverse=True)
    ones = np.ones(len(row_C), dtype=np.int8)
    graph = coo_matrix((ones, (row_C, column_C)), shape=(len(rows), len(columns)))
    partner = maximum_bipartite_matching(graph.tocsr(), perm_type="column")
    matched = np.flatnonzero(partner >= 0)
    return rows[matched], columns[partner[matched]]


def _most_often(number_X: Array) -> int:
    """How often the most frequent of whole numbers from 0 occurs."""
    return int(np.bincount(number_X).max(initial=0))


def matrix(value_X: Array, row_X: Array, column_X: Array, shape: tuple[int, int]) -> Array | csr_matrix:
    """A matrix of ``shape`` for ``@`` with the values added up where they belong, sparse unless it is small."""
    if shape[0] * shape[1] > _DENSE:
        from scipy.sparse import csr_matrix

        return csr_matrix((value_X, (row_X, column_X)), shape=shape)
    number_X = row_X * shape[1] + column_X
    return np.bincount(number_X, weights=value_X, minlength=shape[0] * shape[1]).reshape(shape)


def sort_stably(number_X: Array) -> Array:
    """Indices that sort whole numbers from 0, equal ones in their order. Sorting 16 bits takes a tenth of the time."""
    return np.argsort(number_X.astype(np.uint16) if number_X.max(initial=0) < 2**16 else number_X, kind="stable")


def coco_order(image_ids: Sequence[str]) -> Array:
    """(N,) place of each image in the order in which COCO's evaluators take them: by id, whole numbers by value.

    >>> coco_order(["10", "9", "2"]).tolist(), coco_order(["b", "10", "9"]).tolist()
    ([2, 1, 0], [2, 0, 1])
    """
    numeric = all(image_id.isascii() and image_id.isdigit() for image_id in image_ids)
    order = sorted(range(len(image_ids)), key=lambda n: int(image_ids[n]) if numeric else image_ids[n])
    return np.argsort(np.array(order, dtype=np.int64))


def _objects(
    predicted: ObjectColumns, target: ObjectColumns, crowds: ObjectColumns, turn_N: Array, options: MetricOptions
) -> Objects:
    p, t = join(predicted.keys, target.keys)
    plain = iou_of_pairs(predicted.box_O, target.box_O, p, t)
    iou = iou_of_pairs(predicted.box_O, target.box_O, p, t, options.box_offset) if options.plus_one else plain
    fit = iou >= options.iou_threshold
    if options.hits == "best_target":
        # Of each prediction only the candidate of highest IoU, of equal ones the first target.
        order = np.lexsort((np.arange(len(iou)), -iou, p))
        best = np.zeros(len(iou), dtype=bool)
        best[order[starts(p[order])]] = True
        fit &= best
    crowd_P = share_inside(predicted.box_O, crowds.box_O, *join(predicted.keys, crowds.keys))
    coco = Candidates(p, t, plain).select(plain >= COCO_IOU)
    order_P = sort_stably(turn_N[predicted.image_O])
    objects = Objects(predicted, target, Candidates(p, t, iou).select(fit), coco, crowd_P, order_P)
    return replace(objects, order_P=order_P[np.argsort(-objects.score_P[order_P], kind="stable")])


def _relations(
    predicted: RelationColumns,
    target: RelationColumns,
    objects: Objects,
    predicates: tuple[str, ...],
    unseen_T: Array | None,
    options: MetricOptions,
) -> Relations:
    """Candidates of relations, of phrases and of (subject, object) pairs."""
    sides = ((predicted, objects.predicted), (target, objects.target))
    num_labels = 1 + max(int(boxes.label_O.max(initial=0)) for _, boxes in sides)
    p, t = join(*(_ends_keys(*side, num_labels) for side in sides))
    # Fitting objects are looked up by their number in (prediction, target) order, in which they are sorted.
    width = max(len(objects.target), 1)
    known = objects.fits.prediction_C * width + objects.fits.target_C

    def ends_fit(p_end: Array, t_end: Array) -> Array:
        wanted = p_end[p] * width + t_end[t]
        place = np.minimum(np.searchsorted(known, wanted), max(len(known) - 1, 0))
        return known[place] == wanted if len(known) else np.zeros(len(wanted), dtype=bool)

    fit = ends_fit(predicted.subject_R, target.subject_R) & ends_fit(predicted.object_R, target.object_R)
    same = predicted.predicate_R[p] == target.predicate_R[t]
    around = (hull_of_pairs(boxes.box_O[side.subject_R], boxes.box_O[side.object_R]) for side, boxes in sides)
    phrase = iou_of_pairs(*around, p[same], t[same], options.box_offset) >= options.iou_threshold
    key = target.subject_R * width + target.object_R
    _, first, pair_of_T = np.unique(key, return_index=True, return_inverse=True)
    return Relations(
        predicted=predicted,
        target=target,
        predicates=predicates,
        fits=Candidates(p[fit & same], t[fit & same]),
        phrase_fits=Candidates(p[same][phrase], t[same][phrase]),
        pair_fits=Candidates(p[fit], pair_of_T[t[fit]]),
        image_Q=target.image_R[first],
        unseen_T=unseen_T,
    )


def _ends_keys(relations: RelationColumns, objects: ObjectColumns, num_labels: int) -> Array:
    """(R,) numbers that are equal for relations of one image between objects of the same labels."""
    images_and_subjects = relations.image_R * num_labels + objects.label_O[relations.subject_R]
    return images_and_subjects * num_labels + objects.label_O[relations.object_R]
