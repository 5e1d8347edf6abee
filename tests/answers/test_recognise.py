"""Formats are recognised by what they explain, and a failed answer by what it looks like."""

from __future__ import annotations

import pytest

from answers.test_families import TWO
from scenerl.answers import FORMATS, TRAINED, OutputFormat, write_answer
from scenerl.answers.recognise import closest, explained
from scenerl.types import Relation, SceneGraph, SceneObject

GRAPH = SceneGraph(
    (SceneObject("dog", (100, 200, 300, 400)), SceneObject("cat", (500, 600, 700, 800))), (Relation(0, "near", 1),)
)
WRITTEN = {name: write_answer(GRAPH, OutputFormat(name), (1000, 1000)) for name in TRAINED}
KOSMOS = "<phrase>a dog</phrase><object><patch_index_0044><patch_index_0863></object>"
ALL = {**WRITTEN, **TWO, "kosmos-2": KOSMOS}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_recognised_first(name):
    counts = explained([(ALL[name], None), (ALL[name], ("dog",)), (ALL[name], ("dog", "cat")), ("no", None)])
    assert next(iter(counts)) == name and counts[name] == 3


def test_boxes_tell_more_than_points():
    both = '[{"point": [1, 2], "bbox_2d": [1, 2, 30, 40], "label": "dog"}]'
    assert list(explained([(both, None)])) == ["detections", "gemini"]


def test_requested_names_count():
    answer = "dog\n[[1, 2, 30, 40]]\ncat\n[[5, 6, 70, 80]]"
    assert explained([(answer, ("dog", "cat"))]) == {"detections": 1}
    assert explained([(answer, None)]) == {}


@pytest.mark.parametrize(
    "answer",
    [
        "[[1, 2, 30, 40]]",
        '{"dog": [[1, 2, 30, 40]]}',
        "dog: [[1, 2, 30, 40]]",
        '[{"label": "dog", "xmin": 1, "ymin": 2, "xmax": 30, "ymax": 40}]',
        '[{"label": "dog", "bbox": [1, 2, 30, 40]}]',
        '[{"label": "dog", "x": 1, "y": 2, "width": 29, "height": 38}]',
        "{'dog': (1, 2, 30, 40),}",
        "[]",
        "None",
    ],
)
def test_lists_are_no_other_familys(answer):
    """Nothing but its key makes a list Gemini's, which has y before x."""
    counts = explained([(answer, ("dog",))])
    assert next(iter(counts)) == "detections"
    assert answer in ("[]", "None") or list(counts) == ["detections"]


def test_a_file_of_mixed_quality_is_counted_by_format():
    answers = [TWO["internvl"]] * 5 + [TWO["gemini"]] * 2 + [WRITTEN["toon"], "I see a dog.", "", None]
    assert explained((answer, None) for answer in answers) == {"internvl": 5, "gemini": 2, "toon": 1}


@pytest.mark.parametrize(
    ("answer", "looks"),
    [
        (TWO["internvl"], "it reads as internvl"),
        (None, "there is no text"),
        ("I see a dog.", "it is text without boxes"),
        ("<loc0001><loc0002><loc0003><loc0004>", "it is written as paligemma, but no element can be used (malformed"),
        ("The dog is at (1, 2, 30, 40).", "it reads as detections"),
        ("dog (1, 2, 30, 40)", "it holds numbers of boxes, but no label in a place that is known"),
        ("[[1, 2, 30, 40]]", "it holds numbers of boxes, but no label in a place that is known"),
        ('[{"where": [1, 2, 3, 4], "what": "dog"}]', "it is JSON with the keys 'where', 'what'; expected a label"),
        ('[{"point_2d": [1, 2]}]', "it holds points without a label"),
        ('[{"bbox_2d": [1, 2', "it is JSON that breaks off"),
        ("{'bbox': [1]}", "it is JSON that is broken"),
    ],
)
def test_what_a_failed_answer_comes_closest_to(answer, looks):
    assert closest(answer, None, "json").startswith(looks)
