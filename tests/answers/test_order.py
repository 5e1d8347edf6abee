"""The order of objects in SFT targets."""

from __future__ import annotations

from typing import get_args

import pytest

from scenerl.answers import OutputFormat
from scenerl.answers.dialogue import Conversation
from scenerl.answers.order import ORDERS, in_order
from scenerl.commands.sft import SFTOptions
from scenerl.config.options import field_types
from scenerl.types import Example, Relation, SceneGraph, SceneObject

# areas 400, 1600, 100, 400; left edges 50, 10, 10, 0
OBJECTS = (
    SceneObject("cat", (50, 0, 70, 20)),
    SceneObject("dog", (10, 30, 50, 70)),
    SceneObject("ant", (10, 20, 20, 30)),
    SceneObject("cat", (0, 80, 20, 100)),
)
# the first cat sees the dog, the dog is over the second cat, the first cat is near the ant, and once more sees the dog
GRAPH = SceneGraph(OBJECTS, (Relation(0, "sees", 1), Relation(1, "over", 3), Relation(0, "near", 2)))


@pytest.mark.parametrize(
    ("order", "objects", "relations"),
    [
        ("annotated", [0, 1, 2, 3], [(0, "sees", 1), (1, "over", 3), (0, "near", 2)]),
        # x1 0, 10, 10, 50; of the two at 10 the ant's top is higher: cat 3, ant 2, dog 1, cat 0
        ("left_to_right", [3, 2, 1, 0], [(2, "over", 0), (3, "near", 1), (3, "sees", 2)]),
        # 1600, then 400 twice as annotated, then 100: dog 1, cat 0, cat 3, ant 2
        ("size", [1, 0, 3, 2], [(0, "over", 2), (1, "sees", 0), (1, "near", 3)]),
        # ant 2, cat 0, cat 3, dog 1
        ("class", [2, 0, 3, 1], [(1, "near", 0), (1, "sees", 3), (3, "over", 2)]),
    ],
)
def test_orders(order, objects, relations):
    ordered = in_order(GRAPH, order)
    assert list(ordered.objects) == [OBJECTS[index] for index in objects]
    assert list(ordered.relations) == [Relation(*edge) for edge in relations]
    assert sorted(map(ordered.triplet, ordered.relations)) == sorted(map(GRAPH.triplet, GRAPH.relations))


def test_a_vocabulary_orders_classes_and_labels_outside_come_last():
    labels = [item.label for item in in_order(GRAPH, "class", ("dog", "cat")).objects]
    assert labels == ["dog", "cat", "cat", "ant"]


def test_relations_between_one_pair_stay_as_annotated():
    graph = SceneGraph(OBJECTS[:2], (Relation(0, "sees", 1), Relation(1, "on", 0), Relation(0, "at", 1)))
    assert [edge.predicate for edge in in_order(graph, "size").relations] == ["on", "sees", "at"]


@pytest.mark.parametrize("order", ORDERS)
def test_nothing_has_any_order(order):
    assert in_order(SceneGraph(), order) == SceneGraph()


def completion(output_format: OutputFormat, order: str, **fields) -> str:
    conversation = Conversation(output_format)
    message = conversation.completion(Example("one", 100, 100, GRAPH, **fields), order=order)[0]
    return message["content"][0]["text"]


def test_ids_follow_the_order():
    assert completion(OutputFormat("compact", step=100), "left_to_right") == (
        "cat 0 800 200 1000\nant 100 200 200 300\ndog 100 300 500 700\ncat 500 0 700 200\n\n"
        "3 over 1\n4 near 2\n4 sees 3\nend"
    )
    text = completion(OutputFormat("json"), "left_to_right")
    places = [text.index(f'{{"id": "{id_}"') for id_ in ("cat.1", "ant.2", "dog.3", "cat.4")]
    assert places == sorted(places)
    assert '{"subject": "dog.3", "predicate": "over", "object": "cat.1"}' in text


def test_the_query_orders_detections():
    query = ("dog", "ant", "cat", "eel")
    text = completion(OutputFormat("detections", step=100), "class", query=query)
    places = [text.index(f'"{label}"') for label in ("dog", "ant", "cat")]
    assert places == sorted(places)


def test_provided_objects_keep_the_order_of_the_prompt():
    output_format = OutputFormat("compact", provided="boxes")
    assert completion(output_format, "size") == completion(output_format, "annotated")


def test_the_option_names_them():
    assert get_args(field_types(SFTOptions)["box_order"]) == tuple(ORDERS)
