"""Metrics of scene graphs and detections over a data set, with bootstrap intervals over images.

The way in is :func:`evaluate`; every definition, formula and source is in docs/metrics.md. To add a metric that sums
or averages over images, add a row to the :class:`~scenerl.metrics.counts.Ratios` in summary.py (value and interval
follow), its name to the order there, and a test. Another kind of metric is a function of image weights, a
:class:`~scenerl.metrics.bootstrap.Family`. A convention is a field of :class:`MetricOptions` whose default
is documented.
"""

from __future__ import annotations

from scenerl.metrics.options import GRAPH_CONSTRAINTS, HITS, TASKS, MetricOptions, Pair
from scenerl.metrics.summary import Metric, Report, evaluate

__all__ = ["GRAPH_CONSTRAINTS", "HITS", "TASKS", "Metric", "MetricOptions", "Pair", "Report", "evaluate"]
