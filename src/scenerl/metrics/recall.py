"""Recall of relations: R@K, ng-R@K, mR@K, zR@K, phrases, pairs, and R1-SGG's Recall and mRecall (all predictions)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from scenerl.metrics.arrays import Array, Candidates, RelationColumns, one_to_one, per_image, positions, starts


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
        graph_constraint: see :data:`scenerl.metrics.protocols.CHOICES`; says in which images it holds.
    """
    scored = ~np.isnan(relations.score_R)
    score, image = np.where(scored, relations.score_R, 1.0), relations.image_R
    order = np.lexsort((-score, image))
    free = _ranking(order, image, score)
    constrained_N = np.full(num_images, graph_constraint == "always")
    if graph_constraint == "scored":
        constrained_N[image[scored]] = True
    if not constrained_N.any():
        return free, free
    pair = relations.subject_R * (relations.object_R.max(initial=0) + 1) + relations.object_R
    _, first = np.unique(pair[order], return_index=True)
    kept = ~constrained_N[image]
    kept[order[first]] = True
    return free, _ranking(order[kept[order]], image, score)


def _ranking(order: Array, image: Array, score: Array) -> Ranking:
    """The ranking of the relations in ``order``."""
    rank_R, start_R, size_R = (np.full(len(image), np.inf) for _ in range(3))
    within, first = positions(image[order]), starts(image[order], score[order])
    group = np.cumsum(first) - 1
    rank_R[order], start_R[order], size_R[order] = within, within[first][group], np.bincount(group)[group]
    return Ranking(rank_R, start_R, size_R)


def hit_targets(
    candidates: Candidates,
    ranking: Ranking,
    num_targets: int,
    k: float,
    hits: str = "one_to_many",
    ties: str = "emission",
) -> Array:
    """Which targets the predictions ranked before ``k`` hit.

    Args:
        candidates: pairs of predictions and targets that fit.
        ranking: of the predictions.
        num_targets: T.
        k: how many predictions of each image count; infinite for all that are ranked.
        hits, ties: see :data:`scenerl.metrics.protocols.CHOICES`. ``one_to_one`` matches, the others let a prediction
            hit several.

    Returns:
        (T,) floats: 1 for a hit and 0 for none, or with ``expected`` ties the probability of a hit.

    Source: Lu et al. 2016 (R@K); the union of hits over the top K as in Neural Motifs' evaluator (Zellers et al. 2018).
    """
    hit_T = np.zeros(num_targets)
    rank_C = ranking.rank_R[candidates.prediction_C]
    chosen = (rank_C < k) & np.isfinite(rank_C)
    if hits == "one_to_one":
        hit_T[one_to_one(candidates.select(chosen))[1]] = 1.0
    elif ties == "emission" or np.isinf(k):
        hit_T[candidates.target_C[chosen]] = 1.0
    else:
        _expected_hits(candidates.select(np.isfinite(rank_C)), ranking, k, hit_T)
    return hit_T


def _expected_hits(candidates: Candidates, ranking: Ranking, k: float, hit_T: Array) -> None:
    """Fill in the probability that the top k holds a hit of each target when tied predictions are shuffled.

    A target with c of its candidates among the g members of a group, of which the top k takes m at random, is missed
    with probability C(g - c, m) / C(g, m). Only one group is cut; groups above it count whole, those below not at all.
    """
    from scipy.special import gammaln  # takes a tenth of the start-up time of `eval`

    start_C = ranking.tie_start_R[candidates.prediction_C]
    key = np.stack([candidates.target_C.astype(float), start_C])
    (target, start), first, c = np.unique(key, axis=1, return_index=True, return_counts=True)
    g = ranking.tie_size_R[candidates.prediction_C[first]]
    m = np.clip(k - start, 0, g)
    possible = g - c >= m  # otherwise some candidate is always taken
    rest = np.where(possible, g - c, m)
    log_missed = gammaln(rest + 1) - gammaln(rest - m + 1) - gammaln(g + 1) + gammaln(g - m + 1)
    np.maximum.at(hit_T, target.astype(int), np.where(possible, 1.0 - np.exp(log_missed), 1.0))


def image_recall(hit_T: Array, image_T: Array, num_images: int) -> tuple[Array, Array]:
    """Recall of each image.

    Returns:
        (N,) recall in [0, 1], 0 where an image has no target, and (N,) 1.0 where it has one, else 0.0.
    """
    total_N = per_image(image_T, num_images)
    found_N = np.bincount(image_T, weights=hit_T, minlength=num_images)
    return np.divide(found_N, total_N, out=np.zeros(num_images), where=total_N > 0), (total_N > 0).astype(float)


def weighted_hits(candidates: Candidates, ranking: Ranking, image_P: Array, num_images: int, k: int) -> Array:
    """Hits among the top ``k`` of each image, each weighted by the misses ranked above it.

    Args:
        candidates: pairs of predictions and targets that fit.
        ranking: of the predictions.
        image_P: image of each prediction.

    Returns:
        (N,) sums of (k - misses above) / k over the predictions that fit some target. A target that two predictions fit
        counts for both, so a sum may exceed the number of targets.

    Source: SGG-Benchmark's SGWeightedRecall with its linear weights (``evaluation/sgg_metrics.py``).
    """
    rank_P = ranking.rank_R
    hit = np.unique(candidates.prediction_C[rank_P[candidates.prediction_C] < k])
    hit = hit[np.lexsort((rank_P[hit], image_P[hit]))]
    misses = rank_P[hit] - positions(image_P[hit])
    return np.bincount(image_P[hit], weights=(k - misses) / k, minlength=num_images)


class RecallsWithF1:
    """Mean recalls and F1@K, the harmonic mean of R@K and mR@K.

    Args:
        means: with ``mR@K``.
        recalls: ``R@K`` to (N,) recall of each image and (N,) whether it has a target; see :func:`image_recall`.

    Source: Zhang et al. 2022 (IETrans, arXiv 2203.11654); SGG-Benchmark's SGF1Score.
    """

    def __init__(self, means: PredicateMeans, recalls: dict[str, tuple[Array, Array]]) -> None:
        self._means, self._recalls = means, recalls
        self.names = (*means.names, *(name.replace("R@", "F1@") for name in recalls))
        support = dict(zip(means.names, means.support, strict=True))
        self.support = np.array([*means.support, *(support[f"m{name}"] for name in recalls)])

    def __call__(self, weights_NB: Array) -> Array:
        """The metrics under image weights: (metrics, B), NaN without any target."""
        values = self._means(weights_NB)
        rows = [values]
        for name, (recall_N, has_target_N) in self._recalls.items():
            images_B, mean_B = has_target_N @ weights_NB, values[self._means.names.index(f"m{name}")]
            recall_B = np.divide(
                recall_N @ weights_NB, images_B, out=np.full(len(images_B), np.nan), where=images_B > 0
            )
            total_B = recall_B + mean_B
            f1_B = np.divide(2 * recall_B * mean_B, total_B, out=np.zeros(len(total_B)), where=total_B != 0)
            rows.append(f1_B[None, :])
        return np.concatenate(rows)


class PredicateMeans:
    """Mean recall: a predicate is averaged over the images in which it occurs, then predicates are averaged.

    Args:
        predicate_T: predicate of each target relation. image_T: its image.
        hits: metric name to (T,) hits of the targets.
        num_images: N.
        counted_N: images that count, all by default.
        num_predicates: size of the vocabulary when absent predicates count as 0, else None: they are left out.
        groups: suffix to the predicates that a further mean of every metric is over.

    Source: VCTree (Tang et al. 2019) and KERN (Chen et al. 2019); their evaluators count absent predicates as 0.
    """

    def __init__(
        self,
        predicate_T: Array,
        image_T: Array,
        hits: dict[str, Array],
        num_images: int,
        counted_N: Array | None = None,
        num_predicates: int | None = None,
        groups: dict[str, Array] | None = None,
    ) -> None:
        if counted_N is not None:
            keep = counted_N[image_T] > 0
            predicate_T, image_T = predicate_T[keep], image_T[keep]
            hits = {name: hit_T[keep] for name, hit_T in hits.items()}
        self.metrics = tuple(hits)
        # One row per predicate that occurs in the targets, one column per image.
        self.present, row_T = np.unique(predicate_T, return_inverse=True)
        shape = (len(self.present), num_images)
        cells, cell_T = np.unique(row_T * max(num_images, 1) + image_T, return_inverse=True)
        total = np.bincount(cell_T, minlength=len(cells))
        where = np.divmod(cells, max(num_images, 1))
        self.occurs = csr_matrix((np.ones(len(cells)), where), shape=shape)
        self.recall = {
            name: csr_matrix((np.bincount(cell_T, weights=hit_T, minlength=len(cells)) / total, where), shape=shape)
            for name, hit_T in hits.items()
        }
        # Which predicates each mean is over, and what it divides by (None: those that have weight).
        self.means = {"": (np.ones(len(self.present), dtype=bool), num_predicates)}
        for suffix, members in (groups or {}).items():
            size = len(members) if num_predicates is not None else None
            self.means[suffix] = (np.isin(self.present, members), size)
        self.names = tuple(f"{name}{suffix}" for name in self.metrics for suffix in self.means)
        sizes = [int(rows.sum()) if size is None else size for rows, size in self.means.values()]
        self.support = np.array(sizes * len(self.metrics))

    def per_predicate(self, name: str, weights_NB: Array) -> Array:
        """Recall of each present predicate under image weights: (predicates, B), NaN where it has no weight."""
        images = self.occurs @ weights_NB
        return np.divide(self.recall[name] @ weights_NB, images, out=np.full(images.shape, np.nan), where=images > 0)

    def __call__(self, weights_NB: Array) -> Array:
        """The metrics under image weights: (metrics, B), NaN without any target."""
        images = np.asarray(self.occurs @ weights_NB)
        occurs = images > 0
        divisors = []
        for rows, size in self.means.values():
            count_B = occurs[rows].sum(axis=0)
            divisors.append(count_B if size is None else np.where(occurs.any(axis=0), size, 0))
        values = []
        for name in self.metrics:
            found = np.asarray(self.recall[name] @ weights_NB)
            recall = np.divide(found, images, out=np.zeros(images.shape), where=occurs)
            for (rows, _), divisor_B in zip(self.means.values(), divisors, strict=True):
                total_B = recall[rows].sum(axis=0)
                values.append(np.divide(total_B, divisor_B, out=np.full(len(total_B), np.nan), where=divisor_B > 0))
        return np.stack(values)
