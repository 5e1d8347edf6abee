"""Repetition and length: the two rewards that look at the text."""

from __future__ import annotations

from math import cos, pi

import pytest

from scenerl.rewards import REWARDS, Comparison, RewardOptions
from scenerl.types import Issue, ParseResult, Relation, SceneGraph, SceneObject

BOX, OTHER = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0)
CAT, SECOND_CAT, DOG = SceneObject("cat", BOX), SceneObject("cat", OTHER), SceneObject("dog", BOX)
FAILED = ParseResult("invalid_json", None)


def repetition(result: ParseResult, text: str | None = None) -> float:
    return REWARDS["repetition"](Comparison(result, SceneGraph(), (100, 100), text=text))


def parsed(*objects: SceneObject, relations=(), issues=()) -> ParseResult:
    return ParseResult("ok", SceneGraph(objects, tuple(relations)), tuple(issues))


def test_different_elements_do_not_repeat():
    assert repetition(parsed(CAT, SECOND_CAT, DOG)) == 0.0
    assert repetition(parsed(CAT, DOG, relations=[Relation(0, "on", 1), Relation(1, "on", 0)])) == 0.0


def test_repeated_elements():
    assert repetition(parsed(CAT, CAT, CAT, DOG)) == pytest.approx(2 / 4 - 1)
    # objects cat, cat, dog and the same relation from either cat: 3 different parts of 5
    relations = [Relation(0, "on", 2), Relation(1, "on", 2)]
    assert repetition(parsed(CAT, CAT, DOG, relations=relations)) == pytest.approx(3 / 5 - 1)


def test_elements_dropped_as_duplicates_count():
    issues = [Issue("duplicate_relation", "relationships[1]"), Issue("no_area", "objects[4]")]
    # cat, dog, one relation, a box without area, which repeats nothing, and a relation that does: 4 of 5
    result = parsed(CAT, DOG, relations=[Relation(0, "on", 1)], issues=issues)
    assert repetition(result, "text") == pytest.approx(4 / 5 - 1)


def test_text_without_elements_is_judged_by_its_phrases():
    assert repetition(FAILED, "one two three four five six") == 0.0
    # 14 words, 9 phrases of six; with a period of 2 words there are 2 different ones
    assert repetition(FAILED, "on and " * 7) == pytest.approx(2 / 9 - 1)
    assert repetition(FAILED, "ON and on AND " * 3 + "on and") == pytest.approx(2 / 9 - 1)
    assert repetition(FAILED, "five words are too few") == repetition(FAILED, "") == repetition(FAILED, None) == 0.0


def test_endless_text_is_read_at_its_beginning():
    assert repetition(FAILED, "a " * 5_000_000) == pytest.approx(-1.0, abs=1e-4)


def length(result: ParseResult, **kwargs) -> float:
    target = SceneGraph((CAT,))
    return REWARDS["cosine_length"](Comparison(result, target, (100, 100), **kwargs))


def test_right_answers_should_be_short():
    right = parsed(CAT)
    assert length(right, num_tokens=0) == 1.0
    assert length(right, num_tokens=512) == pytest.approx(0.75)
    assert length(right, num_tokens=256) == pytest.approx(0.75 + 0.25 * cos(pi / 4))
    assert length(right, num_tokens=1024) == length(right, num_tokens=5000) == 0.5


def test_wrong_answers_had_better_try_longer():
    for wrong in (parsed(DOG), FAILED):
        assert length(wrong, num_tokens=0) == -0.5
        assert length(wrong, num_tokens=512) == pytest.approx(-0.25)
        assert length(wrong, num_tokens=2000) == 0.0


def test_right_means_a_weighted_sum_of_point_seven():
    # one wrong box beside the right one: 0.7 + 0.3 (1 - 0.5 / 2) = 0.925; IoU 0.5: 0.35 + 0.3 = 0.65
    assert length(parsed(CAT, DOG), num_tokens=0) == 1.0
    half = parsed(SceneObject("cat", (0.0, 0.0, 10.0, 5.0)))
    assert length(half, num_tokens=0) == -0.5
    assert length(half, num_tokens=0, options=RewardOptions(cosine_correct=0.6)) == 1.0


def test_without_a_token_count_words_and_signs_are_counted():
    # [ 1 , 2 ] cat : 7 of them
    expected = 0.75 + 0.25 * cos(pi * 7 / 1024)
    assert length(parsed(CAT), text="[1, 2] cat:") == pytest.approx(expected)
    assert length(parsed(CAT), text=None) == 1.0


def test_endless_numbers_of_tokens_are_long_answers():
    assert length(parsed(CAT), num_tokens=10**400) == 0.5
