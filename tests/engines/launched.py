"""Starts ``scenerl launch`` as a user does, on CPUs: two gloo processes under a sharding engine, or one on its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PROFILES = ROOT / "recipes" / "profiles"
HERE = Path(__file__).parent

ENGINES = {
    "one": ("one process", None, "none"),
    "ddp": ("DDP", "ddp.yaml", "none"),
    "fsdp2": ("FSDP2", "fsdp2.yaml", "fsdp2"),
    "zero2": ("DeepSpeed ZeRO-2", "zero2.yaml", "zero2"),
    "zero3": ("DeepSpeed ZeRO-3", "zero3_offload.yaml", "zero3_offload"),
    "qlora": ("one process", None, "none"),
}
"""Engine to how a run names it, accelerate's file, and the profile's sharding. QLoRA has a profile of its own."""

PROCESSES = 2
COMMON = {
    "format": "compact", "grid": 20, "max_steps": 4, "learning_rate": 1e-3, "lr_scheduler_type": "constant",
    "logging_steps": 1, "save_steps": 2, "seed": 42, "report_to": "none", "bf16": True,
}  # fmt: skip
FIELDS = {
    "sft": {**COMMON, "global_batch_size": 8},
    # Two steps learn from one rollout, so that a checkpoint may fall into the middle of it; β needs a second model.
    "grpo": {
        **COMMON, "global_batch_size": 8, "num_generations": 4, "steps_per_generation": 4, "beta": 0.04,
        "max_completion_length": 16, "rewards": ["cosine_length"], "sample_log_every": 1,
    },
}  # fmt: skip
LORA = {"use_peft": True, "lora_r": 4, "lora_dropout": 0}


@dataclass(frozen=True)
class Done:
    """A command that has ended: its exit code, and what it wrote."""

    code: int
    text: str

    def require(self, code: int = 0) -> Done:
        assert self.code == code, f"exit code {self.code}, not {code}:\n{self.text[-4000:]}"
        return self


@dataclass(frozen=True)
class Launcher:
    """Runs of one model and data set in one folder."""

    folder: Path
    base: Path
    rows: Path

    def profile(self, engine: str) -> Path:
        """A profile of this machine with accelerate's file as it is; QLoRA's is as it is itself."""
        if engine == "qlora":
            return PROFILES / "1x24gb.yaml"
        _, accelerate, sharding = ENGINES[engine]
        path = self.folder / f"{engine}.yaml"
        count = PROCESSES if accelerate else 1
        profile = {"nodes": 1, "gpus_per_node": count, "gpu": "cpu", "gpu_memory_gib": 1, "sharding": sharding}
        profile |= {command: {"per_device_train_batch_size": 4 // count} for command in FIELDS}  # a step adds up two
        if accelerate:
            profile["accelerate"] = str(PROFILES / "accelerate" / accelerate)
        path.write_text(yaml.safe_dump(profile))
        return path

    def recipe(self, command: str) -> Path:
        path = self.folder / f"{command}_small.yaml"
        fields = {"model": str(self.base), "data": str(self.rows), "out": "none", **FIELDS[command]}
        path.write_text(yaml.safe_dump(fields))
        return path

    def train(self, engine: str, command: str, out: str, environment: dict[str, str] | None = None, **fields) -> Done:
        """Launch a run into ``folder / out``; ``fields`` win over recipe and profile."""
        sets = [f"{key}={_text(value)}" for key, value in {"out": self.folder / out, **fields}.items()]
        words = ["launch", str(self.recipe(command)), "--profile", str(self.profile(engine)), "--set", *sets]
        return scenerl(*words, cwd=self.folder, environment=environment)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def scenerl(*words: str, cwd: Path, environment: dict[str, str] | None = None, timeout: float = 600) -> Done:
    """Run a command of ours; whatever it has started ends with it."""
    path = os.pathsep.join([str(HERE / "on_cpu"), str(HERE.parent), str(ROOT / "src")])
    variables = {
        **os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "COLUMNS": "200",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "ACCELERATE_TORCH_DEVICE": "cpu", "DS_ACCELERATOR": "cpu", **(environment or {}),
    }  # fmt: skip
    variables = {name: value for name, value in variables.items() if value}
    process = subprocess.Popen(
        [sys.executable, "-m", "scenerl", *words],
        cwd=cwd,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        text, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.terminate()  # torchrun ends its processes, which have sessions of their own
        text, _ = process.communicate(timeout=60)
        raise AssertionError(f"not done after {timeout} s:\n{text[-4000:]}") from None
    finally:
        process.kill()
    return Done(process.returncode, text)


def log_of(run: Path) -> list[dict]:
    """The rows of a run's log that belong to steps."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [row for row in rows if "loss" in row]
