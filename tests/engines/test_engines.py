"""Every sharding engine trains, stops, goes on and leaves a checkpoint that one process can use.

The commands are a user's: ``scenerl launch`` with accelerate's files from ``recipes/profiles``. Two processes share a
machine without accelerators (on_cpu/sitecustomize.py). A test's name is a column of the table in docs/cluster.md.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from engines.launched import ENGINES, LORA, log_of, scenerl
from scenerl import cli
from scenerl.models.loading import load
from training.small_run import read_rows

pytestmark = [pytest.mark.engines, pytest.mark.timeout(1800)]
SHARDING = ["ddp", "fsdp2", "zero2", "zero3"]
every_engine = pytest.mark.parametrize("engine", [*SHARDING, "qlora"])
every_sharding = pytest.mark.parametrize("engine", SHARDING)
both_commands = pytest.mark.parametrize("command", ["sft", "grpo"])

LOSS_TOLERANCE = 0.02
"""Of losses of about 1, in nats: bfloat16 rounds to 3 digits, and DeepSpeed holds weights in it."""
GRADIENT_TOLERANCE = 0.01
"""Relative, of the first gradient's norm. Adam's first step is of the same length for every weight, whose gradients may
be rounding alone; later ones differ more."""
HALF_GRADIENT_TOLERANCE = 0.03
"""The same where the trained weights are bfloat16, as QLoRA's adapters: the norm itself has steps of 0.8 %."""
RESUME_TOLERANCE = 0.05
"""Of ZeRO-3 with offload: distance to the undisturbed run's weights, relative to what the steps after the checkpoint
moved. DeepSpeed's Adam for the CPU takes β^t as a running product in float32, and after a restart as a power: 1 - β2^t
differs by 1e-5, some weights are rounded to another bfloat16, and 0.009 was measured. The other engines are exact."""

MAX_NEW_TOKENS = 96
"""Of an answer to predict or to validate with."""

GIVEN = {"SAME_COMPLETIONS": "1"}


def batches_per_step(engine: str) -> int:
    """QLoRA's profile takes the whole batch at once, the others halves of it."""
    return 1 if engine == "qlora" else 2


def slowly(engine: str) -> dict[str, object]:
    """Fields for given completions, which are far from the model's own: larger steps amplify rounding. A rollout is one
    step: the order in which several learn from it is random in each process, and with shared prompts by groups."""
    return {"learning_rate": 1e-4, "steps_per_generation": batches_per_step(engine)}


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    (path,) = folder.glob("*.safetensors")
    return load_file(path)


def names_and_shapes(folder: Path) -> dict[str, list[int]]:
    (path,) = folder.glob("*.safetensors")
    with safe_open(path, framework="pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}


def assert_same_weights(found: Path, wanted: Path) -> None:
    ours, theirs = weights_of(found), weights_of(wanted)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not ours[name].equal(theirs[name])] == []


def assert_went_on(engine: str, found: Path, wanted: Path) -> None:
    """A run that was cut ended as the whole one did."""
    if engine != "zero3":
        assert_same_weights(found, wanted)
        assert [row["loss"] for row in log_of(found)] == [row["loss"] for row in log_of(wanted)]
        return
    ours, theirs, before = (weights_of(folder) for folder in (found, wanted, wanted / "checkpoint-2"))
    assert ours.keys() == theirs.keys()
    apart = sum((ours[name].float() - theirs[name].float()).square().sum() for name in ours).sqrt()
    moved = sum((theirs[name].float() - before[name].float()).square().sum() for name in ours).sqrt()
    assert apart < RESUME_TOLERANCE * moved, (apart, moved)
    for a, b in zip(log_of(found), log_of(wanted), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=LOSS_TOLERANCE)


def assert_same_losses(found: Path, wanted: Path, tolerance: float = GRADIENT_TOLERANCE) -> None:
    """The losses of all steps agree, and the first gradient; losses vary, so that there is something to agree on."""
    ours, theirs = log_of(found), log_of(wanted)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == [1, 2, 3, 4]
    assert len({row["loss"] for row in theirs}) == 4
    assert ours[0]["grad_norm"] == pytest.approx(theirs[0]["grad_norm"], rel=tolerance)
    for a, b in zip(ours, theirs, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=LOSS_TOLERANCE), (a, b)


def answers_of(model: Path, rows: Path, out: Path) -> list[str]:
    """What a checkpoint answers in this process, which has no engine."""
    words = ["predict", "--model", model, "--data", rows, "--out", out, "--max_new_tokens", MAX_NEW_TOKENS]
    assert cli.main([*map(str, words)]) == 0
    return [row["answer"] for row in read_rows(out)]


def metrics_of(predictions: Path, rows: Path) -> dict[str, float]:
    """What `eval` says of predictions."""
    out = predictions.with_suffix(".metrics.json")
    words = ["eval", predictions, "--data", rows, "--out", out, "--resamples", 0]
    assert cli.main([*map(str, words)]) == 0
    return {name: entry["value"] for name, entry in json.loads(out.read_text())["metrics"].items()}


@every_engine
@both_commands
def test_starts(train, engine, command):
    done, run = train(engine, command)
    done.require()
    assert f"trained by: {ENGINES[engine][0]}\n" in done.text  # accelerate trains without an engine, and says nothing
    assert [row["step"] for row in log_of(run)] == [1, 2, 3, 4]


@every_sharding
@both_commands
def test_trains_to_the_same_loss(train, engine, command):
    """As one process with the doubled batch. GRPO's completions are given: random numbers are a process's own."""
    kind = {"kind": "given", "environment": GIVEN, **slowly(engine)} if command == "grpo" else {}
    runs = []
    for each in (engine, "one"):
        done, run = train(each, command, **kind)
        done.require()
        runs.append(run)
    assert_same_losses(*runs)


@every_engine
@both_commands
def test_saves(train, launcher, engine, command):
    """Checkpoints and final model are whole, with the tensors of the model that was trained, by the same names."""
    done, run = train(engine, command)
    done.require()
    assert sorted(path.name for path in run.glob("*checkpoint*")) == ["checkpoint-2", "checkpoint-4"]
    folders = [run, run / "checkpoint-2", run / "checkpoint-4"]
    names = [names_and_shapes(folder) for folder in folders]
    assert names[0] == names[1] == names[2]
    if engine != "qlora":
        assert names[0] == names_and_shapes(launcher.base)
    assert_same_weights(run, run / "checkpoint-4")
    for folder in folders:
        load(folder)


@every_engine
@pytest.mark.parametrize("command, end", [("sft", "SIGKILL:4"), ("grpo", "SIGTERM:3")])
def test_resumes(train, engine, command, end):
    """Killed after a checkpoint, or asked to stop in the middle of a rollout: the weights of the undisturbed run."""
    _, whole = train(engine, command)
    done, run = train(engine, command, "cut", {"END_AT": end})
    assert done.code != 0
    step = 2 if end == "SIGKILL:4" else 3
    assert max(path.name for path in run.glob("checkpoint-*")) == f"checkpoint-{step}", done.text[-3000:]
    assert step == 2 or "stopped by" in done.text
    done, _ = train(engine, command, "cut", {})
    done.require()
    assert f"{step} of 4 steps were done before" in done.text
    assert_went_on(engine, run, whole)


@every_engine
def test_finishes_twice(train, launcher, engine):
    """Killed between its last checkpoint and the end, then asked for again: the model is there, nothing is trained."""
    _, whole = train(engine, "sft")
    again = shutil.copytree(whole, launcher.folder / f"{engine}_sft_again")
    config = again / "config.yaml"
    config.write_text(config.read_text().replace(str(whole), str(again)))
    for path in again.glob("*.safetensors"):
        path.unlink()
    done, _ = train(engine, "sft", "again")
    done.require()
    assert "all steps were done before" in done.text
    assert_same_weights(again, whole)
    assert not list(again.glob("zero_to_*")) and log_of(again) == log_of(whole)


@every_engine
def test_predicts(train, launcher, engine):
    """Without the engine: the run's model and its last checkpoint answer alike, and not as the model before."""
    _, run = train(engine, "sft")
    answers = [
        answers_of(model, launcher.rows, launcher.folder / f"{engine}_{number}.jsonl")
        for number, model in enumerate([run, run / "checkpoint-4", launcher.base])
    ]
    assert answers[0] == answers[1] and len(set(answers[0])) > 1
    assert answers[0] != answers[2], "training changed no answer"


@every_sharding
@both_commands
def test_validates(train, taught, launcher, engine, command):
    """Metrics of a checkpoint are those that one process finds without the engine; the best one is the final model."""
    done, run = train(
        engine,
        command,
        "validated",
        model=taught,
        eval_data=launcher.rows,
        eval_max_new_tokens=MAX_NEW_TOKENS,
        metric_for_best_model="triplet_f1",
        load_best_model_at_end=True,
        save_total_limit=1,
        save_steps=1,
        max_steps=3,
        learning_rate=1e-4,
    )
    done.require()
    evaluated = {row["step"]: row for row in read_rows(run / "log.jsonl") if "eval_failure_rate" in row}
    assert sorted(evaluated) == [1, 2, 3]
    state = json.loads((run / "checkpoint-3" / "trainer_state.json").read_text())
    best = max(evaluated, key=lambda step: evaluated[step]["eval_triplet_f1"])
    assert evaluated[best]["eval_triplet_f1"] > 0.5
    assert state["best_global_step"] == best
    kept = {best, 3}
    assert {path.name for path in run.glob("checkpoint-*")} == {f"checkpoint-{step}" for step in kept}
    assert_same_weights(run, run / f"checkpoint-{best}")
    for step in kept:
        out = launcher.folder / f"{engine}_{command}_validated_{step}.jsonl"
        answers = answers_of(run / f"checkpoint-{step}", launcher.rows, out)
        assert len(set(answers)) > 1
        alone = metrics_of(out, launcher.rows)
        shared = {name for name in alone if f"eval_{name}" in evaluated[step]}
        assert {"failure_rate", "Recall", "mRecall", "triplet_f1", "AP50", "R@50"} <= shared
        logged = {name: evaluated[step][f"eval_{name}"] for name in shared}
        assert logged == pytest.approx({name: alone[name] for name in shared}), step


@every_engine
def test_lora(train, launcher, engine):
    """Adapters: killed and resumed as above; GRPO trains on; merged by export, they answer alike."""
    done, whole = train(engine, "sft", "lora", **LORA)
    done.require()
    done, _ = train(engine, "sft", "cut_lora", {"END_AT": "SIGKILL:4"}, **LORA)
    assert done.code != 0
    done, run = train(engine, "sft", "cut_lora", {}, **LORA)
    done.require()
    assert_went_on(engine, run, whole)
    merged = launcher.folder / f"{engine}_merged"
    scenerl("export", "--model", str(run), "--out", str(merged), cwd=launcher.folder).require()
    assert names_and_shapes(merged) == names_and_shapes(launcher.base)
    out = [launcher.folder / f"{engine}_lora_{name}.jsonl" for name in ("beside", "merged")]
    assert answers_of(run, launcher.rows, out[0]) == answers_of(merged, launcher.rows, out[1])
    done, rl = train(engine, "grpo", "lora", model=run, **LORA)
    done.require()
    assert names_and_shapes(rl) == names_and_shapes(run)


@every_engine
def test_shared_prompts(train, engine):
    """With and without: the same losses on given completions."""
    runs = []
    for kind, more in (("given", {}), ("unshared", {"shared_prefix": "off"})):
        done, run = train(engine, "grpo", kind, GIVEN, **slowly(engine), **more)
        done.require()
        assert ("with and without shared prefix" in done.text) == (not more)
        runs.append(run)
    assert_same_losses(*runs, HALF_GRADIENT_TOLERANCE if engine == "qlora" else GRADIENT_TOLERANCE)


@every_engine
def test_constrained(train, record_property, engine):
    """Completions have the output format, or the engine is refused: sharded weights need all processes in step."""
    fields = {"constrain": True, "max_completion_length": 160, "steps_per_generation": 2 * batches_per_step(engine)}
    done, run = train(engine, "grpo", "constrained", **fields)
    if engine in ("fsdp2", "zero3"):
        assert done.code != 0
        assert f"constrain: not possible: {'FSDP' if engine == 'fsdp2' else 'DeepSpeed ZeRO-3'}" in done.text
        record_property("cell", "refused, tested")
        return
    done.require()
    rates = [row["scene/failure_rate"] for row in log_of(run) if "scene/failure_rate" in row]
    assert rates == [0, 0]  # of two rollouts, each of two steps
