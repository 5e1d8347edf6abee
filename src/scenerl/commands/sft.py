"""The command `sft`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import NonNegativeFloat, NonNegativeInt

from scenerl.commands.groups import OUTPUT, TrainingOptions
from scenerl.config.options import option

EXAMPLES = (
    "scenerl sft --model Qwen/Qwen2-VL-2B-Instruct --data mine.jsonl --out runs/sft --num_train_epochs 3",
    "scenerl sft --model tiny --data mine.jsonl --out runs/tiny --format compact --grid 5 --muon --max_steps 300",
    "scenerl sft --config my_sft.yaml --learning_rate 2e-5",
)
MOST_USED = (
    "model", "data", "out", "format", "vocabulary",
    "max_pixels", "use_peft", "load_in_4bit", "global_batch_size", "smoke",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SFTOptions(TrainingOptions):
    """Supervised fine-tuning on annotated images. Only output tokens enter the loss."""

    trl_config: ClassVar = "SFTConfig"

    model: str = option(
        ...,
        "model folder or hub name; base: the small model in this package; "
        "tiny: build a small Qwen2-VL for the training data in OUT/tiny, without a download; "
        "tiny:MODEL_TYPE: another family",
    )
    tiny_warmup_steps: NonNegativeInt = option(
        0, "steps that train its vision tower to localise before SFT", "With --model tiny"
    )
    muon: bool = option(
        False, "Muon for matrices, AdamW for the rest: for small models trained from scratch", "Optimiser"
    )
    muon_learning_rate: NonNegativeFloat = option(0.02, "learning rate of Muon; AdamW keeps learning_rate", "Optimiser")
    thought: Literal["empty", "summary"] = option(
        "empty", "reasoning in SFT targets with --envelope think: empty, or a count of what the output holds", OUTPUT
    )
    box_order: Literal["annotated", "left_to_right", "size", "class"] = option(
        "annotated",
        "objects in SFT targets, and so the order in which the model learns to write them: as annotated, by their left "
        "edges, largest first, or by label (in the order of the query or vocabulary, else alphabetical); relations "
        "follow by subject, then object",
        OUTPUT,
    )
