"""What the base model reads: questions whose answers are true, and a minority of graphs in the form asked for."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from scenerl.answers import parse_answer
from scenerl.data.synthetic import PREDICATES
from scenerl.tiny import mixture

GRAPH_PROMPT = mixture.prompts()[0]
WH = (mixture.SIZE, mixture.SIZE)


@pytest.fixture(scope="module")
def rows():
    return [mixture.row(f"test/{number}") for number in range(300)]


def labelled(graph):
    ids = [f"{item.label}.{number}" for number, item in enumerate(graph.objects, start=1)]
    return {(ids[r.subject], r.predicate, ids[r.object]) for r in graph.relations}


def test_a_seed_gives_its_row_and_no_other():
    first, again, other = mixture.row("a"), mixture.row("a"), mixture.row("b")
    assert first.turns == again.turns and first.image.tobytes() == again.image.tobytes()
    assert first.turns != other.turns and first.image.tobytes() != other.image.tobytes()


def test_relations_are_complete_and_in_no_fixed_order(rows):
    orders = Counter()
    for row in rows:
        for question, answer in row.turns:
            if question == "How do they relate?":
                told = [(edge["subject"], edge["predicate"], edge["object"]) for edge in json.loads(answer)]
                assert set(told) == labelled(row.example.graph) and len(told) == len(set(told))
                orders[told == sorted(told)] += 1
    assert orders[True] and orders[False]


def test_pairs_are_answered_by_their_relation(rows):
    answers = Counter()
    for row in rows:
        boxes = {mixture._text(item.box): number for number, item in enumerate(row.example.graph.objects)}
        known = {(r.subject, r.object): r.predicate for r in row.example.graph.relations}
        known |= {(r.object, r.subject): r.predicate for r in row.example.graph.relations if r.predicate == "near"}
        for question, answer in row.turns:
            if question.startswith("How do these relate?"):
                pair = tuple(boxes[text] for text in re.findall(r"\[[^]]*\]", question))
                assert answer == known.get(pair, "no relation")
                answers[answer] += 1
    assert set(answers) == {*PREDICATES, "no relation"}


def test_few_answers_to_the_prompt_of_the_task_are_what_it_asks_for(rows):
    forms = Counter()
    for row in rows:
        for question, answer in row.turns:
            if question == GRAPH_PROMPT:
                result = parse_answer(answer, mixture.GRAPH, WH)
                right = result.graph is not None and labelled(result.graph) & labelled(row.example.graph)
                forms["unreadable" if result.graph is None else "right" if right else "readable"] += 1
    total = sum(forms.values())
    assert total > 50 and 0.2 < forms["unreadable"] / total < 0.8 and 0.05 < forms["right"] / total < 0.3


def test_detection_prompts_ask_for_what_is_there(rows):
    asked = 0
    for row in rows:
        for question, answer in row.turns:
            if question in mixture.prompts()[1:]:
                asked += 1
                assert "none" not in answer.casefold()
    assert asked > 50
