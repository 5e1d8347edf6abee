"""``scenerl predict`` on plain images: files, folders, patterns, lists; drawings; what is no image."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from scenerl.cli import main
from training.small_run import read_rows

QUICK = ["--device", "cpu", "--max_new_tokens", "24", "--constrain", "--format", "compact"]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder with images in two folders and a text, as the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trip" / "day 2").mkdir(parents=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (84, 56), "red").save("trip/b.jpg", exif=exif)
    Image.new("RGB", (56, 56), "blue").save("trip/day 2/a.PNG")
    Image.new("L", (56, 56)).save("one.png")
    (tmp_path / "trip" / "notes.txt").write_text("no image")
    return tmp_path


def ids(path):
    return [row["image_id"] for row in read_rows(path)]


def test_one_photo_and_a_picture_of_what_was_found(base, photos, capsys):
    assert main(["predict", "one.png", "--model", str(base), "--draw", "drawn", *QUICK]) == 0
    (row,) = read_rows(photos / "one.predictions.jsonl")
    assert (row["image_id"], row["width"], row["status"]) == ("one.png", 56, "ok")
    (drawing,) = (photos / "drawn").iterdir()
    assert Image.open(drawing).height >= 480 and "drawn: 1 pictures" in capsys.readouterr().out


def test_a_folder_is_read_with_those_in_it_and_pictures_are_upright(base, photos):
    assert main(["predict", "trip", "--model", str(base), "--out", "trip.jsonl", *QUICK]) == 0
    assert ids(photos / "trip.jsonl") == ["b.jpg", "day 2/a.PNG"]
    assert [(row["width"], row["height"]) for row in read_rows(photos / "trip.jsonl")] == [(56, 84), (56, 56)]


@pytest.mark.parametrize(
    "images, expected",
    [
        (["one.png", "trip/b.jpg"], ["one.png", "b.jpg"]),
        (["trip/*.jpg", "one.png"], ["trip/b.jpg", "one.png"]),
        (["trip/**/*.PNG"], ["trip/day 2/a.PNG"]),
    ],
)
def test_lists_and_patterns(images, expected, base, photos):
    assert main(["predict", *images, "--model", str(base), "--out", "out.jsonl", *QUICK]) == 0
    assert ids(photos / "out.jsonl") == expected


def test_detection_looks_for_the_labels_of_the_command(base, photos):
    line = ["predict", "one.png", "--model", str(base), "--out", "out.jsonl", *QUICK[:-1], "detections"]
    assert main([*line, "--query", "dog", "red ball"]) == 0
    (row,) = read_rows(photos / "out.jsonl")
    assert {item["id"].rpartition(".")[0] for item in row["graph"]["objects"]} <= {"dog", "red ball"}


def test_a_damaged_photo_has_a_row_that_says_so_and_the_others_are_done(base, photos, capsys):
    (photos / "trip" / "c.jpg").write_bytes(b"\xff\xd8\xff broken")
    assert main(["predict", "trip", "--model", str(base), "--out", "out.jsonl", *QUICK]) == 2
    rows = read_rows(photos / "out.jsonl")
    assert ["error" in row for row in rows] == [False, True, False] and "c.jpg" in rows[1]["error"]
    assert "1 of 3 images have no answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, said",
    [
        (["missing.jpg"], "missing.jpg: no image there; allowed: an image, a pattern, or a folder"),
        (["none/*.png"], "none/*.png: no image there"),
        (["one.png", "--data", "x.jsonl"], "predict needs images or --data, one of them"),
        ([], "predict needs images or --data, one of them"),
        (["one.png", "one.png"], "the image_id 'one.png' is that of row 1 already"),
        (["one.png", "--task", "sgcls"], "images have no annotated objects to provide"),
        (["one.png", "--query", "dog"], "writes whole scene graphs (compact) and takes no query"),
        (["one.png", "--format", "detections"], "query: detection needs the labels to look for: --query LABEL"),
        (["one.png", "--out", "one.png"], "one.png is read by this command"),
        (["one.png", "--draw", "one.png"], "draw: one.png is a file"),
    ],
)
def test_what_cannot_be_done(words, said, base, photos, capsys):
    assert main(["predict", "--model", str(base), *QUICK, *words]) == 2
    assert said in capsys.readouterr().err
    assert not (photos / "out.jsonl").exists()


def test_sources_of_photos_work_wherever_data_is_taken(photos, capsys):
    assert main(["data", "check", "trip"]) == 0
    assert main(["data", "convert", "photos:trip", "--out", "rows/mine.jsonl"]) == 0
    rows = [json.loads(line) for line in (photos / "rows" / "mine.jsonl").read_text().splitlines()]
    assert [row["image_id"] for row in rows] == ["b.jpg", "day 2/a.PNG"] and rows[0]["objects"] == []
