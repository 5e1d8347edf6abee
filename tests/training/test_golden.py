"""Losses, gradient norms and rewards of twenty steps of SFT and ten of GRPO, as they were recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scenerl import cli
from training.small_run import read_rows, words

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text(encoding="utf-8"))
COMMON = {
    "format": "compact", "grid": 20, "logging_steps": 1, "save_strategy": "no", "gradient_checkpointing": "false",
    "report_to": "none", "bf16": "false",
}  # fmt: skip
SFT = {**COMMON, "max_steps": 20, "per_device_train_batch_size": 2, "learning_rate": 1e-2}
GRPO = {
    **COMMON, "max_steps": 10, "per_device_train_batch_size": 4, "num_generations": 4, "gradient_accumulation_steps": 2,
    "max_completion_length": 32, "temperature": 1.0, "beta": 0.04, "learning_rate": 1e-3,
}  # fmt: skip


def assert_golden(name: str, argv: list[str], out: Path) -> None:
    assert cli.main([*argv, "--out", str(out)]) == 0
    steps = [row for row in read_rows(out / "log.jsonl") if "loss" in row]
    for key, wanted in GOLDEN[name].items():
        assert [row[key] for row in steps] == pytest.approx(wanted, rel=1e-4, abs=1e-6), (name, key)


def test_training_is_what_it_was(base, rows, tmp_path):
    data = ["--data", str(rows), "--model"]
    assert_golden("sft", ["sft", *data, str(base), *words(SFT)], tmp_path / "sft")
    for shared in ("on", "off"):
        argv = ["grpo", *data, str(tmp_path / "sft"), *words(GRPO), "--shared_prefix", shared]
        assert_golden(f"grpo_{shared}", argv, tmp_path / shared)
