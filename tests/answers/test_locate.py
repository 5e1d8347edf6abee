"""The characters that are said to hold an element are those that the parser read it from."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from answers.strategies import IMAGE_WH, INPUT_WH, graphs
from scenerl.answers import FORMATS, TRAINED, OutputFormat, locate_elements, parse_answer, write_answer
from scenerl.answers.elements import label_of
from scenerl.answers.json_text import MAX_TOKENS

PIXELS = (100, 100)
"""In frame ``pixels`` an answer's numbers are the boxes themselves."""


def output_format_of(format: str, template: str = "plain") -> OutputFormat:
    return OutputFormat(format, template, box_format="pixels")


def cut(text: str, span) -> str:
    return text[slice(*span)]


def shown(text: str, output_format: OutputFormat) -> tuple[list, list]:
    """The text at the places of the elements."""
    found = locate_elements(text, output_format)
    return (
        [[cut(text, span) for spans in item.values() for span in spans] for item in found.objects],
        [[cut(text, span) for spans in item.values() for span in spans] for item in found.relations],
    )


def unescaped(raw: str, output_format: OutputFormat) -> str:
    if output_format.format == "toon":
        return re.sub(r"\\(.)", r"\1", raw).strip()
    if output_format.format == "compact" or "\\" not in raw:
        return raw
    value = json.loads(f'"{raw}"').strip()
    return label_of(value).strip() if output_format.format == "json" else value


def check(text: str, output_format: OutputFormat) -> int:
    """Compare with the parser, element by element; the number of elements."""
    result = parse_answer(text, output_format, PIXELS)
    found = locate_elements(text, output_format)
    if not result.ok:
        assert found.objects == found.relations == ()
        return 0
    graph = result.graph
    assert (len(found.objects), len(found.relations)) == (len(graph.objects), len(graph.relations))
    for item, spans in zip(graph.objects, found.objects, strict=True):
        assert unescaped(cut(text, *spans["label"]), output_format) == item.label
        assert tuple(float(cut(text, span)) for span in spans["box"]) == item.box
    for item, spans in zip(graph.relations, found.relations, strict=True):
        raw = cut(text, *spans["predicate"])
        assert (
            json.loads(f'"{raw}"').strip() if output_format.format == "json" else unescaped(raw, output_format)
        ) == (item.predicate)
        if output_format.format == "json":
            ends = [json.loads(f'"{cut(text, span)}"') for span in (*spans["subject"], *spans["object"])]
            assert [label_of(end.strip()).strip() for end in ends] == [
                graph.objects[item.subject].label,
                graph.objects[item.object].label,
            ]
        else:
            assert all(cut(text, span).isdigit() for span in (*spans["subject"], *spans["object"]))
    return len(graph.objects) + len(graph.relations)


@pytest.mark.parametrize("format", TRAINED)
@pytest.mark.parametrize("template", ["plain", "think"])
@given(data=st.data())
def test_target_answers(format, template, data):
    output_format = OutputFormat(format, template)
    graph = data.draw(graphs(FORMATS[format].graph))
    reasoning = data.draw(st.sampled_from(["", "hm", '{"objects": []}', "1 2 3"])) if template == "think" else None
    text = write_answer(graph, output_format, IMAGE_WH, INPUT_WH, reasoning)
    before, after = data.draw(st.sampled_from([("", ""), ("\n \t", "\n"), ("\u3000", " "), ("```json\n", "\n```")]))
    text = f"{before}{text}{after}"
    assert check(text, output_format_of(format, template)) == len(graph.objects) + len(graph.relations)


SNIPPETS = [
    '{"objects": [', '{"id": "dog.1", "bbox": [1, 2, 30, 40]}', ', {"id": "cat.2", "bbox": [5, 5, 9, 9.5]}', "], ",
    '"relationships": [', '{"subject": "dog.1", "predicate": "on", "object": "cat.2"}', "]}", "[", "]", '"', "\\",
    '{"bbox_2d": [1, 2, 3, 4], "label": " red ball "}', ", ", "None", "<think>", "</think>", "<answer>", "</answer>",
    "```json\n", "```", "\n", "\r\n", " ", "dog 1 2 30 40", "a cat 5 5 9 9", "1 sits on 2", "end", "\n\n", "\x0b", "犬",
    "\x00", "{", "}", "7", "\ud800", "e",
]  # fmt: skip


@pytest.mark.parametrize("format", TRAINED)
@pytest.mark.parametrize("template", ["plain", "think"])
@given(parts=st.lists(st.sampled_from(SNIPPETS), max_size=25))
def test_any_text_agrees_with_the_parser(format, template, parts):
    check("".join(parts), output_format_of(format, template))


ANSWERS = {
    "json": '{"objects": [{"id": "dog.1", "bbox": [1, 2, 30, 40]}, {"id": "cat.2", "bbox": [5, 6, 9, 9.5]}, '
    '{"id": "dog.3", "bbox": [2, 3, 4, 5]}], "relationships": [{"subject": "dog.1", "predicate": "on", '
    '"object": "cat.2"}, {"subject": "cat.2", "predicate": "near", "object": "dog.3"}]}',
    "compact": "dog 1 2 30 40\nred cat 5 6 9 9.5\ndog 2 3 4 5\n\n1 on 2\n2 in front of 3\nend",
    "detections": '[{"bbox_2d": [1, 2, 30, 40], "label": "dog"}, {"bbox_2d": [5, 6, 9, 9.5], "label": "a cat"}]',
    "toon": 'obj[2]{id,name,x1,y1,x2,y2}:\n  1,dog,1,2,30,40\n  2,"a, cat",5,6,9,9.5\nrel[1]{subj,pred,obj}:\n  1,on,2',
}


@pytest.mark.parametrize("format", TRAINED)
@given(data=st.data())
def test_damaged_answers_agree_with_the_parser(format, data):
    text = ANSWERS[format]
    for _ in range(data.draw(st.integers(0, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(start + 12, len(text))))
        text = text[:start] + data.draw(st.sampled_from(["", *SNIPPETS, ANSWERS[format]])) + text[end:]
    check(text, output_format_of(format))


def test_the_answers_above_are_whole():
    assert [check(text, output_format_of(format)) for format, text in ANSWERS.items()] == [5, 5, 2, 3]


def test_json():
    text = ' {"objects": [{"id": " traffic light.12", "bbox": [1, 2, 3.5, 4e0]}, {"bbox": [0,0,9,9], "id": "no. 1"}],\n'
    text += '"relationships": [{"object": "no. 1", "subject": " traffic light.12", "predicate": " is near "}]}'
    assert shown(text, output_format_of("json")) == (
        [["traffic light", "1", "2", "3.5", "4e0"], ["no. 1", "0", "0", "9", "9"]],
        [["traffic light.12", "is near", "no. 1"]],
    )


def test_dropped_elements_and_keys_that_come_twice():
    text = """{"objects": [], "objects": [{"id": "cat.1", "bbox": [9, 9, 1, 1]}, 7, {"id": "dog.2", "id": "do\\u0067.3",
        "bbox": [1, 2, 3, 4, 5], "bbox": [11, 12, 13, 14]}, {"id": "dog.4", "bbox": [21, 22, 23, 24]}],
        "relationships": [{"subject": "dog.4", "predicate": "on", "object": "cat.1"},
        {"subject": "dog.4", "pre\\u0064icate": "under", "object": "dog.3"}]}"""
    assert shown(text, output_format_of("json")) == (
        [["do\\u0067.3", "11", "12", "13", "14"], ["dog", "21", "22", "23", "24"]],
        [["dog.4", "under", "dog.3"]],
    )


@pytest.mark.parametrize(("format", "draft"), [
    ("json", '{"objects": [{"id": "dog.1", "bbox": [1, 2, 3, 4]}], "relationships": []}'),
    ("compact", "dog 1 2 3 4\nend"),
    ("detections", '[{"label": "dog", "bbox_2d": [1, 2, 3, 4]}]'),
])  # fmt: skip
@pytest.mark.parametrize("template", ["plain", "think"])
def test_the_last_of_two_equal_answers_is_the_one(format, draft, template):
    for between in ("\n", "\nno, rather\n```json\n", "</think><answer>\n"):
        text = f"<think>{draft}{between}{draft}\n</answer>" if "answer" in between else f"{draft}{between}{draft}"
        (spans,) = locate_elements(text, output_format_of(format, template)).objects
        assert cut(text, *spans["label"]) == "dog" and spans["label"][0][0] > text.index(draft) + len(draft)


def test_lines():
    text = "Here it is:\n```\n  a  red dog\t1 2  3.5 4\nbird\ncat 5 5 4 4\nball 5 5 9 9\r\n"
    text += " 1 looks  at  4 \n2 on 4\nend\n```"
    assert shown(text, output_format_of("compact")) == (
        [["a  red dog", "1", "2", "3.5", "4"], ["ball", "5", "5", "9", "9"]],
        [["1", "looks  at", "4"]],
    )


def test_tags_between_lines():
    text = "dog 1 2 3 4\nend<think>dog 5 6 7 8\ncat 1 1 2 2\n1 near 2\nend</answer>"
    assert shown(text, output_format_of("compact")) == (
        [["dog", "5", "6", "7", "8"], ["cat", "1", "1", "2", "2"]],
        [["1", "near", "2"]],
    )


@pytest.mark.parametrize("text", [None, "", " ", 7, "no", "end", "None", "[]", '{"objects": [], "relationships": []}'])
@pytest.mark.parametrize("format", TRAINED)
def test_nothing(text, format):
    found = locate_elements(text, output_format_of(format))
    assert found.objects == found.relations == ()


def test_what_stands_beyond_the_bound_has_no_place():
    one = '{"id": "%s.1", "bbox": [1, 2, 3, 4]}'
    text = (
        f'{{"objects": [{one % "a"}, {{"id": 7, "bbox": [{"1," * MAX_TOKENS}1]}}, {one % "b"}], "relationships": []}}'
    )
    assert [item.label for item in parse_answer(text, output_format_of("json"), PIXELS).graph.objects] == ["a", "b"]
    first, last = locate_elements(text, output_format_of("json")).objects
    assert cut(text, *first["label"]) == "a" and last is None


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"objects": [' * 50_000,
        "<answer>" * 100_000,
        "```\n" * 100_000,
        "dog 1 2 3 4\n" * 100_000,
        "<think>dog 1 2 3 4\n" * 50_000 + "end",
        '{"objects": [], "relationships": [' + '{"subject": "a", ' * 30_000,
        "dog 1 2 3 4 " * 50_000 + "\nend",
        "\ud800" * 100_000,
    ],
    ids=lambda text: repr(text[:12]),
)
@pytest.mark.parametrize("format", TRAINED)
def test_large_hostile_text(text, format):
    check(text, output_format_of(format))
