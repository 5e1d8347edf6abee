"""The grammar that servers get: it holds every answer that decoding allows, and is one that xgrammar compiles."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from constrain.play import OUTPUT_FORMATS, graph, output_format_of, parse, play, spec_of, wander
from scenerl.answers import OutputFormat, build_grammar, write_answer
from scenerl.constrain import constraint_of
from scenerl.types import SceneGraph

TABLES = [output_format_of("toon", "plain", is_closed) for is_closed in (True, False)]


def _name(output_format: OutputFormat) -> str:
    count = "open" if output_format.objects is None else len(output_format.predicates)
    return f"{output_format.format}-{output_format.template}-{count}"


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS, ids=_name)
def test_what_decoding_allows_the_grammar_allows(output_format, vocabulary, tokenizer, in_grammar):
    constraint = constraint_of(spec_of(output_format), vocabulary)
    for seed in range(4):
        text = tokenizer.decode(play(constraint, 90, seed), skip_special_tokens=True)
        assert in_grammar(output_format, text), text


@pytest.mark.parametrize(
    "output_format", [*OUTPUT_FORMATS, replace(output_format_of("compact", "plain", True), predicates=())], ids=_name
)
def test_what_the_grammar_allows_is_read(output_format, matcher_of):
    """Whatever a server that keeps to the grammar alone answers is no failure; elements may be dropped."""
    rng = np.random.default_rng(0)
    beginning = "<think>a < b</think>" if output_format.template == "think" else ""
    texts = {wander(matcher_of(output_format), rng, beginning) for _ in range(60)} - {None}
    assert len(texts) > 5
    for text in texts:
        assert parse(text, output_format).ok, text


@pytest.mark.parametrize("output_format", TABLES, ids=_name)
def test_the_grammar_of_tables_holds_what_is_written_and_no_failure(output_format, in_grammar, matcher_of):
    rng = np.random.default_rng(0)
    for _ in range(10):
        assert in_grammar(output_format, text := write_answer(graph(rng), output_format, (640, 427))), text
    assert in_grammar(output_format, write_answer(SceneGraph(), output_format, (640, 427)))
    texts = {wander(matcher_of(output_format), rng, "") for _ in range(30)} - {None}
    assert len(texts) > 2 and all(parse(text, output_format).status in ("ok", "wrong_schema") for text in texts)


def test_formats_without_a_grammar_or_a_template_are_refused(vocabulary):
    with pytest.raises(ValueError, match="no grammar for the format 'gemini'; allowed: json, compact"):
        build_grammar(OutputFormat("gemini"), (1000, 1000))
    for fmt in ("toon", "internvl"):
        with pytest.raises(ValueError, match=f"constrain: the format '{fmt}' has no template.*use json, compact or"):
            constraint_of(spec_of(OutputFormat(fmt)), vocabulary)


@pytest.mark.parametrize("largest", [1, 9, 10, 37, 99, 100, 640, 1000, 1024])
def test_numbers_of_the_image(largest, in_grammar):
    output_format = OutputFormat("detections", objects=("x",), box_format="pixels")
    for number in range(1100 if largest > 100 else 120):
        text = json.dumps([{"bbox_2d": [0, 0, number, 0], "label": "x"}])
        assert in_grammar(output_format, text, (largest, 5)) == (number <= largest), number


@pytest.mark.parametrize(
    "text",
    ["01", "-1", "1.5", "1e1", "+1", " ", "99999"],
    ids=["zero", "minus", "decimal", "e", "plus", "none", "large"],
)
def test_no_other_numbers(text, in_grammar):
    output_format = OutputFormat("detections", objects=("x",))
    assert not in_grammar(output_format, f'[{{"bbox_2d": [{text}, 0, 5, 5], "label": "x"}}]')


def test_quantisation_step(in_grammar):
    output_format = output_format_of("detections", "plain", True)
    texts = [f'[{{"bbox_2d": [0, 0, {number}, 20], "label": "dog"}}]' for number in (980, 990, 1000, 1020)]
    assert [in_grammar(output_format, text) for text in texts] == [True, False, True, False]


def test_words_with_quotes_and_backslashes(in_grammar):
    words = ('say "x"', "back\\slash", "é 犬", "tab?")
    output_format = OutputFormat("json", objects=words, predicates=words)
    for word in words:
        graph = {
            "objects": [{"id": f"{word}.1", "bbox": [0, 0, 5, 5]}, {"id": f"{word}.2", "bbox": [0, 0, 5, 5]}],
            "relationships": [{"subject": f"{word}.1", "predicate": word, "object": f"{word}.2"}],
        }
        assert in_grammar(output_format, json.dumps(graph, ensure_ascii=False))
    assert not in_grammar(
        output_format, json.dumps({"objects": [{"id": "dog.1", "bbox": [0, 0, 5, 5]}], "relationships": []})
    )
