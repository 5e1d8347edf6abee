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


@pytest.mark.parametrize("to", ["jsonl", "coco", "vlmr1_jsonl"])
@pytest.mark.parametrize("name", NAMES)
def test_conversion_and_back(name, to, tmp_path, capsys):
    source = source_of(name, tmp_path)
    out = tmp_path / ("out.json" if to == "coco" else "out.jsonl")
    assert cli.main(["data", "convert", source, "--to", to, "--out", str(out)]) == 0
    before = list(data.load(source))
    again = list(data.load(f"{to}:{out}", need_images=True))
    assert len(again) == len(before)
    for theirs, ours in zip(before, again, strict=True):
        assert ours.image_wh == theirs.image_wh
        assert [found.label for found in ours.graph.objects] == [found.label for found in theirs.graph.objects]
        rounding = 0.5 if to == "vlmr1_jsonl" else 1e-9  # their answers hold whole pixels
        for mine, original in zip(ours.graph.objects, theirs.graph.objects, strict=True):
            assert mine.box == pytest.approx(original.box, abs=rounding)
        assert set(theirs.query) <= set(ours.query) if to == "coco" else ours.query == theirs.query


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
