"""Which predicted objects and relations of an image match its ground truth, exactly as the metrics match them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from scenerl.metrics import MetricOptions, Pair
from scenerl.metrics.arrays import collect, one_to_one
from scenerl.metrics.provided_objects import with_provided_objects
from scenerl.types import SceneGraph

HIT, REPEAT, FALSE = "hit", "repeat", "false"
_USED = ("task", "iou_threshold", "plus_one", "hits")
"""Options of the metrics that decide what matches."""


@dataclass(frozen=True, slots=True)
class Matches:
    """What of an answer is right.

    Attributes:
        graph: as it was evaluated; with provided objects, their boxes and labels stand in it.
        relations: per predicted relation ``hit``, ``repeat`` (it fits, but another one has its target) or ``false``.
        found: per target relation whether some predicted relation fits it, as recall counts it.
        objects: per predicted object whether it is matched. found_objects: per target object likewise.
        f1: of relations and of objects, as ``eval --compare`` scores an image: 1 where there is nothing on either side.
    """

    graph: SceneGraph
    relations: tuple[str, ...]
    found: tuple[bool, ...]
    objects: tuple[bool, ...]
    found_objects: tuple[bool, ...]
    f1: tuple[float, float]


def options_of(described: Mapping[str, Any]) -> MetricOptions:
    """The conventions of matching from the ``options`` of a metrics.json; what it lacks has its default."""
    known = {item.name for item in fields(MetricOptions)}
    used = {name: described[name] for name in _USED if name in known and described.get(name) is not None}
    return MetricOptions(**used)


def match(pair: Pair, options: MetricOptions) -> Matches:
    """Match an answer with its ground truth. One to one, a largest matching; earlier predictions come first."""
    graph = pair.result.graph or SceneGraph()
    if options.task in ("sgcls", "predcls"):
        graph = with_provided_objects(graph, pair.target, options.task)
    # Relations are marked on the page where they are drawn, also where only objects are evaluated.
    data = collect([replace(pair, result=replace(pair.result, graph=graph) if pair.result.ok else pair.result)],
                   replace(options, task="sgdet"))  # fmt: skip
    relations, found, relation_f1 = _sides(
        data.relations.fits, len(graph.relations), len(pair.target.relations), data.dropped_relations_N[0]
    )
    objects, found_objects, object_f1 = _sides(
        data.objects.fits, len(graph.objects), len(pair.target.objects), data.dropped_objects_N[0]
    )
    return Matches(
        graph,
        tuple((FALSE, REPEAT, HIT)[state] for state in relations),
        tuple(found),
        tuple(state == 2 for state in objects),
        tuple(found_objects),
        (relation_f1, object_f1),
    )


def _sides(candidates, num_predicted: int, num_targets: int, num_dropped: float) -> tuple[list, list, float]:
    """Per prediction 0, 1 (fits) or 2 (matched); per target whether something fits; and F1, in which elements that the
    parser dropped count as predictions."""
    states, found = np.zeros(num_predicted, dtype=int), np.zeros(num_targets, dtype=bool)
    states[candidates.prediction_C] = 1
    found[candidates.target_C] = True
    matched = one_to_one(candidates)[0]
    states[matched] = 2
    total = num_predicted + num_dropped + num_targets
    return states.tolist(), found.tolist(), float(2 * len(matched) / total) if total else 1.0
