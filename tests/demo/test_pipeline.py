"""The demo through the command line: every file it leaves, skipping, resuming, refusing, starting over."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="the demo needs the extra train")

import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from scenerl import cli
from scenerl.config import load_yaml
from scenerl.demo.tasks import GRAPH, TASKS
from scenerl.metrics.registry import spec
from scenerl.predictions.file import PredictionFile
from scenerl.training import sft
from training.small_run import read_rows

OUT = Path("runs/demo")
HEADLINE = ("failure_rate", "Recall", "R@50", "mR@50", "triplet_precision", "triplet_f1", "AP50", "relations_per_image")
STAGES = ("sft", "rl_triplet_f1", "zero_triplet_f1")
SHOWN = ("base (zero-shot)", "SFT", "SFT + RL (F1)", "Zero (F1)")


class Killed(BaseException):
    """As sudden as a kill, for what runs in this process."""


def run(folder: Path, *words: str) -> tuple[int, str]:
    """`scenerl demo --smoke` with ``folder`` as working directory: exit code, and what it printed."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(folder)
        patch.setenv("COLUMNS", "200")
        return cli.main(["demo", "--smoke", *words]), printed.getvalue()


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A folder in which `scenerl demo --smoke` has run in two processes, and what it printed."""
    folder = tmp_path_factory.mktemp("smoke")
    code, printed = run(folder, "--workers", "2")
    assert code == 0
    return folder, printed


@contextlib.contextmanager
def smaller():
    """An even smaller scale."""
    with pytest.MonkeyPatch.context() as patch:
        counts = {"num_train": 16, "num_test": 4, "sft_steps": 5, "grpo_steps": 2, "zero_steps": 1, "rollouts": 8}
        patch.setitem(TASKS, "graph", replace(GRAPH, smoke=replace(GRAPH.smoke, **counts)))
        yield patch


@pytest.fixture(scope="module")
def small(smoke, tmp_path_factory):
    """A copy of the run above, started over at the smaller scale, and what it printed."""
    folder = tmp_path_factory.mktemp("small")
    shutil.copytree(smoke[0], folder, dirs_exist_ok=True)
    with smaller():
        code, printed = run(folder, "--fresh")
    assert code == 0
    return folder, printed


def files_of(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_run_leaves_every_file(smoke):
    out = smoke[0] / OUT
    assert load_yaml(out / "config.yaml")["reward"] == "triplet_f1"
    assert len(read_rows(out / "data" / "train.jsonl")) == GRAPH.smoke.num_train
    for stage in STAGES:
        assert load_file(out / stage / "model.safetensors")
        assert json.loads((out / stage / "scenerl.json").read_text())["output_format"]["format"] == "json"
    tests = read_rows(out / "data" / "test.jsonl")
    assert len(tests) == GRAPH.smoke.num_test
    for stage in ("base", *STAGES):
        predictions = read_rows(out / "predictions" / f"{stage}.jsonl")
        assert [row["image_id"] for row in predictions] == [row["image_id"] for row in tests]
    assert not (out / "base").exists() and not list(out.rglob("pytorch_model*"))
    for stage, steps in (("sft", GRAPH.smoke.sft_steps), ("rl_triplet_f1", GRAPH.smoke.grpo_steps)):
        log = read_rows(out / stage / "log.jsonl")
        assert log[-1]["step"] == steps and "train_runtime" in log[-1]
        numbers = [row["step"] for row in log[:-1]]
        assert numbers == sorted(set(numbers))
    assert {"rewards/triplet_f1/mean", "scene/failure_rate", "entropy"} <= log[0].keys()
    assert read_rows(out / "rl_triplet_f1" / "samples.jsonl")[0]["rewards"].keys() >= {"format", "triplet_f1"}
    assert "<html" in (out / "report.html").read_text()


def test_both_annotations_of_the_test_images_differ_in_relations_only(smoke):
    sparse, complete = (read_rows(smoke[0] / OUT / "data" / name) for name in GRAPH.targets.values())
    assert [row["objects"] for row in sparse] == [row["objects"] for row in complete]
    counts = [sum(len(row["relationships"]) for row in rows) for rows in (sparse, complete)]
    assert counts[0] < counts[1]


def test_metrics_have_values_and_intervals_for_every_stage_and_target(smoke):
    everything = json.loads((smoke[0] / OUT / "metrics.json").read_text())
    assert list(everything) == list(SHOWN)
    for targets in everything.values():
        assert list(targets) == list(GRAPH.targets)
        for metrics in targets.values():
            assert set(HEADLINE) <= metrics.keys()
            for name in HEADLINE:
                value, interval = metrics[name]["value"], metrics[name]["interval"]
                assert value is None or interval[0] <= value <= interval[1], name
    for path in (smoke[0] / OUT / "metrics").glob("*.json"):
        metrics = json.loads(path.read_text())
        assert {"metrics", "failures", "options", "counts"} <= metrics.keys()
        assert sum(metrics["failures"].values()) <= GRAPH.smoke.num_test


def test_the_table_shows_every_stage_against_both_annotations_and_the_report(smoke):
    printed = smoke[1]
    for target in GRAPH.targets:
        assert target in printed
    assert re.search(r"This will take about \d+ min on this machine", printed)
    table = printed[printed.index("sparse annotations") :]
    for text in (
        *SHOWN,
        *(spec(name).title.split()[0] for name in HEADLINE),
        "95 % intervals",
        str(OUT / "report.html"),
    ):
        assert text in table
    assert "Traceback" not in printed


def test_a_second_run_skips_all_and_says_so(smoke):
    before = files_of(smoke[0] / OUT / "sft") | files_of(smoke[0] / OUT / "predictions")
    code, printed = run(smoke[0])
    assert code == 0
    for stage in ("data", *STAGES):
        assert f"{stage}: finished before, skipped" in printed
    assert "will take" not in printed and "--fresh starts over" in printed and "report.html" in printed
    assert files_of(smoke[0] / OUT / "sft") | files_of(smoke[0] / OUT / "predictions") == before


@pytest.mark.parametrize("words, named", [(["--reward", "hard_recall"], "reward"), (["--seed", "1"], "seed")])
def test_other_options_in_the_same_folder_are_refused(smoke, capsys, words, named):
    before = files_of(smoke[0] / OUT)
    assert run(smoke[0], *words)[0] == 2
    error = capsys.readouterr().err
    assert f"belongs to another run; differing: {named}" in error and "--fresh" in error
    assert files_of(smoke[0] / OUT) == before


def test_fresh_starts_over(small):
    folder, printed = small
    assert "skipped" not in printed
    assert len(read_rows(folder / OUT / "data" / "train.jsonl")) == 16


def test_killed_twice_it_goes_on_and_ends_the_same(small, tmp_path):
    class KillAtStep3(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                raise Killed

    build, append = sft.build_trainer, PredictionFile.append

    def build_doomed(*args, **settings):
        trainer = build(*args, **settings)
        trainer.add_callback(KillAtStep3())
        return trainer

    def append_doomed(file, row):
        if file.path.stem == "sft" and len(file.done) == 2:
            raise Killed
        append(file, row)

    with smaller() as patch:
        with patch.context() as inner, pytest.raises(Killed):
            inner.setattr(sft, "build_trainer", build_doomed)
            run(tmp_path)
        assert not (tmp_path / OUT / "sft" / "done.json").exists()
        with patch.context() as inner, pytest.raises(Killed):
            inner.setattr(PredictionFile, "append", append_doomed)
            run(tmp_path)
        assert len(read_rows(tmp_path / OUT / "predictions" / "sft.jsonl")) == 2
        code, printed = run(tmp_path)
    assert code == 0
    assert "sft: finished before, skipped" in printed
    for stage in STAGES:
        ours, theirs = (load_file(folder / OUT / stage / "model.safetensors") for folder in (tmp_path, small[0]))
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
    for name in ("predictions/sft.jsonl", "metrics.json"):
        assert (tmp_path / OUT / name).read_text() == (small[0] / OUT / name).read_text()
    steps = [row["step"] for row in read_rows(tmp_path / OUT / "sft" / "log.jsonl") if "loss" in row]
    assert steps == sorted(set(steps))


def test_a_folder_of_something_else_is_left_alone(tmp_path, capsys):
    (tmp_path / OUT).mkdir(parents=True)
    (tmp_path / OUT / "thesis.tex").write_text("ten years of work")
    assert run(tmp_path, "--fresh")[0] == 2
    assert "holds files but no config.yaml" in capsys.readouterr().err
    assert os.listdir(tmp_path / OUT) == ["thesis.tex"]
