"""The command `export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scenerl.commands.groups import LOADING, LoadOptions
from scenerl.config.options import Dtype, option

EXAMPLES = (
    "scenerl export runs/sft_lora --out models/sft --metrics metrics/sft.json",
    "scenerl export runs/grpo --out models/grpo --push_to_hub me/my-model --private",
    "scenerl export runs/grpo --out spaces/grpo --space",
)
CARD, HUB = "Model card", "Hub"


@dataclass(frozen=True, kw_only=True)
class ExportOptions(LoadOptions):
    """Write a checkpoint for others: LoRA merged, with a model card; optionally upload it to the hub."""

    model: str = option(..., "folder or hub name of a checkpoint or adapter", positional=True)
    out: Path = option(..., "new folder to write")
    dtype: Dtype = option("auto", "number type of the weights; auto: as saved", LOADING)
    keep_adapter: bool = option(False, "write the adapter unmerged, to be loaded with its base model")
    space: bool = option(False, "write a Space instead: a folder that serves the checkpoint's app on the hub")
    run: Path | None = option(None, "run folder whose config.yaml names data and recipe. Default: MODEL", CARD)
    metrics: list[Path] = option([], "metrics.json files of `eval`", CARD)
    push_to_hub: str | None = option(None, "upload the folder to the hub repository OWNER/NAME", HUB)
    private: bool = option(False, "make a new repository private", HUB)
