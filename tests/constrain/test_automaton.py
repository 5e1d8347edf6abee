"""The automaton itself: what may be written, and that it can always be ended."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from answers.strategies import IMAGE_WH, INPUT_WH, graphs
from constrain.play import BOX_FORMATS, STYLES, graph, is_right, output_format_of, shape_of
from scenerl.answers import GrammarSpec, OutputFormat, build_grammar, write_answer
from scenerl.box_formats import extent_wh
from scenerl.constrain.automaton import Automaton
from scenerl.constrain.nodes import walk
from scenerl.types import Relation, SceneGraph, SceneObject

OPEN = [OutputFormat(fmt, template) for fmt in ("json", "compact", "detections") for template in ("plain", "think")]


def accepts(output_format: OutputFormat, text: str, bounds_wh=(1000, 1000)) -> bool:
    automaton = Automaton(GrammarSpec(output_format, bounds_wh))
    state = walk(automaton.start, text.encode())
    return state is not None and automaton.is_end(state)


@given(
    graph=graphs(), box_format=st.sampled_from(["pixels", "norm1000", "norm1", "resized"]), step=st.sampled_from([1, 7])
)
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize(
    "output_format", OPEN, ids=lambda output_format: f"{output_format.format}-{output_format.template}"
)
def test_whatever_the_writer_writes_may_be_written(output_format, graph, box_format, step):
    assume(all(item.box[2] <= IMAGE_WH[0] and item.box[3] <= IMAGE_WH[1] for item in graph.objects))
    output_format = OutputFormat(output_format.format, output_format.template, box_format=box_format, step=step)
    text = write_answer(graph, output_format, IMAGE_WH, INPUT_WH)
    assert accepts(output_format, text, extent_wh(box_format, IMAGE_WH, INPUT_WH)), text
    if output_format.template == "plain":
        assert accepts(output_format, f"```\n{text}\n```", extent_wh(box_format, IMAGE_WH, INPUT_WH))


@given(data=st.data())
@settings(max_examples=25, deadline=None)
@pytest.mark.parametrize(
    "output_format", STYLES, ids=lambda s: f"{s.format}-{s.template}-{'open' if s.objects is None else 1}"
)
def test_every_beginning_has_an_end(output_format, data):
    """Random bytes among those allowed, then the shortest end, at every place: a valid answer, byte by byte."""
    automaton = Automaton(shape_of(output_format))
    state, text = automaton.start, b""
    for _ in range(data.draw(st.integers(0, 60))):
        choices = [byte for byte in range(256) if walk(state, bytes((byte,))) is not None]
        if not choices:
            break
        marks = [byte for byte in choices if byte in b'",:[]{} \n0123456789'] or choices
        byte = data.draw(st.sampled_from(data.draw(st.sampled_from([choices, marks]))))
        state, text = walk(state, bytes((byte,))), text + bytes((byte,))
        end = b"".join(automaton.rest(state))
        ended = walk(state, end)
        assert ended is not None and automaton.is_end(ended), (text, end)
    assert is_right((text + b"".join(automaton.rest(state))).decode(), output_format)


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
@settings(max_examples=100, deadline=None)
@pytest.mark.parametrize(
    "output_format", STYLES, ids=lambda s: f"{s.format}-{s.template}-{'open' if s.objects is None else 1}"
)
def test_what_may_be_written_is_what_the_grammar_and_the_parser_take(output_format, data, in_grammar):
    """Both know nothing of the automaton: the one has no memory, the other reads more forms."""
    text = data.draw(changed(output_format))
    assume("end<" not in text)  # an answer ends there; no label begins so, although both could hold one
    assert accepts(output_format, text, shape_of(output_format).bounds_wh) == (
        in_grammar(output_format, text) and is_right(text, output_format)
    ), text


GRAPH = {
    "objects": [{"id": "dog.1", "bbox": [0, 0, 20, 20]}, {"id": "cat.2", "bbox": [20, 20, 1000, 1000]}],
    "relationships": [{"subject": "dog.1", "predicate": "on", "object": "cat.2"}],
}


@pytest.mark.parametrize("is_closed", [True, False])
@pytest.mark.parametrize(
    "spaces",
    [{}, {"separators": (",", ":")}, {"indent": 2}, {"indent": 4}],
    ids=["usual", "short", "indent2", "indent4"],
)
def test_json_may_be_spaced(is_closed, spaces):
    output_format = output_format_of("json", "plain", is_closed)
    assert accepts(output_format, json.dumps(GRAPH, **spaces))
    assert accepts(output_format, f"```json\n{json.dumps(GRAPH, **spaces)}\n```")


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
def test_json_that_may_not_be_written(is_closed, old, new):
    text = json.dumps(GRAPH)
    assert text.count(old) and (output_format := output_format_of("json", "plain", is_closed))
    changed = text.replace(old, new)
    # in an open vocabulary another name is no mistake, if it is so everywhere
    assert accepts(output_format, changed) == (not is_closed and new == "bird.2")


@pytest.mark.parametrize(
    "label",
    ["route 66", "no. 1", "7", "end", "ending", "st.1.2", 'say "x"', "back\\slash", "é 犬", "<table", "a  b", "`a"],
)
def test_open_labels(label):
    graph = {"objects": [{"id": f"{label}.1", "bbox": [0, 0, 5, 5]}], "relationships": []}
    for fmt, text in {
        "json": json.dumps(graph, ensure_ascii=False),
        "compact": f"{label} 0 0 5 5\nend",
        "detections": json.dumps([{"bbox_2d": [0, 0, 5, 5], "label": label}], ensure_ascii=False),
    }.items():
        assert accepts(OutputFormat(fmt), text), text


@pytest.mark.parametrize("label", ["", " ", "\x07", "a<think>", "\u2028"])
def test_open_labels_that_are_none(label):
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
        ("\nend", True),
        ("dog 0 0 20 20\n\nend", True),
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
def test_compact(text, is_allowed, is_closed):
    assert accepts(output_format_of("compact", "plain", is_closed), text) == is_allowed


def test_predicates_that_would_make_a_line_an_object():
    start = "a 0 0 5 5\nb 0 0 5 5\n\n1 "
    assert accepts(OutputFormat("compact"), f"{start}2 2\nend")
    assert not accepts(OutputFormat("compact"), f"{start}2 3 2\nend")
    assert accepts(OutputFormat("compact"), f"{start}2 3 of 2\nend")
    with pytest.raises(ValueError, match="cannot hold the predicate '2 3'"):
        Automaton(GrammarSpec(OutputFormat("compact", predicates=("2 3",)), (1000, 1000)))


def test_words_that_lines_cannot_tell_apart():
    with pytest.raises(
        ValueError, match="the objects 'route' and 'route 66' cannot be told apart in the compact format"
    ):
        Automaton(GrammarSpec(OutputFormat("compact", objects=("route 66", "route")), (1000, 1000)))


@pytest.mark.parametrize("text", ["None", "none.", "[]", "[ ]", "```json\nNone\n```"])
def test_nothing_found(text):
    assert accepts(OutputFormat("detections", objects=("dog",)), text)


def test_thoughts():
    output_format = OutputFormat("compact", "think")
    body = "<answer>\nend\n</answer>"
    assert accepts(output_format, f"<think>Is 3 < 4?\n\tYes.</think>\n{body}")
    assert accepts(output_format, f"<think></think>{body}")
    for reasoning in ("<think>", "</answer>", "<answer>", "<", "\x00"):
        assert not accepts(output_format, f"<think>a {reasoning} b</think>\n{body}") or reasoning == "<"
    assert not accepts(output_format, "end")


@pytest.mark.parametrize("build", [Automaton, lambda shape: build_grammar(shape.output_format, shape.bounds_wh)])
def test_vocabularies_that_no_answer_can_be_written_in(build):
    with pytest.raises(ValueError, match="^constrain: the closed vocabulary of objects is empty"):
        build(GrammarSpec(OutputFormat("detections", objects=()), (1000, 1000)))
    for word in ("", " dog", "dog\n", "a<answer>", "a" * 257):
        for what, name in {"objects": "object label", "predicates": "predicate"}.items():
            with pytest.raises(ValueError, match=f"^constrain: no answer can hold the {name} '"):
                build(GrammarSpec(OutputFormat("json", **{what: ("dog", word)}), (1000, 1000)))
    build(GrammarSpec(OutputFormat("json", objects=("a" * 256,)), (1000, 1000)))


@pytest.mark.parametrize("fmt", ["json", "compact"])
def test_without_predicates_there_are_no_relations(fmt):
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


def test_a_frame_without_room_is_refused():
    with pytest.raises(ValueError, match="no box with an area fits a frame of 0 x 10"):
        Automaton(GrammarSpec(OutputFormat(), (0, 10)))


def test_a_thousand_objects_are_enough():
    """What the parser would not read is not written; the number of the next object stays its own."""
    automaton = Automaton(GrammarSpec(OutputFormat("compact", objects=("dog",)), (1000, 1000)))
    state = walk(automaton.start, b"dog 0 0 5 5\n" * 1000)
    assert walk(state, b"d") is None and walk(state, b"\n999 ") is not None
    assert walk(state, b"end") is not None


def test_frames_of_the_tests_are_frames():
    assert all(width and height and step for width, height, step in BOX_FORMATS.values())
