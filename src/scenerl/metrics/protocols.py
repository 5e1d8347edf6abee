"""Published evaluation protocols: the conventions that belong together, by name.

A protocol says how numbers were computed, not how a model was trained. Adding one is an entry here and a row in
docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scenerl.errors import UserError


@dataclass(frozen=True)
class Protocol:
    """Conventions (fields of :class:`~scenerl.metrics.options.MetricOptions`) that a publication's numbers follow.

    ``tasks``: the tasks it is defined for, the first being its default. ``differs``: what remains different, in a
    sentence, or nothing.
    """

    source: str
    tasks: tuple[str, ...]
    settings: Mapping[str, object]
    differs: str = ""


_GRAPH_TASKS = ("sgdet", "sgcls", "predcls")

PROTOCOLS: dict[str, Protocol] = {
    "r1-sgg": Protocol(
        source="R1-SGG, arXiv 2504.13617: failure rate, AP50, Recall and mRecall over all predicted relations",
        tasks=_GRAPH_TASKS,
        settings={
            "plus_one": True,
            "hits": "one_to_many",
            "graph_constraint": "never",
            "failed": "empty",
            "absent_predicates_as_zero": True,
        },
        differs="its evaluator fills failed images with uninitialised boxes; here they are empty",
    ),
    "motifs": Protocol(
        source="Neural Motifs, arXiv 1711.06640, and Scene-Graph-Benchmark, arXiv 2002.11949: R@K, ng-R@K, mR@K, zR@K",
        tasks=_GRAPH_TASKS,
        settings={
            "plus_one": True,
            "hits": "one_to_many",
            "graph_constraint": "always",
            "failed": "skipped_if_empty",
            "absent_predicates_as_zero": True,
        },
    ),
    "sgbench": Protocol(
        source="sgbench 1.0.0 (Lorenz et al. 2024): R@K, mR@K, InstR",
        tasks=("sgdet",),
        settings={
            "plus_one": False,
            "hits": "best_target",
            "graph_constraint": "always",
            "failed": "skipped_in_means",
            "absent_predicates_as_zero": False,
        },
        differs="it has no mR at all when a predicate of the vocabulary has no target; here such predicates are left "
        "out",
    ),
    "rex-omni": Protocol(
        source="Rex-Omni, arXiv 2510.12798: F1 at IoU 0.5, 0.95 and the mean over .50:.95, no scores needed",
        tasks=("det",),
        settings={"f1_average": "classes", "failed": "empty"},
    ),
    "ovdeval": Protocol(
        source="OVDEval, arXiv 2308.13177: NMS-AP",
        tasks=("det",),
        settings={"failed": "empty"},
        differs="of equal scores its sort leaves open which box stays; here the one of highest IoU, then the first",
    ),
    "coco": Protocol(
        source="COCO, arXiv 1405.0312: AP .50:.05:.95",
        tasks=("det",),
        settings={"failed": "empty"},
    ),
}


def protocol(name: str) -> Protocol:
    """A protocol by its name.

    Raises:
        UserError: an unknown name.

    >>> protocol("motifs").settings["plus_one"]
    True
    """
    if name not in PROTOCOLS:
        raise UserError(f"unknown protocol {name!r}; allowed: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
