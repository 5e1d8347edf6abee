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
        f"[[{A}], [{B}]]",
        f"[[{A}, {B}], []]",
        '{"objects": {"dog": [[1, 2, 30, 40]], "cat": [[5, 6, 70, 80]]}}',
        '[{"dog": [1, 2, 30, 40]}, {"cat": [[5, 6, 70, 80]]}]',
        '{"dog": {"bbox_2d": [1, 2, 30, 40]}, "cat": {"x1": 5, "y1": 6, "x2": 70, "y2": 80}}',
        '{"labels": ["dog", "cat"], "boxes": [[1, 2, 30, 40], [5, 6, 70, 80]]}',
        "{'<OD>': {'bboxes': [[1, 2, 30, 40], [5, 6, 70, 80]], 'labels': ['dog', 'cat']}}",  # Florence-2's processor
        '[["dog", [1, 2, 30, 40]], [[5, 6, 70, 80], "cat"]]',
        '[["dog", 1, 2, 30, 40], [5, 6, 70, 80, "cat"]]',
        '[{"BBox": [1, 2, 30, 40], "Label": "dog"}, {"bounding_box": [5, 6, 70, 80], "class_name": "cat"}]',
        '[{"bbox_2d": [[1, 2], [30, 40]], "label": "dog"}, {"bbox_2d": "(5, 6), (70, 80)", "label": ["cat"]}]',
        '[{"bbox_2d": ["1", "2", "30", "40"], "label": "dog"}, {"bbox_2d": "[5, 6, 70, 80]", "label": "cat"}]',
        '[{"label": "dog", "x": 1, "y": 2, "width": 29, "height": 38}, '
        '{"label": "cat", "box": {"left": 5, "top": 6, "width": 65, "height": 74}}]',
        '[{"top_left": [1, 2], "bottom_right": [30, 40], "label": "dog"}, '
        '{"box": {"top_left": {"x": 5, "y": 6}, "bottom_right": {"x": 70, "y": 80}}, "label": "cat"}]',
        # Python literals, as Qwen's examples read them
        "[{'bbox_2d': [1, 2, 30, 40], 'label': 'dog'}, {'bbox_2d': (5, 6, 70, 80), 'label': 'cat', 'crowd': False}]",
        f"[{A}, {B},]",
        f"```python\n[{A},  # the first\n{B[:-1]},}}]\n```",
        f"So it's:\n[{A}, // the first\n{B}]",
        # InternVL without its tags
        "dog[[1, 2, 30, 40]]\ncat[[5, 6, 70, 80]]",
        "dog[[1, 2, 30, 40]], cat[[5, 6, 70, 80]]",
        # CogVLM, Shikra, Ferret
        "A dog [[1, 2, 30, 40]] is running after a cat [[5, 6, 70, 80]].",
        "The dog [1, 2, 30, 40] chases the cat [5, 6, 70, 80].",
        # sentences
        "The dog is at (1e0, 2.0, 30, 4e1) and the cat at (5, 6, 70, 80).",
        "[('dog', (1, 2, 30, 40)), ('cat', (5, 6, 70, 80))]",
        '[("dog", (1, 2, 30, 40)), ("cat", (5, 6, 70, 80))]',
        '{"dog": [1, 2, 30, 40], "cat": [5, 6, 70, 80], "cow": "None"}',
        f'[{A[:-1]}, "parts": [{B}]}}]',
        f'[{A[:-1]}, "color": "brown", "children": [{B}]}}]',
        "There is a dog at (1, 2, 30, 40) and a cat at (5, 6, 70, 80).",
        "The dog is located at the coordinates [1, 2, 30, 40]. The cat is in [[5, 6, 70, 80]].",
        "The dog is within the bounding box (1.0, 2.0, 30.0, 40.0); a cat is found at (5,6,70,80)",
        "dog: (1, 2, 30, 40)\ncat: (5, 6, 70, 80)",
        "**dog**: (1, 2, 30, 40), **cat**: (5, 6, 70, 80)",
        # a key in text, before the box or behind it
        "- label: dog\n  bbox_2d: [1, 2, 30, 40]\n- label: cat\n  bbox_2d: [5, 6, 70, 80]",
        "- bbox_2d: [1, 2, 30, 40]\n  label: dog\n- bbox_2d: [5, 6, 70, 80]\n  label: cat",
        "Object: dog, box: [1, 2, 30, 40]\nObject: cat, box: [5, 6, 70, 80]",
        "Detected object: dog at [1, 2, 30, 40]\nClass: a cat at (5, 6, 70, 80)",
        # scores
        "dog: 0.95 [1, 2, 30, 40]\ncat (score: 0.5): [5, 6, 70, 80]",
        # wide punctuation
        '[{"bbox_2d": [1，2，30，40]，"label": "dog"}，{"bbox_2d"：［5, 6, 70, 80］, "label"："cat"}]',
        "dog：[1, 2, 30, 40]；cat：[5, 6, 70, 80]。",
        # quotes that a text processor made
        "[{“bbox_2d”: [1, 2, 30, 40], “label”: “dog”}, {“bbox_2d”: [5, 6, 70, 80], “label”: “cat”}]",
        "[{‘bbox_2d’: [1, 2, 30, 40], ‘label’: ‘dog’}, {‘bbox_2d’: [5, 6, 70, 80], ‘label’: ‘cat’}]",
        "{„dog“: [1, 2, 30, 40], “cat”: [5, 6, 70, 80]}",
    ],
)
def test_dog_and_cat(text):
    assert found(text) == [DOG, CAT]
    assert read(text).in_template == (text == f"[{A}, {B}]")


@pytest.mark.parametrize(
    "text",
    [
        "dog: [1, 2, 30, 40]; cat: [5, 6, 70, 80]",
        "dog [1, 2, 30, 40]\ncat [5, 6, 70, 80]",
        "dog - [1, 2, 30, 40], cat = [[5, 6, 70, 80]]",
        "**dog**\n[[1, 2, 30, 40]]\n### cat\n[[5, 6, 70, 80]]",
        "1. dog: [1, 2, 30, 40]\n2. cat: [5, 6, 70, 80]",
        "big  dog: [1, 2, 30, 40]\ncat: [5, 6, 70, 80]",
    ],
)
def test_names_before_boxes(text):
    names = ("big dog" if "big" in text else "dog", "cat")
    assert found(text, objects=names) == [(names[0], DOG[1]), CAT]
    assert found("The big  dog: [1, 2, 30, 40]") == [("The big dog", DOG[1])]


def test_a_requested_name_in_a_sentence():
    text = "I can see that the big brown dog is at (1, 2, 30, 40), and the cat at (5, 6, 70, 80)."
    assert found(text, objects=("dog", "cat")) == [DOG, CAT]
    assert found(text, objects=("cat",)) == [CAT]
    assert found(text) == [("big brown dog", DOG[1]), CAT]
    assert found("(1, 2, 30, 40)", objects=("dog",)) == [DOG]


@pytest.mark.parametrize(
    "text",
    [
        "dog[[1, 2, 30, 40]]",
        "a dog[[1, 2, 30, 40]]",
        "I can see a dog[[1, 2, 30, 40]]",
        "the old man's dog[[1, 2, 30, 40]]",
        "dog: [1, 2, 30, 40]",
        "The dog is at [1, 2, 30, 40].",
        "the dog near the cat is at [1, 2, 30, 40].",
        "the dog on the left[[1, 2, 30, 40]]",
        "The old dog [1, 2, 30, 40]",
        "The bounding box of the dog is [1, 2, 30, 40].",
        "The coordinates of the dog: [1, 2, 30, 40].",
        "There is no cat at [1, 2, 30, 40].",
        "no cat: [1, 2, 30, 40]",
        "dog 0.95 [1, 2, 30, 40]",
        "(dog, [1, 2, 30, 40])",
        "dog => [1, 2, 30, 40]",
        "**dog** [1, 2, 30, 40]",
        "Le chien est à [1, 2, 30, 40]",
        "The dog's bounding box is [1, 2, 30, 40]",
        "label: dog\nbbox_2d: [1, 2, 30, 40]",
        "bbox_2d: [1, 2, 30, 40]\nlabel: dog",
    ],
)
def test_a_name_before_a_box_is_not_taken_for_the_only_requested_one(text):
    result = read(text, objects=("cat",))
    assert result.ok and not result.graph.objects and [issue.kind for issue in result.issues] == ["unknown_label"]
    both = text + "\nAnd the cat is at [5, 6, 70, 80]"
    assert [(item.label, item.box) for item in read(both, objects=("cat",)).graph.objects] == [CAT]


@pytest.mark.parametrize(
    "text",
    [
        "cat[[5, 6, 70, 80]]",
        "a cat[[5, 6, 70, 80]]",
        "I see a black cat[[5, 6, 70, 80]]",
        "the cat on the mat[[5, 6, 70, 80]]",
        "Cat: [5, 6, 70, 80]",
        "The cats: [[5, 6, 70, 80]]",
        "Answer: [5, 6, 70, 80]",
        "Its bounding box: [5, 6, 70, 80]",
        "It is at [5, 6, 70, 80]",
        "The object is located at [5, 6, 70, 80]",
        "Here you go: [5, 6, 70, 80]",
        "答案：[5, 6, 70, 80]",
        "1: [5, 6, 70, 80]",
        "Cat #1: [5, 6, 70, 80]",
        "The cat can be seen in the upper left corner: [5, 6, 70, 80]",
        "The cat sitting on the sofa is located at [5, 6, 70, 80]",
        "The black cat that is beside a dog is at [5, 6, 70, 80]",
        "Sure! Here's the bounding box:\n\n[5, 6, 70, 80]",
        "```python\nboxes = [[5, 6, 70, 80]]\n```",
        "(5, 6, 70, 80)",
        "[(5, 6, 70, 80)]",
    ],
)
def test_boxes_of_the_only_requested_name(text):
    assert found(text, objects=("cat",)) == [CAT]


def test_boxes_behind_one_name():
    for text in ("The cats are at [5, 6, 70, 80] and [1, 2, 30, 40].", "Cats:\n- [5, 6, 70, 80]\n- [1, 2, 30, 40]",
                 "First: [5, 6, 70, 80]\nSecond: [1, 2, 30, 40]"):  # fmt: skip
        assert found(text, objects=("cat",)) == [CAT, ("cat", DOG[1])]
    result = read("Dogs:\n- [1, 2, 30, 40]\n- [5, 6, 70, 80]", objects=("cat",))
    assert [issue.kind for issue in result.issues] == ["unknown_label"] * 2 and not result.graph.objects


def test_wide_punctuation_in_labels_stays():
    assert found('[{"bbox_2d": [1，2，30，40], "label": "红色的球，圆"}]') == [("红色的球，圆", DOG[1])]


def test_what_is_said_behind_a_name_is_no_name():
    text = "The dog on the left is at [1, 2, 30, 40], and a cat next to the cup is at (5, 6, 70, 80)."
    assert found(text) == found(text, objects=("dog", "cat", "left", "cup")) == [DOG, CAT]
    assert found("the man in a hat at [1, 2, 30, 40]", objects=("hat", "man in a hat")) == [("man in a hat", DOG[1])]


def test_names_right_before_boxes_in_a_sentence():
    text = "A big dog [1, 2, 30, 40] sits beside a cat [5, 6, 70, 80]."
    assert found(text, objects=("dog", "cat")) == [DOG, CAT]
    assert [(item.label, item.box) for item in read(text, objects=("cat",)).graph.objects] == [CAT]
    result = read(text)  # the cat or what sits beside it?
    assert [item.label for item in result.graph.objects] == ["big dog"]
    assert [issue.kind for issue in result.issues] == ["malformed_object"]
    for text in ("Coordinates [1, 2, 30, 40]", "The answer [1, 2, 30, 40]", "There it is [[1, 2, 30, 40]]"):
        assert not read(text).ok and found(text, objects=("dog",)) == [DOG]


@pytest.mark.parametrize(
    ("text", "raw"),
    [
        (f"[{A}]\n[{A}, {B[:30]}", "{"),
        (f"[{A}]\n[{A}, {B}", "{"),
        (f"[{A}] and [{{'bbox_2d': [5, 6, 70, 80], 'label': oops}}]", "[5, 6, 70, 80"),
        (f"[{{'bbox_2d': [5, 6, 70, 80], 'label': oops}}] or [{A}]", "[5, 6, 70, 80"),
    ],
)
def test_what_breaks_off_or_is_broken_beside_a_list_is_an_issue(text, raw):
    result = read(text)
    assert [(item.label, item.box) for item in result.graph.objects] == [DOG]
    assert [issue.kind for issue in result.issues] == ["malformed_object"] and raw in result.issues[0].detail


def test_broken_brackets_without_a_box_are_prose():
    assert found(f"{{so}} there is [{A}]") == found(f"[{A}] (see {{1}})") == [DOG]


def test_boxes_in_parentheses_and_in_brackets_keep_their_order():
    text = "The dog is at (1, 2, 30, 40), the cat at [5, 6, 70, 80] and the cow at (7, 8, 9, 10)."
    assert found(text) == [DOG, CAT, ("cow", (7, 8, 9, 10))]
    places = locate_elements(text, OutputFormat("detections", box_format="pixels")).objects
    shown = [[text[slice(*span)] for spans in item.values() for span in spans] for item in places]
    assert shown == [["dog", "1", "2", "30", "40"], ["cat", "5", "6", "70", "80"], ["cow", "7", "8", "9", "10"]]
    # a list with labels is the answer, and a sentence before it talk
    assert found(f"A big dog is at (1, 2, 31, 41).\n[{A}, {B}]") == [DOG, CAT]


@pytest.mark.parametrize(
    "text",
    [
        "The dog dates from (1990, 1991, 1992, 1993).",
        "I see three (1, 2, 30, 40) of them.",
        "See sections (1, 2, 30, 40).",
        "There is no dog at (1, 2, 30, 40).",
        "The score of it is (1, 2, 30, 40)",
        "The dog is at (1, 2, 30).",
        "The dog is at the door (in the picture).",
        "No dog.",
        "The “dog” is at the “door”.",
    ],
)
def test_prose_is_no_detection(text):
    for objects in (None, ("dog",), ("dog", "cat")):
        assert read(text, objects=objects).status == "invalid_json"


def test_curly_quotes_inside_labels_stay():
    assert found("[{“label”: “dog’s”, “bbox_2d”: [1, 2, 30, 40]}]") == [("dog’s", DOG[1])]
    assert found('[{"label": "a “big” dog", "bbox_2d": [1, 2, 30, 40]}]') == [("a “big” dog", DOG[1])]
    assert read("[{“label”: “a “big” dog”, “bbox_2d”: [1, 2, 30, 40]}]").status == "invalid_json"


def test_places_in_sentences_and_in_curly_quotes():
    output_format = OutputFormat("detections", box_format="pixels")
    for text in ("The dog is at (1, 2, 30, 40).", "dog[[1, 2, 30, 40]]",
                 "[{“label”: “dog”, “bbox_2d”: [1, 2, 30, 40]}]"):  # fmt: skip
        (place,) = locate_elements(text, output_format).objects
        assert [text[slice(*span)] for spans in place.values() for span in spans] == ["dog", "1", "2", "30", "40"]


def test_no_box_behind_a_name_is_lost():
    assert found("dog: [1, 2, 30, 40], [5, 6, 70, 80]") == [DOG, ("dog", CAT[1])]
    text = "dog: [1, 2, 30, 40]\nThat other one over there, which is small: [5, 6, 70, 80]"
    result = read(text)
    assert len(result.graph.objects) == 1 and [issue.kind for issue in result.issues] == ["malformed_object"]
    assert found(f"At [5, 6, 70, 80] I see a cat.\n[{A}]") == [DOG]  # labels stand in the list: that was prose


@pytest.mark.parametrize("text", ["dog: None\ncat: none.", "dogs in it: none\n", '{"detections": []}', '"None"'])
def test_nothing_found(text):
    assert found(text, objects=("dog", "cat")) == []


def test_labels_in_any_quotes():
    for label in ('a "big", red: dog', "dog's", "犬 🐕", "[x]", "back\\slash"):
        assert found(repr([{"label": label, "bbox_2d": [1, 2, 30, 40]}])) == [(label, DOG[1])]


def test_an_empty_label_is_none():
    for label in ('""', "null"):
        text = f'[{{"bbox_2d": [1, 2, 30, 40], "label": {label}}}]'
        assert found(text, objects=("dog",)) == [DOG]
        assert [issue.kind for issue in read(text).issues] == ["malformed_object"]


@pytest.mark.parametrize(
    "box",
    [
        '{"x1": 1, "y1": 2, "x2": 9, "y2": 4, "x3": 8, "y3": 9}',
        "[[1, 2], [3, 4], [5, 6]]",
        '"1, 2, 3"',
        '"a, b, c, d"',
        '{"x": 1, "w": 2}',
        "[1, 2, 3, 4, 5]",
    ],
)
def test_what_is_no_box_is_an_issue(box):
    result = read(f'[{A}, {{"bbox_2d": {box}, "label": "cat"}}]')
    assert len(result.graph.objects) == 1 and [issue.kind for issue in result.issues] == ["bad_box"]


def test_several_boxes_of_one_label():
    text = '[{"label": "dog", "bbox_2d": [[1, 2, 30, 40], [5, 6, 70, 80]]}]'
    assert found(text) == [DOG, ("dog", CAT[1])]


@pytest.mark.parametrize("text", [A, f"Sure: {A}", f"```json\n{A}\n```", f"<answer>{A}</answer>"])
def test_one_object_alone(text):
    assert found(text) == [DOG]
    assert not read(text).in_template


@pytest.mark.parametrize(
    "point",
    ['{"point_2d": [7, 8], "label": "cow"}', '{"point": [7, 8], "label": "cow"}', '{"x": 7, "y": 8, "label": "cow"}'],
)
def test_points_are_told_from_boxes(point):
    result = read(f"[{A}, {point}]")
    assert [item.label for item in result.graph.objects] == ["dog"]
    assert [issue.kind for issue in result.issues] == ["point"]
    assert result.num_dropped_objects == 1


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (f"{A}\n{B[:20]}", "truncated"),  # as a list that breaks off
        (f"[{A}, {{'label': x}}, {B}]", "invalid_json"),  # the last object is a splinter of what is broken
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
    python = "x [{'label': 'dog', 'bbox_2d': (1, 2, 30, 40)}, ], [['cat', 5, 6, 70, 80]]"
    places = locate_elements(python, OutputFormat("detections", box_format="pixels")).objects
    shown = [[python[slice(*span)] for spans in item.values() for span in spans] for item in places]
    assert shown == [["dog", "1", "2", "30", "40"], ["cat", "5", "6", "70", "80"]]
