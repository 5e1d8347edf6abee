"""Manifests, metrics, logs and predictions that are not what they should be: one line that names the file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from report.report_run import COMPLETE, build_run, write_json, write_rows
from scenerl.commands.report import ReportOptions
from scenerl.json_files import read_as
from scenerl.metrics.file import Metrics
from scenerl.report.answers import read_answers
from scenerl.report.build import build_report
from scenerl.report.command import run
from scenerl.report.curves import read_log
from scenerl.report.inputs import combine_runs, named_files, read_run
from scenerl.report.settings import read_settings, settings_table


def change(folder, edit) -> None:
    path = folder / "report.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def test_a_manifest_is_read_with_paths_relative_to_it(run_folder):
    manifest = read_run(run_folder)
    assert [stage.name for stage in manifest.stages] == ["Base", "SFT", "SFT + RL"]
    assert manifest.stages[0].log is None
    assert manifest.stages[2].log == run_folder / "rl/log.jsonl"
    assert manifest.targets[0].source == str(run_folder / "data/test.jsonl")
    assert manifest.predicate_counts["left of"] == 5210


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.pop("stages"), "stages: Field required"),
        (lambda m: m.update(title=3), "title: Input should be a valid string"),
        (lambda m: m.update(stages=[]), "no stages"),
        (lambda m: m["stages"][1].update(metric={}), r"stages\.1\.metric: Extra inputs"),
        (lambda m: m["stages"][1].update(log="no.jsonl"), r"no\.jsonl: not found \(named by .*report\.json\)"),
        (lambda m: m["stages"][1]["metrics"].update({"other": "metrics/sft.sparse.json"}), "metrics for 'other'"),
        (
            lambda m: m["stages"][1]["metrics"].update({"sparse annotations": 3}),
            r"stages\.1\.metrics\.sparse annotations: Input",
        ),
        (lambda m: m["stages"][1].update(name="Base"), "equal names: 'Base'"),
        (lambda m: m["targets"][0].update(path="gone.jsonl"), "gone.jsonl: not found"),
        (lambda m: m.update(predicate_counts={"on": -1}), r"predicate_counts\.on: Input should be greater"),
    ],
)
def test_manifest_errors_name_the_place(run_folder, edit, message):
    change(run_folder, edit)
    with pytest.raises(ValueError, match=message):
        read_run(run_folder)


def test_a_null_stands_for_an_absent_file(run_folder):
    change(run_folder, lambda m: m["stages"][1].update(log=None, predictions=None))
    assert read_run(run_folder).stages[1].log is None


@pytest.mark.parametrize("text", ["", "{", "[1]", "\udcff", "[" * 100_000])
def test_a_manifest_that_is_no_json_object(tmp_path, text):
    (tmp_path / "report.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "report.json"))):
        read_run(tmp_path)


def test_a_folder_without_manifest_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"report\.json: not found.*--predictions"):
        read_run(tmp_path)


def test_the_report_takes_the_place_of_no_input(run_folder, tmp_path):
    names = ("sft.jsonl", "sft.sparse.json", "test_complete.jsonl")
    inputs = [path for path in map(Path, read_run(run_folder).files()) if path.name in names]
    assert len(inputs) == len(names)
    for out in (*inputs, tmp_path, inputs[0] / "report.html"):
        before = out.is_file() and out.read_bytes()
        with pytest.raises(ValueError, match="^out: .*(is read by this command|is a folder|is a file, not a folder)"):
            run(ReportOptions(run=[run_folder], out=out))
        assert (out.is_file() and out.read_bytes()) == before


def test_loose_files_need_names_of_their_own(run_folder):
    data, prediction = run_folder / "data/test.jsonl", run_folder / "predictions/sft.jsonl"
    manifest = named_files(str(data), [f"SFT = b={prediction}"[:3] + f"={prediction}"], [])
    assert [stage.name for stage in manifest.stages] == ["SFT"]
    with pytest.raises(ValueError, match="'A' is given twice"):
        named_files(str(data), [f"A={prediction}", f"A={prediction}"])
    with pytest.raises(ValueError, match="nothing.jsonl: not found"):
        named_files(str(data), ["A=nothing.jsonl"])


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ([], "Input should be a valid dictionary"),
        ({"metrics": {"Recall": 0.3}}, r"metrics\.Recall: "),
        ({"metrics": {"Recall": {}}}, r"metrics\.Recall\.value: "),
        ({"metrics": {"Recall": {"value": "high"}}}, r"metrics\.Recall\.value: "),
        ({"metrics": {}, "failures": [1]}, "failures: "),
        ({"metrics": {}, "per_predicate": {"on": 0.3}}, r"per_predicate\.on: "),
    ],
)
def test_metrics_errors_name_the_file(tmp_path, metrics, message):
    write_json(tmp_path / "metrics.json", metrics)
    with pytest.raises(ValueError, match=rf"metrics\.json: {message}"):
        read_as(Metrics, tmp_path / "metrics.json")


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), 10**400])
def test_metrics_that_are_not_available_are_missing_values(tmp_path, value):
    metrics = {
        "metrics": {"Recall": {"value": value, "interval": [0.1, 0.2]}, "AP": {"value": 0.5, "interval": [value, 0.6]}},
        "per_predicate": {"on": {"recall": value, "num_targets": value}},
        "failures": {"no_json": value, "no_answer": 2},
        "counts": None,
        "options": None,
        "calibration": {
            "objects": {"ece": value, "confidence": [0.5, 0.9], "accuracy": [value, 1.0], "counts": [value, 3]}
        },
    }
    write_json(tmp_path / "metrics.json", metrics)
    found = read_as(Metrics, tmp_path / "metrics.json")
    assert list(found.known) == ["AP"] and (found.known["AP"].value, found.known["AP"].interval) == (0.5, None)
    assert (found.per_predicate["on"].recall, found.per_predicate["on"].num_targets) == (None, None)
    assert (found.failures, found.counts, found.options) == ({"no_answer": 2}, {}, {})
    assert (found.calibration["objects"].ece, found.calibration["objects"].points) == (None, [(0.9, 1.0, 3)])


@pytest.mark.parametrize("interval", [None, [], [0.5], [0.4, None], [0.4, "x"], 3, "wide", {"low": 0.1}])
def test_half_an_interval_is_none(tmp_path, interval):
    write_json(tmp_path / "metrics.json", {"metrics": {"AP": {"value": 0.5, "interval": interval}}})
    assert read_as(Metrics, tmp_path / "metrics.json").known["AP"].interval is None


def test_the_report_shows_metrics_that_are_not_available_as_missing(run_folder):
    path = run_folder / "metrics" / "sft.sparse.json"
    metrics = json.loads(path.read_text())
    name = next(name for name, metric in metrics["metrics"].items() if metric["value"] is not None)
    metrics["metrics"][name] = {"value": float("nan"), "interval": [0.1, None]}
    before = build_report(read_run(run_folder)).count('<span class="value">–</span>')
    path.write_text(json.dumps(metrics))
    html = build_report(read_run(run_folder))
    assert html.count('<span class="value">–</span>') == before + 1 and ">nan" not in html


def test_log_keeps_finite_numbers_and_the_later_of_repeated_steps(tmp_path):
    write_rows(
        tmp_path / "log.jsonl",
        [
            {"step": 1, "loss": 3.0, "reward": float("nan"), "note": "text", "flag": True, "train_runtime": 3.0},
            {"step": 2, "loss": float("inf"), "epoch": 0.5},
            {"step": 1, "loss": 2.0},
            {"step": 3, "loss": 10**400},
        ],
    )
    assert read_log(tmp_path / "log.jsonl") == {"loss": [(1.0, 2.0)]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"status": "ok"}, "image_id, sample and status are needed"),
        ({"image_id": "1", "answer": "{}"}, "not as predict writes it"),
        ({"image_id": "1", "status": "ok", "graph": None}, "needs a 'graph' object"),
        ({"image_id": "1", "status": "ok", "graph": {"objects": [{"id": "a.1", "bbox": [0, 0, 1]}]}}, "4 finite"),
        ({"image_id": "1", "status": "ok", "graph": {"objects": []}, "issues": ["x"]}, r"issues\[0\]"),
    ],
)
def test_prediction_errors_name_file_and_row(tmp_path, row, message):
    write_rows(tmp_path / "p.jsonl", [{"image_id": "0", "status": "empty", "graph": None}, row])
    with pytest.raises(ValueError, match=rf"p\.jsonl, row 2: .*{message}"):
        dict(read_answers(tmp_path / "p.jsonl"))


def test_a_broken_log_line_and_data_row_are_named(run_folder):
    with open(run_folder / "rl/log.jsonl", "a") as file:
        file.write("{broken\n")
    with pytest.raises(ValueError, match=r"log\.jsonl, row 62"):
        build_report(read_run(run_folder))
    (run_folder / "rl/log.jsonl").write_text("")
    (run_folder / "data/test_complete.jsonl").write_text('{"image_id": "scene-000"}\n')
    with pytest.raises(ValueError, match=r"test_complete\.jsonl, row 1"):
        build_report(read_run(run_folder))
    (run_folder / "data/test_complete.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"test_complete\.jsonl is empty"):
        build_report(read_run(run_folder))


def test_runs_are_combined_where_their_ground_truth_is_the_same(tmp_path, capsys):
    first, second = (build_run(tmp_path / name, num_images=2, side=48, steps=20) for name in ("one", "two"))
    manifest = combine_runs([first, second])
    assert manifest.title == "one and two"
    assert [stage.name for stage in manifest.stages] == [
        f"{run}: {stage}" for run in ("one", "two") for stage in ("Base", "SFT", "SFT + RL")
    ]
    assert len(manifest.targets) == 2 and manifest.predicate_counts["left of"] == 5210
    # Ground truth that differs is left out, and so are the metrics against it.
    path = second / "data" / "test.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines()[0].replace("scene-000", "other") + "\n")
    change(second, lambda manifest: manifest.update(predicate_counts={"on": 1}))
    manifest = combine_runs([first, second])
    assert [target.name for target in manifest.targets] == [COMPLETE]
    assert all(set(stage.metrics) == {COMPLETE} for stage in manifest.stages)
    assert manifest.predicate_counts == {}
    run(ReportOptions(run=[first, second], out=tmp_path / "both.html"))
    assert "both.html" in capsys.readouterr().out
    (second / "data" / "test_complete.jsonl").write_text(path.read_text())
    with pytest.raises(ValueError, match="not tested on the same data.*one: sparse annotations, complete"):
        combine_runs([first, second])


def test_runs_of_equal_names_are_told_apart_and_one_run_is_no_two(tmp_path):
    first, second = (build_run(tmp_path / name / "run", num_images=1, side=48, steps=20) for name in ("one", "two"))
    assert combine_runs([first, second]).stages[0].name == "one/run: Base"
    assert combine_runs([first]).stages[0].name == "Base"
    with pytest.raises(ValueError, match="named twice"):
        combine_runs([first, first / ".." / "run"])


def test_settings_of_answers_are_read_where_predict_left_them(run_folder):
    sft = run_folder / "predictions" / "sft.jsonl"
    assert read_settings(sft) is None and settings_table([("SFT", 0, None, 0)]) is None
    beside = sft.with_name("sft.jsonl.yaml")
    beside.write_text("model: runs/sft\ntemperature: 0.0\n")
    assert read_settings(sft)["constrain"] is False  # written before decoding could be constrained
    beside.write_text("model: runs/sft\ntemperature: 0.0\nconstrain: true\nnum_samples: 4\nseed: 3\n")
    table = settings_table([("SFT", 1, read_settings(sft), 0), ("RL", 2, None, 4)])
    assert table.constrained == ("SFT",)
    assert dict(table.rows) == {
        "Model": ("sft", "unknown"),
        "Engine": ("transformers", "unknown"),
        "Output format": ("\u2013", "unknown"),
        "Constrained decoding": ("yes", "unknown"),
        "Samples per image": ("4", "unknown"),
        "Temperature": ("0.0", "unknown"),
        "Seed": ("3", "unknown"),
        "Scores from log-probabilities": ("\u2013", "unknown"),
        "Token limit of an answer": ("\u2013", "unknown"),
        "Merged by vote": ("no", "4 answers"),
    }
    beside.write_text("engine: openai\nconstrain: true\nseed: 3\noutput_format: {format: compact, template: think}\n")
    rows = dict(settings_table([("SFT", 1, read_settings(sft), 0)]).rows)
    assert (rows["Engine"], rows["Constrained decoding"]) == (("server",), ("by grammar only",))
    assert rows["Output format"] == ("compact, think",)
    html = build_report(read_run(run_folder))
    assert "Decoding was constrained in SFT:" in html and "Seed: <bdi>3</bdi>" in html
    beside.write_text("model: [")
    with pytest.raises(ValueError, match=r"sft\.jsonl\.yaml: line"):
        read_settings(sft)


def test_calibration_is_drawn_where_metrics_have_it(run_folder):
    path = run_folder / "metrics" / "sft.sparse.json"
    metrics = json.loads(path.read_text())
    curve = {"ece": 0.125, "confidence": [0.25, None, 0.75], "accuracy": [0.5, None, 0.75], "counts": [10, 0, 30]}
    path.write_text(json.dumps({**metrics, "calibration": {"objects": curve}}))
    assert read_as(Metrics, path).calibration["objects"].points == [(0.25, 0.5, 10), (0.75, 0.75, 30)]
    html = build_report(read_run(run_folder))
    assert 'id="calibration"' in html and "ECE 0.125" in html and "SFT: 0.50 right at 0.25, 10" in html
    for broken, message in (
        ({"objects": 3}, "calibration.objects: "),
        ({"objects": {**curve, "counts": [1]}}, "calibration.objects: .*differ in length"),
    ):
        path.write_text(json.dumps({**metrics, "calibration": broken}))
        with pytest.raises(ValueError, match=rf"sft\.sparse\.json: {message}"):
            read_as(Metrics, path)


def test_metrics_of_several_models_need_no_name(tmp_path):
    write_rows(tmp_path / "data.jsonl", [])
    write_json(tmp_path / "both.json", {"models": {"A": {"metrics": {}}, "B": {"metrics": {}}}})
    write_json(tmp_path / "one.json", {"metrics": {}})
    both, one = tmp_path / "both.json", tmp_path / "one.json"
    stages = named_files(str(tmp_path / "data.jsonl"), [], [str(both), str(one), f"B2={one}"]).stages
    assert [(stage.name, *stage.metrics.values()) for stage in stages] == [
        ("A", both), ("B", both), ("one", one), ("B2", one),
    ]  # fmt: skip
