"""Phrases that training never asks for are in the test sets for them alone, and mean what they say."""

from __future__ import annotations

import pytest

from scenerl import data
from scenerl.study import combinations


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("combinations")
    ticks = []
    combinations.make(folder, 120, 40, seed=0, progress=ticks.append)
    assert sum(ticks) == combinations.num_scenes(120, 40)
    names = ("train", "test", "names", "negations", "shapes")
    return {name: list(data.load(folder / f"{name}.jsonl")) for name in names}


def asked(rows) -> set[str]:
    return {phrase for row in rows for phrase in row.query}


def test_each_set_asks_for_its_own_phrases(rows):
    assert asked(rows["names"]) == set(combinations.UNSEEN_NAMES)
    assert asked(rows["negations"]) == set(combinations.UNSEEN_NEGATIONS)
    unseen = {*combinations.UNSEEN_NAMES, *combinations.UNSEEN_NEGATIONS}
    seen = {*combinations.NAMES, *combinations.NEGATIONS} - unseen
    assert asked(rows["train"]) == seen and asked(rows["test"]) <= seen
    words = {word for phrase in seen for word in phrase.split()}
    assert all(word in words for phrase in unseen for word in phrase.split())


def test_boxes_are_those_that_the_phrase_means(rows):
    shapes = {row.image_id: row.graph.objects for row in rows["shapes"]}
    num_sparse = 0
    for row in rows["train"]:
        (phrase,) = row.query
        kind = next(word for word in phrase.split() if word in combinations.KINDS)
        colour = next(word for word in phrase.split() if word in combinations.COLOURS)
        meant = {
            item.box
            for item in shapes[row.image_id]
            if item.label.endswith(kind) and (item.label.startswith(colour) != ("not" in phrase))
        }
        found = {item.box for item in row.graph.objects}
        assert found and found <= meant
        num_sparse += found < meant
    assert num_sparse > 10
