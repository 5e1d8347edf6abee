"""Several answers about one image made into one graph by vote."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, median

import numpy as np

from scenerl.boxes import as_boxes, iou_matrix
from scenerl.matching import hungarian
from scenerl.types import Relation, SceneGraph, SceneObject

DEFAULT_IOU = 0.5
DEFAULT_SHARE = 0.25
"""Least share of the answers; of 0, 0.25, 0.375 and 0.5 the best triplet F1 of 8 answers (docs/log.md)."""

_TIE = 1e-9
Member = tuple[int, int]
"""Which answer, and the position of an element in it."""


@dataclass(frozen=True, slots=True)
class Merged:
    """A graph with scores in [0, 1], and how many of the answers hold each of its objects and relations."""

    graph: SceneGraph
    object_votes: tuple[int, ...]
    relation_votes: tuple[int, ...]


def merge_graphs(
    answers: Sequence[SceneGraph | None], iou_threshold: float = DEFAULT_IOU, min_share: float = DEFAULT_SHARE
) -> Merged | None:
    """The consensus of K answers about one image.

    Objects of different answers are one where their labels are equal and their boxes overlap; an answer has at most one
    vote for it. Relations are one where their predicates are equal and their subjects and objects are. An element's
    score is the mean over the K answers of the score that each gives it: its own, held to [0, 1], or 1 where it has
    none, and 0 from an answer without it, a failed one included. So without scores it is the share of the votes. A box
    is the median of its votes' boxes, side by side. Elements are ordered by their mean position in the answers, then by
    votes.

    The order of ``answers`` does not matter. One answer, or K equal ones, give that graph with its scores.

    Args:
        answers: graphs with boxes in one format; None for an answer that failed to parse.
        iou_threshold: least IoU, above 0, of an object's box with that of the answer its group began with.
        min_share: least share of the K answers that an element is in. A relation has no more votes than the objects
            that it connects, so none of these is missing.

    Returns:
        None where no answer could be read.
    """
    graphs = sorted((graph for graph in answers if graph is not None), key=_content)
    if not graphs:
        return None
    enough = min_share * len(answers) - _TIE
    objects = sorted((_merge_objects(graphs, group, len(answers)), group) for group in _groups(graphs, iou_threshold))
    objects = [(entry, group) for entry, group in objects if len(group) >= enough]
    number = {member: n for n, (_, group) in enumerate(objects) for member in group}
    relations = sorted(
        (fmean(place for place, _ in votes), -len(votes), key, _share((score for _, score in votes), len(answers)))
        for key, votes in _relation_votes(graphs, number).items()
        if len(votes) >= enough
    )
    return Merged(
        SceneGraph(
            tuple(SceneObject(label, box, score) for (_, _, label, box, score), _ in objects),
            tuple(Relation(*key, score) for _, _, key, score in relations),
        ),
        tuple(len(group) for _, group in objects),
        tuple(-votes for _, votes, _, _ in relations),
    )


def _content(graph: SceneGraph) -> tuple:
    """What a graph says, for sorting."""
    return (
        tuple((item.label, item.box, _score(item)) for item in graph.objects),
        tuple((item.subject, item.predicate, item.object, _score(item)) for item in graph.relations),
    )


def _score(element: SceneObject | Relation) -> float:
    return 1.0 if element.score is None else min(max(element.score, 0.0), 1.0)


def _share(scores: Iterable[float], count: int) -> float:
    return math.fsum(scores) / count


def _groups(graphs: Sequence[SceneGraph], iou_threshold: float) -> list[list[Member]]:
    """The objects of all graphs in groups of one object, at most one from each graph.

    The graph whose objects agree best with the others' begins a group with each of them; the other graphs' objects are
    assigned to these. What is left over is grouped in the same way.
    """
    pairs = range(len(graphs))
    labels: dict[str, int] = {}
    codes = [[labels.setdefault(item.label, len(labels)) for item in graph.objects] for graph in graphs]
    boxes = [as_boxes([item.box for item in graph.objects]) for graph in graphs]
    overlap = {}
    for a, b in combinations(pairs, 2):
        iou = iou_matrix(boxes[a], boxes[b])
        iou[(iou < iou_threshold) | np.not_equal.outer(codes[a], codes[b])] = 0.0
        overlap[a, b], overlap[b, a] = iou, iou.T
    support = [[1.0] * len(graph.objects) for graph in graphs]
    for a, b in combinations(pairs, 2):
        for n, m in _assign(overlap[a, b]):
            support[a][n] += overlap[a, b][n, m]
            support[b][m] += overlap[a, b][n, m]
    left = [list(range(len(graph.objects))) for graph in graphs]
    groups: list[list[Member]] = []
    while any(left):
        first = max(pairs, key=lambda k: math.fsum(support[k][n] for n in left[k]))
        begun = [[(first, n)] for n in left[first]]
        for other in pairs:
            if other != first and left[other]:
                for n, m in _assign(overlap[first, other][np.ix_(left[first], left[other])]):
                    begun[n].append((other, left[other][m]))
        taken = {member for group in begun for member in group}
        left = [[n for n in left[k] if (k, n) not in taken] for k in pairs]
        groups += begun
    return groups


def _assign(overlap_NM: np.ndarray) -> list[tuple[int, int]]:
    """The pairs of the greatest total overlap; of equal ones those at nearer positions, so that an object that is
    written twice stays itself."""
    n, m = (np.flatnonzero(overlap_NM.any(axis=axis)) for axis in (1, 0))  # the others have nobody
    rows, columns = hungarian(_TIE * abs(np.subtract.outer(n, m)) - overlap_NM[np.ix_(n, m)])
    pairs = zip(n[rows].tolist(), m[columns].tolist(), strict=True)
    return [(n, m) for n, m in pairs if overlap_NM[n, m] > 0]


def _merge_objects(graphs: Sequence[SceneGraph], group: list[Member], count: int) -> tuple:
    """(mean position, -votes, label, box, score) of a group of objects."""
    objects = [graphs[k].objects[n] for k, n in group]
    box = tuple(median(item.box[side] for item in objects) for side in range(4))
    return fmean(n for _, n in group), -len(group), objects[0].label, box, _share(map(_score, objects), count)


def _relation_votes(graphs: Sequence[SceneGraph], number: dict[Member, int]) -> dict[tuple, list[tuple[int, float]]]:
    """(subject, predicate, object) between merged objects to the (position, score) that each graph gives it."""
    votes: dict[tuple, list[tuple[int, float]]] = {}
    for k, graph in enumerate(graphs):
        own: dict[tuple, tuple[int, float]] = {}
        for place, item in enumerate(graph.relations):
            ends = number.get((k, item.subject)), number.get((k, item.object))
            if None not in ends:
                own.setdefault((ends[0], item.predicate, ends[1]), (place, _score(item)))
        for key, vote in own.items():
            votes.setdefault(key, []).append(vote)
    return votes
