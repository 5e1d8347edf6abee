"""Bootstrap intervals over images, vectorised: a resample is a column of image weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from scenerl.metrics.arrays import Array

LEVEL = 0.95
_BLOCK = 10_000_000  # numbers in a block of weights, which bounds memory whatever the number of images


class MetricGroup(Protocol):
    """Metrics that are computed together from image weights."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the metrics."""

    @property
    def support(self) -> Array:
        """(metrics,) what each is averaged over; 0: the metric does not exist here."""

    def __call__(self, weights_NB: Array) -> Array:
        """(N, B) image weights to (metrics, B) values, NaN where a column leaves a metric without support."""


def resample_weights(num_images: int, num_samples: int, seed: int) -> Iterator[Array]:
    """Blocks of resamples, (N, B) each: how often every image was drawn. The same seed draws the same images."""
    generator = np.random.default_rng(seed)
    size = max(1, min(num_samples, _BLOCK // max(num_images, 1)))
    for start in range(0, num_samples, size):
        count = min(size, num_samples - start)
        drawn = generator.integers(0, num_images, size=(count, num_images), dtype=np.int32)
        weights = np.empty((num_images, count))
        for column, images in enumerate(drawn):
            weights[:, column] = np.bincount(images, minlength=num_images)
        yield weights


def samples(group: MetricGroup, num_images: int, num_samples: int, seed: int) -> dict[str, Array]:
    """Metric name to its (num_samples,) values over resampled images, NaN where a resample leaves it no support."""
    if not num_images or not num_samples:
        return {}
    blocks = [group(weights) for weights in resample_weights(num_images, num_samples, seed)]
    return dict(zip(group.names, np.concatenate(blocks, axis=1), strict=True))


def values(group: MetricGroup, num_images: int) -> dict[str, float]:
    """Every metric on the data as it is (all weights 1); those without support are left out."""
    if not num_images:
        return {}
    found = group(np.ones((num_images, 1)))[:, 0].tolist()
    supported = (group.support > 0) & ~np.isnan(found)
    return {name: value for name, value, some in zip(group.names, found, supported, strict=True) if some}


def interval(sample_B: Array) -> tuple[float, float] | None:
    """The 95 % percentile interval of resampled values; resamples without support are left out, None if all are.

    Source: Efron & Tibshirani 1993, chapter 13 (the percentile interval).
    """
    known = sample_B[~np.isnan(sample_B)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
