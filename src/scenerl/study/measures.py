"""What was measured in a study's folder, and means over seeds with their intervals."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scenerl.data.jsonl import read_jsonl

LOG, ANSWERS = "log", "answers"
"""In place of annotations in the name of a number: what the training logged, and the answers to the test."""


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over seeds.

    Attributes:
        value: the mean.
        half: half the width of its 95 % interval (Student's t); None for a single seed.
        count: number of seeds.
    """

    value: float
    half: float | None
    count: int

    @property
    def low(self) -> float:
        """Lower end of the interval; the mean itself for a single seed."""
        return self.value - (self.half or 0.0)

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.value + (self.half or 0.0)


def mean(values: Sequence[float]) -> Mean:
    """The mean of at least one value.

    >>> found = mean([0.1, 0.2, 0.3])
    >>> round(found.value, 3), round(found.half, 3)
    (0.2, 0.248)
    """
    from scipy.stats import t

    count = len(values)
    if count == 1:
        return Mean(values[0], None, 1)
    half = float(t.ppf(0.975, count - 1)) * statistics.stdev(values) / count**0.5
    return Mean(statistics.fmean(values), half, count)


class Measured:
    """The numbers of a study.

    A number is named ``experiment/model/annotations/metric``: ``graphs_50/hard_recall/sparse/Recall``. ``annotations``
    is the first word of their title; :data:`LOG` and :data:`ANSWERS` have numbers of their own, see :meth:`value`.

    Args:
        out: the study's folder.
        seeds: the seeds that are counted.
    """

    def __init__(self, out: Path, seeds: Sequence[int]):
        self.out, self.seeds = out, tuple(seeds)

    def values(self, *names: str) -> list[tuple[float, ...]]:
        """A row for each seed for which every one of the numbers is there."""
        rows = [tuple(self.value(name, seed) for name in names) for seed in self.seeds]
        return [row for row in rows if None not in row]

    def value(self, name: str, seed: int) -> float | None:
        """A number for a seed; None where it was not measured, or has no value.

        Of :data:`LOG` any key of log.jsonl, as its mean over the last quarter of the steps; with ``:noise``, the
        standard deviation from step to step there; with ``:rise``, less the mean over the first quarter. Of
        :data:`ANSWERS`, ``num_tokens``: the mean length in tokens.
        """
        experiment, model, annotations, metric = name.split("/", 3)
        folder = self.out / experiment / str(seed)
        if annotations == LOG:
            return _logged(folder / model / "log.jsonl", *metric.partition(":")[::2])
        if annotations == ANSWERS:
            return _tokens(folder / "predictions" / f"{model}.jsonl")
        found = _metrics(folder / "metrics" / f"{model}.{annotations}.json")
        return found.get(metric, {}).get("value")

    def curve(self, name: str) -> list[tuple[float, float]]:
        """(step, mean over seeds) of ``experiment/model/log/key``."""
        experiment, model, _, key = name.split("/", 3)
        runs = [_series(self.out / experiment / str(seed) / model / "log.jsonl", key) for seed in self.seeds]
        runs = [dict(run) for run in runs if run]
        steps = sorted(set.intersection(*map(set, runs))) if runs else []
        return [(float(step), statistics.fmean(run[step] for run in runs)) for step in steps]


@cache
def _metrics(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))["metrics"] if path.is_file() else {}


@cache
def _series(path: Path, key: str) -> list[tuple[int, float]]:
    if not path.is_file():
        return []
    return [(row["step"], row[key]) for _, row in read_jsonl(path) if key in row]


def _logged(path: Path, key: str, what: str) -> float | None:
    values = [value for _, value in _series(path, key)]
    if not values:
        return None
    quarter = max(1, len(values) // 4)
    last = values[-quarter:]
    if what == "noise":
        steps = [b - a for a, b in zip(last, last[1:], strict=False)]
        return statistics.stdev(steps) / 2**0.5 if len(steps) > 1 else None
    if what == "rise":
        return statistics.fmean(last) - statistics.fmean(values[:quarter])
    return statistics.fmean(last)


@cache
def _tokens(path: Path) -> float | None:
    return statistics.fmean(row["num_tokens"] for _, row in read_jsonl(path)) if path.is_file() else None
