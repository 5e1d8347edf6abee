"""``scenerl data`` on the detection sets: check, statistics, conversion to our JSONL, to COCO and to VLM-R1's rows."""

from __future__ import annotations

import json

import pytest

from data.detection_folders import write_coco, write_d3, write_ovdeval, write_vlmr1
from scenerl import cli, data


def source_of(name: str, tmp_path):
    folder = tmp_path / "source"
    return {
        "coco": lambda: f"coco:{write_coco(folder)}",
        "d3": lambda: f"d3:{write_d3(folder)},negatives=2",
        "ovdeval": lambda: f"ovdeval:{write_ovdeval(folder)}",
        "vlmr1_jsonl": lambda: f"vlmr1_jsonl:{write_vlmr1(folder)}",
        "synthetic_detection": lambda: "synthetic_detection:count=3",
    }[name]()


NAMES = ("coco", "d3", "ovdeval", "vlmr1_jsonl", "synthetic_detection")


@pytest.mark.parametrize("name", NAMES)
def test_check_and_statistics(name, tmp_path, capsys):
    source = source_of(name, tmp_path)
    assert cli.main(["data", "check", source]) == 0
    printed = capsys.readouterr().out
    assert "0 errors" in printed and " 0 images" not in printed
    assert cli.main(["data", "stats", source, "--out", str(tmp_path / "stats.json")]) == 0
    labels = {found.label for example in data.load(source) for found in example.graph.objects}
    assert labels <= set(json.loads((tmp_path / "stats.json").read_text())["objects"])


SUFFIXES = {"coco": ".json", "ovdeval": ".json", "d3": ""}


@pytest.mark.parametrize("to", ["jsonl", "coco", "d3", "ovdeval", "vlmr1_jsonl"])
@pytest.mark.parametrize("name", NAMES)
def test_conversion_and_back(name, to, tmp_path, capsys):
    source = source_of(name, tmp_path)
    out = tmp_path / f"out{SUFFIXES.get(to, '.jsonl')}"
    assert cli.main(["data", "convert", source, "--to", to, "--out", str(out)]) == 0
    before = list(data.load(source))
    again = list(data.load(f"{to}:{out}{',query=group' if to == 'd3' else ''}", need_images=True))
    assert len(again) == len(before)
    for theirs, ours in zip(before, again, strict=True):
        assert ours.image_wh == theirs.image_wh
        assert [found.label for found in ours.graph.objects] == [found.label for found in theirs.graph.objects]
        rounding = 0.5 if to == "vlmr1_jsonl" else 1e-9  # their answers hold whole pixels
        for mine, original in zip(ours.graph.objects, theirs.graph.objects, strict=True):
            assert mine.box == pytest.approx(original.box, abs=rounding)
        if to == "coco":  # asks for every category of the file
            assert set(theirs.query) <= set(ours.query)
        elif to == "ovdeval":  # names those that are there first
            assert sorted(ours.query) == sorted(theirs.query)
        else:
            assert ours.query == theirs.query


def test_ids_that_are_numbers_stay(tmp_path, capsys):
    for to, out in (("coco", tmp_path / "out.json"), ("ovdeval", tmp_path / "o.json"), ("d3", tmp_path / "d3")):
        source = f"coco:{write_coco(tmp_path / 'source' / to)}"
        assert cli.main(["data", "convert", source, "--to", to, "--out", str(out)]) == 0
        assert [example.image_id for example in data.load(f"{to}:{out}")] == ["139", "285"]


def test_a_split_of_d3(tmp_path, capsys):
    """A split that D³ has goes into the file's name; hard negatives come from all groups of the folder alike."""
    source = f"d3:{write_d3(tmp_path / 'source')},query=all"
    words = ["data", "convert", source, "--split", "abs", "--to", "d3", "--out", str(tmp_path / "d3")]
    assert cli.main(words) == 0
    again = list(data.load(f"d3:{tmp_path / 'd3'},query=all", split="abs"))
    assert [example.query for example in again] == [("dog not led by ropes outside", "horseman without helmet")] * 3
    assert [len(example.graph.objects) for example in again] == [0, 1, 0]
    groups = json.loads((tmp_path / "d3" / "groups.json").read_text())
    assert groups == {"0": {"img_id": [1, 2, 3], "inner_sent_id": [2, 1]}}


def test_the_name_of_the_file_has_to_fit(tmp_path, capsys):
    source = source_of("coco", tmp_path)
    assert cli.main(["data", "convert", source, "--to", "coco", "--out", str(tmp_path / "out.jsonl")]) == 2
    assert "expected a file name that ends in .json" in capsys.readouterr().err
    assert (
        cli.main(["data", "convert", "synthetic:count=2", "--to", "vlmr1_jsonl", "--out", str(tmp_path / "o.jsonl")])
        == 2
    )
    assert "need labels that are asked for" in capsys.readouterr().err
    assert not (tmp_path / "o.jsonl").exists()
