"""The command `launch`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import NonNegativeInt, PositiveInt

from scenerl.config.options import Options, option

EXAMPLES = (
    "scenerl launch recipes/r1_sgg/grpo_qwen2vl7b_vg150.yaml --profile 16xgh200 --slurm --sbatch account=me",
    "scenerl launch recipes/r1_sgg/sft_qwen2vl2b_psg.yaml --profile 1x24gb --set max_steps=10 --print",
)
SLURM = "SLURM"


@dataclass(frozen=True, kw_only=True)
class LaunchOptions(Options):
    """Run a recipe on the machines of a profile: here, or as a SLURM job that requeues itself when preempted."""

    recipe: list[Path] = option(
        ...,
        "recipe, its name beginning with the command: sft_….yaml or grpo_….yaml; further ones win over it",
        positional=True,
    )
    profile: str = option(..., "machines: a name from recipes/profiles, or a YAML file like those")
    set: list[str] = option([], "KEY=VALUE …: options that win over recipe and profile; a list as JSON")
    print: bool = option(False, "print the command or the job script, start nothing")
    slurm: bool = option(False, "write a job script and submit it", SLURM)
    time: str = option("24:00:00", "time limit of the job, as sbatch takes it", SLURM)
    grace: PositiveInt = option(
        600, "seconds before the time limit at which the run saves a checkpoint and requeues", SLURM
    )
    seeds: list[NonNegativeInt] = option([], "a job array: one run for each of these seeds, in OUT/seed_N", SLURM)
    sbatch: list[str] = option([], "NAME=VALUE …: further options of sbatch, as account=a-a03 partition=normal", SLURM)
    setup: str | None = option(None, "shell line to run first on every node, as 'source .venv/bin/activate'", SLURM)
