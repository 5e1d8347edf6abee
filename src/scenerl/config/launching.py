"""Options of what starts recipes on machines, and of what estimates how long they take there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scenerl.config.option import Options, option

PROFILE_HELP = "machines to run on: a name from recipes/profiles, or a YAML file like those"
SET_HELP = "KEY=VALUE …: fields that differ from recipe and profile"


@dataclass(frozen=True, kw_only=True)
class LaunchOptions(Options):
    """Start a recipe on the machines of a profile: here, or as a SLURM job that is queued again when preempted."""

    recipe: Path = option(
        ..., "recipe, named sft_….yaml or grpo_….yaml after the command that it is for", positional=True
    )
    profile: str = option(..., PROFILE_HELP)
    set: list[str] = option([], SET_HELP)
    print: bool = option(False, "print the command or the job script, start nothing")
    slurm: bool = option(False, "write a job script and submit it", "SLURM")
    time: str = option("24:00:00", "time limit of the job", "SLURM")
    grace: int = option(600, "seconds before the limit at which the run saves and is queued again", "SLURM", low=1)
    sbatch: list[str] = option(
        [], "NAME=VALUE …: further options of sbatch, as account=a-a03 partition=normal", "SLURM"
    )
    setup: str | None = option(None, "shell line to run first on every node, as 'source .venv/bin/activate'", "SLURM")


@dataclass(frozen=True, kw_only=True)
class PlanOptions(Options):
    """Memory and time that a recipe will take on the machines of a profile, from counts of parameters and tokens."""

    recipe: Path = option(..., "recipe, as for launch", positional=True)
    profile: list[str] = option([], f"{PROFILE_HELP}; not given: all in recipes/profiles")
    set: list[str] = option([], SET_HELP)
    efficiency: float = option(
        0.4,
        "share of a GPU's peak that training reaches (docs/plan.md); time is inversely proportional",
        low=0.01,
        high=1,
    )
