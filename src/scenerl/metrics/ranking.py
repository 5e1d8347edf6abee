"""The order in which an image's predicted relations count towards the top K."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scenerl.metrics.columns import Array, RelationColumns, positions


@dataclass(frozen=True, slots=True)
class Ranking:
    """Ranks of predicted relations within their images, from 0, infinite for those that are left out.

    ``tie_start_R`` and ``tie_size_R`` describe the group of relations of equal score that each belongs to: the rank of
    its first member and its size. Relations without any scores in their image are one group.
    """

    rank_R: Array
    tie_start_R: Array
    tie_size_R: Array


def rank(relations: RelationColumns, num_images: int, graph_constraint: str) -> tuple[Ranking, Ranking]:
    """The rankings without and with the graph constraint.

    By score, ties by order of emission; beside scored relations one without a score has score 1. Under the constraint
    only the first relation of each (subject, object) pair is ranked.

    Args:
        relations: predicted relations.
        num_images: N.
        graph_constraint: see :data:`scenerl.metrics.options.GRAPH_CONSTRAINTS`; says in which images it holds.
    """
    score = np.where(np.isnan(relations.score_R), 1.0, relations.score_R)
    image = relations.image_R
    if np.isnan(relations.score_R).all():
        order = np.arange(len(score))
    else:
        order = np.lexsort((-score, image))
    free = _ranking(order, image, score, np.ones(len(score), dtype=bool))
    if graph_constraint == "never":
        return free, free
    constrained = np.ones(num_images, dtype=bool)
    if graph_constraint == "scored":
        constrained[:] = False
        constrained[image[~np.isnan(relations.score_R)]] = True
        if not constrained.any():
            return free, free
    pair = relations.subject_R * (relations.object_R.max(initial=0) + 1) + relations.object_R
    _, first = np.unique(pair[order], return_index=True)
    kept = ~constrained[image]
    kept[order[first]] = True
    return free, _ranking(order, image, score, kept)


def _ranking(order: Array, image: Array, score: Array, kept: Array) -> Ranking:
    order = order[kept[order]]
    rank, start, size = (np.full(len(image), np.inf) for _ in range(3))
    within = positions(image[order])
    rank[order] = within
    first = np.ones(len(order), dtype=bool)
    first[1:] = (np.diff(image[order]) != 0) | (np.diff(score[order]) != 0)
    group = np.cumsum(first) - 1
    start[order] = within[first][group] if len(order) else within
    size[order] = np.bincount(group)[group] if len(order) else within
    return Ranking(rank, start, size)
