"""Two predictions of the same images: paired bootstrap, p-values, and where they differ most."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from scenerl.errors import UserError
from scenerl.metrics import bootstrap
from scenerl.metrics.evaluation import check_ids
from scenerl.metrics.groups import AllMetrics, build
from scenerl.metrics.protocols import MetricOptions, Pair, Triplet
from scenerl.metrics.registry import ordered


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of A and of B. ``difference`` is B less A, with its 95 % interval; ``p_value`` is two-sided."""

    a: float
    b: float
    difference: float
    interval: tuple[float, float] | None
    p_value: float | None


@dataclass(frozen=True)
class Comparison:
    """What a comparison found. ``images``: (image id, score of A, score of B), the largest differences first; the score
    is F1 of triplets (det: of objects) in the image."""

    metrics: dict[str, Difference]
    images: list[tuple[str, float, float]]
    num_images: int

    def to_json(self) -> dict:
        return {
            "metrics": {name: asdict(entry) for name, entry in self.metrics.items()},
            "images": [{"image_id": image_id, "a": a, "b": b} for image_id, a, b in self.images],
            "num_images": self.num_images,
        }


def compare(
    a: Sequence[Pair],
    b: Sequence[Pair],
    options: MetricOptions | None = None,
    training_triplets: Collection[Triplet] | None = None,
    predicate_counts: Mapping[str, int] | None = None,
    num_shown: int = 20,
) -> Comparison:
    """Compare two predictions of the same images by the paired bootstrap.

    Both are evaluated on the same resampled images. The two-sided p-value is twice the smaller share of resamples in
    which the difference is at most, or at least, 0, with one resample of each kind added; it is never 0.

    Args:
        a, b: pairs of the same images in the same order.
        options, training_triplets, predicate_counts: as for :func:`scenerl.metrics.evaluate`.
        num_shown: how many images to list.

    Returns:
        Differences of the metrics that both have.

    Raises:
        UserError: the images differ, or one occurs twice.

    Source: Efron & Tibshirani 1993, chapters 13 and 16; Koehn 2004 for the paired form.
    """
    options = options or MetricOptions()
    check_ids(a)
    if [pair.image_id for pair in a] != [pair.image_id for pair in b]:
        raise UserError("the two predictions are not of the same images in the same order")
    built = [build(pairs, options, training_triplets, predicate_counts) for pairs in (a, b)]
    values = [bootstrap.values(side, len(a)) for side in built]
    # The same seed draws the same images for both.
    drawn = [bootstrap.samples(side, len(a), options.bootstrap_samples, options.seed) for side in built]
    metrics = {}
    for name in ordered(set(values[0]) & set(values[1])):
        samples = drawn[1][name] - drawn[0][name] if drawn[0] else np.zeros(0)
        # Sums in another order leave a difference of nothing slightly off nothing.
        samples = np.where(np.abs(samples) < 1e-12, 0.0, samples)
        metrics[name] = Difference(
            values[0][name],
            values[1][name],
            values[1][name] - values[0][name],
            bootstrap.interval(samples),
            p_value(samples),
        )
    return Comparison(metrics, _images(a, built, num_shown), len(a))


def p_value(differences_B: np.ndarray) -> float | None:
    """Two-sided bootstrap p-value of "no difference", None without resamples.

    >>> p_value(np.array([0.1, 0.2, 0.3])), p_value(np.zeros(9))
    (0.5, 1.0)
    """
    known = differences_B[~np.isnan(differences_B)]
    if not len(known):
        return None
    smaller = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1.0, 2.0 * (smaller + 1) / (len(known) + 1)))


def _images(pairs: Sequence[Pair], built: Sequence[AllMetrics], num_shown: int) -> list[tuple[str, float, float]]:
    scores = np.full((2, len(pairs)), np.nan)
    for row, side in zip(scores, built, strict=True):
        row[side.kept] = side.scores_N
    gap = np.nan_to_num(np.abs(scores[1] - scores[0]))
    chosen = [n for n in np.argsort(-gap, kind="stable")[:num_shown] if gap[n] > 0]
    return [(pairs[n].image_id, float(scores[0, n]), float(scores[1, n])) for n in chosen]
