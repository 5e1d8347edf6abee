"""The check finds every problem of every row and never stops at one."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from scenerl import cli, data
from scenerl.data.inspect.check import Checker
from scenerl.data.jsonl import write_jsonl
from scenerl.data.vocabulary import Vocabulary

ROW = {
    "image_id": "a",
    "width": 10,
    "height": 10,
    "objects": [{"id": "x.1", "bbox": [0, 0, 5, 5]}, {"id": "y.2", "bbox": [0, 0, 5, 5]}],
    "relationships": [{"subject": "x.1", "predicate": "on", "object": "y.2"}],
}


def test_every_problem_is_listed_with_its_row(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (10, 10)).save(tmp_path / "images" / "good.png")
    Image.new("RGB", (12, 10)).save(tmp_path / "images" / "wide.png")
    (tmp_path / "images" / "cut.png").write_bytes((tmp_path / "images" / "good.png").read_bytes()[:45])
    path = tmp_path / "rows.jsonl"
    write_jsonl(
        path,
        [
            {**ROW, "file_name": "good.png"},
            {**ROW, "image_id": "b", "file_name": "wide.png"},
            {**ROW, "image_id": "c", "file_name": "cut.png"},
            {**ROW, "image_id": "d", "file_name": "none.png"},
            {**ROW, "image_id": "a"},
            {"image_id": "e", "width": 0},
            {
                **ROW,
                "image_id": "f",
                "objects": [{"id": "x.1", "bbox": [0, 0, 50, 5]}, {"id": "y.2", "bbox": [0, 0, 5, 5]}],
            },
        ],
    )
    with open(path, "a") as file:
        file.write("not json\n")
    checker = Checker(Vocabulary(("x",), ("on",)))
    problems = [(problem.where, problem.level, problem.message) for problem in checker.problems(data.read(path))]
    found = [(int(where.split("row ")[1]), level, message) for where, level, message in problems]
    outside = [(n, level, message) for n, level, message in found if "not in the vocabulary" in message]
    assert [n for n, *_ in outside] == [1, 2, 3, 4, 5, 7]
    assert "object label 'y' (1 times)" in outside[0][2]
    rest = [entry for entry in found if entry not in outside]
    expected = [
        (2, "error", "12 x 10, but its row says 10 x 10"),
        (3, "error", "truncated or damaged"),
        (4, "error", "there is no such image file"),
        (5, "error", "that of"),
        (6, "error", "'height' is missing"),
        (6, "error", "'objects' is missing"),
        (6, "error", "'relationships' is missing"),
        (7, "warning", "clipped"),
        (8, "error", "not JSON"),
    ]
    assert [(n, level) for n, level, _ in rest] == [(n, level) for n, level, _ in expected]
    for (_, _, message), (_, _, part) in zip(rest, expected, strict=True):
        assert part in message
    # Rows 1 and 2 to 5 and 7 hold two objects and a relation each; row 1's image is the only good one.
    assert checker.counts == {
        "rows": 8,
        "bad_rows": 8,
        "errors": 14,
        "warnings": 1,
        "objects": 12,
        "relations": 6,
        "images": 1,
    }


def test_a_good_set_has_no_problems(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [ROW])
    checker = Checker()
    assert list(checker.problems(data.read(tmp_path / "rows.jsonl"))) == []
    assert checker.counts["rows"] == 1 and checker.counts["errors"] == 0


def test_problems_come_as_they_are_found():
    def records():
        yield data.Record("row 1", None, ("bad",))
        raise AssertionError("read ahead")

    assert next(Checker().problems(records())).where == "row 1"


def test_an_image_that_exif_turns_without_a_trace_is_a_warning(tmp_path):
    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (10, 10)).save(tmp_path / "images" / "turned.jpg", exif=exif)
    write_jsonl(tmp_path / "rows.jsonl", [{**ROW, "file_name": "turned.jpg"}])
    checker = Checker()
    (problem,) = checker.problems(data.read(tmp_path / "rows.jsonl"))
    assert problem.level == "warning" and "turned upright by its EXIF orientation 3" in problem.message
    assert checker.counts["warnings"] == 1 and checker.counts["bad_rows"] == 0


def test_errors_that_repeat_within_a_row_are_summed_up():
    errors = [f"the box of objects[{n}] ('x.{n}') must be four finite numbers, found [{n}]" for n in range(68)]
    checker = Checker()
    found = [problem.message for problem in checker.problems([data.Record("row 1", None, (*errors, "width is bad"))])]
    assert found == [*errors[:3], "width is bad", "and 65 more like these in this row"]
    assert checker.counts["errors"] == 69


def test_errors_that_repeat_over_rows_are_summed_up_on_the_screen_and_written_in_full(tmp_path, capsys):
    objects = [{"id": "x.1", "bbox": [50, 60, 10, 20]}]
    rows = [{**ROW, "image_id": f"{n}", "objects": objects, "relationships": []} for n in range(500)]
    write_jsonl(tmp_path / "rows.jsonl", [*rows, {**ROW, "image_id": ""}])
    out = tmp_path / "problems.jsonl"
    assert cli.main(["data", "check", str(tmp_path / "rows.jsonl"), "--out", str(out), "--no-images"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 20 + 1 + 1 + 1 + 1  # rows, the one with another error, the hint, the sum, the counts
    assert f"error 480 more lines like that of {tmp_path / 'rows.jsonl'}, row 1: the box of objects[0]" in lines[-2]
    assert lines[-1].startswith("501 rows, 501 bad rows, 501 errors, 1 warning")
    assert len(out.read_text().splitlines()) == 502


def rows_of(boxes, width, height, count=6):
    objects = [{"id": f"x.{n}", "bbox": box} for n, box in enumerate(boxes, start=1)]
    size = {"width": width, "height": height}
    return [{**ROW, **size, "image_id": str(n), "objects": objects, "relationships": []} for n in range(count)]


@pytest.mark.parametrize(
    "boxes, size, said",
    [
        ([[0.1, 0.2, 0.5, 0.9]], (640, 480), "no coordinate is above 1: are the boxes from 0 to 1"),
        ([[10, 20, 950, 700]], (1280, 720), "no coordinate is above 1000"),
        ([[300, 200, 50, 60], [10, 20, 100, 90]], (640, 480), "6 of 6 boxes have x2 below x1 or y2 below y1"),
        ([[100, 100, 900, 900]], (640, 480), "6 of 6 boxes leave their image"),
        ([[700, 700, 900, 900]], (640, 480), "6 of 6 boxes leave their image"),
        ([[10, 20, 300, 400]], (1280, 960), None),
        ([[10, 20, 630, 480], [0, 0, 1, 1]], (640, 480), None),
    ],
)
def test_boxes_that_look_like_another_convention_are_told_once(boxes, size, said, tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, rows_of(boxes, *size))
    hints = [problem.message for problem in Checker().problems(data.read(path)) if problem.where == "all rows"]
    assert [said in hint for hint in hints] == [True] * (said is not None)


def test_corners_in_a_coco_file_are_told(tmp_path):
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 640, "height": 480} for n in range(6)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [400, 300, 600, 400]} for n in range(6)]
    path = tmp_path / "coco.json"
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "dog"}]}))
    (hint,) = [p.message for p in Checker(images=False).problems(data.read(path)) if p.where == "all rows"]
    assert "6 of 6 boxes leave their image" in hint and "corners in a file of x, y, width, height" in hint
