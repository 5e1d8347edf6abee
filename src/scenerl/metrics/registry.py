"""Every metric there is: name, title, unit, direction, place in summaries, and why it may be missing.

This is the only list of metrics. Tables, reports and model cards show metrics in its order and take titles, units and
directions from it. :func:`scenerl.metrics.evaluate` refuses to compute a metric that is not on it, so a new metric
needs an entry in :data:`METRICS` besides the code that computes it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cache

from scenerl.predicate_groups import GROUPS

GRAPH, DET = "graph", "det"
HEADLINE_K = 50


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """What is known about a metric before it is computed.

    Attributes:
        name: key in metrics.json. In :data:`METRICS` ``@K`` and ``_GROUP`` are placeholders: ``mR@K_GROUP`` stands for
            ``mR@50_head`` and so on. Specs from :func:`spec` have them filled in.
        title: name for people, with the same placeholders.
        unit: ``"%"`` for a share in [0, 1], ``""`` for a count per image.
        better: ``"higher"``, ``"lower"``, or ``""`` where neither is.
        headline: the kinds of evaluation whose summary shows it: ``"graph"`` (scene graphs), ``"det"`` (detection).
        why_missing: what the data lacks when the metric has no value.
    """

    name: str
    title: str
    unit: str
    better: str
    headline: tuple[str, ...]
    why_missing: str


def _spec(name: str, title: str, missing: str, headline: tuple[str, ...] = (), better: str = "higher"):
    return MetricSpec(name, title, "" if name.endswith("_per_image") else "%", better, headline, missing)


_BOTH = (GRAPH, DET)
_NO_RECALL = "no target relations"
_NO_GROUP = "no target relation with a predicate of this group"
_NO_RELATIONS, _NO_TRIPLETS = "no predicted relations", "neither target nor predicted relations"
_NO_OBJECTS, _NO_TARGETS = "no predicted objects", "no target objects"
_NO_OBJECT_AT_ALL = "neither target nor predicted objects"

METRICS: tuple[MetricSpec, ...] = (
    _spec("failure_rate", "Failure rate", "no images", _BOTH, "lower"),
    _spec("Acc@0.5", "Accuracy at IoU 0.5", "not every image has one sentence and one box", (DET,)),
    # Recall rewards emitting more relations, so summaries show it with precision and density.
    _spec("Recall", "Recall", _NO_RECALL, (GRAPH,)),
    _spec("mRecall", "mRecall", _NO_RECALL),
    _spec("R@K", "R@K", _NO_RECALL, (GRAPH,)),
    _spec("ng-R@K", "ng-R@K", _NO_RECALL),
    _spec("mR@K", "mR@K", _NO_RECALL, (GRAPH,)),
    _spec("ng-mR@K", "ng-mR@K", _NO_RECALL),
    _spec("F1@K", "F1@K of R and mR", _NO_RECALL),
    _spec("wR@K", "Weighted R@K", _NO_RECALL),
    _spec("A@K", "A@K", _NO_RECALL),
    _spec("zR@K", "zR@K", "no target relation whose triplet is unseen in training"),
    _spec("PhrR@K", "PhrR@K", _NO_RECALL),
    _spec("PairR@K", "PairR@K", _NO_RECALL),
    _spec("mRecall_GROUP", "mRecall, GROUP", _NO_GROUP),
    _spec("mR@K_GROUP", "mR@K, GROUP", _NO_GROUP),
    _spec("ng-mR@K_GROUP", "ng-mR@K, GROUP", _NO_GROUP),
    _spec("triplet_precision", "Triplet precision", _NO_RELATIONS, (GRAPH,)),
    _spec("triplet_recall", "Triplet recall", _NO_RECALL),
    _spec("triplet_f1", "Triplet F1", _NO_TRIPLETS, (GRAPH,)),
    _spec("relations_per_image", "Relations per image", "no images", (GRAPH,), better=""),
    _spec("duplicates_per_image", "Duplicate relations per image", "no images", better="lower"),
    _spec("relation_hallucination", "Hallucinated relations", _NO_RELATIONS, better="lower"),
    _spec("object_precision", "Object precision", _NO_OBJECTS, (DET,)),
    _spec("object_recall", "Object recall", _NO_TARGETS, (DET,)),
    _spec("object_f1", "Object F1", _NO_OBJECT_AT_ALL, (DET,)),
    _spec("InstR", "Instance recall", _NO_TARGETS),
    _spec("objects_per_image", "Objects per image", "no images", (DET,), better=""),
    _spec("duplicate_objects_per_image", "Duplicate objects per image", "no images", better="lower"),
    _spec("object_hallucination", "Hallucinated objects", _NO_OBJECTS, better="lower"),
    _spec("absent_boxes_per_image", "Boxes for absent labels per image", "no images", (DET,), better="lower"),
    _spec("absent_answered", "Absent labels with a box", "no absent labels in the queries", (DET,), "lower"),
    _spec("AP", "AP", _NO_TARGETS, (DET,)),
    _spec("AP50", "AP50", _NO_TARGETS, _BOTH),
    _spec("AP75", "AP75", _NO_TARGETS),
    _spec("AR100", "AR100", _NO_TARGETS),
    _spec("NMS-AP", "NMS-AP", _NO_TARGETS),
    _spec("NMS-AP50", "NMS-AP50", _NO_TARGETS),
    _spec("NMS-AP75", "NMS-AP75", _NO_TARGETS),
    _spec("NMS-AR100", "NMS-AR100", _NO_TARGETS),
    _spec("greedy_precision", "Greedy precision", _NO_OBJECTS),
    _spec("greedy_recall", "Greedy recall", _NO_TARGETS),
    _spec("F1@0.5", "F1 at IoU 0.5", _NO_OBJECT_AT_ALL),
    _spec("F1@0.95", "F1 at IoU 0.95", _NO_OBJECT_AT_ALL),
    _spec("F1_mean", "F1 over IoUs", _NO_OBJECT_AT_ALL, (DET,)),
)
"""All metrics in the order in which tables show them."""

_PATTERNS = [
    re.compile(re.escape(entry.name).replace("@K", r"@(?P<k>\d+)").replace("_GROUP", f"_(?P<group>{'|'.join(GROUPS)})"))
    for entry in METRICS
]


@cache
def _find(name: str) -> tuple[int, int, int] | None:
    """Place in :data:`METRICS`, K and place of the group (0 where there is none); they sort names."""
    for place, pattern in enumerate(_PATTERNS):
        if found := pattern.fullmatch(name):
            parts = found.groupdict()
            group = GROUPS.index(parts["group"]) if "group" in parts else 0
            return place, int(parts.get("k", 0)), group
    return None


def spec(name: str) -> MetricSpec:
    """The spec of a metric, placeholders filled in.

    A metric of one subset of a benchmark (``NMS-AP/color``) is described like the metric itself.

    Raises:
        KeyError: there is no such metric.

    >>> spec("mR@50_head").title, spec("absent_answered").better
    ('mR@50, head', 'lower')
    """
    base, slash, subset = name.partition("/")
    found = _find(base)
    if found is None:
        raise KeyError(f"{name!r} is not in scenerl.metrics.registry.METRICS")
    place, k, group = found
    entry = METRICS[place]
    title = entry.title.replace("@K", f"@{k}").replace("GROUP", GROUPS[group])
    return replace(entry, name=name, title=f"{title} ({subset})" if slash else title)


def spec_or_plain(name: str) -> MetricSpec:
    """As :func:`spec`, for names from files: an unknown metric gets its name as title, and no unit or direction."""
    try:
        return spec(name)
    except KeyError:
        return MetricSpec(name, name, "", "", (), "")


def ordered(names: Iterable[str]) -> list[str]:
    """Names in the order of tables: that of :data:`METRICS`, smaller K first. Unknown names stay, at the end.

    >>> ordered(["AP", "mystery", "R@100", "R@20", "failure_rate"])
    ['failure_rate', 'R@20', 'R@100', 'AP', 'mystery']
    """
    last = (len(METRICS), 0, 0)

    def key(name: str) -> tuple:
        base, _, subset = name.partition("/")
        return subset != "", _find(base) or last

    return sorted(dict.fromkeys(names), key=key)


def headline(names: Collection[str]) -> list[str]:
    """The metrics that a summary shows, of those in ``names``, in the order of tables.

    The summary is that of scene graphs where there is any recall of relations, else that of detection. Of several K the
    one shown is 50, or else the largest.

    >>> headline(["R@20", "R@50", "Recall", "triplet_precision", "AR100", "failure_rate"])
    ['failure_rate', 'Recall', 'R@50', 'triplet_precision']
    """
    found = {name: _find(name) for name in ordered(names) if _find(name)}
    of_graphs = any(METRICS[place].name in ("Recall", "R@K") for place, _, _ in found.values())
    kind = GRAPH if of_graphs else DET
    best: dict[int, tuple[int, str]] = {}
    for name, (place, k, _) in found.items():
        if kind in METRICS[place].headline:
            best[place] = max(best.get(place, (-1, "")), (k if k != HEADLINE_K else 10**9, name))
    return [name for _, name in best.values()]
