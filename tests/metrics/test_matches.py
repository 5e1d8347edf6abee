"""What a gallery shows of an image is what the metrics count of it."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.graphs import QUICK, data_sets, graph, pair, pairs_of
from scenerl.metrics import evaluate, matches_of
from scenerl.types import Issue

DROPPED = (Issue("no_area", "objects[7]"), Issue("dangling_relation", "relationships[1]"))


def check(both, options):
    """F1, precision, recall and recall over all predictions of one image, by both routes."""
    found, metrics = matches_of(both, options), evaluate([both], options).metrics
    kinds = [("object", found.objects)] + [("triplet", found.relations)] * (options.task != "det")
    for name, side in kinds:
        f1 = metrics[f"{name}_f1"].value
        assert side.f1 == (1.0 if f1 is None else pytest.approx(f1, abs=1e-12))
        precision, recall = metrics[f"{name}_precision"].value, metrics[f"{name}_recall"].value
        assert precision == (side.num_matched / side.num_predicted if side.num_predicted else None)
        assert recall == (side.num_matched / side.num_targets if side.num_targets else None)
        for target, fits in zip(side.target, side.fits, strict=True):
            assert target is None or target in fits
    if options.task != "det" and found.relations.num_targets:
        expected = sum(found.relations.found) / found.relations.num_targets
        assert metrics["Recall"].value == pytest.approx(expected, abs=1e-12)


@settings(max_examples=50)
@given(data_sets(scored=True), st.sampled_from(["sgdet", "sgcls", "predcls", "det"]), st.booleans())
def test_the_matches_of_an_image_are_those_of_its_evaluation(data, task, dropped):
    options = dataclasses.replace(QUICK, task=task)
    for both in pairs_of(*data):
        if dropped:
            both = dataclasses.replace(both, result=dataclasses.replace(both.result, issues=DROPPED))
        check(both, options)
        check(both, dataclasses.replace(options, plus_one=True, iou_threshold=0.7))


def test_indices_are_those_of_the_answer():
    target = graph([("dog", (0, 0, 10, 10)), ("cat", (20, 0, 30, 10))], [(0, "on", 1)])
    answer = graph(
        [("hat", (90, 90, 95, 95)), ("cat", (20, 0, 30, 10)), ("dog", (0, 0, 10, 10))],
        [(0, "on", 1), (2, "on", 1), (2, "on", 1)],
    )
    for task in ("sgdet", "predcls"):
        found = matches_of(pair(answer, target), dataclasses.replace(QUICK, task=task))
        assert found.objects.target == (None, 1, 0)
        assert found.relations.fits == ((), (0,), (0,))
        assert sorted(found.relations.target, key=str) == [0, None, None]
        assert found.relations.found == (True,)


def test_a_failed_answer_matches_nothing():
    found = matches_of(pair(None, graph([("dog", (0, 0, 10, 10))]), status="truncated"))
    assert (found.objects.target, found.objects.f1, found.relations.f1) == ((), 0.0, 1.0)
