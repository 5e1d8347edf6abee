"""The real photos, where the checkout has them beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scenerl import data
from scenerl.data.images import open_image
from scenerl.data.inspect.check import Checker
from scenerl.data.inspect.draw import write_drawings
from scenerl.data.inspect.statistics import Statistics
from scenerl.data.rows import example_to_row, read_row

ROWS = Path(__file__).parents[3] / "shared" / "data" / "real" / "scene_graphs.jsonl"
pytestmark = pytest.mark.skipif(not ROWS.is_file(), reason=f"there are no real photos at {ROWS}")


def test_check_finds_no_error_and_the_known_flaws():
    checker = Checker()
    problems = list(checker.problems(data.read(ROWS)))
    assert checker.counts["rows"] == checker.counts["images"] == 27
    assert {problem.level for problem in problems} == {"warning"}
    clipped = [problem.message for problem in problems if "clipped" in problem.message]
    assert clipped == [
        "the box of objects[15] ('curtains.16') leaves the image (640 x 480) and was clipped: [365, 1, 641, 301]"
    ]
    # Visual Genome repeats relations and relates objects to themselves. Of 13 repeats, three of a row are shown.
    assert sum("repeats an earlier" in problem.message for problem in problems) == 9
    assert [problem.message for problem in problems if "more like these" in problem.message] == [
        "and 1 more like these in this row",
        "and 3 more like these in this row",
    ]
    assert sum("to itself" in problem.message for problem in problems) == 2


def test_rows_survive_the_way_there_and_back():
    for example in data.load(ROWS, need_images=True):
        row = json.loads(json.dumps(example_to_row(example)))
        assert read_row(row, "row").example == example
        assert open_image(example).size == example.image_wh


def test_statistics():
    value = Statistics.of(data.load(ROWS)).as_dict()
    assert (value["num_images"], value["num_boxes"], value["num_relations"]) == (27, 224, 251)


def test_drawings(tmp_path):
    assert len(write_drawings(data.load(ROWS, limit=3), tmp_path)) == 3


def test_hub_schema_of_the_photos_reads_the_same(tmp_path):
    datasets = pytest.importorskip("datasets", reason="hub data needs datasets")
    examples = list(data.load(ROWS, limit=3))
    rows = [example_to_row(example) for example in examples]
    table = datasets.Dataset.from_dict(
        {
            "image_id": [row["image_id"] for row in rows],
            "image": [{"bytes": example.image.read_bytes(), "path": None} for example in examples],
            "objects": [json.dumps(row["objects"]) for row in rows],
            "relationships": [json.dumps(row["relationships"]) for row in rows],
        }
    ).cast_column("image", datasets.Image())
    table.to_parquet(tmp_path / "train-00000-of-00001.parquet")
    assert [e.graph for e in data.load(tmp_path)] == [e.graph for e in examples]
    assert [e.image_wh for e in data.load(tmp_path)] == [e.image_wh for e in examples]
