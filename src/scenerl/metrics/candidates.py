"""Flat arrays over a whole data set: which prediction could hit which target.

Every metric reads these arrays, so graphs are walked once. Suffixes: N images, P predictions, T targets, C candidates
(pairs of a prediction and a target of the same image that pass labels and boxes).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from scenerl.boxes import area, hull_of_pairs, iou_of_pairs, overlap_of_pairs
from scenerl.metrics.columns import Array, Codes, ObjectColumns, RelationColumns, join, object_columns, relation_columns
from scenerl.metrics.options import MetricOptions, Pair, Triplet
from scenerl.metrics.provided_objects import with_provided_objects
from scenerl.metrics.ranking import Ranking, rank
from scenerl.types import SceneGraph

EMPTY = SceneGraph()
COCO_IOU = 0.5
CROWDED = 10
"""COCO filtered leaves out, per image, categories with more target boxes than this (VLM-R1)."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pairs that may count as a hit: indices of predictions and targets, sorted by prediction, and their IoU."""

    prediction_C: Array
    target_C: Array
    iou_C: Array | None = None

    def select(self, keep_C: Array) -> Candidates:
        iou_C = None if self.iou_C is None else self.iou_C[keep_C]
        return Candidates(self.prediction_C[keep_C], self.target_C[keep_C], iou_C)


@dataclass(frozen=True, slots=True)
class Objects:
    """All objects. ``hits`` follow the options' IoU; ``coco`` are pairs of equal label with plain IoU >= 0.5.

    ``score_P`` is 1 where a prediction has no score. ``crowd_P`` is the share of each prediction that lies on its
    class's most fitting crowd region, 0 without one: COCO counts a prediction there neither as right nor as wrong.
    """

    image_P: Array
    label_P: Array
    score_P: Array
    box_P: Array
    image_T: Array
    label_T: Array
    box_T: Array
    hits: Candidates
    coco: Candidates
    crowd_P: Array

    def select(self, keep_P: Array) -> Objects:
        """Some of the predictions against all targets."""
        number = np.cumsum(keep_P) - 1

        def part(candidates: Candidates) -> Candidates:
            chosen = candidates.select(keep_P[candidates.prediction_C])
            return Candidates(number[chosen.prediction_C], chosen.target_C, chosen.iou_C)

        return Objects(
            *(column[keep_P] for column in (self.image_P, self.label_P, self.score_P, self.box_P)),
            *(self.image_T, self.label_T, self.box_T, part(self.hits), part(self.coco), self.crowd_P[keep_P]),
        )


@dataclass(frozen=True, slots=True)
class Relations:
    """All relations. ``free`` ranks predictions without the graph constraint, ``constrained`` with it.

    ``hits``: three labels and both boxes fit. ``phrase_hits``: three labels and the box around both objects fit.
    ``pair_hits``: subject and object fit, whatever the predicate; its targets are ``pair_T``, the (subject, object)
    pairs of the targets, numbered over the data set, of image ``image_Q``. ``unseen_T`` marks target triplet types that
    training lacks (None without a list of training triplets).
    """

    image_P: Array
    free: Ranking
    constrained: Ranking
    image_T: Array
    predicate_T: Array
    unseen_T: Array | None
    predicates: tuple[str, ...]
    hits: Candidates
    phrase_hits: Candidates
    pair_hits: Candidates
    image_Q: Array


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set with its predictions as flat arrays."""

    num_images: int
    objects: Objects
    relations: Relations
    labels: tuple[str, ...]
    predicted: ObjectColumns
    predicted_relations: RelationColumns


def one_to_one(candidates: Candidates, num_predictions: int, num_targets: int) -> tuple[Array, Array]:
    """A largest set of hits in which no prediction and no target occurs twice.

    Returns:
        Two integer arrays of equal length, prediction and target indices. How many targets of one image and one label
        are matched does not depend on the order of either side.
    """
    # Only those that have a candidate take part: most of a large data set has none.
    rows, row_C = np.unique(candidates.prediction_C, return_inverse=True)
    columns, column_C = np.unique(candidates.target_C, return_inverse=True)
    ones = np.ones(len(row_C), dtype=np.int8)
    graph = coo_matrix((ones, (row_C, column_C)), shape=(len(rows), len(columns)))
    partner = maximum_bipartite_matching(graph.tocsr(), perm_type="column")
    matched = np.flatnonzero(partner >= 0)
    return rows[matched], columns[partner[matched]]


def collect(
    pairs: Sequence[Pair], options: MetricOptions, training_triplets: Collection[Triplet] | None = None
) -> DataSet:
    """Walk the graphs once and lay them out as flat arrays.

    Args:
        pairs: one per image. An answer that failed counts as an empty graph.
        options: the conventions.
        training_triplets: label triplets that training has, for zR@K.
    """
    graphs = [pair.result.graph or EMPTY for pair in pairs]
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
        predicted, target = _without_crowded(predicted, target, len(labels))
    objects = _objects(predicted, target, crowds, len(labels), options)
    if options.task == "det":
        graphs = targets = []
    predicted_relations = relation_columns(graphs, predicates)
    target_relations = relation_columns(targets, predicates)
    unseen_T = None
    if training_triplets is not None:
        unseen = (graph.triplet(entry) not in training_triplets for graph in targets for entry in graph.relations)
        unseen_T = np.fromiter(unseen, bool, len(target_relations))
    free, constrained = rank(predicted_relations, len(pairs), options.graph_constraint)
    pair_of_T, image_Q = _target_pairs(target_relations, len(target))
    hits, phrase_hits, pair_hits = _relation_hits(
        predicted_relations, target_relations, pair_of_T, predicted, target, objects.hits, options
    )
    relations = Relations(
        image_P=predicted_relations.image_R,
        free=free,
        constrained=constrained,
        image_T=target_relations.image_R,
        predicate_T=target_relations.predicate_R,
        unseen_T=unseen_T,
        predicates=tuple(predicates),
        hits=hits,
        phrase_hits=phrase_hits,
        pair_hits=pair_hits,
        image_Q=image_Q,
    )
    return DataSet(len(pairs), objects, relations, tuple(labels), predicted, predicted_relations)


def _key(side: ObjectColumns, num_labels: int) -> Array:
    return side.image_O * max(num_labels, 1) + side.label_O


def _without_crowded(
    predicted: ObjectColumns, target: ObjectColumns, num_labels: int
) -> tuple[ObjectColumns, ObjectColumns]:
    keys, number = np.unique(_key(target, num_labels), return_counts=True)
    crowded = keys[number > CROWDED]
    parts = []
    for side in (predicted, target):
        keep = ~np.isin(_key(side, num_labels), crowded)
        parts.append(
            ObjectColumns(*(column[keep] for column in (side.image_O, side.label_O, side.box_O, side.score_O)))
        )
    return parts[0], parts[1]


def _objects(
    predicted: ObjectColumns, target: ObjectColumns, crowds: ObjectColumns, num_labels: int, options: MetricOptions
) -> Objects:
    p, t = join(_key(predicted, num_labels), _key(target, num_labels))
    plain = iou_of_pairs(predicted.box_O[p], target.box_O[t])
    iou = iou_of_pairs(predicted.box_O[p], target.box_O[t], options.box_offset) if options.plus_one else plain
    every, hit = Candidates(p, t, iou), iou >= options.iou_threshold
    if options.hits == "best_target":
        hit &= _best_of_each_prediction(p, iou)
    crowd_P = np.zeros(len(predicted))
    if len(crowds):
        on, crowd = join(_key(predicted, num_labels), _key(crowds, num_labels))
        boxes, size = predicted.box_O[on], area(predicted.box_O[on])
        inside = np.divide(overlap_of_pairs(boxes, crowds.box_O[crowd]), size, out=np.zeros(len(on)), where=size > 0)
        np.maximum.at(crowd_P, on, inside)
    return Objects(
        image_P=predicted.image_O,
        label_P=predicted.label_O,
        score_P=np.where(np.isnan(predicted.score_O), 1.0, predicted.score_O),
        box_P=predicted.box_O,
        image_T=target.image_O,
        label_T=target.label_O,
        box_T=target.box_O,
        hits=every.select(hit),
        coco=Candidates(p, t, plain).select(plain >= COCO_IOU),
        crowd_P=crowd_P,
    )


def _best_of_each_prediction(prediction_C: Array, iou_C: Array) -> Array:
    """Marks each prediction's candidate of highest IoU, of equal ones the first target."""
    order = np.lexsort((np.arange(len(iou_C)), -iou_C, prediction_C))
    first = np.ones(len(order), dtype=bool)
    first[1:] = np.diff(prediction_C[order]) != 0
    best = np.zeros(len(order), dtype=bool)
    best[order[first]] = True
    return best


def _target_pairs(relations: RelationColumns, num_objects: int) -> tuple[Array, Array]:
    """Number of each target relation's (subject, object) pair, and the image of each pair."""
    key = relations.subject_R * max(num_objects, 1) + relations.object_R
    _, first, pair_T = np.unique(key, return_index=True, return_inverse=True)
    return pair_T, relations.image_R[first]


def _relation_hits(
    predicted: RelationColumns,
    target: RelationColumns,
    pair_of_T: Array,
    objects_P: ObjectColumns,
    objects_T: ObjectColumns,
    object_hits: Candidates,
    options: MetricOptions,
) -> tuple[Candidates, Candidates, Candidates]:
    """Candidates of relations, of phrases and of (subject, object) pairs, see :class:`Relations`."""
    p, t = join(*_ends_keys(predicted, target, objects_P, objects_T))
    # Object hits are looked up by their number in (prediction, target) order, in which they are sorted.
    width = max(len(objects_T), 1)
    known = object_hits.prediction_C * width + object_hits.target_C

    def both_hit(p_end: Array, t_end: Array) -> Array:
        wanted = p_end[p] * width + t_end[t]
        place = np.minimum(np.searchsorted(known, wanted), max(len(known) - 1, 0))
        return known[place] == wanted if len(known) else np.zeros(len(wanted), dtype=bool)

    fit = both_hit(predicted.subject_R, target.subject_R) & both_hit(predicted.object_R, target.object_R)
    same = predicted.predicate_R[p] == target.predicate_R[t]
    around = iou_of_pairs(
        _around(objects_P.box_O, predicted, p[same]), _around(objects_T.box_O, target, t[same]), options.box_offset
    )
    phrase = around >= options.iou_threshold
    return (
        Candidates(p[fit & same], t[fit & same]),
        Candidates(p[same][phrase], t[same][phrase]),
        Candidates(p[fit], pair_of_T[t[fit]]),
    )


def _ends_keys(
    predicted: RelationColumns, target: RelationColumns, objects_P: ObjectColumns, objects_T: ObjectColumns
) -> tuple[Array, Array]:
    """Keys that are equal for relations of one image between objects of the same labels."""
    most = int(max(objects_P.label_O.max(initial=0), objects_T.label_O.max(initial=0))) + 1

    def key(relations: RelationColumns, objects: ObjectColumns) -> Array:
        ends = objects.label_O[relations.subject_R] * most + objects.label_O[relations.object_R]
        return relations.image_R * (most * most) + ends

    return key(predicted, objects_P), key(target, objects_T)


def _around(boxes: Array, relations: RelationColumns, chosen: Array) -> Array:
    """The smallest boxes around subject and object, (C, 4)."""
    return hull_of_pairs(boxes[relations.subject_R[chosen]], boxes[relations.object_R[chosen]])
