"""What SFT writes into a thought."""

from __future__ import annotations

import pytest

from scenerl.answers import OutputFormat, parse_answer, write_answer
from scenerl.answers.reasoning import REASONING, summary
from scenerl.commands.sft import SFTOptions
from scenerl.types import Relation, SceneGraph, SceneObject

DOG, CAT = SceneObject("dog", (0, 0, 10, 10)), SceneObject("cat", (20, 20, 40, 40))
GRAPH = SceneGraph((DOG, CAT, DOG), (Relation(0, "near", 1),))


def test_summary_counts_what_is_asked_for_and_what_is_there():
    assert summary(GRAPH, ("cat", "sofa", "dog")) == "cat: 1; sofa: none; dog: 2."
    assert summary(GRAPH, None) == "dog: 2; cat: 1. Relations: 1."
    assert summary(SceneGraph(), ("sofa",)) == "sofa: none."
    assert summary(SceneGraph(), None) == "No objects. Relations: 0."


@pytest.mark.parametrize("name", REASONING)
@pytest.mark.parametrize("query", [None, ("cat", "dog")])
def test_an_answer_behind_a_thought_reads_back(name, query):
    output_format = OutputFormat("json" if query is None else "detections", "think", objects=query)
    text = write_answer(GRAPH, output_format, (100, 100), reasoning=REASONING[name](GRAPH, query))
    result = parse_answer(text, output_format, (100, 100))
    assert result.ok and result.in_template and not result.issues
    assert sorted(found.label for found in result.graph.objects) == ["cat", "dog", "dog"]


def test_the_plain_envelope_has_no_place_for_one():
    with pytest.raises(ValueError, match="use 'think'"):
        write_answer(GRAPH, OutputFormat("json"), (100, 100), reasoning=REASONING["summary"](GRAPH, None))


def test_the_option_names_them():
    choices = SFTOptions.__dataclass_fields__["thought"].type
    assert all(name in choices for name in REASONING)
