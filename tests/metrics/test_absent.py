"""Boxes for labels that are asked for and absent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from metrics.graphs import graph, pair, values
from scenerl.metrics import MetricOptions, evaluate
from scenerl.types import SceneObject

DET = MetricOptions(task="det", bootstrap_samples=0)
BOX = (0, 0, 10, 10)
QUERY = ("dog", "cat", "hat")


def asked(predicted: list[str], target: list[str], image_id: str = "1", query=QUERY, **kwargs):
    graphs = [graph([(label, BOX) for label in labels]) for labels in (predicted, target)]
    return replace(pair(*graphs, image_id=image_id, **kwargs), query=query)


def test_boxes_and_share_of_absent_labels():
    found = values(
        [
            asked(["dog", "cat", "cat"], ["dog"], "1"),  # absent: cat (2 boxes), hat (none)
            asked(["dog"], [], "2"),  # absent: dog (1 box), cat, hat
            asked(["dog", "dog"], ["dog", "cat", "hat"], "3"),  # none absent
        ],
        DET,
    )
    assert found["absent_boxes_per_image"] == pytest.approx(3 / 3)
    assert found["absent_answered"] == pytest.approx(2 / 5)


def test_other_labels_crowds_and_failed_answers_do_not_count():
    found = values(
        [
            asked(["sofa"], [], "1"),  # not asked for
            asked(["cat"], [], "2", crowds=[SceneObject("cat", BOX)]),  # a crowd of cats is there
            asked([], [], "3", status="empty"),
        ],
        DET,
    )
    assert found["absent_boxes_per_image"] == 0
    assert found["absent_answered"] == 0  # of 3 + 2 + 3 labels


def test_where_nothing_absent_is_asked_for_there_is_no_such_metric():
    for one in (asked(["dog"], ["dog"], query=("dog",)), asked(["dog"], ["dog"], query=None)):
        assert not any(name.startswith("absent") for name in values([one], DET))
    assert not any(name.startswith("absent") for name in values([asked(["dog"], [])]))  # task sgdet


def test_intervals():
    report = evaluate(
        [asked(["dog"], [], str(n)) for n in range(5)] + [asked([], [], "none")],
        MetricOptions(task="det", bootstrap_samples=200),
    )
    (low, high), value = report.metrics["absent_answered"].interval, report.metrics["absent_answered"].value
    assert value == pytest.approx(5 / 18)
    assert 0 < low < value < high < 0.34  # at the most every image is one of the five: 5/15
