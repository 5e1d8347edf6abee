"""The command `demo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from scenerl.commands.groups import TEMPLATE_HELP
from scenerl.config.options import Options, TemplateName, option

EXAMPLES = ("scenerl demo", "scenerl demo --smoke --out runs/try", "scenerl demo --task detection")


@dataclass(frozen=True, kw_only=True)
class DemoOptions(Options):
    """From the base model to a report: drawn scenes, SFT, GRPO, tables."""

    out: Path = option(Path("runs/demo"), "folder of the run")
    fresh: bool = option(False, "start over. Without it finished stages are skipped and an interrupted one continues")
    smoke: bool = option(False, "the same stages with tiny settings, about a minute")
    full: bool = option(False, "train on every reward of the task")
    task: Literal["graph", "detection"] = option("graph", "scene graphs, or open-vocabulary detection")
    reward: Literal["triplet_f1", "hard_recall", "od_length", "ap"] | None = option(
        None, "reward of RL: triplet_f1 (default) or hard_recall; for detection od_length (default) or ap"
    )
    envelope: TemplateName = option("plain", TEMPLATE_HELP)
    rebuild_base: Path | None = option(
        None, "only train the model of --model base anew, in this folder: about 20 minutes on one core"
    )
    workers: PositiveInt | None = option(
        None,
        "processes that train at the same time, where models do not start from one another. Default: at most one "
        "for each core; with --smoke one",
    )
    seed: NonNegativeInt = option(0, "seed of data, model and sampling")
