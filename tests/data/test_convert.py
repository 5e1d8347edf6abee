"""``scenerl data`` from end to end: check, statistics, and conversion to JSONL, Parquet and COCO instances."""

from __future__ import annotations

import json

import pytest

from data.detection_folders import COCO, write_coco, write_d3, write_ovdeval, write_vlmr1
from scenerl import cli, data
from scenerl.commands.data import DataOptions
from scenerl.data.command import run
from scenerl.data.ground_truth import load_ground_truth
from scenerl.errors import DataError

DETECTION = {
    "coco": lambda folder: f"coco:{write_coco(folder)}",
    "d3": lambda folder: f"d3:{write_d3(folder)},negatives=2",
    "ovdeval": lambda folder: f"ovdeval:{write_ovdeval(folder)}",
    "vlmr1_jsonl": lambda folder: f"vlmr1_jsonl:{write_vlmr1(folder)}",
    "synthetic_detection": lambda folder: "synthetic_detection:count=3",
}


def convert(source: object, to: str, out, **options) -> str:
    run(DataOptions(action="convert", source=str(source), to=to, out=out, **options))
    return f"{to}:{out}"


@pytest.mark.parametrize("name", DETECTION)
def test_check_and_statistics(name, tmp_path, capsys):
    source = DETECTION[name](tmp_path / "source")
    assert cli.main(["data", "check", source]) == 0
    printed = capsys.readouterr().out
    assert "0 errors" in printed and " 0 images" not in printed
    assert cli.main(["data", "stats", source, "--out", str(tmp_path / "stats.json")]) == 0
    labels = {found.label for example in data.load(source) for found in example.graph.objects}
    assert labels <= set(json.loads((tmp_path / "stats.json").read_text())["objects"])


@pytest.mark.parametrize("to", ["jsonl", "coco"])
@pytest.mark.parametrize("name", DETECTION)
def test_detection_and_back(name, to, tmp_path):
    source = DETECTION[name](tmp_path / "source")
    before = list(data.load(source))
    again = list(data.load(convert(source, to, tmp_path / f"out.{to.replace('coco', 'json')}"), need_images=True))
    assert len(again) == len(before)
    for theirs, ours in zip(before, again, strict=True):
        assert ours.image_wh == theirs.image_wh and ours.crowds == theirs.crowds
        assert [found.label for found in ours.graph.objects] == [found.label for found in theirs.graph.objects]
        for mine, original in zip(ours.graph.objects, theirs.graph.objects, strict=True):
            assert mine.box == pytest.approx(original.box, abs=1e-9)
        if to == "jsonl":
            assert ours.query == theirs.query
        else:  # prompts for every category of the file but those that an image has as a crowd only
            crowded = {found.label for found in theirs.crowds}
            assert set(theirs.query) - crowded <= set(ours.query)


def test_numeric_image_ids_stay_and_others_are_counted(tmp_path):
    again = convert(f"coco:{write_coco(tmp_path / 'source')}", "coco", tmp_path / "out.json")
    assert [example.image_id for example in data.load(again)] == ["139", "285"]
    again = convert("synthetic:count=2", "coco", tmp_path / "scenes.json")
    assert [example.image_id for example in data.load(again)] == ["1", "2"]


def test_crowds_stay_crowds(tmp_path):
    """A converted file evaluates as the original does."""
    path = write_coco(tmp_path / "source")
    crowds = [example.crowds for example in load_ground_truth(path).examples]
    assert sum(map(len, crowds)) == sum(entry.get("iscrowd", 0) for entry in COCO["annotations"]) > 0
    for to, name in (("coco", "out.json"), ("jsonl", "out.jsonl")):
        again = load_ground_truth(convert(f"coco:{path}", to, tmp_path / name))
        assert [example.crowds for example in again.examples] == crowds


def test_what_cannot_be_written(tmp_path, capsys):
    source = DETECTION["coco"](tmp_path)
    assert cli.main(["data", "convert", source, "--to", "coco", "--out", str(tmp_path / "out.jsonl")]) == 2
    assert "--to coco writes .json (for .jsonl: --to jsonl); give a name that ends so" in capsys.readouterr().err
    with pytest.raises(DataError, match="no image_id fits 'none'"):
        convert("synthetic:count=2", "jsonl", tmp_path / "out.jsonl", only=["none"])
    with pytest.raises(DataError, match="not in the vocabulary"):
        convert("synthetic:count=2", "jsonl", tmp_path / "out.jsonl", vocabulary="psg")
    pytest.importorskip("pyarrow", reason="the hub schema needs pyarrow")
    with pytest.raises(DataError, match="the hub schema holds scene graphs, not detections"):
        convert("synthetic_detection:count=1", "hub", tmp_path / "out.parquet")
    assert not list(tmp_path.glob("*out*"))


def test_rows_without_a_size_are_counted_and_not_written(tmp_path, capsys):
    """SceneGraphVLM's rows may not say how large their image is."""
    lines = "<answer>obj[1]{id,name,x1,y1,x2,y2}:\n1,dog,0,0,20,20\nrel[0]{subj,pred,obj}:\n</answer>"
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps({"images": ["1.png"], "content": lines, "predict": lines}))
    run(DataOptions(action="stats", source=str(source)))
    assert "1 of 1 label" in capsys.readouterr().out
    with pytest.raises(DataError, match="image '1': the source lacks its width and height"):
        convert(source, "jsonl", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
