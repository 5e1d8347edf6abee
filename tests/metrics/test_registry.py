"""One list of metrics: nothing is computed that it lacks, and it says how to show everything."""

from __future__ import annotations

import pytest

from metrics.graphs import graph, pair
from scenerl.metrics import MetricOptions, evaluate
from scenerl.metrics.precision import RatioMetrics
from scenerl.metrics.registry import METRICS, headline, ordered, spec, spec_or_plain

BOXES = [("dog", (0, 0, 10, 10)), ("cat", (20, 0, 30, 10))]
TARGET = graph(BOXES, [(0, "on", 1)])
KS = (5, 70)


def every_metric() -> set[str]:
    """Names of everything that the tasks can compute together."""
    names = set()
    for task, target, query in (
        ("sgdet", TARGET, None),
        ("predcls", TARGET, None),
        ("det", TARGET, ("dog", "hat")),
        ("det", graph(BOXES[:1]), ("dog",)),
    ):
        options = MetricOptions(task=task, ks=KS, bootstrap_samples=0)
        one = pair(target, target, query=query)
        names |= set(evaluate([one], options, set(), {"on": 2, "near": 1, "at": 1}).metrics)
    return names


def test_every_registered_metric_is_computed_and_every_computed_one_registered():
    patterns = {spec(name).name for name in every_metric()}
    expected = set()
    for entry in METRICS:
        for k in KS if "@K" in entry.name else KS[:1]:
            groups = ("head", "body", "tail") if entry.name.endswith("_GROUP") else ("",)
            expected |= {entry.name.replace("@K", f"@{k}").replace("GROUP", group) for group in groups}
    assert patterns == expected


def test_a_metric_that_is_not_registered_cannot_be_computed(monkeypatch):
    """It used to be computed and then to be missing from every table, file and page."""
    original = RatioMetrics.add

    def add(self, name, *rows):
        original(self, "novel_metric" if name == "object_f1" else name, *rows)
        original(self, name, *rows)

    monkeypatch.setattr(RatioMetrics, "add", add)
    with pytest.raises(KeyError, match="novel_metric"):
        evaluate([pair(TARGET, TARGET)], MetricOptions(bootstrap_samples=0))


def test_specs_fill_in_their_placeholders():
    assert spec("ng-mR@7_tail").title == "ng-mR@7, tail"
    assert spec("NMS-AP/color").title == "NMS-AP (color)"
    for name in ("R@", "R@50_head", "mR@50_middle", "AP60", ""):
        with pytest.raises(KeyError):
            spec(name)
        assert spec_or_plain(name).title == name
    for entry in METRICS:
        assert entry.better in ("higher", "lower", "") and entry.unit in ("%", "") and entry.why_missing
        assert (entry.unit == "") == entry.name.endswith("_per_image")


def test_order_and_headline():
    assert ordered(["mR@50_tail", "R@100", "mR@20_tail", "R@20", "mR@20_head", "AP/b", "AP/a", "old"]) == [
        "R@20", "R@100", "mR@20_head", "mR@20_tail", "mR@50_tail", "old", "AP/b", "AP/a"
    ]  # fmt: skip
    graphs = headline([name for name in every_metric() if not name.startswith("NMS")])
    assert {"Recall", "R@70", "mR@70", "triplet_precision", "relations_per_image"} <= set(graphs)
    assert "R@5" not in graphs
    assert "R@50" in headline(["Recall", "R@50", "R@100"])
    assert headline(["AP", "AP50", "object_f1", "failure_rate"]) == ["failure_rate", "object_f1", "AP", "AP50"]
