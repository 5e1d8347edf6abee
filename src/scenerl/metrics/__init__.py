"""Metrics of scene graphs and detections over a data set, with bootstrap intervals over images.

The way in is :func:`evaluate`; every definition, formula and source is in docs/metrics.md. To add a metric that sums
or averages over images, add a row to the :class:`~scenerl.metrics.precision.RatioMetrics` in groups.py (value and
interval follow), an entry to the list in registry.py, and a test. Other kinds of metrics are functions of image
weights, a :class:`~scenerl.metrics.bootstrap.MetricGroup`. A convention is a field of :class:`MetricOptions` whose
default is documented; conventions that belong together are a :class:`~scenerl.metrics.protocols.Protocol`.
"""

from __future__ import annotations

from scenerl.metrics.accumulate import SceneGraphMetric
from scenerl.metrics.calibration import reliability
from scenerl.metrics.compare import Difference, ModelComparison, PairedComparison, compare, compare_all
from scenerl.metrics.evaluation import Metric, Report, evaluate, evaluate_subsets
from scenerl.metrics.mapping import LabelMapper, Mapped, map_pairs, misspelled, read_table
from scenerl.metrics.matches import ElementMatches, Matches, matches_of
from scenerl.metrics.protocols import PROTOCOLS, MetricOptions, Pair, Protocol, protocol
from scenerl.metrics.registry import METRICS, MetricSpec
from scenerl.metrics.wordnet import WordNetSynonyms

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "PairedComparison",
    "ModelComparison",
    "Difference",
    "ElementMatches",
    "LabelMapper",
    "Mapped",
    "Matches",
    "Metric",
    "MetricOptions",
    "MetricSpec",
    "Pair",
    "Protocol",
    "Report",
    "SceneGraphMetric",
    "WordNetSynonyms",
    "compare",
    "compare_all",
    "evaluate",
    "evaluate_subsets",
    "map_pairs",
    "matches_of",
    "misspelled",
    "protocol",
    "read_table",
    "reliability",
]
