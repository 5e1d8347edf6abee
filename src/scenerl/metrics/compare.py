"""Predictions of the same images compared: paired bootstrap, p-values, and where two of them differ most."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations

import numpy as np

from scenerl.errors import UserError
from scenerl.metrics import bootstrap
from scenerl.metrics.arrays import Array
from scenerl.metrics.evaluation import Report, check_ids, evaluate_drawn
from scenerl.metrics.groups import AllMetrics, build
from scenerl.metrics.protocols import MetricOptions, Pair, Triplet
from scenerl.metrics.registry import ordered


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of A and of B. ``difference`` is B less A, with its 95 % interval; ``p_value`` is two-sided;
    ``p_holm``: corrected for the number of pairs that were tested."""

    a: float
    b: float
    difference: float
    interval: tuple[float, float] | None
    p_value: float | None
    p_holm: float | None = None

    def to_json(self) -> dict:
        return {key: value for key, value in asdict(self).items() if key != "p_holm" or value is not None}


@dataclass(frozen=True)
class Comparison:
    """What a comparison found. ``images``: (image id, score of A, score of B), the largest differences first; the score
    is F1 of triplets (det: of objects) in the image."""

    metrics: dict[str, Difference]
    images: list[tuple[str, float, float]]
    num_images: int

    def to_json(self) -> dict:
        return {
            "metrics": {name: entry.to_json() for name, entry in self.metrics.items()},
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
        a: pairs of the first predictions.
        b: pairs of the second, of the same images in the same order.
        options: as for :func:`scenerl.metrics.evaluate`.
        training_triplets: as there.
        predicate_counts: as there.
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
    metrics = {
        name: _difference(values[0][name], values[1][name], drawn[0].get(name), drawn[1].get(name))
        for name in ordered(set(values[0]) & set(values[1]))
    }
    return Comparison(metrics, _images(a, built, num_shown), len(a))


def _difference(a: float, b: float, drawn_a: Array | None, drawn_b: Array | None) -> Difference:
    samples = np.zeros(0) if drawn_a is None or drawn_b is None else drawn_b - drawn_a
    # Sums in another order leave a difference of nothing slightly off nothing.
    samples = np.where(np.abs(samples) < 1e-12, 0.0, samples)
    return Difference(a, b, b - a, bootstrap.interval(samples), p_value(samples))


@dataclass(frozen=True)
class ComparisonOfAll:
    """Any number of predictions of the same images: a report of each, and per pair of names, in their order, the
    differences of the metrics that both have."""

    reports: dict[str, Report]
    pairs: dict[tuple[str, str], dict[str, Difference]]

    def is_best(self, name: str, metric: str, better: str, level: float = 0.05) -> bool:
        """Whether a model is better than each of the others, at a corrected p-value below ``level``."""
        if better not in ("higher", "lower") or len(self.reports) < 2:
            return False
        sign = 1.0 if better == "higher" else -1.0
        for (a, b), found in self.pairs.items():
            if name not in (a, b):
                continue
            entry = found.get(metric)
            if entry is None or entry.p_holm is None or entry.p_holm >= level:
                return False
            if sign * (entry.difference if name == b else -entry.difference) <= 0:
                return False
        return True


def compare_all(
    models: Mapping[str, Sequence[Pair]],
    options: MetricOptions | None = None,
    training_triplets: Collection[Triplet] | None = None,
    predicate_counts: Mapping[str, int] | None = None,
) -> ComparisonOfAll:
    """Compare predictions of the same images: :func:`compare` for every pair, all on the same resampled images.

    Within a metric, p-values are corrected for the number of pairs by Holm's method.

    Args:
        models: name to pairs of the same images in the same order.
        options: as for :func:`scenerl.metrics.evaluate`.
        training_triplets: as there.
        predicate_counts: as there.

    Raises:
        UserError: the images differ, or one occurs twice.

    Source: as :func:`compare`; Holm 1979.
    """
    options = options or MetricOptions()
    images = [[pair.image_id for pair in pairs] for pairs in models.values()]
    if any(other != images[0] for other in images):
        raise UserError("the predictions are not of the same images in the same order")
    found = {
        name: evaluate_drawn(pairs, options, training_triplets, predicate_counts) for name, pairs in models.items()
    }
    tests: dict[tuple[str, str], dict[str, Difference]] = {}
    for a, b in combinations(models, 2):
        (first, drawn_a), (second, drawn_b) = found[a], found[b]
        values = [
            {name: metric.value for name, metric in report.metrics.items() if metric.value is not None}
            for report in (first, second)
        ]
        tests[a, b] = {
            name: _difference(values[0][name], values[1][name], drawn_a.get(name), drawn_b.get(name))
            for name in ordered(set(values[0]) & set(values[1]))
        }
    for metric in {name for differences in tests.values() for name in differences}:
        p_values = {
            pair: p
            for pair, entries in tests.items()
            if metric in entries and (p := entries[metric].p_value) is not None
        }
        for pair, corrected in zip(p_values, holm(list(p_values.values())), strict=True):
            tests[pair][metric] = replace(tests[pair][metric], p_holm=corrected)
    return ComparisonOfAll({name: report for name, (report, _) in found.items()}, tests)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's step-down method, in their order.

    Source: Holm 1979, Scandinavian Journal of Statistics 6.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, most = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = most
    return corrected


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
