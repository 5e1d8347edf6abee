"""VLM-R1's rows: labels of the question, boxes of the answer, sizes of the images."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.detection_folders import VLMR1, write_vlmr1
from scenerl import data
from scenerl.data import vlmr1_jsonl

ASKED = ("railings being crossed by horses", "equestrian rider's helmet", "person holding a torch")


def with_answer(answer: object, **changes) -> dict:
    row = {**copy.deepcopy(VLMR1), **changes}
    row["conversations"][1]["value"] = answer
    return row


def with_question(question: str, answer: str = "None") -> dict:
    row = with_answer(answer)
    row["conversations"][0]["value"] = question
    return row


def only(tmp_path, row: dict, settings: str = ""):
    (record,) = data.read(f"vlmr1_jsonl:{write_vlmr1(tmp_path, row)}{settings}")
    return record


def test_a_released_row(tmp_path):
    (example,) = data.load(f"vlmr1_jsonl:{write_vlmr1(tmp_path)}", need_images=True)
    assert example.query == ASKED  # the third is absent: a hard negative
    assert [(found.label, found.box) for found in example.graph.objects] == [
        (ASKED[0], (3, 218, 799, 533)),
        (ASKED[1], (377, 59, 416, 109)),
    ]
    assert (example.image_id, example.image_wh) == ("1", (800, 533))  # the size is the image's


@pytest.mark.parametrize("answer", ["None", "none.", "```json\n[]\n```", "<answer>\nNone\n</answer>", "[]"])
def test_nothing_found(tmp_path, answer):
    record = only(tmp_path, with_answer(answer))
    assert record.example.graph.objects == () and record.example.query == ASKED and not record.warnings


@pytest.mark.parametrize(
    "answer",
    [
        '[{"bbox_2d": [1, 2, 30, 40], "label": "person holding a torch"}]',
        '{"bbox_2d": [1, 2, 30, 40], "label": "person  holding a torch"}',
        '<think>there [he] is</think>\n<answer>\n```json\n[{"bbox_2d": [1, 2, 30, 40], "label": '
        '"person holding a torch"}]\n```\n</answer>',
    ],
)
def test_envelopes_of_the_answer(tmp_path, answer):
    (found,) = only(tmp_path, with_answer(answer)).example.graph.objects
    assert (found.label, found.box) == ("person holding a torch", (1, 2, 30, 40))


@pytest.mark.parametrize(
    ("question", "labels"),
    [
        ('<image>Detect the following objects: ["a", "b, c", "d"].', ("a", "b, c", "d")),
        ("Please observe and detect the following targets: a dog, st. bernard, cat.", ("a dog", "st. bernard", "cat")),
        ("Find every instance of these in the image: dog, red ball.\nSome are absent.", ("dog", "red ball")),
        ('Give the box of the region this sentence describes: "the left cup".', ("the left cup",)),
        ("Give the box of the region this sentence describes: left cup.", ("left cup",)),
        ("Detect the following objects: ['it\\'s', \"x\"]. Twice: ['y']", ("it's", "x")),
    ],
)
def test_labels_of_the_question(tmp_path, question, labels):
    record = only(tmp_path, with_question(question))
    assert record.example.query == labels and not record.warnings


@pytest.mark.parametrize(
    ("question", "labels"),
    [
        ("Detect the following objects: dog; red ball; cat.", ("dog", "red ball", "cat")),
        ("Detect the following objects: dog, red ball; cat | cup.", ("dog", "red ball", "cat", "cup")),
        ("Detect the following objects: dog . red ball . cat .", ("dog", "red ball", "cat")),
        ("Detect the following objects: dog, a cat, and a bird.", ("dog", "a cat", "a bird")),
        ("Detect the following objects: salt and pepper, sand.", ("salt and pepper", "sand")),
        ("Detect the following objects: cup (white, chipped), dog [old, grey], cat.",
         ("cup (white, chipped)", "dog [old, grey]", "cat")),
        ("Detect the following objects: [cup, dog].", ("cup", "dog")),
        ("Detect the following objects: \"a, b\", 'c, d', rider's hat.", ("a, b", "c, d", "rider's hat")),
        ("Detect the following objects：猫，狗。 Answer in JSON.", ("猫", "狗")),
        ("请检测以下目标：猫、狗；红色的球（大的，圆的）。用 JSON 回答。", ("猫", "狗", "红色的球（大的，圆的）")),
        ("请检测物体: [“猫”，“狗”]", ("猫", "狗")),
        ("Detect the following objects: ['cat'， 'dog'].", ("cat", "dog")),
        ("Where are <ref>the cats, both</ref> and <ref>dog</ref>? objects: ['x']", ("the cats, both", "dog")),
        ("Where is <|object_ref_start|>the cat<|object_ref_end|>?", ("the cat",)),
        ("the region this sentence describes：“左边的杯子”。", ("左边的杯子",)),
        ("Detect the following objects: ('cat', 'dog').", ("cat", "dog")),
        ("Detect the following objects: {'cat', \"dog's bowl\"}.", ("cat", "dog's bowl")),
        ("Detect the following objects:\n- cat, old\n* dog\nAnswer in JSON.", ("cat", "old", "dog")),
        ("Detect the following objects:\n1. cat\n2) 3 dogs\n\nAnswer: now", ("cat", "3 dogs")),
        ("图中有哪些目标：（1）猫；（2）狗。", ("猫", "狗")),
        ("检测图中的：'猫'、'狗'。", ("猫", "狗")),
        ("Detect the following object: dog.", ("dog",)),
        ("Detect the following object(s): cat, dog.", ("cat", "dog")),
        ("Detect these classes: cat, dog.", ("cat", "dog")),
        ("Where is <REF>the cat</REF>?", ("the cat",)),
        ("dog. cat. person", ("dog", "cat", "person")),  # Grounding DINO's
        ("<image>dog . traffic light. a small person.", ("dog", "traffic light", "a small person")),
        ("Detect the following objects: dog. cat. person.", ("dog", "cat", "person")),
        ("Detect the following objects: dog. red cat. Answer in JSON.", ("dog", "red cat")),
        ("Dog. Cat.", ("Dog", "Cat")),
        ("Dog . Cat . Person", ("Dog", "Cat", "Person")),
        ("Detect the following objects: Dog. Traffic Light. Cat.", ("Dog", "Traffic Light", "Cat")),
        ("Detect the following objects: Dog. Cat. Answer in JSON.", ("Dog", "Cat")),
        ("Detect the following objects: Dog. Cat. Some may be absent. Answer in JSON.", ("Dog", "Cat")),
        ("Detect the following objects: Dog. The answer is JSON.", ("Dog",)),
        ("Detect the following objects: dog. Answer in JSON. Be brief.", ("dog",)),
        ("Detect the following objects: dog. cat. Labels first.", ("dog", "cat")),
        ("Detect the following objects: St. Bernard. Mr. Bean. U.S. flag.", ("St. Bernard", "Mr. Bean", "U.S. flag")),
        ("Detect the following objects: st. bernard. cat.", ("st. bernard", "cat")),
        ("Detect the following objects: St. Bernard.", ("St. Bernard",)),
        ("Detect the following objects: a U.S. flag, Mr. Bean. Answer in JSON.", ("a U.S. flag", "Mr. Bean")),
        ("Detect the following objects: Trash Can. Box. Cat.", ("Trash Can", "Box", "Cat")),
        ("Detect the following objects: letter A . letter B .", ("letter A", "letter B")),
        ("Detect the following objects: vitamin c. dog.", ("vitamin c", "dog")),
        ("Detect the following targets: a st. bernard.", ("a st. bernard",)),
        ("Detect the following targets: st. bernard, cat.", ("st. bernard", "cat")),
    ],
)  # fmt: skip
def test_separators_brackets_and_tags_of_questions(tmp_path, question, labels):
    record = only(tmp_path, with_question(question))
    assert record.example.query == labels and not record.warnings


@pytest.mark.parametrize("question", ["Find dogs. Answer briefly.", "Look closely. Cats.", "Dog.", "What is. Say it.",
                                      "A dog sits there. A cat sleeps."])  # fmt: skip
def test_sentences_are_no_list_of_names(question):
    assert vlmr1_jsonl.queried_labels(question) == []


@pytest.mark.parametrize("question", ["Detect the following objects: [].", "Detect the following objects: ['', ' '].",
                                      "Detect these objects: <ref></ref>"])  # fmt: skip
def test_an_empty_list_of_labels(tmp_path, question):
    answer = '[{"bbox_2d": [1, 2, 30, 40], "label": "dog"}]'
    record = only(tmp_path, with_question(question, answer))
    assert record.example.query == ("dog",) and "names no labels" in record.warnings[0]
    assert "neither question nor answer names a label" in only(tmp_path, with_question(question)).errors[0]


def test_labels_of_the_answer_where_the_question_names_none(tmp_path):
    answer = '[{"bbox_2d": [1, 2, 30, 40], "label": "dog"}]'
    record = only(tmp_path, with_question("What is there?", answer))
    assert record.example.query == ("dog",) and "names no labels" in record.warnings[0]
    record = only(tmp_path, with_question("Detect the following objects: ['cat'].", answer))
    assert record.example.query == ("cat", "dog") and "does not name" in record.warnings[0]


def test_one_phrase_may_be_answered_by_one_box(tmp_path):
    record = only(tmp_path, with_question('the region this sentence describes: "left cup".', "[5, 6, 70, 80]"))
    (found,) = record.example.graph.objects
    assert (found.label, found.box) == ("left cup", (5, 6, 70, 80))


def test_frames(tmp_path):
    row = with_answer('[{"bbox_2d": [0, 500, 1000, 1000], "label": "person holding a torch"}]')
    (found,) = only(tmp_path, row, ",frame=norm1000").example.graph.objects
    assert found.box == (0, 266.5, 800, 533)
    assert "leaves the image" in only(tmp_path, row).warnings[0]  # read as pixels


def test_ids_that_come_again(tmp_path):
    path = write_vlmr1(tmp_path, VLMR1, VLMR1, {key: value for key, value in VLMR1.items() if key != "id"})
    assert [example.image_id for example in data.load(f"vlmr1_jsonl:{path}")] == ["1", "1 row 2", "3"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (with_answer("I see a horse"), "neither a JSON list of boxes nor None"),
        (with_answer("[" * 100_000), "neither a JSON list of boxes nor None"),
        (with_answer('[{"bbox_2d": [1, 2, 3, 4]}]'), "must be a list of objects with bbox_2d and label"),
        (with_answer('[{"bbox_2d": [1, 2, 3], "label": "x"}]'), "four finite numbers"),
        (with_answer('[{"bbox_2d": [9, 2, 3, 4], "label": "x"}]'), "x1 < x2"),
        (with_answer("None", image=["a.jpg", "b.jpg"]), "the name of one image file"),
        (with_answer("None", image="nowhere.jpg"), "no such image file"),
        (with_answer(3), "two turns"),
        ({"id": 1, "image": "equestrian/006.jpg"}, "two turns"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path, row, message):
    record = only(tmp_path, row)
    assert record.example is None and message in record.errors[0]
    assert record.where.endswith("train.jsonl, row 1")


@given(st.text(alphabet="[]'\"\\, :.\naobjects", max_size=200))
def test_any_question_is_read(question):
    assert all(label == " ".join(label.split()) != "" for label in vlmr1_jsonl.queried_labels(question))


@pytest.mark.parametrize("question", ["['" * 50_000, "['a', " * 20_000, "describes: " * 20_000, "image: a" * 20_000,
                                      "objects:" + " " * 99_000 + "[", "image: " + "a. " * 30_000 + "[",
                                      "objects:" + "\n- a" * 25_000, "objects:" + "1. " * 30_000])  # fmt: skip
def test_no_question_takes_long(question):
    vlmr1_jsonl.queried_labels(question)  # the suite's time limit would stop it
