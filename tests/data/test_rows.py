"""Rows to examples and back, and every way in which a row can be wrong."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenerl.data.rows import example_to_row, excerpt, label_of, read_row
from scenerl.errors import DataError
from scenerl.types import Example, Relation, SceneGraph, SceneObject


def parse_row(*row) -> tuple[Example, list[str]]:
    record = read_row(*row)
    return record.unwrap(), [f"{row[1]}: {warning}" for warning in record.warnings]


GOOD = {
    "image_id": "a",
    "file_name": "a.jpg",
    "width": 100,
    "height": 50,
    "objects": [{"id": "man.1", "bbox": [0, 1, 20, 40]}, {"id": "old bike.2", "bbox": [10.5, 5, 100, 50]}],
    "relationships": [{"subject": "man.1", "predicate": "riding", "object": "old bike.2"}],
}
DETECTION = {
    "image_id": 7,
    "width": 100,
    "height": 50,
    "query": ["man", "dog"],
    "detections": [{"label": "man", "bbox_2d": [0, 1, 20, 40]}],
}


def changed(path: str, value: object, row: dict = GOOD) -> dict:
    """A copy of the row with one place changed, ``objects/0/bbox``; the value ``...`` deletes it."""
    row = copy.deepcopy(row)
    *parents, last = [int(part) if part.isdecimal() else part for part in path.split("/")]
    place = row
    for part in parents:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return row


def test_scene_graph_row():
    example, warnings = parse_row(GOOD, "here", Path("/pictures"))
    assert example == Example(
        "a",
        100,
        50,
        SceneGraph(
            (SceneObject("man", (0, 1, 20, 40)), SceneObject("old bike", (10.5, 5, 100, 50))),
            (Relation(0, "riding", 1),),
        ),
        Path("/pictures/a.jpg"),
    )
    assert warnings == []


def test_detection_row():
    example, warnings = parse_row(DETECTION, "here")
    assert example == Example("7", 100, 50, SceneGraph((SceneObject("man", (0, 1, 20, 40)),)), None, ("man", "dog"))
    assert warnings == []


def test_file_name_absolute_or_relative_to_the_images():
    assert parse_row(changed("file_name", "/x/a.jpg"), "w", Path("/pictures"))[0].image == Path("/x/a.jpg")
    assert parse_row(GOOD, "w")[0].image is None
    assert parse_row(changed("file_name", ...), "w", Path("/pictures"))[0].image is None


@pytest.mark.parametrize("row", [GOOD, DETECTION])
def test_row_of_an_example_reads_as_the_same_example(row):
    example, _ = parse_row(row, "w", Path("/pictures"))
    written = json.loads(json.dumps(example_to_row(example)))
    assert parse_row(written, "w", Path("/pictures"))[0] == example


def test_labels_end_before_the_last_dot_number():
    ids = {"person.1": "person", "st. bernard.12": "st. bernard", "v1.2.3": "v1.2", "dog": "dog", "a.b": "a.b"}
    assert {object_id: label_of(object_id) for object_id in ids} == ids


BAD = [
    ("image_id", ..., "'image_id' is missing"),
    ("width", ..., "'width' is missing"),
    ("height", ..., "'height' is missing"),
    ("objects", ..., "'objects' is missing; a detection row has 'detections' instead"),
    ("relationships", ..., "'relationships' is missing"),
    ("image_id", "", "image_id must be a text"),
    ("image_id", None, "image_id must be a text"),
    ("image_id", True, "image_id must be a text"),
    ("file_name", 3, "file_name must be the name of an image file"),
    ("file_name", "a\0b", "file_name must be the name of an image file"),
    ("width", 0, "width must be a whole number of pixels from 1"),
    ("width", -3, "width must be"),
    ("width", 2.5, "width must be"),
    ("width", math.nan, "width must be"),
    ("width", math.inf, "width must be"),
    ("width", "100", "width must be"),
    ("width", True, "width must be"),
    ("height", 10**9, "height must be"),
    ("objects", {}, "objects must be a list, found an object"),
    ("objects", None, "objects must be a list, found null"),
    ("objects/0", [1], "objects[0] must be a JSON object"),
    ("objects/0/id", ..., "objects[0] lacks 'id'; it has ['bbox']"),
    ("objects/0/bbox", ..., "objects[0] lacks 'bbox'"),
    ("objects/0/id", 5, "the id of objects[0] must be a text"),
    ("objects/0/id", " ", "the id of objects[0] must be a text of 1 to 256 characters"),
    ("objects/0/id", ".1", "no label before its number"),
    ("objects/0/id", "a\ud800.1", "lone surrogates"),
    ("objects/0/id", "a\x00.1", "control characters"),
    ("objects/0/id", "x" * 300, "1 to 256 characters"),
    ("relationships/0/predicate", "on <answer>", "or the tags <think>"),
    ("objects/1/id", "man.1", "two objects have the id 'man.1'"),
    ("objects/0/bbox", [0, 0, 5], "the box of objects[0] ('man.1') must be four finite numbers"),
    ("objects/0/bbox", [0, 0, 5, 5, 5], "four finite numbers"),
    ("objects/0/bbox", "0 0 5 5", "four finite numbers"),
    ("objects/0/bbox", [0, 0, math.nan, 5], "four finite numbers"),
    ("objects/0/bbox", [0, 0, math.inf, 5], "four finite numbers"),
    ("objects/0/bbox", [0, 0, 10**400, 5], "four finite numbers"),
    ("objects/0/bbox", [0, 0, "5", 5], "four finite numbers"),
    ("objects/0/bbox", [0, 0, True, 5], "four finite numbers"),
    ("objects/0/bbox", [0, 0, None, 5], "four finite numbers"),
    ("objects/0/bbox", [20, 1, 0, 40], "must have x1 < x2 and y1 < y2, found [20, 1, 0, 40]"),
    ("objects/0/bbox", [0, 40, 20, 1], "must have x1 < x2 and y1 < y2"),
    ("objects/0/bbox", [5, 5, 5, 9], "must have x1 < x2"),
    ("objects/0/bbox", [200, 5, 300, 9], "lies outside the image (100 x 50)"),
    ("objects/0/bbox", [-30, 5, 0, 9], "lies outside the image"),
    ("relationships", "x", "relationships must be a list"),
    ("relationships/0", "x", "relationships[0] must be a JSON object"),
    ("relationships/0/subject", ..., "relationships[0] lacks 'subject'"),
    ("relationships/0/predicate", ..., "relationships[0] lacks 'predicate'"),
    ("relationships/0/object", ..., "relationships[0] lacks 'object'"),
    ("relationships/0/predicate", "", "the predicate of relationships[0] must be a text"),
    ("relationships/0/subject", "dog.9", "the subject of relationships[0] is 'dog.9', but no object has this id"),
    ("relationships/0/object", "dog.9", "the object of relationships[0] is 'dog.9'"),
    ("relationships/0/object", ["man.1"], "the object of relationships[0] must be a text"),
    ("detections", [], "not both"),
]


@pytest.mark.parametrize(("path", "value", "message"), BAD)
def test_bad_row(path, value, message):
    with pytest.raises(DataError) as caught:
        parse_row(changed(path, value), "rows.jsonl, row 4")
    assert str(caught.value).startswith("rows.jsonl, row 4: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("detections/0/label", ..., "detections[0] lacks 'label'"),
        ("detections/0/bbox_2d", ..., "detections[0] lacks 'bbox_2d'"),
        ("detections/0/bbox_2d", [3, 3, 1, 1], "the box of detections[0] ('man') must have x1 < x2"),
        ("detections", None, "detections must be a list"),
        ("query", "man", "query must be a list"),
        ("query", ["man", 3], "query[1] must be a text"),
        ("query", ["man", "man"], "query names a label twice"),
        ("query", ["dog"], "labels in detections that query does not list: ['man']"),
    ],
)
def test_bad_detection_row(path, value, message):
    with pytest.raises(DataError, match="w: ") as caught:
        parse_row(changed(path, value, DETECTION), "w")
    assert message in str(caught.value)


@pytest.mark.parametrize("row", [None, 3, "x", [], [GOOD]])
def test_row_that_is_no_object(row):
    with pytest.raises(DataError, match="a row must be a JSON object"):
        parse_row(row, "w")


def test_all_errors_of_a_row_are_collected_and_the_first_is_raised():
    row = changed("objects/0/bbox", [9, 9, 1, 1], changed("relationships/0/object", "dog.9"))
    record = read_row(row, "w")
    assert len(record.errors) == 2 and record.example is None
    with pytest.raises(DataError, match=r"\(and 1 more in this row\)"):
        parse_row(row, "w")


def test_a_relation_to_an_object_with_a_bad_box_is_not_an_error_of_its_own():
    assert len(read_row(changed("objects/1/bbox", [9, 9, 1, 1]), "w").errors) == 1


def test_messages_are_bounded():
    for value in ("x" * 10**6, list(range(10**5)), {str(n): n for n in range(10**4)}, b"x" * 10**6):
        assert len(excerpt(value)) <= 80
    with pytest.raises(DataError) as caught:
        parse_row(changed("objects", "x" * 10**6), "w")
    assert len(str(caught.value)) < 400


def test_box_that_leaves_the_image_is_clipped_with_a_warning():
    example, warnings = parse_row(changed("objects/1/bbox", [-1, 5, 101, 50.5]), "rows.jsonl, row 4")
    assert example.graph.objects[1].box == (0, 5, 100, 50)
    assert len(warnings) == 1
    assert warnings[0].startswith("rows.jsonl, row 4: the box of objects[1] ('old bike.2') leaves the image (100 x 50)")


def test_repeated_and_self_relations_are_left_out_with_a_warning():
    relation = GOOD["relationships"][0]
    row = changed("relationships", [relation, relation, {**relation, "subject": "old bike.2"}])
    example, warnings = parse_row(row, "w")
    assert example.graph.relations == (Relation(0, "riding", 1),)
    assert len(warnings) == 2 and "repeats an earlier relation" in warnings[0] and "to itself" in warnings[1]


def test_query_left_out_is_made_of_the_labels_with_a_warning():
    example, warnings = parse_row(changed("query", ..., DETECTION), "w")
    assert example.query == ("man",)
    assert len(warnings) == 1


def test_white_space_in_labels_is_tidied_and_ids_still_agree():
    row = changed("objects/0/id", " man \n.1", changed("relationships/0/subject", "man .1 "))
    example, _ = parse_row(row, "w")
    assert example.graph.objects[0].label == "man"
    assert example.graph.relations == (Relation(0, "riding", 1),)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("man.1"),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(["id", "bbox", "subject", "predicate", "object", "label", "bbox_2d"]), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(
        [
            "objects",
            "relationships",
            "objects/0",
            "objects/0/id",
            "objects/0/bbox",
            "relationships/0",
            "relationships/0/subject",
            "width",
            "image_id",
            "file_name",
        ]
    ),
    values,
)
def test_any_json_in_any_place_gives_an_example_or_a_data_error(path, value):
    record = read_row(changed(path, value), "w")
    assert (record.example is None) == bool(record.errors)
    if record.example is not None:
        for found in record.example.graph.objects:
            x1, y1, x2, y2 = found.box
            assert 0 <= x1 < x2 <= record.example.width and 0 <= y1 < y2 <= record.example.height
