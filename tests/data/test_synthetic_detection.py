"""Synthetic detection: phrases mean what they say, queries hold absent ones, splits are apart."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from scenerl import data
from scenerl.data import synthetic_detection as made
from scenerl.data.synthetic_detection import Shape, phrases

SCENES = 300


def found_in(*shapes: tuple[str, str, tuple]) -> dict[str, tuple[int, ...]]:
    return phrases(tuple(Shape(*shape) for shape in shapes))


def test_attributes():
    found = found_in(
        ("red", "circle", (0, 0, 2, 2)), ("red", "circle", (5, 5, 7, 7)), ("blue", "square", (8, 0, 10, 2))
    )
    assert found["red circle"] == (0, 1) and found["blue square"] == (2,)
    assert found["blue circle"] == found["green triangle"] == ()


def test_positions():
    left, right, low = (
        ("red", "circle", (0, 3, 2, 5)),
        ("blue", "circle", (4, 4, 6, 6)),
        ("red", "circle", (1, 8, 3, 10)),
    )
    assert found_in(left, right)["leftmost circle"] == (0,)
    assert "topmost circle" not in found_in(left, right)  # a cell apart: people would not agree
    assert "leftmost circle" not in found_in(left, right, low)
    assert found_in(right, low)["topmost circle"] == (0,) and found_in(right, low)["leftmost circle"] == (1,)
    assert found_in(left)["leftmost circle"] == (0,) and found_in(left)["leftmost square"] == ()


def test_relations():
    square, circle = ("red", "square", (0, 0, 2, 2)), ("blue", "circle", (5, 6, 7, 8))
    found = found_in(square, circle)
    assert found["square above the circle"] == (0,) and found["circle above the square"] == ()
    assert found["square above the triangle"] == ()  # there is no triangle
    assert "square above the circle" not in found_in(square, ("blue", "circle", (5, 1, 7, 3)))  # almost level
    assert "square above the circle" not in found_in(square, circle, ("red", "circle", (8, 8, 10, 10)))  # which one?
    two = found_in(square, ("green", "square", (3, 0, 5, 2)), circle)
    assert two["square above the circle"] == (0, 1)


def test_a_picture_shows_its_shapes():
    for number in range(40):
        image, shapes = made.scene(f"look/{number}", size=100)
        pixels = np.asarray(image).astype(int)
        for item in shapes:
            x1, y1, x2, y2 = (10 * cell for cell in item.cells)
            centre = pixels[(y1 + y2) // 2, (x1 + x2) // 2]
            assert np.abs(centre - np.array(made.COLOURS[item.colour])).max() <= 15
            ring = pixels[max(y1 - 4, 0) : y2 + 4, max(x1 - 4, 0) : x2 + 4]
            assert ring.shape[0] > 0 and 1 <= len(shapes) <= 3


def questions(asking: str):
    for number in range(SCENES):
        key = f"ask/{number}"
        shapes = made.scene(key)[1]
        yield phrases(shapes), shapes, made.example(shapes, key, str(number), asking)


@pytest.mark.parametrize("asking, share", [("few_negatives", 0.1), ("negatives", 0.5)])
def test_answers_are_complete_and_negatives_as_often_as_said(asking, share):
    absent = 0
    for found, _, example in questions(asking):
        assert len(set(example.query)) == made.NUM_ASKED and set(example.query) <= set(found)
        labels = [item.label for item in example.graph.objects]
        assert labels == [label for label in example.query for _ in found[label]]  # all, in the order of the query
        absent += sum(not found[label] for label in example.query)
    assert absent / (SCENES * made.NUM_ASKED) == pytest.approx(share, abs=0.05)


def test_negatives_are_hard():
    absent = hard = 0
    places = Counter()
    for found, shapes, example in questions("negatives"):
        words = {word for item in shapes for word in item.name.split()}
        for place, label in enumerate(example.query):
            if not found[label]:
                absent += 1
                places[place] += 1
                hard += bool(words & set(label.split()))
    assert hard / absent > 0.7  # they name a colour or a shape that is there
    assert min(places.values()) > absent / 6  # they stand anywhere in the query


def test_files_are_disjoint_splits_made_by_the_seed(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        made.make(tmp_path / name, num_train=12, num_test=6, seed=seed)
    names = sorted(path.name for path in (tmp_path / "a").glob("*.jsonl"))
    assert names == ["shapes.jsonl", "test.jsonl", "train.jsonl", "train_negatives.jsonl"]
    for name in names:
        a, b, c = ((tmp_path / folder / name).read_text() for folder in "abc")
        assert a == b != c
    images = {path.name: path.read_bytes() for path in (tmp_path / "a" / "images").iterdir()}
    assert len(images) == 18 and len(set(images.values())) == 18
    few, many, named = (
        list(data.load(tmp_path / "a" / f"{name}.jsonl", need_images=True))
        for name in ("train", "train_negatives", "shapes")
    )
    assert [example.image for example in few] == [example.image for example in many]
    assert [example.query for example in few] != [example.query for example in many]
    assert len(named) == 12 and all(len(example.query) == 9 and example.graph.objects for example in named)


@pytest.mark.parametrize("bad", [{"num_train": 0}, {"num_test": 0}, {"size": 27}])
def test_sizes_that_cannot_be(tmp_path, bad):
    with pytest.raises(ValueError, match="must be at least"):
        made.make(tmp_path, **bad)
    assert not list(tmp_path.glob("*.jsonl"))


def test_as_a_source():
    many, few = (
        list(data.load("synthetic_detection:count=5,seed=3", split=split, need_images=True))
        for split in (None, "few_negatives")
    )
    assert [example.image for example in many] == [example.image for example in few]
    assert sum(len(example.graph.objects) for example in many) < sum(len(example.graph.objects) for example in few)
    with pytest.raises(data.DataError, match="has no split 'complete'; allowed: negatives, few_negatives"):
        list(data.load("synthetic_detection:", split="complete"))
