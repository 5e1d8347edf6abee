"""Lists of boxes as models write them in place of the one list that was requested."""

from __future__ import annotations

import pytest

from scenerl.answers import OutputFormat, locate_elements, parse_answer

DOG, CAT = ("dog", (1, 2, 30, 40)), ("cat", (5, 6, 70, 80))
A, B = '{"bbox_2d": [1, 2, 30, 40], "label": "dog"}', '{"bbox_2d": [5, 6, 70, 80], "label": "cat"}'


def read(text, **options):
    return parse_answer(text, OutputFormat("detections", box_format="pixels", **options), (100, 100))


def found(text, **options):
    result = read(text, **options)
    assert result.ok and not result.issues, result
    return [(item.label, item.box) for item in result.graph.objects]


@pytest.mark.parametrize(
    "text",
    [
        f"[{A}, {B}]",
        f"{A}\n{B}",
        f"{A}, {B}",
        f"Dogs:\n[{A}]\nCats:\n[{B}]",
        f"```json\n[{A}]\n```\n```json\n[{B}]\n```",
        f"[{A}]\n[]\n[{B}]",
        f"[{A}]\n[{B}]\n[]",
        f"[{A}]\nAnd then\n[{A}, {B}]",  # what a later list repeats counts once
        f"dog\n[{A}]\ncat\nNone\n[{B}]",
        f'{{"objects": [{A}, {B}]}}',
        '{"dog": [[1, 2, 30, 40]], "cat": [[5, 6, 70, 80]], "cow": []}',
        '{"dog": [1, 2, 30, 40], "cat": [5, 6, 70, 80]}',
        '{"dog": [{"bbox": [1, 2, 30, 40]}], "cat": [{"bbox": [5, 6, 70, 80]}]}',
        "dog: [[1, 2, 30, 40]]\ncat: [5, 6, 70, 80]\ncow: []",
        "Boxes of what I found in this image: dog: [[1, 2, 30, 40]]\ncat：[5, 6, 70, 80]",
        '- **dog**: [[1, 2, 30, 40]]\n- "cat": [[5, 6, 70, 80]]',
        'dog:\n```json\n[{"bbox_2d": [1, 2, 30, 40]}]\n```\ncat:\n```json\n[{"bbox_2d": [5, 6, 70, 80]}]\n```',
        '[{"bbox": [1, 2, 30, 40], "name": "dog"}, {"box": [5, 6, 70, 80], "category": "cat"}]',
        '[{"x": 7, "box": {"x1": 1, "y1": 2, "x2": 30, "y2": 40}, "class": "dog"}, '
        '{"label": "cat", "bbox": {"ymin": 6, "xmin": 5, "xmax": 70, "ymax": 80}}]',
        '[{"x_min": 1, "y_min": 2, "x_max": 30, "y_max": 40, "label": "dog"}, '
        '{"name": "cat", "left": 5, "top": 6, "right": 70, "bottom": 80}]',
    ],
)
def test_dog_and_cat(text):
    assert found(text) == [DOG, CAT]
    assert read(text).in_template == (text.startswith("[{") and "\n" not in text)


def test_several_boxes_of_one_label():
    text = '[{"label": "dog", "bbox_2d": [[1, 2, 30, 40], [5, 6, 70, 80]]}]'
    assert found(text) == [DOG, ("dog", CAT[1])]


@pytest.mark.parametrize("text", [A, f"Sure: {A}", f"```json\n{A}\n```", f"<answer>{A}</answer>"])
def test_one_object_alone(text):
    assert found(text) == [DOG]
    assert not read(text).in_template


@pytest.mark.parametrize("point", ['{"point_2d": [7, 8], "label": "cow"}', '{"point": [7, 8], "label": "cow"}'])
def test_points_are_told_from_boxes(point):
    result = read(f"[{A}, {point}]")
    assert [item.label for item in result.graph.objects] == ["dog"]
    assert [issue.kind for issue in result.issues] == ["point"]
    assert result.num_dropped_objects == 1


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (f"{A}\n{B[:20]}", "truncated"),  # as a list that breaks off
        (f"[{A}, {{'label': 'x'}}, {B}]", "invalid_json"),  # the last object is a splinter of what is broken
        ("{'dog': oops} [1, 2, 30, 40]", "invalid_json"),
        ('{"objects": [], "relationships": []}', "wrong_schema"),
        ('{"dog": []}', "wrong_schema"),
        ("[1, 2, 30, 40]", "wrong_schema"),
        ("Boxes: 1, 2, 30, 40", "invalid_json"),
    ],
)
def test_what_is_no_list(text, status):
    assert read(text).status == status


def test_classes_that_were_requested_may_all_be_empty():
    assert found('{"dog": [], "cat": []}', objects=("dog", "cat")) == []


def test_another_answer_in_tags_takes_the_place_of_a_draft():
    assert found(f"<answer>[{A}]</answer> No: <answer>[{B}]</answer>") == [CAT]
    assert found(f"<think>[{A}]</think>[{B}]") == [CAT]


def test_places_in_merged_lists():
    text = f"<answer>Dogs:\n[{A}]\nwolf: [[5, 5, 9, 9]]\n{B}</answer>"
    places = locate_elements(text, OutputFormat("detections", box_format="pixels")).objects
    shown = [[text[slice(*span)] for spans in item.values() for span in spans] for item in places]
    assert shown == [["dog", "1", "2", "30", "40"], ["wolf", "5", "5", "9", "9"], ["cat", "5", "6", "70", "80"]]
