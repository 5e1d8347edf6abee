"""What does not go together ends with its reason, in a bounded time, in all processes."""

from __future__ import annotations

import shutil
import time

import pytest

from engines.launched import ENGINES, scenerl

pytestmark = [pytest.mark.engines, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("wrote, reads", [("ddp", "fsdp2"), ("fsdp2", "zero2"), ("zero2", "zero3"), ("zero3", "ddp")])
def test_a_checkpoint_of_another_engine_is_refused(train, launcher, wrote, reads):
    _, whole = train(wrote, "sft")
    run = shutil.copytree(whole, launcher.folder / f"{reads}_sft_from_{wrote}")
    shutil.rmtree(run / "checkpoint-4")
    done, _ = train(reads, "sft", f"from_{wrote}")
    assert done.code != 0
    name = ENGINES[wrote][0] if wrote != "ddp" else "DDP or one process"
    assert f"checkpoint-2: written with {name}, and this run uses {ENGINES[reads][0]}" in done.text
    assert not (run / "checkpoint-4").exists()


def test_two_processes_go_on_from_the_checkpoint_of_one(train, launcher):
    """DDP's files are those of a single process."""
    done, whole = train("one", "sft", "halves", per_device_train_batch_size=2, save_steps=2)
    done.require()
    run = shutil.copytree(whole, launcher.folder / "ddp_sft_halves")
    shutil.rmtree(run / "checkpoint-4")
    done, _ = train("ddp", "sft", "halves")
    done.require()
    assert "2 of 4 steps were done before" in done.text and (run / "checkpoint-4").is_dir()


@pytest.mark.parametrize("engine", ["ddp", "zero2"])
def test_a_process_that_stands_still_ends_the_run(train, engine):
    """The others wait for it as long as ``ddp_timeout`` says; torchrun then ends what does not answer."""
    start = time.monotonic()
    done, _ = train(engine, "sft", "still", {"END_AT": "SIGSTOP:2"}, ddp_timeout=20)
    assert done.code != 0 and time.monotonic() - start < 300


def test_processes_without_accelerators_are_refused(launcher):
    """accelerate would let each of them train alone, in the same folder."""
    sets = ["--set", f"out={launcher.folder / 'alone'}", "bf16=false"]
    words = ["launch", str(launcher.recipe("sft")), "--profile", str(launcher.profile("ddp")), *sets]
    done = scenerl(*words, cwd=launcher.folder, environment={"ACCELERATE_TORCH_DEVICE": ""})
    assert done.code != 0
    assert "2 processes were started, but there is no accelerator here" in done.text
    assert not (launcher.folder / "alone").exists()
