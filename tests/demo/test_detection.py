"""The detection demo through the command line, and the ``think`` template through the whole path of both tasks."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="the demo needs the extra train")

import torch

from scenerl import cli, data, tiny
from scenerl.answers import OutputFormat, parse_answer
from scenerl.demo.tasks import TASKS
from scenerl.metrics.registry import spec
from scenerl.models.loading import load
from training.small_run import QUICK, SHAPE, read_rows, words

OUT = Path("runs/demo")
HEADLINE = ("failure_rate", "AP", "AP50", "object_precision", "object_recall", "absent_answered")
STAGES = {"base": "base (zero-shot)", "sft": "SFT", "rl_od_length": "SFT + RL (odLength)"}
FEW = {"num_train": 16, "num_test": 4, "sft_steps": 3, "grpo_steps": 2, "rollouts": 8}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(folder: Path, *provided: str) -> tuple[int, str]:
    """`scenerl demo --smoke` at an even smaller scale, with ``folder`` as working directory."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(folder)
        patch.setenv("COLUMNS", "200")
        patch.setattr(tiny, "TinyShape", lambda **sizes: replace(SHAPE, **sizes))
        for name, task in TASKS.items():
            patch.setitem(TASKS, name, replace(task, smoke=replace(task.smoke, **FEW)))
        return cli.main(["demo", "--smoke", *provided]), printed.getvalue()


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A folder in which the detection demo has run, and what it printed."""
    folder = tmp_path_factory.mktemp("detection")
    code, printed = run(folder, "--task", "detection")
    assert code == 0
    return folder / OUT, printed


def test_every_stage_leaves_its_files(smoke):
    out, _ = smoke
    tests = read_rows(out / "data" / "test.jsonl")
    for stage in STAGES:
        if stage != "base":
            written = json.loads((out / stage / "scenerl.json").read_text())
            assert written["output_format"]["format"] == "detections"
        predictions = read_rows(out / "predictions" / f"{stage}.jsonl")
        assert [row["image_id"] for row in predictions] == [row["image_id"] for row in tests]
    log = read_rows(out / "rl_od_length" / "log.jsonl")
    assert {"rewards/od_length/mean", "rewards/format/mean"} <= log[0].keys()
    assert "<html" in (out / "report.html").read_text()


def test_metrics_of_absent_labels_stand_beside_precision_and_recall(smoke):
    out, printed = smoke
    everything = json.loads((out / "metrics.json").read_text())
    assert list(everything) == list(STAGES.values())
    for targets in everything.values():
        assert set(HEADLINE) <= targets["complete annotations"].keys()
    for text in (
        *STAGES.values(),
        *(spec(name).title.split()[0] for name in HEADLINE),
        "complete annotations",
        "95 % intervals",
    ):
        assert text in printed


def test_rl_sees_the_same_frozen_tower(smoke):
    out = smoke[0]
    models = ["base", *(out / stage for stage in STAGES if stage != "base")]
    towers = [load(model, "float32").model.model.visual.state_dict() for model in models]
    for tower in towers[1:]:
        assert all(torch.equal(value, towers[0][name]) for name, value in tower.items())


@pytest.mark.parametrize(
    "provided, named",
    [
        (["--task", "detection", "--reward", "triplet_f1"], "not one of task 'detection'; allowed: od_length, ap"),
        (["--reward", "od_length"], "not one of task 'graph'; allowed: triplet_f1, hard_recall"),
        (["--task", "panoptic"], "should be 'graph' or 'detection'"),
    ],
)
def test_rewards_and_tasks_that_cannot_be(tmp_path, capsys, provided, named):
    assert run(tmp_path, *provided)[0] == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / OUT).exists()


@pytest.mark.parametrize("task", ["graph", "detection"])
def test_think_through_the_whole_path(task, tmp_path):
    code, _ = run(tmp_path, "--task", task, "--envelope", "think")
    assert code == 0
    out = tmp_path / OUT
    for stage in ("sft", "rl_od_length" if task == "detection" else "rl_triplet_f1"):
        assert json.loads((out / stage / "scenerl.json").read_text())["output_format"]["template"] == "think"
        assert len(read_rows(out / "predictions" / f"{stage}.jsonl")) == FEW["num_test"]


@pytest.mark.slow
@pytest.mark.parametrize("reasoning", ["empty", "summary"])
@pytest.mark.parametrize("source", ["synthetic:count=4", "synthetic_detection:count=4"])
def test_a_thought_learnt_by_heart_comes_back_in_its_envelope(source, reasoning, tmp_path, monkeypatch):
    """SFT target, rollout, format reward, prediction and evaluation agree on what a thought looks like."""
    monkeypatch.chdir(tmp_path)
    answers = "detections" if "detection" in source else "json"
    monkeypatch.setattr(tiny, "TinyShape", lambda **sizes: replace(SHAPE, **sizes))
    settings = {**QUICK, "max_steps": 60, "per_device_train_batch_size": 4, "learning_rate": 5e-3, "logging_steps": 30}
    options = ["--format", answers, "--envelope", "think", "--thought", reasoning, "--grid", "100", "--muon"]
    command = ["sft", "--model", "tiny", "--data", source, "--out", "sft", *options, *words(settings)]
    assert cli.main(command) == 0
    assert cli.main(["predict", "--model", "sft", "--data", source, "--out", "p.jsonl", "--max_new_tokens", "300"]) == 0
    rows = {row["image_id"]: row for row in read_rows(tmp_path / "p.jsonl")}
    conversation = load("sft", dtype="float32").conversation(OutputFormat(answers, "think", step=100))
    targets = {
        example.image_id: conversation.completion(example, reasoning)[0]["content"][0]["text"]
        for example in data.load(source)
    }
    for image_id, row in rows.items():
        before, _, answer = row["answer"].partition("</think>")
        assert before.startswith("<think>") and answer.strip().startswith("<answer>")
        assert before == targets[image_id].partition("</think>")[0]
        assert parse_answer(row["answer"], conversation.output_format, (112, 112)).in_template
