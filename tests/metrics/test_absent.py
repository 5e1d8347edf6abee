"""Boxes for labels of the query that the image lacks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from metrics.graphs import graph, pair, values
from scenerl.metrics import MetricOptions, evaluate
from scenerl.types import SceneObject

DET = MetricOptions(task="det", bootstrap_samples=0)
BOX = (0, 0, 10, 10)
QUERY = ("dog", "cat", "hat")


def queried(predicted: list[str], target: list[str], image_id: str = "1", query=QUERY, **kwargs):
    graphs = [graph([(label, BOX) for label in labels]) for labels in (predicted, target)]
    return replace(pair(*graphs, image_id=image_id, **kwargs), query=query)


def test_boxes_and_share_of_absent_labels():
    found = values(
        [
            queried(["dog", "cat", "cat"], ["dog"], "1"),  # absent: cat (2 boxes), hat (none)
            queried(["dog"], [], "2"),  # absent: dog (1 box), cat, hat
            queried(["dog", "dog"], ["dog", "cat", "hat"], "3"),  # none absent
        ],
        DET,
    )
    assert found["absent_boxes_per_image"] == pytest.approx(3 / 3)
    assert found["absent_answered"] == pytest.approx(2 / 5)


def test_other_labels_crowds_and_failed_answers_do_not_count():
    found = values(
        [
            queried(["sofa"], [], "1"),  # not in the query
            queried(["cat"], [], "2", crowds=[SceneObject("cat", BOX)]),  # a crowd of cats is there
            queried([], [], "3", status="empty"),
        ],
        DET,
    )
    assert found["absent_boxes_per_image"] == 0
    assert found["absent_answered"] == 0  # of 3 + 2 + 3 labels


def test_without_absent_labels_in_the_queries_there_is_no_such_metric():
    for one in (queried(["dog"], ["dog"], query=("dog",)), queried(["dog"], ["dog"], query=None)):
        assert not any(name.startswith("absent") for name in values([one], DET))
    assert not any(name.startswith("absent") for name in values([queried(["dog"], [])]))  # task sgdet


def test_intervals():
    report = evaluate(
        [queried(["dog"], [], str(n)) for n in range(5)] + [queried([], [], "none")],
        MetricOptions(task="det", bootstrap_samples=200),
    )
    (low, high), value = report.metrics["absent_answered"].interval, report.metrics["absent_answered"].value
    assert value == pytest.approx(5 / 18)
    assert 0 < low < value < high < 0.34  # at the most every image is one of the five: 5/15
