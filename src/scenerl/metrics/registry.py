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


def _recall(name: str, title: str = "", *, headline: tuple[str, ...] = (), missing: str = "no target relations"):
    return MetricSpec(name, title or name, "%", "higher", headline, missing)


def _share(name: str, title: str, missing: str, headline: tuple[str, ...] = (), better: str = "higher"):
    return MetricSpec(name, title, "%", better, headline, missing)


def _density(name: str, title: str, headline: tuple[str, ...] = (), better: str = "lower"):
    return MetricSpec(name, title, "", better, headline, "no images")


_BOTH = (GRAPH, DET)
_NO_GROUP = "no target relation with a predicate of this group"
_NO_RELATIONS, _NO_TRIPLETS = "no predicted relations", "neither target nor predicted relations"
_NO_OBJECTS, _NO_TARGETS = "no predicted objects", "no target objects"
_NO_OBJECT_AT_ALL = "neither target nor predicted objects"

METRICS: tuple[MetricSpec, ...] = (
    _share("failure_rate", "Failure rate", "no images", _BOTH, "lower"),
    # Recall rewards emitting more relations, so summaries show it with precision and density.
    _recall("Recall", headline=(GRAPH,)),
    _recall("mRecall"),
    _recall("R@K", headline=(GRAPH,)),
    _recall("ng-R@K"),
    _recall("mR@K", headline=(GRAPH,)),
    _recall("ng-mR@K"),
    _recall("zR@K", missing="no target relation whose triplet is unseen in training"),
    _recall("PhrR@K"),
    _recall("PairR@K"),
    _recall("mRecall_GROUP", "mRecall, GROUP", missing=_NO_GROUP),
    _recall("mR@K_GROUP", "mR@K, GROUP", missing=_NO_GROUP),
    _recall("ng-mR@K_GROUP", "ng-mR@K, GROUP", missing=_NO_GROUP),
    _share("triplet_precision", "Triplet precision", _NO_RELATIONS, (GRAPH,)),
    _share("triplet_recall", "Triplet recall", "no target relations"),
    _share("triplet_f1", "Triplet F1", _NO_TRIPLETS, (GRAPH,)),
    _density("relations_per_image", "Relations per image", (GRAPH,), better=""),
    _density("duplicates_per_image", "Duplicate relations per image"),
    _share("relation_hallucination", "Hallucinated relations", _NO_RELATIONS, better="lower"),
    _share("object_precision", "Object precision", _NO_OBJECTS, (DET,)),
    _share("object_recall", "Object recall", _NO_TARGETS, (DET,)),
    _share("object_f1", "Object F1", _NO_OBJECT_AT_ALL, (DET,)),
    _share("InstR", "Instance recall", _NO_TARGETS),
    _density("objects_per_image", "Objects per image", (DET,), better=""),
    _density("duplicate_objects_per_image", "Duplicate objects per image"),
    _share("object_hallucination", "Hallucinated objects", _NO_OBJECTS, better="lower"),
    _density("absent_boxes_per_image", "Boxes for absent labels per image", (DET,)),
    _share("absent_answered", "Absent labels with a box", "no absent labels in the queries", (DET,), "lower"),
    _share("AP", "AP", _NO_TARGETS, (DET,)),
    _share("AP50", "AP50", _NO_TARGETS, _BOTH),
    _share("AP75", "AP75", _NO_TARGETS),
    _share("AR100", "AR100", _NO_TARGETS),
    _share("NMS-AP", "NMS-AP", _NO_TARGETS),
    _share("NMS-AP50", "NMS-AP50", _NO_TARGETS),
    _share("NMS-AP75", "NMS-AP75", _NO_TARGETS),
    _share("NMS-AR100", "NMS-AR100", _NO_TARGETS),
    _share("greedy_precision", "Greedy precision", _NO_OBJECTS),
    _share("greedy_recall", "Greedy recall", _NO_TARGETS),
    _share("F1@0.5", "F1 at IoU 0.5", _NO_OBJECT_AT_ALL),
    _share("F1@0.95", "F1 at IoU 0.95", _NO_OBJECT_AT_ALL),
    _share("F1_mean", "F1 over IoUs", _NO_OBJECT_AT_ALL, (DET,)),
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


def is_registered(name: str) -> bool:
    """Whether a metric of this name exists."""
    return _find(name.partition("/")[0]) is not None


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
    return spec(name) if is_registered(name) else MetricSpec(name, name, "", "", (), "")


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
    found = {name: _find(name) for name in ordered(names) if "/" not in name and is_registered(name)}
    of_graphs = any(METRICS[place].name in ("Recall", "R@K") for place, _, _ in found.values())
    kind = GRAPH if of_graphs else DET
    best: dict[int, tuple[int, str]] = {}
    for name, (place, k, _) in found.items():
        if kind in METRICS[place].headline:
            best[place] = max(best.get(place, (-1, "")), (k if k != HEADLINE_K else 10**9, name))
    return [name for _, name in best.values()]
