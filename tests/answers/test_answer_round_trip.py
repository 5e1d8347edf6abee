"""Gold: what the writer writes, the parser reads back without loss but rounding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scenerl.answers import FORMATS, TEMPLATES, TRAINED, OutputFormat, parse_answer, write_answer
from scenerl.box_formats import BOX_FORMATS, extent_wh
from scenerl.types import Relation, SceneGraph, SceneObject

from .strategies import IMAGE_WH, INPUT_WH, graphs

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "real" / "scene_graphs.jsonl"
CASES = [(fmt, template, box_format) for fmt in TRAINED for template in TEMPLATES for box_format in BOX_FORMATS]


def assert_read_back(graph: SceneGraph, output_format: OutputFormat, image_wh, input_wh=None, reasoning=None) -> None:
    text = write_answer(graph, output_format, image_wh, input_wh, reasoning)
    result = parse_answer(text, output_format, image_wh, input_wh, strict=True)
    assert (result.status, result.issues, result.in_template) == ("ok", (), True), text
    assert [item.label for item in result.graph.objects] == [item.label for item in graph.objects]
    assert result.graph.relations == (graph.relations if FORMATS[output_format.format].graph else ())
    size = np.array(extent_wh(output_format.box_format, image_wh, input_wh) * 2, dtype=float)
    step = (
        output_format.step
        * (1e-4 if output_format.box_format == "norm1" else 1.0)
        / size
        * np.array([*image_wh, *image_wh])
    )
    for read, written in zip(result.graph.objects, graph.objects, strict=True):
        box = np.array(written.box)
        # a side shorter than a step is widened to one, which moves its ends by up to a whole step
        short = np.tile(box[2:] - box[:2] <= step[:2], 2)
        assert (np.abs(np.array(read.box) - box) <= step * np.where(short, 1.0, 0.5) + 1e-6).all(), (read, written)
        assert not short.all() or read.box[0] < read.box[2]


@pytest.mark.parametrize(("fmt", "template", "box_format"), CASES)
@given(graph=graphs(), step=st.sampled_from([1, 1, 5, 20]))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_style_reads_back_what_it_writes(fmt, template, box_format, graph, step):
    reasoning = None if template == "plain" else "There is a dog. [1, 2] {"
    assert_read_back(
        graph, OutputFormat(fmt, template, box_format=box_format, step=step), IMAGE_WH, INPUT_WH, reasoning
    )


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("fmt", TRAINED)
def test_nothing_found_reads_back_as_nothing_found(fmt, template):
    assert_read_back(SceneGraph(), OutputFormat(fmt, template), IMAGE_WH)


@pytest.mark.parametrize("fmt", TRAINED)
@given(graph=graphs())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_fence_changes_nothing(fmt, graph):
    output_format = OutputFormat(fmt)
    text = write_answer(graph, output_format, IMAGE_WH)
    plain = parse_answer(text, output_format, IMAGE_WH)
    for fenced in (f"```json\n{text}\n```", f"  ```\n{text}\n```\n"):
        assert parse_answer(fenced, output_format, IMAGE_WH) == plain


@pytest.mark.parametrize("fmt", ["json", "compact"])
@given(graph=graphs(), data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_order_of_objects_does_not_matter(fmt, graph, data):
    order = data.draw(st.permutations(range(len(graph.objects))))
    place = {old: new for new, old in enumerate(order)}
    moved = SceneGraph(
        tuple(graph.objects[old] for old in order),
        tuple(Relation(place[r.subject], r.predicate, place[r.object]) for r in graph.relations),
    )
    output_format = OutputFormat(fmt)
    read, read_moved = (
        parse_answer(write_answer(g, output_format, IMAGE_WH), output_format, IMAGE_WH).graph for g in (graph, moved)
    )
    assert tuple(read.objects[old] for old in order) == read_moved.objects
    assert [(place[r.subject], r.predicate, place[r.object]) for r in read.relations] == [
        (r.subject, r.predicate, r.object) for r in read_moved.relations
    ]


def test_the_numbers_of_ids_do_not_matter():
    text = write_answer(
        SceneGraph((SceneObject("dog", (0, 0, 9, 9)), SceneObject("dog", (9, 9, 20, 20))), (Relation(0, "near", 1),)),
        OutputFormat(box_format="pixels"),
        IMAGE_WH,
    )
    renamed = text.replace("dog.1", "dog.77").replace("dog.2", "dog.0")
    assert renamed != text
    assert parse_answer(renamed, OutputFormat(box_format="pixels"), IMAGE_WH) == parse_answer(
        text, OutputFormat(box_format="pixels"), IMAGE_WH
    )


def real_rows() -> list[dict]:
    if not REAL.exists():
        pytest.skip(f"the photos' annotations are not there: {REAL}")
    return [json.loads(line) for line in REAL.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("fmt", TRAINED)
def test_real_annotations_read_back(fmt, template):
    rows = real_rows()
    assert len(rows) == 27
    for row in rows:
        index = {item["id"]: n for n, item in enumerate(row["objects"])}
        objects = [SceneObject(item["id"].rpartition(".")[0], tuple(item["bbox"])) for item in row["objects"]]
        triplets = [(index[r["subject"]], r["predicate"], index[r["object"]]) for r in row["relationships"]]
        unique = dict.fromkeys(triplet for triplet in triplets if triplet[0] != triplet[2])
        graph = SceneGraph(tuple(objects), tuple(Relation(*triplet) for triplet in unique))
        image_wh = row["width"], row["height"]
        for box_format in ("norm1000", "pixels"):
            assert_read_back(graph, OutputFormat(fmt, template, box_format=box_format), image_wh)


def test_repeated_and_self_relations_are_not_written():
    objects = (SceneObject("dog", (0, 0, 9, 9)), SceneObject("ball", (9, 9, 20, 20)))
    messy = SceneGraph(objects, (Relation(0, "near", 1), Relation(0, "near", 1), Relation(1, "on", 1)))
    for fmt in ("json", "compact"):
        output_format = OutputFormat(fmt, box_format="pixels")
        result = parse_answer(write_answer(messy, output_format, IMAGE_WH), output_format, IMAGE_WH, strict=True)
        assert result.graph.relations == (Relation(0, "near", 1),)


def test_boxes_smaller_than_a_unit_keep_an_area():
    output_format = OutputFormat("compact")
    # 2000 pixels to 1000 units: 1.0..1.2 px is 0.5..0.6 units, and the last 0.2 px are 999.9..1000
    graph = SceneGraph((SceneObject("dot", (1.0, 1.0, 1.2, 1.2)), SceneObject("dot", (1999.8, 1999.8, 2000, 2000))))
    assert write_answer(graph, output_format, (2000, 2000)) == "dot 0 0 1 1\ndot 999 999 1000 1000\nend"


def test_coordinates_go_to_the_nearest_multiple_of_the_step():
    graph = SceneGraph((SceneObject("dog", (11, 29, 51, 69)),))
    assert write_answer(graph, OutputFormat("compact", step=20), (100, 100)) == "dog 120 280 520 680\nend"
    # 11 % of the width is 0.11; steps of 20 x 0.0001
    output_format = OutputFormat("compact", box_format="norm1", step=20)
    assert write_answer(graph, output_format, (100, 100)) == "dog 0.11 0.29 0.51 0.69\nend"


def test_boxes_outside_the_image_are_neither_clipped_nor_an_issue():
    output_format = OutputFormat("compact", box_format="pixels")
    result = parse_answer("dog -5 0 900 20.5\nend", output_format, (100, 100), strict=True)
    assert result.graph.objects[0].box == (-5.0, 0.0, 900.0, 20.5)


@pytest.mark.parametrize(
    ("box_format", "numbers", "pixels"),
    [
        # image 200 x 100, model input 400 x 300
        ("pixels", "10 20 30 40", (10, 20, 30, 40)),
        ("norm1000", "10 20 30 40", (2, 2, 6, 4)),
        ("norm1", "0.1 0.2 0.5 1", (20, 20, 100, 100)),
        ("resized", "40 30 100 90", (20, 10, 50, 30)),
    ],
)
def test_boxes_are_converted_to_pixels_of_the_original(box_format, numbers, pixels):
    result = parse_answer(f"dog {numbers}\nend", OutputFormat("compact", box_format=box_format), (200, 100), (400, 300))
    assert result.graph.objects[0].box == pytest.approx(pixels)
