"""Statistics on hand-counted data."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from scenerl.data.inspect.statistics import Statistics, tables
from scenerl.data.vocabulary import Vocabulary
from scenerl.types import Example, Relation, SceneGraph, SceneObject


def example(*objects: tuple[str, tuple], relations=(), query=None) -> Example:
    graph = SceneGraph(
        tuple(SceneObject(label, box) for label, box in objects), tuple(Relation(*relation) for relation in relations)
    )
    return Example("a", 10, 10, graph, query=query)


MAN, DOG = ("man", (0, 0, 5, 10)), ("dog", (0, 0, 1, 1))
EXAMPLES = [
    example(MAN, DOG, relations=[(0, "on", 1), (1, "by", 0)]),
    example(MAN, DOG, relations=[(0, "on", 1)]),
    example(),
    example(DOG),
]


def test_counts():
    value = Statistics.of(EXAMPLES).as_dict()
    assert value["num_images"] == 4 and value["num_boxes"] == 5 and value["num_relations"] == 3
    assert value["objects"] == ["dog", "man"] and value["predicates"] == ["on", "by"]
    assert value["object_counts"] == {"dog": 3, "man": 2} and value["predicate_counts"] == {"on": 2, "by": 1}
    assert value["num_triplet_types"] == 2  # man on dog, dog by man
    # 2, 2, 0, 1 boxes: mean 5/4, median (1 + 2) / 2; 2, 1, 0, 0 relations
    assert value["boxes_per_image"] == {"mean": 1.25, "median": 1.5, "min": 0, "max": 2, "num_zero": 1}
    assert value["relations_per_image"] == {"mean": 0.75, "median": 0.5, "min": 0, "max": 2, "num_zero": 2}
    # areas 0.5, 0.01, 0.5, 0.01, 0.01
    assert value["box_area_quantiles"]["0.5"] == pytest.approx(0.01)
    assert value["box_area_quantiles"]["0.95"] == pytest.approx(0.5)


def test_zero_shot_triplets_are_those_unseen_in_training():
    test = Statistics.of(
        [example(MAN, DOG, relations=[(0, "on", 1), (0, "by", 1)]), example(MAN, DOG, relations=[(0, "by", 1)])]
    )
    seen = Statistics.of(EXAMPLES)
    assert test.as_dict(seen.triplets)["zero_shot"] == {
        "num_types": 1,
        "num_relations": 2,
        "triplets": [["man", "by", "dog"]],
    }
    assert seen.zero_shot(seen.triplets)["num_types"] == 0


def test_triplets_file():
    assert Statistics.of(EXAMPLES).triplets_dict() == {
        "triplets": [["man", "on", "dog"], ["dog", "by", "man"]],
        "predicate_counts": {"on": 2, "by": 1},
    }


def test_absent_queries_are_counted_and_belong_to_the_vocabulary():
    value = Statistics.of([example(MAN, query=("man", "unicorn")), example(query=("man",))]).as_dict()
    assert value["query_counts"] == {"man": 2, "unicorn": 1}
    assert value["num_absent_queries"] == 2
    assert value["objects"] == ["man", "unicorn"]


def test_the_file_serves_as_a_vocabulary(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps(Statistics.of(EXAMPLES).as_dict()))
    assert Vocabulary.read(tmp_path / "s.json") == Vocabulary(("dog", "man"), ("on", "by"))


@pytest.mark.parametrize("examples", [EXAMPLES, [example()], [], [example(("[red]x[/]", (0, 0, 1, 1)), query=("a",))]])
def test_tables_print_whatever_is_there(examples):
    console = Console(file=io.StringIO(), width=120)
    statistics = Statistics.of(examples)
    console.print(tables(statistics, seen=statistics.triplets, top=1))
    assert f"{len(examples)}" in console.file.getvalue()
    if examples and examples[-1].query:
        assert "[red]x[/]" in console.file.getvalue()
