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
    def names(self) -> tuple[str, ...]:
        """Their names."""

    @property
    def support(self) -> Array:
        """(metrics,) what each is averaged over; 0: the metric does not exist here."""

    def __call__(self, weights_NB: Array) -> Array:
        """(N, B) image weights to (metrics, B) values, NaN where a column leaves a metric without support."""


class Subset:
    """A group over some of the images only, under weights of all of them."""

    def __init__(self, group: MetricGroup, images: Array) -> None:
        self.group, self.images = group, images

    @property
    def names(self) -> tuple[str, ...]:
        return self.group.names

    @property
    def support(self) -> Array:
        return self.group.support

    def __call__(self, weights_NB: Array) -> Array:
        return self.group(weights_NB[self.images])


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


def samples(groups: Sequence[MetricGroup], num_images: int, num_samples: int, seed: int) -> dict[str, Array]:
    """Metric name to its (num_samples,) values over resampled images, NaN where a resample leaves it no support."""
    if not num_images or not num_samples:
        return {}
    blocks = [[group(weights) for group in groups] for weights in resample_weights(num_images, num_samples, seed)]
    found: dict[str, Array] = {}
    for group, drawn in zip(groups, zip(*blocks, strict=True), strict=True):
        found.update(zip(group.names, np.concatenate(drawn, axis=1), strict=True))
    return found


def values(groups: Sequence[MetricGroup], num_images: int) -> dict[str, float]:
    """Every metric on the data as it is (all weights 1); those without support are left out."""
    ones = np.ones((num_images, 1))
    return {
        name: float(value)
        for group in groups
        for name, value, support in zip(group.names, group(ones)[:, 0], group.support, strict=True)
        if support > 0 and not np.isnan(value)
    }


def interval(sample_B: Array) -> tuple[float, float] | None:
    """The 95 % percentile interval of resampled values; resamples without support are left out, None if all are.

    Source: Efron & Tibshirani 1993, chapter 13 (the percentile interval).
    """
    known = sample_B[~np.isnan(sample_B)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def intervals(
    groups: Sequence[MetricGroup], num_images: int, num_samples: int = 1000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of every metric over resampled images; a metric without support is left out."""
    drawn = samples(groups, num_images, num_samples, seed)
    found = {name: interval(sample) for name, sample in drawn.items()}
    return {name: bounds for name, bounds in found.items() if bounds is not None}
