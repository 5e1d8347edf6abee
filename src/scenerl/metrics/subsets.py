"""A benchmark of several data sets: the metrics of each, and their mean (OVDEval)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from scenerl.metrics import bootstrap
from scenerl.metrics.families import build
from scenerl.metrics.options import MetricOptions, Pair
from scenerl.metrics.report import Metric, Report
from scenerl.metrics.summary import evaluate

AVERAGED = ("NMS-AP", "NMS-AP50", "AP", "AP50", "greedy_precision", "greedy_recall")


def evaluate_subsets(subsets: Mapping[str, Sequence[Pair]], options: MetricOptions) -> Report:
    """Every subset by itself (``NMS-AP/color``) and the means over subsets (``NMS-AP``), as OVDEval reports them.

    The interval of a mean resamples the images of every subset; a subset in which a metric has no support is left out
    of its mean.

    Args:
        subsets: name to pairs.
        options: the conventions; the same for all.
    """
    reports = {name: evaluate(pairs, options) for name, pairs in subsets.items()}
    drawn = {}
    if options.bootstrap_samples:
        for name, pairs in subsets.items():
            families = build(pairs, options, None, None).families
            drawn[name] = bootstrap.samples(families, len(pairs), options.bootstrap_samples, options.seed)
    metrics: dict[str, Metric] = {}
    for metric in AVERAGED:
        known = [name for name in reports if reports[name].metrics[metric].value is not None]
        if not known:
            metrics[metric] = next(iter(reports.values())).metrics[metric]
            continue
        samples = np.array([drawn[name][metric] for name in known]) if drawn else np.zeros((0, 0))
        metrics[metric] = Metric(
            float(np.mean([reports[name].metrics[metric].value for name in known])),
            bootstrap.interval(samples.mean(axis=0)) if len(samples) else None,
            len(known),
        )
    for name, report in reports.items():
        metrics |= {f"{metric}/{name}": report.metrics[metric] for metric in AVERAGED}
    first = next(iter(reports.values()))

    def total(key: str) -> dict[str, int]:
        tables = [getattr(report, key) for report in reports.values()]
        names = dict.fromkeys(name for table in tables for name in table)
        return {name: sum(table.get(name, 0) for table in tables) for name in names}

    return replace(
        first,
        metrics=metrics,
        failures=total("failures"),
        issues=total("issues"),
        counts={**total("counts"), "subsets": len(reports)},
        calibration={},
    )
