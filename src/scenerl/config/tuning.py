"""Options of what is trained and how weights are loaded. Names and defaults are those of TRL's ModelConfig."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scenerl.config.option import Options, option

LOAD = "Loading"
LORA = "LoRA"
QUANTISED = "Quantised weights (QLoRA)"

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


PICKLE_HELP = "load weights from .bin files, which can run code"


@dataclass(frozen=True, kw_only=True)
class LoadOptions(Options):
    """What a checkpoint may do when it is loaded. TRL's configurations have trust_remote_code themselves."""

    trust_remote_code: bool = option(False, "run code that the checkpoint brings along", LOAD)
    allow_pickle: bool = option(False, PICKLE_HELP, LOAD)


@dataclass(frozen=True, kw_only=True)
class TuningOptions(Options):
    """Which weights are trained: all of them, or LoRA adapters on weights that may be quantised."""

    allow_pickle: bool = option(False, PICKLE_HELP, LOAD)
    dtype: Dtype = option("float32", "number type the weights are loaded in; auto: as saved", LOAD)
    attn_implementation: str | None = option(None, "transformers' name of the attention; not given: its choice", LOAD)
    use_peft: bool = option(False, "train LoRA adapters, not the weights themselves; an adapter is trained on", LORA)
    lora_r: int = option(16, "rank", LORA, low=1)
    lora_alpha: int = option(32, "the update is scaled by lora_alpha / lora_r", LORA, low=1)
    lora_dropout: float = option(0.05, "dropout before the adapters", LORA, low=0, high=1)
    lora_target_modules: list[str] = option(
        [], "modules to adapt, or all-linear; not given: the linear layers of the family's language model", LORA
    )
    lora_modules_to_save: list[str] = option([], "modules to train in full besides", LORA)
    use_rslora: bool = option(False, "scale by lora_alpha / sqrt(lora_r)", LORA)
    use_dora: bool = option(False, "weight-decomposed adapters (DoRA)", LORA)
    load_in_4bit: bool = option(False, "quantise the base model to 4 bit; needs use_peft and bitsandbytes", QUANTISED)
    load_in_8bit: bool = option(False, "quantise it to 8 bit", QUANTISED)
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = option("nf4", "4-bit number type", QUANTISED)
    use_bnb_nested_quant: bool = option(False, "quantise the scales as well", QUANTISED)
    bnb_4bit_quant_storage: str | None = option(None, "type that 4-bit weights are stored in, for FSDP", QUANTISED)


@dataclass(frozen=True, kw_only=True)
class ExportOptions(LoadOptions):
    """Write a checkpoint for others: LoRA merged, a model card from the run's files; uploaded with --push_to_hub."""

    model: str = option(..., "folder or hub name of a checkpoint or adapter", positional=True)
    out: Path = option(..., "folder to write; must not be there yet")
    dtype: Dtype = option("auto", "number type of the weights; auto: as saved")
    keep_adapter: bool = option(False, "write the adapter as it is, to be loaded with its base model")
    space: bool = option(False, "write a Space instead: a folder that serves the checkpoint's app on the hub")
    run: Path | None = option(None, "run folder whose config.yaml says data and recipe; not given: MODEL", "Model card")
    metrics: list[Path] = option([], "metrics.json files, as `eval` writes them", "Model card")
    push_to_hub: str | None = option(None, "hub repository OWNER/NAME to upload the folder to", "Hub")
    private: bool = option(False, "make a new repository private", "Hub")
