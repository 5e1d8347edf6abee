"""Drawings: boxes where they belong, any label, any size."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from scenerl.data.inspect.draw import _label_box, choose, draw_example, file_stem, write_drawings
from scenerl.types import Example, Relation, SceneGraph, SceneObject


def example(size=(600, 500), labels=("man", "dog"), image_id="a", query=None) -> Example:
    buffer = io.BytesIO()
    Image.new("RGB", size, "black").save(buffer, "PNG")
    objects = tuple(
        SceneObject(label, (size[0] * 0.25, size[1] * 0.4, size[0] * 0.75, size[1] * 0.8)) for label in labels
    )
    relations = (Relation(0, "on", 1),) if len(objects) > 1 and query is None else ()
    return Example(image_id, *size, SceneGraph(objects, relations), buffer.getvalue(), query)


def test_box_edges_are_drawn_and_the_inside_is_not():
    picture = draw_example(example(labels=("man",)))
    assert picture.getpixel((150, 350)) != (0, 0, 0) and picture.getpixel((300, 399)) != (0, 0, 0)
    assert picture.getpixel((300, 300)) == (0, 0, 0) and picture.getpixel((148, 350)) == (0, 0, 0)
    assert picture.width > 600 and picture.getpixel((picture.width - 1, 499)) == (255, 255, 255)


@pytest.mark.parametrize("size", [(1, 1), (28, 28), (5000, 20), (20, 5000), (3000, 3000)])
def test_any_size(size):
    picture = draw_example(example(size))
    assert picture.width < 3000 and picture.height < 3000


def test_a_label_stands_where_it_hides_no_other():
    """On a canvas of 100 x 100 with labels of 30 x 10: above the box, in its upper left corner, above to the right."""
    box, taken = (20, 40, 80, 60), []
    for expected in ((20, 30, 50, 40), (20, 40, 50, 50), (50, 30, 80, 40), (20, 50, 50, 60), (20, 60, 50, 70)):
        taken.append(_label_box(box, (30, 10), (100, 100), taken))
        assert taken[-1] == expected
    assert _label_box((-20, -5, 200, 300), (30, 10), (100, 100), []) == (0, 0, 30, 10)
    # No corner is free: of the label to the right, at (70, 40), only the 5 x 10 up to x = 75 are hidden.
    assert _label_box(box, (30, 10), (100, 100), [(0, 0, 75, 100)]) == (70, 40, 100, 50)


def test_any_label():
    draw_example(example(labels=("x" * 1000, "人", "\u202eabc", "<script>")))


def test_queries_are_listed():
    draw_example(example(labels=("man",), query=("man", "unicorn")))


def test_choice_is_seeded_ordered_and_bounded():
    examples = [example(image_id=str(n)) for n in range(50)]
    chosen = [int(e.image_id) for e in choose(examples, 5, seed=3)]
    assert chosen == sorted(chosen) and len(set(chosen)) == 5
    assert chosen == [int(e.image_id) for e in choose(iter(examples), 5, seed=3)]
    assert chosen != [int(e.image_id) for e in choose(examples, 5, seed=4)]
    assert len(choose(examples[:2], 5)) == 2


def test_files_stay_in_their_folder(tmp_path):
    paths = write_drawings([example(image_id="../../x/y"), example(image_id="é" * 300)], tmp_path / "new")
    assert all(path.parent == tmp_path / "new" and path.is_file() for path in paths)
    assert file_stem("../..") == "_.." and file_stem("..") == "image"
