"""Given objects: a detector's files, and the answer that fits them."""

from __future__ import annotations

import json

import pytest

from scenerl import data
from scenerl.answers.provided import answer_graph
from scenerl.data.jsonl import write_jsonl
from scenerl.data.provided import DetectorBoxes, read_boxes
from scenerl.errors import DataError
from scenerl.types import Example, Relation, SceneGraph, SceneObject

MAN, HORSE, HAT = (
    SceneObject("man", (0, 0, 40, 80)),
    SceneObject("horse", (20, 40, 90, 100)),
    SceneObject("hat", (10, 0, 20, 8)),
)
GRAPH = SceneGraph((MAN, HORSE, HAT), (Relation(0, "on", 1), Relation(0, "wearing", 2), Relation(1, "under", 0)))
EXAMPLE = Example("7", 100, 100, GRAPH)


def result(image_id, category, bbox, score=0.9) -> dict:
    return {"image_id": image_id, "category_id": category, "bbox": bbox, "score": score}


def write(folder, value):
    path = folder / "boxes.json"
    path.write_text(json.dumps(value))
    return path


def test_results_by_falling_score_cut_to_the_image(tmp_path):
    rows = [
        result(7, "man", [0, 0, 40, 80], 0.5),
        result(7, "horse", [20, 40, 70, 90], 0.8),
        result(7, "far", [200, 200, 5, 5], 0.7),
        result(7, "faint", [1, 1, 5, 5], 0.29),
        result(8, "man", [0, 0, 1, 1]),
    ]
    boxes = read_boxes(write(tmp_path, rows))
    assert len(boxes) == 2
    assert boxes.of(EXAMPLE) == (
        SceneObject("horse", (20, 40, 90, 100), 0.8),
        SceneObject("man", (0, 0, 40, 80), 0.5),
    )
    assert [item.label for item in read_boxes(write(tmp_path, rows), min_score=0).of(EXAMPLE)] == [
        "horse",
        "man",
        "faint",
    ]
    assert boxes.of(Example("9", 5, 5, SceneGraph())) == ()


@pytest.mark.parametrize(
    ("vocabulary", "number", "label"),
    [("coco", 13, "stop sign"), ("vg150", 1, "airplane"), ("psg", 0, "person"), ("psg", 132, "rug-merged")],
)
def test_numbers_are_named_by_a_vocabulary(tmp_path, vocabulary, number, label):
    path = write(tmp_path, [result(7, number, [0, 0, 5, 5])])
    assert read_boxes(path, vocabulary).of(EXAMPLE)[0].label == label
    with pytest.raises(
        DataError, match=r"boxes\.json, entry 0: the category .* has no name; allowed: a label, a number"
    ):
        read_boxes(path)


def test_a_file_with_categories_of_its_own(tmp_path):
    value = {"annotations": [result("7", 3, [0, 0, 5, 5])], "categories": [{"id": 3, "name": "dog"}]}
    for order in (value, dict(reversed(value.items()))):
        assert [item.label for item in read_boxes(write(tmp_path, order)).of(EXAMPLE)] == ["dog"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (5, "expected COCO results"),
        ({"category_id": "a", "bbox": [0, 0, 1, 1]}, "expected COCO results"),
        (result([1], "a", [0, 0, 1, 1]), "expected COCO results"),
        (result(7, "a", [0, 0, 1]), "four finite numbers"),
        (result(7, "a", [0, 0, "1", 1]), "four finite numbers"),
        (result(7, "a", [0, 0, None, 1]), "four finite numbers"),
        (result(7, "a", None), "four finite numbers"),
        (result(7, "a", [0, 0, 1, 1], "high"), "score must be a finite number"),
        (result(7, "a\nb", [0, 0, 1, 1]), "has no name"),
        (result(7, "", [0, 0, 1, 1]), "has no name"),
        (result(7, None, [0, 0, 1, 1]), "has no name"),
        (result(7, [1], [0, 0, 1, 1]), "has no name"),
        (result(7, True, [0, 0, 1, 1]), "has no name"),
    ],
)
def test_entries_that_cannot_be_used(tmp_path, entry, message):
    with pytest.raises(DataError, match=rf"boxes\.json, entry 1: .*{message}"):
        read_boxes(write(tmp_path, [result(7, "a", [0, 0, 1, 1]), entry]))


def test_they_become_the_examples_given_objects(tmp_path):
    row = {"width": 100, "height": 100, "objects": [], "relationships": []}
    write_jsonl(tmp_path / "rows.jsonl", [{**row, "image_id": "7"}, {**row, "image_id": "8"}])
    boxes = read_boxes(write(tmp_path, [result(7, "man", [0, 0, 40, 80])]))
    examples = data.load(tmp_path / "rows.jsonl", boxes=boxes)
    assert [[item.label for item in example.provided] for example in examples] == [["man"], []]
    assert [example.provided for example in data.load(tmp_path / "rows.jsonl")] == [None, None]
    elsewhere = read_boxes(write(tmp_path, [result(9, "man", [0, 0, 40, 80])]))
    with pytest.raises(DataError, match=r"boxes\.json: 1 image with a box, none of them in the data"):
        list(data.load(tmp_path / "rows.jsonl", boxes=elsewhere))


def test_the_answer_is_the_ground_truth_unless_a_detector_gave_the_objects():
    for provided in (None, "boxes", "objects"):
        assert answer_graph(EXAMPLE, provided) is GRAPH


def detected(*objects: tuple[str, tuple]) -> Example:
    boxes = DetectorBoxes()
    for n, (label, box) in enumerate(objects):
        boxes.add("7", label, box, 1.0 - n / 10)
    return Example("7", 100, 100, GRAPH, provided=boxes.of(EXAMPLE))


def test_relations_pass_to_the_objects_that_stand_for_theirs():
    """The horse is found first, the man with some pixels more, a tree where nothing is; the hat is not found."""
    found = detected(("horse", (20, 40, 90, 100)), ("tree", (60, 0, 90, 30)), ("man", (0, 0, 42, 80)))
    for provided in ("boxes", "objects"):
        graph = answer_graph(found, provided)
        assert [item.label for item in graph.objects] == ["horse", "tree", "man"]
        assert [item.box for item in graph.objects] == [item.box for item in found.provided]
        assert graph.relations == (Relation(2, "on", 0), Relation(0, "under", 2))


def test_labels_count_only_where_they_are_given():
    """The man is taken for a boy: where boxes are given the answer names him, where labels are it cannot."""
    found = detected(("boy", (0, 0, 40, 80)), ("horse", (20, 40, 90, 100)))
    assert [item.label for item in answer_graph(found, "boxes").objects] == ["man", "horse"]
    assert len(answer_graph(found, "boxes").relations) == 2
    assert [item.label for item in answer_graph(found, "objects").objects] == ["boy", "horse"]
    assert answer_graph(found, "objects").relations == ()


def test_one_stands_for_one():
    """Two boxes on the man: the better scored one stands for him."""
    found = detected(("man", (0, 0, 40, 70)), ("man", (0, 0, 40, 80)), ("horse", (20, 40, 90, 100)))
    assert answer_graph(found, "objects").relations == (Relation(0, "on", 2), Relation(2, "under", 0))
    assert answer_graph(detected(), "objects") == SceneGraph()


@pytest.mark.parametrize("categories", [True, 5, {"id": 1}, "dog"])
def test_categories_that_are_no_list(tmp_path, categories):
    path = write(tmp_path, {"annotations": [result(1, 1, [0, 0, 5, 5])], "categories": categories})
    with pytest.raises(DataError, match=r"boxes\.json: categories must be a list"):
        read_boxes(path)


@pytest.mark.parametrize("numbers", [True, 5, [1], [1, []], ["1", "2"]])
def test_numbers_of_a_vocabulary_that_are_none(tmp_path, numbers):
    vocabulary = tmp_path / "vocabulary.json"
    vocabulary.write_text(json.dumps({"objects": ["dog", "cat"], "predicates": [], "category_ids": numbers}))
    with pytest.raises(DataError, match=r"vocabulary\.json: category_ids must be a whole number for each label"):
        read_boxes(write(tmp_path, [result(1, 1, [0, 0, 5, 5])]), vocabulary)
