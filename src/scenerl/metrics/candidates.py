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

from scenerl.boxes import as_boxes, iou_matrix
from scenerl.metrics.options import MetricOptions, Pair, Triplet
from scenerl.types import SceneGraph

Array = np.ndarray
EMPTY = SceneGraph()
COCO_IOU = 0.5


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
    """All objects. ``hits`` follow the options' IoU; ``coco`` are pairs of equal label with plain IoU >= 0.5."""

    image_P: Array
    label_P: Array
    score_P: Array
    box_P: Array
    image_T: Array
    label_T: Array
    box_T: Array
    hits: Candidates
    coco: Candidates


@dataclass(frozen=True, slots=True)
class Relations:
    """All relations. ``rank_P`` counts from 0 in the order of ranking; ``pair_rank_P`` is the rank under the graph
    constraint, infinite for the relations that it leaves out. ``unseen_T`` marks target triplet types that training
    lacks (None without a list of training triplets).
    """

    image_P: Array
    rank_P: Array
    pair_rank_P: Array
    image_T: Array
    predicate_T: Array
    unseen_T: Array | None
    predicates: tuple[str, ...]
    hits: Candidates


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set with its predictions as flat arrays."""

    num_images: int
    objects: Objects
    relations: Relations
    labels: tuple[str, ...]


def one_to_one(candidates: Candidates, num_predictions: int, num_targets: int) -> tuple[Array, Array]:
    """A largest set of hits in which no prediction and no target occurs twice.

    Returns:
        Two integer arrays of equal length, prediction and target indices. How many targets of one image and one label
        are matched does not depend on the order of either side.
    """
    ones = np.ones(len(candidates.prediction_C), dtype=np.int8)
    graph = coo_matrix((ones, (candidates.prediction_C, candidates.target_C)), shape=(num_predictions, num_targets))
    partner_P = maximum_bipartite_matching(graph.tocsr(), perm_type="column")
    matched = np.flatnonzero(partner_P >= 0)
    return matched, partner_P[matched]


def _score(score: float | None) -> float:
    return 1.0 if score is None else score


def _ranks(graph: SceneGraph, graph_constraint: str) -> tuple[Array, Array]:
    """Rank of each relation among all, and under the graph constraint (infinite for those that it leaves out)."""
    count = len(graph.relations)
    scored = any(relation.score is not None for relation in graph.relations)
    order: Sequence[int] = range(count)
    if scored:
        order = sorted(order, key=lambda index: -_score(graph.relations[index].score))
    rank, pair_rank = np.empty(count), np.full(count, np.inf)
    if graph_constraint == "never" or (graph_constraint == "scored" and not scored):
        rank[list(order)] = range(count)
        return rank, rank
    seen: set[tuple[int, int]] = set()
    for position, index in enumerate(order):
        rank[index] = position
        relation = graph.relations[index]
        ends = (relation.subject, relation.object)
        if ends not in seen:
            pair_rank[index] = len(seen)
            seen.add(ends)
    return rank, pair_rank


def _join(key_P: Array, key_T: Array) -> tuple[Array, Array]:
    """All (prediction, target) index pairs with equal keys, sorted by prediction."""
    order = np.argsort(key_T, kind="stable")
    keys = key_T[order]
    low, high = np.searchsorted(keys, key_P, "left"), np.searchsorted(keys, key_P, "right")
    count = high - low
    prediction = np.repeat(np.arange(len(key_P)), count)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return prediction, order[np.repeat(low, count) + within]


class _Side:
    """Growing lists of one side, predictions or targets."""

    def __init__(self) -> None:
        self.image: list[int] = []
        self.label: list[int] = []
        self.score: list[float] = []
        self.boxes: list[Array] = []
        self.relation_image: list[int] = []
        self.relations: list[tuple[int, int, int]] = []

    def add(self, image: int, graph: SceneGraph, labels: dict[str, int], predicates: dict[str, int]) -> Array:
        boxes = as_boxes([entry.box for entry in graph.objects])
        self.boxes.append(boxes)
        self.image.extend([image] * len(graph.objects))
        self.label.extend(labels.setdefault(entry.label, len(labels)) for entry in graph.objects)
        self.score.extend(_score(entry.score) for entry in graph.objects)
        self.relation_image.extend([image] * len(graph.relations))
        self.relations.extend(
            (relation.subject, predicates.setdefault(relation.predicate, len(predicates)), relation.object)
            for relation in graph.relations
        )
        return boxes


def _ints(values: Sequence[int] | Sequence[tuple[int, int, int]], width: int | None = None) -> Array:
    array = np.asarray(values, dtype=np.int64)
    return array if width is None else array.reshape(-1, width)


def _stack(parts: list[Array], empty: Array) -> Array:
    return np.concatenate(parts) if parts else empty


def collect(
    pairs: Sequence[Pair], options: MetricOptions, training_triplets: Collection[Triplet] | None = None
) -> DataSet:
    """Walk the graphs once and lay them out as flat arrays.

    Args:
        pairs: one per image. An answer that failed counts as an empty graph.
        options: the conventions (IoU threshold and box offset matter here).
        training_triplets: label triplets that training has, for zR@K.
    """
    labels: dict[str, int] = {}
    predicates: dict[str, int] = {}
    predicted, target = _Side(), _Side()
    ranks: list[Array] = []
    pair_ranks: list[Array] = []
    unseen: list[bool] = []
    hit_parts: list[Array] = []  # per image the raveled (predicted x target) hits of objects
    hits: list[tuple[Array, Array, Array]] = []
    coco: list[tuple[Array, Array, Array]] = []
    starts_P, starts_T, starts_hit = [], [], []
    num_hits = 0
    for image, pair in enumerate(pairs):
        graph = pair.result.graph or EMPTY
        first_P, first_T = len(predicted.label), len(target.label)
        starts_P.append(first_P)
        starts_T.append(first_T)
        starts_hit.append(num_hits)
        boxes_P = predicted.add(image, graph, labels, predicates)
        boxes_T = target.add(image, pair.target, labels, predicates)
        for values, into in zip(_ranks(graph, options.graph_constraint), (ranks, pair_ranks), strict=True):
            into.append(values)
        if training_triplets is not None:
            unseen.extend(pair.target.triplet(relation) not in training_triplets for relation in pair.target.relations)
        if not (len(boxes_P) and len(boxes_T)):
            continue
        same = _ints(predicted.label[first_P:])[:, None] == _ints(target.label[first_T:])[None, :]
        plain = iou_matrix(boxes_P, boxes_T)
        iou = iou_matrix(boxes_P, boxes_T, options.box_offset) if options.plus_one else plain
        hit = same & (iou >= options.iou_threshold)
        hit_parts.append(hit.ravel())
        num_hits += hit.size
        for chosen, measure, into in ((hit, iou, hits), (same & (plain >= COCO_IOU), plain, coco)):
            rows, columns = np.nonzero(chosen)
            into.append((rows + first_P, columns + first_T, measure[rows, columns]))

    no_ints, no_floats = np.zeros(0, dtype=np.int64), np.zeros(0)
    objects = Objects(
        image_P=_ints(predicted.image),
        label_P=_ints(predicted.label),
        score_P=np.asarray(predicted.score, dtype=np.float64),
        box_P=_stack(predicted.boxes, as_boxes([])),
        image_T=_ints(target.image),
        label_T=_ints(target.label),
        box_T=_stack(target.boxes, as_boxes([])),
        hits=_candidates(hits),
        coco=_candidates(coco),
    )
    relations_P, relations_T = _ints(predicted.relations, 3), _ints(target.relations, 3)
    image_P, image_T = _ints(predicted.relation_image), _ints(target.relation_image)
    relations = Relations(
        image_P=image_P,
        rank_P=_stack(ranks, no_floats),
        pair_rank_P=_stack(pair_ranks, no_floats),
        image_T=image_T,
        predicate_T=relations_T[:, 1],
        unseen_T=None if training_triplets is None else np.asarray(unseen, dtype=bool),
        predicates=tuple(predicates),
        hits=_relation_hits(
            (image_P, relations_P),
            (image_T, relations_T),
            objects,
            tuple(_ints(starts) for starts in (starts_P, starts_T, starts_hit)),
            _stack(hit_parts, no_ints.astype(bool)),
        ),
    )
    return DataSet(len(pairs), objects, relations, tuple(labels))


def _candidates(parts: list[tuple[Array, Array, Array]]) -> Candidates:
    if not parts:
        return Candidates(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))
    return Candidates(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _relation_hits(
    predicted: tuple[Array, Array],
    target: tuple[Array, Array],
    objects: Objects,
    starts: tuple[Array, Array, Array],
    hit_flat: Array,
) -> Candidates:
    """Relation pairs whose predicate, subject (label and box) and object (label and box) agree.

    Args:
        predicted, target: image index and (subject, predicate, object) rows of each relation.
        starts: per image the first predicted object, the first target object, and the first entry in ``hit_flat``.
        hit_flat: the (predicted x target) object hits of all images, raveled one after another.
    """
    (image_P, rows_P), (image_T, rows_T) = predicted, target
    starts_P, starts_T, starts_hit = starts

    def ends(rows: Array, image: Array, label: Array, first: Array) -> Array:
        return label[first[image][:, None] + rows[:, [0, 2]]]

    # Labels are part of the key only to keep the number of joined pairs small, so they are numbered densely first.
    labels = np.concatenate(
        [
            ends(rows_P, image_P, objects.label_P, starts_P),
            ends(rows_T, image_T, objects.label_T, starts_T),
        ]
    )
    num_labels = int(labels.max(initial=0)) + 1
    distinct, code = np.unique(labels[:, 0] * num_labels + labels[:, 1], return_inverse=True)
    num_predicates = int(max(rows_P[:, 1].max(initial=0), rows_T[:, 1].max(initial=0))) + 1

    def key(image: Array, rows: Array, code: Array) -> Array:
        return (image * num_predicates + rows[:, 1]) * len(distinct) + code

    p, t = _join(key(image_P, rows_P, code[: len(rows_P)]), key(image_T, rows_T, code[len(rows_P) :]))
    image = image_P[p]
    width = np.diff(starts_T, append=len(objects.label_T))[image] if len(starts_T) else image
    first = starts_hit[image]
    subject_hit = hit_flat[first + rows_P[p, 0] * width + rows_T[t, 0]]
    object_hit = hit_flat[first + rows_P[p, 2] * width + rows_T[t, 2]]
    keep = subject_hit & object_hit
    return Candidates(p[keep], t[keep])
