"""Recall of relations: R@K, ng-R@K, mR@K, zR@K, and R1-SGG's Recall and mRecall (all predictions, no K)."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from scenerl.metrics.candidates import Array, Relations, one_to_one


def hit_targets(relations: Relations, rank_P: Array, k: float, hits: str = "one_to_many") -> Array:
    """Which target relations the predictions ranked before ``k`` hit.

    Args:
        relations: the data set's relations and their candidate hits.
        rank_P: rank of each prediction from 0 (infinite: not ranked at all), one of ``relations``' two rankings.
        k: how many predictions of each image count; infinite for all that are ranked.
        hits: ``one_to_many`` or ``one_to_one``, see :data:`scenerl.metrics.options.HITS`.

    Returns:
        (T,) bool.

    Source: Lu et al. 2016 (R@K); the union of hits over the top K as in Neural Motifs' evaluator (Zellers et al. 2018).
    """
    hit_T = np.zeros(len(relations.image_T), dtype=bool)
    rank_C = rank_P[relations.hits.prediction_C]
    chosen = relations.hits.select((rank_C < k) & np.isfinite(rank_C))
    if hits == "one_to_many":
        hit_T[chosen.target_C] = True
    else:
        hit_T[one_to_one(chosen, len(relations.image_P), len(hit_T))[1]] = True
    return hit_T


def image_recall(hit_T: Array, image_T: Array, num_images: int) -> tuple[Array, Array]:
    """Recall of each image.

    Returns:
        (N,) recall in [0, 1], 0 where an image has no target, and (N,) 1.0 where it has one, else 0.0.
    """
    total_N = np.bincount(image_T, minlength=num_images).astype(float)
    found_N = np.bincount(image_T, weights=hit_T, minlength=num_images)
    return np.divide(found_N, total_N, out=np.zeros(num_images), where=total_N > 0), (total_N > 0).astype(float)


class PredicateMeans:
    """Mean recall: a predicate is averaged over the images in which it occurs, then predicates are averaged.

    Args:
        relations: the data set's relations.
        hits: metric name to (T,) bool of hit targets.
        num_images: N.
        num_predicates: size of the vocabulary when absent predicates count as 0, else None: they are left out.

    Source: VCTree (Tang et al. 2019) and KERN (Chen et al. 2019); their evaluators count absent predicates as 0.
    """

    def __init__(
        self, relations: Relations, hits: dict[str, Array], num_images: int, num_predicates: int | None = None
    ) -> None:
        self.names = tuple(hits)
        self.num_predicates = num_predicates
        # One row per predicate that occurs in the targets, one column per image.
        self.present, row_T = np.unique(relations.predicate_T, return_inverse=True)
        shape = (len(self.present), num_images)
        cells, cell_T = np.unique(row_T * max(num_images, 1) + relations.image_T, return_inverse=True)
        total = np.bincount(cell_T, minlength=len(cells))
        where = np.divmod(cells, max(num_images, 1))
        self.occurs = csr_matrix((np.ones(len(cells)), where), shape=shape)
        self.recall = {
            name: csr_matrix((np.bincount(cell_T, weights=hit_T, minlength=len(cells)) / total, where), shape=shape)
            for name, hit_T in hits.items()
        }

    @property
    def support(self) -> Array:
        """Number of predicates averaged, per metric."""
        return np.full(len(self.names), len(self.present) if self.num_predicates is None else self.num_predicates)

    def per_predicate(self, name: str, weights_NB: Array) -> Array:
        """Recall of each present predicate under image weights: (predicates, B), NaN where it has no weight."""
        images = self.occurs @ weights_NB
        return np.divide(self.recall[name] @ weights_NB, images, out=np.full(images.shape, np.nan), where=images > 0)

    def __call__(self, weights_NB: Array) -> Array:
        """The metrics under image weights: (metrics, B), NaN without any target."""
        occurs = (self.occurs @ weights_NB) > 0
        count_B = occurs.sum(axis=0)
        divisor_B = count_B if self.num_predicates is None else np.where(count_B > 0, self.num_predicates, 0)
        values = np.full((len(self.names), weights_NB.shape[1]), np.nan)
        for row, name in enumerate(self.names):
            total_B = np.nansum(self.per_predicate(name, weights_NB), axis=0)
            np.divide(total_B, divisor_B, out=values[row], where=divisor_B > 0)
        return values
