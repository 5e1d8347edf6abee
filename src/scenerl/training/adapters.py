"""LoRA and QLoRA: the commands' options are fields of TRL's ModelConfig; TRL makes PEFT's and bitsandbytes' of them."""

from __future__ import annotations

import dataclasses
import importlib.util

from peft import LoraConfig
from transformers import BitsAndBytesConfig
from trl import ModelConfig, get_peft_config, get_quantization_config

from scenerl.errors import UserError
from scenerl.models.loading import Checkpoint, base_of


def _model_config(options, **changes) -> ModelConfig:
    names = {field.name for field in dataclasses.fields(ModelConfig)}
    values = {name: getattr(options, name) for name in names if hasattr(options, name)}
    return ModelConfig(**values | changes)


def check_tuning(options) -> None:
    """Check that the requested weights can be trained here, before anything is loaded.

    Raises:
        UserError: quantised weights without an adapter, two kinds of them, or without bitsandbytes.
    """
    chosen = [name for name in ("load_in_4bit", "load_in_8bit") if getattr(options, name)]
    if len(chosen) > 1:
        raise UserError("load_in_4bit and load_in_8bit: only one of them can be on")
    if not chosen:
        return
    if not options.use_peft and base_of(options.model) is None:
        raise UserError(f"{chosen[0]}: quantised weights cannot be trained themselves; add --use_peft")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"{chosen[0]}: the package bitsandbytes is not installed; pip install 'scenerl[qlora]'")


def quantization(options) -> BitsAndBytesConfig | None:
    """How weights are quantised; None: they are not."""
    return get_quantization_config(
        _model_config(options, dtype="bfloat16" if options.dtype == "auto" else options.dtype)
    )


def lora_config(options, checkpoint: Checkpoint) -> LoraConfig | None:
    """A new adapter for a checkpoint; None for full fine-tuning, and for an adapter that is trained on.

    Raises:
        UserError: a target that is the name of no module of the model.
    """
    if hasattr(checkpoint.model, "peft_config"):
        return None
    targets = options.lora_target_modules or checkpoint.family.lora_targets
    if targets == ["all-linear"]:
        targets = "all-linear"
    if isinstance(targets, list):
        names = {name for name, _ in checkpoint.model.named_modules()}
        names |= {name.split(".")[-1] for name in names}
        if unknown := [target for target in targets if target not in names]:
            raise UserError(f"lora_target_modules: no module of {checkpoint.name} is called {', '.join(unknown)}")
    modules_to_save = options.lora_modules_to_save or None
    config = get_peft_config(_model_config(options, lora_target_modules=None, lora_modules_to_save=modules_to_save))
    if config is not None:  # not through ModelConfig, which makes a regular expression of a list of one name
        config.target_modules = set(targets) if isinstance(targets, list) else targets
    return config
