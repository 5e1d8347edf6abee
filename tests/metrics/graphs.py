"""Random and hand-made graphs for the metric tests."""

from __future__ import annotations

from hypothesis import strategies as st

from scenerl.metrics import MetricOptions, Pair, evaluate
from scenerl.types import ParseResult, Relation, SceneGraph, SceneObject

LABELS, PREDICATES = ("dog", "cat", "hat"), ("on", "near", "wearing")
QUICK = MetricOptions(bootstrap_samples=0)


def graph(objects, relations=()):
    """``objects``: (label, box) or (label, box, score); ``relations``: (subject, predicate, object[, score])."""
    return SceneGraph(tuple(SceneObject(*entry) for entry in objects), tuple(Relation(*entry) for entry in relations))


def pair(predicted, target, image_id="1", status="ok", issues=(), crowds=(), query=None):
    result = ParseResult("ok", predicted, issues) if status == "ok" else ParseResult(status, None, issues)
    return Pair(image_id, result, target, (100, 100), tuple(crowds), query)


def pairs_of(predicted, targets):
    return [pair(*both, image_id=str(n)) for n, both in enumerate(zip(predicted, targets, strict=True))]


def values(pairs, options=QUICK, triplets=None):
    return {name: metric.value for name, metric in evaluate(pairs, options, triplets).metrics.items()}


# A coarse grid: equal boxes, exact thresholds (IoU 0.5) and nested boxes all occur often.
boxes = st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(1, 3), st.integers(1, 3)).map(
    lambda b: (10.0 * b[0], 10.0 * b[1], 10.0 * (b[0] + b[2]), 10.0 * (b[1] + b[3]))
)
scores = st.one_of(st.none(), st.sampled_from((0.25, 0.5, 1.0)))


@st.composite
def scene_graphs(draw, scored=False, max_objects=5, max_relations=8):
    score = scores if scored else st.none()
    objects = draw(
        st.lists(st.builds(SceneObject, st.sampled_from(LABELS), boxes, score), max_size=max_objects).map(tuple)
    )
    if not objects:
        return SceneGraph()
    index = st.integers(0, len(objects) - 1)
    relation = st.builds(Relation, index, st.sampled_from(PREDICATES), index, score)
    return SceneGraph(objects, draw(st.lists(relation, max_size=max_relations).map(tuple)))


@st.composite
def data_sets(draw, scored=False, max_images=4):
    """Predictions and targets. Half of the predictions start from the target, so that hits are common."""
    predicted, targets = [], []
    for _ in range(draw(st.integers(1, max_images))):
        target, other = draw(scene_graphs()), draw(scene_graphs(scored=scored))
        if draw(st.booleans()) and target.objects:
            objects = target.objects + other.objects
            shift = len(target.objects)
            moved = tuple(
                Relation(entry.subject + shift, entry.predicate, entry.object + shift, entry.score)
                for entry in other.relations
            )
            other = SceneGraph(objects, moved + target.relations)
        predicted.append(other)
        targets.append(target)
    return predicted, targets
