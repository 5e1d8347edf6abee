"""Bootstrap intervals over images, vectorised: a resample is a column of image weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from scenerl.metrics.candidates import Array

LEVEL = 0.95
_BLOCK = 2_000_000  # numbers in a block of weights, which bounds memory whatever the number of images


class Family(Protocol):
    """Metrics that are computed together from image weights."""

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""

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
        drawn = generator.integers(0, num_images, size=(count, num_images))
        drawn += np.arange(count)[:, None] * num_images
        weights = np.bincount(drawn.ravel(), minlength=count * num_images).reshape(count, num_images)
        yield np.ascontiguousarray(weights.T, dtype=np.float64)


def values(families: Sequence[Family], num_images: int) -> dict[str, float]:
    """Every metric on the data as it is (all weights 1); those without support are left out."""
    ones = np.ones((num_images, 1))
    return {
        name: float(value)
        for family in families
        for name, value, support in zip(family.names, family(ones)[:, 0], family.support, strict=True)
        if support > 0
    }


def intervals(
    families: Sequence[Family], num_images: int, num_samples: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of every metric over resampled images.

    Resamples that leave a metric without support (no target at all) are left out for that metric; a metric without
    support is left out altogether.

    Source: Efron & Tibshirani 1993, chapter 13 (the percentile interval).
    """
    if not num_images or not num_samples:
        return {}
    blocks = [[family(weights) for family in families] for weights in resample_weights(num_images, num_samples, seed)]
    found = {}
    for family, drawn in zip(families, zip(*blocks, strict=True), strict=True):
        for name, sample in zip(family.names, np.concatenate(drawn, axis=1), strict=True):
            sample = sample[~np.isnan(sample)]
            if len(sample):
                low, high = np.quantile(sample, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
                found[name] = (float(low), float(high))
    return found
