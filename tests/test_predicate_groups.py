"""Head, body and tail have one definition, which data statistics and metrics share."""

from __future__ import annotations

import itertools

from metrics.graphs import QUICK, graph, pair
from scenerl.data.inspect.statistics import Statistics
from scenerl.metrics import evaluate
from scenerl.predicate_groups import predicate_groups
from scenerl.types import Example


def test_groups_cover_every_predicate_once():
    counts = {f"p{n}": n for n in range(50)}
    groups = predicate_groups(counts)
    assert [len(members) for members in groups.values()] == [17, 17, 16]
    assert sorted(itertools.chain.from_iterable(groups.values())) == sorted(counts)
    assert groups["head"][0] == "p49"
    assert predicate_groups({}) == {"head": (), "body": (), "tail": ()}
    assert predicate_groups({"on": 1})["head"] == ("on",)


def test_data_statistics_and_metrics_agree():
    """They used to cut 50 predicates into 16/17/17 and 17/17/16."""
    boxes = [("dog", (0, 0, 10, 10)), ("cat", (20, 0, 30, 10))]
    relations = [(0, f"p{n}", 1) for n in range(50)]
    target = graph(boxes, relations)
    statistics = Statistics.of([Example("1", 100, 100, target)])
    table = evaluate([pair(target, target)], QUICK, predicate_counts=statistics.predicates).per_predicate
    for group, members in statistics.as_dict()["predicate_groups"].items():
        assert sorted(members) == sorted(name for name, row in table.items() if row["group"] == group)
