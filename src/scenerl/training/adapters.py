"""LoRA and QLoRA: TRL's ModelConfig fields to PEFT's and bitsandbytes' configurations."""

from __future__ import annotations

import importlib.util

from peft import LoraConfig
from transformers import BitsAndBytesConfig

from scenerl.errors import UserError
from scenerl.models.loading import Checkpoint, base_of


def check_tuning(options) -> None:
    """See that what is asked for can be trained here, before anything is loaded.

    Raises:
        UserError: quantised weights without an adapter, two kinds of them, or without the package that makes them.
    """
    asked = [name for name in ("load_in_4bit", "load_in_8bit") if getattr(options, name)]
    if len(asked) > 1:
        raise UserError("load_in_4bit and load_in_8bit: only one of them can be on")
    if not asked:
        return
    if not options.use_peft and base_of(options.model) is None:
        raise UserError(f"{asked[0]}: quantised weights cannot be trained themselves; add --use_peft")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"{asked[0]}: the package bitsandbytes is not installed; pip install 'scenerl[qlora]'")


def quantization(options) -> BitsAndBytesConfig | None:
    """How weights are quantised; None: they are not."""
    if options.load_in_4bit:
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_compute_dtype=options.dtype if options.dtype != "auto" else "bfloat16",
            bnb_4bit_quant_type=options.bnb_4bit_quant_type,
            bnb_4bit_use_double_quant=options.use_bnb_nested_quant,
            bnb_4bit_quant_storage=options.bnb_4bit_quant_storage,
        )
    return BitsAndBytesConfig(load_in_8bit=True) if options.load_in_8bit else None


def lora_config(options, checkpoint: Checkpoint) -> LoraConfig | None:
    """A new adapter for a checkpoint; None for full fine-tuning, and for an adapter that is trained on.

    Raises:
        UserError: a target that no module of the model is called.
    """
    if not options.use_peft or hasattr(checkpoint.model, "peft_config"):
        return None
    targets = options.lora_target_modules or checkpoint.family.lora_targets
    if isinstance(targets, list) and targets != ["all-linear"]:
        names = {name for name, _ in checkpoint.model.named_modules()}
        lost = [
            target for target in targets if not any(name.split(".")[-1] == target or name == target for name in names)
        ]
        if lost:
            raise UserError(f"lora_target_modules: no module of {checkpoint.name} is called {', '.join(lost)}")
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=options.lora_r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules="all-linear" if targets == ["all-linear"] else targets,
        modules_to_save=options.lora_modules_to_save or None,
        use_rslora=options.use_rslora,
        use_dora=options.use_dora,
        bias="none",
    )
