"""Synthetic detection: phrases mean what they say, each is absent as often as said, splits are apart."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from scenerl import data
from scenerl.data import synthetic_detection as made
from scenerl.data.synthetic_detection import Shape, phrases

SCENES = 600


def found_in(*shapes: tuple[str, str, tuple]) -> dict[str, tuple[int, ...]]:
    return phrases(tuple(Shape(*shape) for shape in shapes))


def test_attributes():
    found = found_in(
        ("red", "circle", (0, 0, 2, 2)), ("red", "circle", (5, 5, 7, 7)), ("blue", "square", (8, 0, 10, 2))
    )
    assert found["red circle"] == (0, 1) and found["blue square"] == (2,)
    assert found["blue circle"] == found["green square"] == ()


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
    assert found_in(square)["square above the circle"] == ()  # there is no circle
    assert "square above the circle" not in found_in(square, ("blue", "circle", (5, 1, 7, 3)))  # almost level
    assert "square above the circle" not in found_in(square, circle, ("red", "circle", (8, 8, 10, 10)))  # which one?
    two = found_in(square, ("green", "square", (3, 0, 5, 2)), circle)
    assert two["square above the circle"] == (0, 1)


def test_a_scene_knows_no_other_phrases():
    for number in range(50):
        assert set(phrases(made.draw_query(str(number))[1])) <= set(made.PHRASES)


def test_a_picture_shows_its_shapes():
    for number in range(40):
        _, shapes = made.draw_query(f"look/{number}")
        pixels = np.asarray(made.draw(shapes, f"look/{number}", size=100)).astype(int)
        assert 1 <= len(shapes) <= made.NUM_SHAPES
        for item in shapes:
            x1, y1, x2, y2 = (10 * cell for cell in item.cells)
            corner, centre = pixels[y1 + 1, x1 + 1], pixels[(y1 + y2) // 2, (x1 + x2) // 2]
            assert np.abs(centre - np.array(made.COLOURS[item.colour])).max() <= 15
            is_filled = np.abs(corner - centre).max() == 0
            assert is_filled == (item.shape == "square")


@pytest.mark.parametrize("split", made.ABSENT)
def test_answers_are_complete_and_every_phrase_is_absent_as_often_as_said(split):
    asked, absent = Counter(), Counter()
    for number in range(SCENES):
        phrase, shapes = made.draw_query(f"ask/{number}", split)
        example = made.example(phrase, shapes, str(number), size=100)
        fitting = phrases(shapes)[phrase]
        assert example.query == (phrase,)
        expected = [(phrase, tuple(10.0 * cell for cell in shapes[n].cells)) for n in fitting]
        assert [(item.label, item.box) for item in example.graph.objects] == expected
        asked[phrase] += 1
        absent[phrase] += not fitting
    assert absent.total() / SCENES == pytest.approx(made.ABSENT[split], abs=0.05)
    assert set(asked) == set(made.PHRASES)
    for phrase, number in asked.items():  # six standard deviations: the phrase alone does not tell
        assert absent[phrase] / number == pytest.approx(made.ABSENT[split], abs=3 / number**0.5)


def test_negatives_are_hard():
    absent = hard = 0
    for number in range(SCENES):
        phrase, shapes = made.draw_query(f"hard/{number}")
        if not phrases(shapes)[phrase]:
            absent += 1
            hard += bool({word for item in shapes for word in item.name.split()} & set(phrase.split()))
    assert hard / absent > 0.6  # they name a colour or a shape that is there


def test_files_are_disjoint_splits_made_by_the_seed(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        done = []
        made.make(tmp_path / name, num_train=12, num_test=6, seed=seed, progress=done.append)
        assert len(done) == sum(count for count, _ in made.num_scenes(12, 6).values()) == 12 + 6
    names = sorted(path.name for path in (tmp_path / "a").glob("*.jsonl"))
    assert names == ["shapes.jsonl", "test.jsonl", "train.jsonl"]
    for name in names:
        a, b, c = ((tmp_path / folder / name).read_text() for folder in "abc")
        assert a == b != c
    images = {path.name: path.read_bytes() for path in (tmp_path / "a" / "images").iterdir()}
    assert len(images) == 18 and len(set(images.values())) == 18
    train, named = (list(data.load(tmp_path / "a" / f"{name}.jsonl", need_images=True)) for name in ("train", "shapes"))
    assert [example.image for example in train] == [example.image for example in named]
    assert all(example.query == made.NAMES and example.graph.objects for example in named)
    for asked, shown in zip(train, named, strict=True):  # the answer's boxes are boxes of shapes
        assert {item.box for item in asked.graph.objects} <= {item.box for item in shown.graph.objects}


@pytest.mark.parametrize("bad", [{"num_train": 0}, {"num_test": 0}, {"size": 27}])
def test_sizes_that_cannot_be(tmp_path, bad):
    with pytest.raises(ValueError, match="must be at least"):
        made.make(tmp_path, **{"num_train": 2, "num_test": 2, **bad})
    assert not list(tmp_path.glob("*.jsonl"))


def test_as_a_source():
    many, few = (
        list(data.load("synthetic_detection:count=60,seed=3", split=split, need_images=True))
        for split in (None, "few_negatives")
    )
    assert sum(not example.graph.objects for example in many) > sum(not example.graph.objects for example in few) > 0
    with pytest.raises(data.DataError, match="has no split 'complete'; allowed: negatives, few_negatives"):
        list(data.load("synthetic_detection:", split="complete"))
