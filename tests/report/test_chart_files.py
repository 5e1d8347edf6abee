"""Charts of a report as files: SVG that other programs read, and PDF."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from report.report_run import HOSTILE, build_run
from scenerl.cli import main
from scenerl.metrics.file import Metrics, Reliability
from scenerl.report import charts
from scenerl.report.build import templates
from scenerl.report.chart_files import write_charts
from scenerl.report.curves import curve_groups

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def groups():
    points = [(float(step), step**0.5) for step in range(60)]
    return curve_groups([("A", 0, {"reward": points, "loss": points}), (HOSTILE, 9, {"reward": points})])


@pytest.fixture
def reliability():
    curve = Reliability(ece=0.25, confidence=[0.25, 0.75], accuracy=[0.5, 0.5], counts=[10, 40])
    metrics = Metrics(metrics={}, calibration={"relations": curve})
    return charts.reliability_charts("T", [("A", 0, metrics)])


def test_each_chart_becomes_a_document(tmp_path, groups, reliability):
    files = write_charts(templates(), groups, reliability, tmp_path / "figures", ["svg"])
    assert [file.name for file in files] == [
        "reinforcement_learning_reward.svg",
        "reinforcement_learning_loss.svg",
        "calibration_relations_t.svg",
    ]
    for file in files:
        root = ET.parse(file).getroot()
        assert root.tag == f"{SVG}svg"
        width, height = (float(root.get(name)) for name in ("width", "height"))
        assert root.get("viewBox") == f"0 0 {width:g} {height:g}"
        text = file.read_text()
        assert "var(--" not in text and "<script" not in text and "http" not in text.replace(SVG[1:-1], "")
        assert root.findall(f".//{SVG}path[@class='line']")


def test_the_legend_has_every_line_with_its_values(tmp_path, groups, reliability):
    files = write_charts(templates(), groups, reliability, tmp_path, ["svg"])
    entries = [
        [node.text for node in ET.parse(file).getroot().findall(f".//{SVG}text[@class='entry']")] for file in files
    ]
    # Means of 60 / 20 + 1 values at each end: the roots of 0 to 3, and of 56 to 59.
    assert entries[0][0] == "A 1.04 to 7.58" and len(entries[0]) == 2
    assert entries[2] == ["A ECE 0.250"]


def test_report_writes_charts(tmp_path, capsys):
    run = build_run(tmp_path / "run", num_images=2, side=64, steps=20)
    assert main(["report", str(run), "--charts", str(tmp_path / "figures")]) == 0
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"reinforcement_learning_reward.svg", "supervised_fine_tuning_loss.svg"} <= names
    assert f"{len(names)} files of charts" in capsys.readouterr().out


def test_pdf(tmp_path, groups, reliability):
    pytest.importorskip("svglib")
    files = write_charts(templates(), groups, reliability, tmp_path, ["svg", "pdf"])
    assert {file.suffix for file in files} == {".svg", ".pdf"} and len(files) == 6
    assert all(file.read_bytes().startswith(b"%PDF-") for file in files if file.suffix == ".pdf")


def test_pdf_without_its_package(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "svglib", None)
    run = build_run(tmp_path / "run", num_images=1, side=64, steps=20)
    assert main(["report", str(run), "--charts", str(tmp_path / "f"), "--chart_formats", "pdf"]) == 2
    assert "pip install 'scenerl[pdf]'" in capsys.readouterr().err and not (tmp_path / "f").exists()
