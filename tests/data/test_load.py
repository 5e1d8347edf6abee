"""Sources: what a name means, lazy and repeatable reading, warnings counted, errors where they stand."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from PIL import Image

from scenerl import data
from scenerl.data.jsonl import write_jsonl
from scenerl.errors import DataError

ROW = {
    "image_id": "a",
    "width": 10,
    "height": 10,
    "objects": [{"id": "x.1", "bbox": [0, 0, 5, 5]}],
    "relationships": [],
}


def rows(count: int, **changes) -> list[dict]:
    return [{**ROW, "image_id": str(n), **changes} for n in range(count)]


def test_file_and_folder(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", rows(3))
    write_jsonl(tmp_path / "test.jsonl", rows(2))
    assert len(list(data.load(tmp_path / "train.jsonl"))) == 3
    assert len(list(data.load(f"jsonl:{tmp_path}/train.jsonl"))) == 3
    assert len(list(data.load(str(tmp_path), split="test"))) == 2
    with pytest.raises(DataError, match="needs a split; allowed: test, train"):
        list(data.load(tmp_path))
    with pytest.raises(DataError, match="is one file and has no split 'test'"):
        list(data.load(tmp_path / "train.jsonl", split="test"))


def test_can_be_read_again_and_limited(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", rows(3))
    examples = data.load(tmp_path / "train.jsonl", limit=2)
    assert [example.image_id for example in examples] == ["0", "1"] == [example.image_id for example in examples]


@pytest.mark.parametrize("source", ["nothing", "nothing/here", "rows.csv", "nonsense:3", "", "hub", "jsonl"])
def test_unknown_source(source):
    with pytest.raises(
        ValueError, match=r"allowed: a \.jsonl or \.parquet file, images, a folder of one of these, COCO"
    ):
        data.load(source)


def test_folder_without_data(tmp_path):
    with pytest.raises(ValueError, match="holds neither JSONL nor Parquet files"):
        data.load(tmp_path)


def test_synthetic_source():
    examples = list(data.load("synthetic:count=2,seed=5"))
    assert len(examples) == 2 and isinstance(examples[0].image, bytes)
    complete = list(data.load("synthetic:count=2,seed=5", split="complete"))
    assert [e.image for e in complete] == [e.image for e in examples]
    assert set(examples[0].graph.relations) <= set(complete[0].graph.relations)
    for bad in ("synthetic:counts=2", "synthetic:count=x", "synthetic:3"):
        with pytest.raises(DataError, match="is not understood; allowed: count, seed, size"):
            list(data.load(bad))
    with pytest.raises(DataError, match="allowed: sparse, complete"):
        list(data.load("synthetic", split="test"))


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_empty_data_set(tmp_path, text):
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(DataError, match=r"rows\.jsonl is empty"):
        list(data.load(tmp_path / "rows.jsonl"))


def test_bad_row_stops_or_is_skipped(tmp_path, caplog):
    write_jsonl(tmp_path / "rows.jsonl", [*rows(1), {"image_id": "bad"}, {**ROW, "image_id": "2"}])
    stream = iter(data.load(tmp_path / "rows.jsonl"))
    assert next(stream).image_id == "0"
    with pytest.raises(DataError, match="row 2: the key 'width' is missing"):
        next(stream)
    skipping = data.load(tmp_path / "rows.jsonl", skip_bad=True)
    assert [example.image_id for example in skipping] == ["0", "2"]
    assert "row 2: row skipped" in caplog.text and "0 warnings and 1 skipped row in 3 rows" in caplog.text


def test_nothing_but_bad_rows_is_empty(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [{}, {}])
    with pytest.raises(DataError, match="is empty: 2 rows, none of them usable"):
        list(data.load(tmp_path / "rows.jsonl", skip_bad=True))


def test_an_image_id_twice(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [ROW, ROW])
    with pytest.raises(DataError, match="row 2: the image_id 'a' is that of .*row 1 already"):
        list(data.load(tmp_path / "rows.jsonl"))


def test_images_can_be_asked_for(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", rows(1, file_name="a.png"))
    write_jsonl(tmp_path / "bare.jsonl", rows(1))
    assert len(list(data.load(tmp_path / "rows.jsonl"))) == 1
    with pytest.raises(DataError, match=r"row 1: image .*images/a\.png\): there is no such image file"):
        list(data.load(tmp_path / "rows.jsonl", need_images=True))
    with pytest.raises(DataError, match="row 1: image .*: the row names no image"):
        list(data.load(tmp_path / "bare.jsonl", need_images=True))


def test_images_that_cannot_be_used_end_it_or_are_skipped(tmp_path, caplog):
    (tmp_path / "images").mkdir()
    good = Image.new("RGB", (ROW["width"], ROW["height"]), "red")
    names = [f"{n}.png" for n in range(4)]
    for name in names:
        good.save(tmp_path / "images" / name)
    cut = tmp_path / "images" / "1.png"
    cut.write_bytes(cut.read_bytes()[:45])
    (tmp_path / "images" / "2.png").write_text("no image")
    write_jsonl(tmp_path / "rows.jsonl", [{**ROW, "image_id": name, "file_name": name} for name in names])
    source = tmp_path / "rows.jsonl"
    with pytest.raises(
        DataError, match=r"rows\.jsonl, row 2: image '1\.png' \(.*1\.png\): the image cannot be decoded"
    ):
        list(data.load(source, need_images=True))
    found = list(data.load(source, need_images=True, skip_bad=True))
    assert [example.image_id for example in found] == ["0.png", "3.png"]
    assert "row 3: row skipped: image '2.png'" in caplog.text and "2 skipped rows in 4 rows" in caplog.text


def test_warnings_are_logged_a_few_at_first_and_counted_at_the_end(tmp_path, caplog):
    write_jsonl(tmp_path / "rows.jsonl", rows(10, objects=[{"id": "x.1", "bbox": [0, 0, 11, 5]}]))
    with caplog.at_level(logging.WARNING):
        examples = list(data.load(tmp_path / "rows.jsonl"))
    assert examples[0].graph.objects[0].box == (0, 0, 10, 5)
    assert len(caplog.records) == 4
    assert "10 warnings and 0 skipped rows in 10 rows" in caplog.records[-1].getMessage()


def test_reading_is_lazy(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", rows(2))
    with open(tmp_path / "rows.jsonl", "a") as file:
        file.write("broken\n")
    assert next(iter(data.load(tmp_path / "rows.jsonl"))).image_id == "0"


def test_importing_data_sets_brings_in_no_heavy_package():
    code = (
        "import sys, scenerl.data, scenerl.data.jsonl, scenerl.data.hub, scenerl.data.vocabulary\n"
        "print([name for name in ('torch', 'datasets', 'pyarrow', 'pandas') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
