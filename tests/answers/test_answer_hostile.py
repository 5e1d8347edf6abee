"""No text may raise, hang or exhaust memory."""

from __future__ import annotations

import json
import math
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenerl.answers import FORMATS, TEMPLATES, TRAINED, OutputFormat, parse_answer
from scenerl.answers.json_text import MAX_DEPTH, scan_values
from scenerl.types import FAILURES, ISSUES, ParseResult

IMAGE_WH = (640, 480)
OUTPUT_FORMATS = [OutputFormat(fmt, template) for fmt in FORMATS for template in TEMPLATES]
M = 10_000_000
P = 1_100_000
"""More characters than are parsed."""
DEEP = 100_000

HOSTILE = {
    "letters": "a" * M,
    "spaces": " " * M + "x",
    "lines": "a\n" * (M // 2),
    "object lines": "a 1 2 3 4\n" * (M // 10) + "end",
    "relation lines": "1 a 2\n" * (M // 6) + "end",
    "ends": "a\nend\n" * (M // 6),
    "nones": "None\n" * (M // 5),
    "None and spaces": "None" + " \t" * (M // 2) + "x",
    "open lists": "[" * DEEP,
    "open objects": '{"a":' * DEEP,
    "deep lists": "[" * DEEP + "]" * DEEP,
    "deep objects": '{"a":' * DEEP + "1" + "}" * DEEP,
    "deep in text": "so: " + "[" * DEEP + "]" * DEEP + " done",
    "deep box": '{"objects": [{"id": "a.1", "bbox": ' + "[" * DEEP + "]" * DEEP + '}], "relationships": []}',
    "very many brackets": "[" * M,
    "very many empty lists": "[" + "[]," * (M // 3),
    "braces": "{" * M,
    "open and letter": "[x" * (M // 2),
    "open and spaces": "[ " * (M // 2),
    "numbers": "[1," * (M // 3),
    "digits": "[1" + "0" * M,
    "digits in a box": '{"objects": [{"id": "a.1", "bbox": [1, 2, 3, ' + "9" * 100_000 + ']}], "relationships": []}',
    "two long numbers": "1" * M + " " + "2" * M,
    "quotes": '["' * (M // 2),
    "escaped quotes": '["' + '\\"[' * (M // 3),
    "backslashes": '["' + "\\\\" * (M // 2),
    "long string": '["' + "a" * M,
    "broken objects": '{"a" ' * (M // 5),
    "answer tags": "<answer>" * (M // 8),
    "reasoning": "<think></think>" * (M // 15),
    "fences": "```json\n" * (M // 8),
    "fence and spaces": "```json\n" + " " * M + "``",
    "label tags": "<ref>" * (P // 5),
    "long label in tags": "<ref>" + "a" * P,
    "box tags": "<ref>a</ref>" + "<box>" * (P // 5),
    "numbers in a box": "<box>[[" + "1 " * (P // 2),
    "boxes in a box": "<box>" + "[1,2,3,4]" * (P // 9) + "</box>",
    "pairs in a box": "<box>" + "(1,2)" * (P // 5) + "</box>",
    "coordinate tokens": "<|object_ref_start|>a<|object_ref_end|><|box_start|>" + "<1>" * (P // 3),
    "begin of box": "<|begin_of_box|>" * (P // 16),
    "location tokens": "<loc_1>" * (P // 7),
    "y-x location tokens": "<loc0001>" * (P // 9) + " a",
    "patches": "<object>" + "<patch_index_0001>" * (P // 18),
    "headers": "obj[1]{id,name,x1,y1,x2,y2}:\n" * (P // 30),
    "half headers": "obj[1]{id," * (P // 10),
    "quotes in a table": "obj[1]{id,name,x1,y1,x2,y2}:\n1," + '"' * P,
    "commas in a table": "obj[1]{id,name,x1,y1,x2,y2}:\n" + "," * P,
    "pairs in a table": "rel_pairs[1]{a,b,c,d,e}:\n1,[" + "a," * (P // 2) + "],[],[],2",
    "lists with headings": "a: [[1,2,3,4]]\n" * (P // 15),
    "NUL": "\x00" * M,
    "lone surrogates": "\ud800" * (M // 10),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_a_typed_failure(name):
    for output_format in (*map(OutputFormat, FORMATS), OutputFormat("json", "think")):
        # Time that grows with the square shows in a part of the text, too.
        length = M * 2 if output_format.format == "json" else M // 40 if output_format.format in TRAINED else M // 100
        text = HOSTILE[name][:length]
        result = parse_answer(text, output_format, IMAGE_WH)
        if not result.ok:
            assert result.status in FAILURES
        assert len(result.issues) < 10_000
        if result.ok and not result.graph.objects and output_format.format == "json":
            assert result.issues, "what was cut must not become nothing found"


def test_nesting_beyond_the_recursion_limit_is_found_without_recursion():
    for depth in (MAX_DEPTH, MAX_DEPTH + 1, sys.getrecursionlimit() + 100, 60_000):
        text = "x" + "[" * depth + "]" * depth + "y"
        assert scan_values(text).values == [(1, depth)]
        for output_format in OUTPUT_FORMATS:
            assert not parse_answer(text, output_format, IMAGE_WH).ok


def test_an_answer_behind_very_long_reasoning_is_found():
    answer = '{"objects": [{"id": "dog.1", "bbox": [0, 0, 10, 10]}], "relationships": []}'
    text = f"<think>{'so ' * (M // 3)}</think><answer>{answer}</answer>"
    result = parse_answer(text, OutputFormat("json", "think"), IMAGE_WH)
    assert result.ok and result.in_template


def test_what_is_longer_than_can_be_read_is_truncated():
    objects = ", ".join(f'{{"id": "dog.{n}", "bbox": [0, 0, 10, 10]}}' for n in range(30_000))
    text = f'{{"objects": [{objects}], "relationships": []}}'
    assert parse_answer(text, OutputFormat("json"), IMAGE_WH).status == "truncated"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e308", "9" * 5000])
def test_numbers_that_are_none_cost_the_element_only(number):
    good = '{"id": "dog.1", "bbox": [0, 0, 10, 10]}'
    bad = f'{{"id": "cat.2", "bbox": [0, 0, {number}, 10]}}'
    for before in ("", "So: "):
        text = f'{before}{{"objects": [{good}, {bad}], "relationships": []}}'
        result = parse_answer(text, OutputFormat("json"), IMAGE_WH)
        assert [issue.kind for issue in result.issues] == ["bad_box"]
        assert [item.label for item in result.graph.objects] == ["dog"]


def assert_sound(result: ParseResult) -> None:
    assert result.status == "ok" or result.status in FAILURES
    for issue in result.issues:
        assert issue.kind in ISSUES
        issue.detail.encode("utf-8")
    if result.ok:
        for item in result.graph.objects:
            item.label.encode("utf-8")
            x1, y1, x2, y2 = item.box
            assert all(map(math.isfinite, item.box)) and x1 < x2 and y1 < y2
            assert math.isfinite((x2 - x1) * (y2 - y1))


pieces = st.sampled_from(
    [
        "{", "}", "[", "]", ",", ":", '"', "\\", "'", "\n", " ", "```", "```json\n", "None", "end", "\x00", "\ud800",
        "<think>", "</think>", "<answer>", "</answer>", '"objects"', '"relationships"', '"id"', '"bbox"', '"bbox_2d"',
        '"label"', '"subject"', '"predicate"', '"object"', '"dog.1"', "1", "-2.5", "1e400", "NaN", "true", "null",
        "<ref>", "</ref>", "<box>", "</box>", "<loc_1>", "<loc0001>", "<|box_start|>", "<|box_end|>", "<1>", "(1,2)",
        "obj[1]{id,name,x1,y1,x2,y2}:\n", "rel[1]{subj,pred,obj}:\n", "1,dog,0,0,1,1\n", "1,on,2\n", "<object>",
        "dog ", "0 0 10 10\n", "1 on 2\n", '{"objects": [], "relationships": []}', "\nend\n",
        '{"id": "a.1", "bbox": [0, 0, 1, 1]}',
    ]
)  # fmt: skip
alphabet = st.characters(codec=None, exclude_categories=())


@given(text=st.one_of(st.text(alphabet, max_size=200), st.lists(pieces, max_size=40).map("".join)))
@settings(max_examples=250, deadline=None)
def test_any_text_gives_a_sound_result(text):
    for output_format in OUTPUT_FORMATS:
        for truncated in (False, True):
            assert_sound(parse_answer(text, output_format, IMAGE_WH, truncated=truncated))
        strict = parse_answer(text, output_format, IMAGE_WH, strict=True)
        assert not (strict.ok and strict.issues)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(alphabet, max_size=5) | st.just("dog.1"),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(["id", "bbox", "bbox_2d", "label", "subject", "predicate", "object", "objects", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(objects=st.lists(values, max_size=5), relations=st.lists(values, max_size=5))
@settings(max_examples=100, deadline=None)
def test_any_elements_give_a_sound_result(objects, relations):
    text = json.dumps({"objects": objects, "relationships": relations})
    result = parse_answer(text, OutputFormat("json"), IMAGE_WH)
    assert_sound(result)
    # every element is kept or has exactly one issue
    assert len(result.graph.objects) + len(result.graph.relations) + len(result.issues) == len(objects) + len(relations)
    assert_sound(parse_answer(json.dumps(objects), OutputFormat("detections"), IMAGE_WH))


@given(value=values, around=st.sampled_from([("", ""), ("so: ", "\n"), ("[x ", " ]"), ("{'", "}")]))
@settings(max_examples=100, deadline=None)
def test_the_scanner_agrees_with_json(value, around):
    text = json.dumps(value)
    scan = scan_values(around[0] + text + around[1])
    assert not scan.breaks_off
    if isinstance(value, list | dict):
        assert [start for start, _ in scan.values] == [len(around[0])]
    else:
        assert scan.values == []
