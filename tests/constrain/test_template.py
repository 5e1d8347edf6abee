"""What may be written: the one form of an answer, byte by byte."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from answers.strategies import IMAGE_WH, INPUT_WH, graphs
from constrain.play import IDS, OUTPUT_FORMATS, graph, is_right, output_format_of, parse, spec_of, walk
from scenerl.answers import GrammarSpec, OutputFormat, build_grammar, write_answer
from scenerl.box_formats import extent_wh
from scenerl.constrain import constraint_of
from scenerl.constrain.template import build_template
from scenerl.types import Relation, SceneGraph, SceneObject

OPEN = [OutputFormat(fmt, template) for fmt in ("json", "compact", "detections") for template in ("plain", "think")]


@pytest.fixture(scope="session")
def accepts(bytewise):
    """Whether a text may be written as an answer."""

    def accepts(output_format: OutputFormat, text: str, bounds_wh=(1000, 1000)) -> bool:
        row = walk(constraint_of(GrammarSpec(output_format, bounds_wh), bytewise), text.encode())
        return row is not None and bool(row.mask()[bytewise.stop_ids[0]])

    return accepts


@given(
    graph=graphs(), box_format=st.sampled_from(["pixels", "norm1000", "norm1", "resized"]), step=st.sampled_from([1, 7])
)
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("output_format", OPEN, ids=lambda item: f"{item.format}-{item.template}")
def test_whatever_the_writer_writes_may_be_written(output_format, graph, box_format, step, accepts):
    assume(all(item.box[2] <= IMAGE_WH[0] and item.box[3] <= IMAGE_WH[1] for item in graph.objects))
    output_format = replace(output_format, box_format=box_format, step=step)
    text = write_answer(graph, output_format, IMAGE_WH, INPUT_WH)
    assert accepts(output_format, text, extent_wh(box_format, IMAGE_WH, INPUT_WH)), text


CHANGES = [
    "",
    '"',
    ", ",
    " ",
    "\n",
    "0",
    "1",
    "20",
    "1000",
    "end",
    "dog",
    "dog.1",
    "on",
    "None",
    "<",
    "1 on 2\n",
    "}, {",
]


@st.composite
def changed(draw, output_format: OutputFormat) -> str:
    """A right answer in which a few places are written over, with other parts of it or with something short."""
    text = write_answer(graph(np.random.default_rng(draw(st.integers(0, 30)))), output_format, (640, 427), (644, 420))
    cuts = [match.end() for match in re.finditer(r"\w+|\W", text)]
    for _ in range(draw(st.integers(0, 2))):
        start, end, first, last = (draw(st.sampled_from(cuts)) for _ in range(4))
        new = draw(st.sampled_from([*CHANGES, text[min(first, last) : max(first, last)]]))
        if draw(st.booleans()):
            end = cuts[min(len(cuts) - 1, cuts.index(start) + draw(st.integers(0, 2)))]
        text = text[:start] + new + text[max(start, end) :]
        cuts = [cut for cut in cuts if cut <= len(text)]
    return text


@given(data=st.data())
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("output_format", OUTPUT_FORMATS, ids=IDS)
def test_what_may_be_written_is_in_the_grammar_and_read_whole(output_format, data, in_grammar, accepts):
    """Neither grammar nor parser knows of the template. A right answer as the writer spells it may be written."""
    text = data.draw(changed(output_format))
    if accepts(output_format, text, spec_of(output_format).bounds_wh):
        assert in_grammar(output_format, text) and is_right(text, output_format), text
    elif is_right(text, output_format) and "<" not in text.removeprefix("<think>").partition("</think>")[0]:
        reasoning = text[len("<think>") : text.index("</think>")] if output_format.template == "think" else None
        assert text != write_answer(parse(text, output_format).graph, output_format, (640, 427), (644, 420), reasoning)


GRAPH = {
    "objects": [{"id": "dog.1", "bbox": [0, 0, 20, 20]}, {"id": "cat.2", "bbox": [20, 20, 1000, 1000]}],
    "relationships": [{"subject": "dog.1", "predicate": "on", "object": "cat.2"}],
}


@pytest.mark.parametrize("is_closed", [True, False])
@pytest.mark.parametrize(
    "old, new",
    [
        ("cat.2", "bird.2", ),
        ('"object": "cat.2"', '"object": "dog.1"'),
        ('"object": "cat.2"', '"object": "cat.3"'),
        ('"id": "cat.2"', '"id": "dog.1"'),
        ("[20, 20, 1000, 1000]", "[20, 20, 20, 1000]"),
        ("[20, 20, 1000, 1000]", "[20, 20, 1000, 0]"),
        ("[20, 20, 1000, 1000]", "[20, 20, 1020, 1000]"),
        ("[20, 20, 1000, 1000]", "[-20, 20, 1000, 1000]"),
        ("[20, 20, 1000, 1000]", "[020, 20, 1000, 1000]"),
        ("[20, 20, 1000, 1000]", "[21, 20, 1000, 1000]"),
        ("[20, 20, 1000, 1000]", "[1000, 20, 1000, 1000]"),
        ('"predicate": "on"', '"predicate": ""'),
        ("]}", "]}x"),
        ("}]}", "}, " + json.dumps(GRAPH["relationships"][0]) + "]}"),
    ],
)  # fmt: skip
def test_json_that_may_not_be_written(is_closed, old, new, accepts):
    text = json.dumps(GRAPH)
    assert text.count(old) and (output_format := output_format_of("json", "plain", is_closed))
    changed = text.replace(old, new)
    # in an open vocabulary another name is no mistake, if it is so everywhere
    assert accepts(output_format, changed) == (not is_closed and new == "bird.2")


@pytest.mark.parametrize(
    "label",
    ["route 66", "no. 1", "7", "end", "ending", "st.1.2", 'say "x"', "back\\slash", "é 犬", "<table", "a  b", "`a"],
)
def test_open_labels(label, accepts):
    graph = {"objects": [{"id": f"{label}.1", "bbox": [0, 0, 5, 5]}], "relationships": []}
    for fmt, text in {
        "json": json.dumps(graph, ensure_ascii=False),
        "compact": f"{label} 0 0 5 5\nend",
        "detections": json.dumps([{"bbox_2d": [0, 0, 5, 5], "label": label}], ensure_ascii=False),
    }.items():
        assert accepts(OutputFormat(fmt), text), text


@pytest.mark.parametrize("label", ["", " ", "\x07", "a<think>", "\u2028"])
def test_open_labels_that_are_none(label, accepts):
    for fmt, text in {
        "json": '{"objects": [{"id": "%s.1", "bbox": [0, 0, 5, 5]}], "relationships": []}',
        "compact": "%s 0 0 5 5\nend",
        "detections": '[{"bbox_2d": [0, 0, 5, 5], "label": "%s"}]',
    }.items():
        assert not accepts(OutputFormat(fmt), text % label), text


@pytest.mark.parametrize(
    "text, is_allowed",
    [
        ("end", True),
        ("\nend", False),
        ("dog 0 0 20 20\n\nend", False),
        ("dog 0 0 20 20\nend", True),
        ("dog 0 0 20 20\ncat 0 0 20 20\n\n1 on 2\n2 on 1\n1 on top of 2\nend", True),
        ("end table 0 0 20 20\nend", True),
        ("end 0 0 20 20\nend", True),
        ("dog 0 0 20 20\ncat 0 0 20 20\n\n1 on 2\n1 on 2\nend", False),
        ("dog 0 0 20 20\ncat 0 0 20 20\n\n1 on 1\nend", False),
        ("dog 0 0 20 20\ncat 0 0 20 20\n\n1 on 3\nend", False),
        ("dog 0 0 20 20\ncat 0 0 20 20\n\n01 on 2\nend", False),
        ("dog 0 0 20 20\n\n1 on 2\nend", False),
        ("dog 20 0 20 20\nend", False),
        ("dog 0 0 20\nend", False),
        ("0 0 20 20\nend", False),
        ("dog 0 0 20 20", False),
        ("end of", False),
    ],
)
@pytest.mark.parametrize("is_closed", [True, False])
def test_compact(text, is_allowed, is_closed, accepts):
    assert accepts(output_format_of("compact", "plain", is_closed), text) == is_allowed


def test_predicates_that_would_make_a_line_an_object(accepts):
    start = "a 0 0 5 5\nb 0 0 5 5\n\n1 "
    assert accepts(OutputFormat("compact"), f"{start}2 2\nend")
    assert not accepts(OutputFormat("compact"), f"{start}2 3 2\nend")
    assert accepts(OutputFormat("compact"), f"{start}2 3 of 2\nend")
    with pytest.raises(ValueError, match="cannot hold the predicate '2 3'"):
        build_template(GrammarSpec(OutputFormat("compact", predicates=("2 3",)), (1000, 1000)))


def test_words_that_lines_cannot_tell_apart():
    with pytest.raises(
        ValueError, match="the objects 'route' and 'route 66' cannot be told apart in the compact format"
    ):
        build_template(GrammarSpec(OutputFormat("compact", objects=("route 66", "route")), (1000, 1000)))


@pytest.mark.parametrize("text, is_allowed", [("None", True), ("none", False), ("[]", False), ("None.", False)])
def test_nothing_found(text, is_allowed, accepts):
    assert accepts(OutputFormat("detections", objects=("dog",)), text) == is_allowed


def test_reasoning(accepts):
    output_format = OutputFormat("compact", "think")
    body = "\n<answer>\nend\n</answer>"
    assert accepts(output_format, f"<think>Is 3 < 4?\n\tYes.</think>{body}")
    assert accepts(output_format, f"<think></think>{body}")
    for reasoning in ("<think>", "</answer>", "<answer>", "<<", "\x00"):
        assert not accepts(output_format, f"<think>a {reasoning} b</think>{body}")
    assert not accepts(output_format, "end")
    assert not accepts(output_format, "<think></think><answer>end</answer>")


@pytest.mark.parametrize("build", [build_template, lambda shape: build_grammar(shape.output_format, shape.bounds_wh)])
def test_vocabularies_that_no_answer_can_be_written_in(build):
    with pytest.raises(ValueError, match="^constrain: the closed vocabulary of objects is empty"):
        build(GrammarSpec(OutputFormat("detections", objects=()), (1000, 1000)))
    for word in ("", " dog", "dog\n", "a<answer>", "a" * 257):
        for what, name in {"objects": "object label", "predicates": "predicate"}.items():
            with pytest.raises(ValueError, match=f"^constrain: no answer can hold the {name} '"):
                build(GrammarSpec(OutputFormat("json", **{what: ("dog", word)}), (1000, 1000)))
    build(GrammarSpec(OutputFormat("json", objects=("a" * 256,)), (1000, 1000)))


@pytest.mark.parametrize("fmt", ["json", "compact"])
def test_without_predicates_there_are_no_relations(fmt, accepts):
    output_format = OutputFormat(fmt, objects=("dog",), predicates=())
    objects = (SceneObject("dog", (0, 0, 50, 50)), SceneObject("dog", (50, 50, 100, 100)))
    text = write_answer(SceneGraph(objects), output_format, (100, 100))
    assert accepts(output_format, text)
    related = replace(output_format, predicates=("on",))
    text = write_answer(SceneGraph(objects, (Relation(0, "on", 1),)), related, (100, 100))
    assert (
        accepts(related, text)
        and not accepts(output_format, text)
        and not accepts(output_format, text.replace("on", ""))
    )


def test_an_image_without_room_is_refused():
    with pytest.raises(ValueError, match="no box with an area fits an image of 0 x 10"):
        build_template(GrammarSpec(OutputFormat(), (0, 10)))


def test_a_thousand_objects_are_enough(bytewise):
    """What the parser would drop is not written."""
    constraint = constraint_of(GrammarSpec(OutputFormat("compact", objects=("dog",)), (1000, 1000)), bytewise)
    text = "\n".join(["dog 0 0 5 5"] * 1000)
    assert walk(constraint, f"{text}\nd".encode()) is None
    assert walk(constraint, f"{text}\n\n999 ".encode()) is not None and walk(constraint, f"{text}\nend".encode())
