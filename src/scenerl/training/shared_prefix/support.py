"""Which models and settings can share prompts, and what sharing changes in a model."""

from __future__ import annotations

from accelerate.utils import is_peft_model
from transformers.generation import GenerationMode
from trl import GRPOTrainer

from scenerl.training.shared_prefix import attention, caching
from scenerl.training.shared_prefix.packing import PackedRow

PACKED = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Architectures whose groups are packed in one row."""

CACHED = ("qwen3_5", "internvl", "smolvlm", "glm46v")
"""Those whose completions go on from the prompt's cache. For both the tests show that sharing changes nothing."""


def unsupported_reason(trainer: GRPOTrainer) -> str | None:
    """Why a trainer's groups cannot share their prompts; None where they can."""
    model, args = trainer.accelerator.unwrap_model(trainer.model), trainer.args
    if model.config.model_type not in PACKED + CACHED:
        return f"model_type {model.config.model_type!r} is not one of {', '.join(PACKED + CACHED)}"
    text = model.config.get_text_config()
    if text._attn_implementation not in ("sdpa", attention.NAME):
        return f"the attention is {text._attn_implementation!r}, not 'sdpa'"
    is_cached = model.config.model_type in CACHED
    possible = caching.LAYER_TYPES if is_cached else {"full_attention"}
    reentrant = args.gradient_checkpointing and (args.gradient_checkpointing_kwargs or {}).get("use_reentrant", False)
    reasons = {
        "the model has sliding windows": set(getattr(text, "layer_types", None) or ()) - possible,
        "the model drops out attention weights": getattr(text, "attention_dropout", 0),
        "the model is a mixture of experts with an auxiliary loss": trainer.aux_loss_enabled,
        "tools are in use": trainer.tools,
        "torch_compile is on": args.torch_compile,
        "sequences are split over devices": args.parallelism_config,
        "the adapter learns a prompt": is_peft_model(model) and model.active_peft_config.is_prompt_learning,
        "weights are sharded": is_cached and (trainer.is_fsdp_enabled or trainer._dist.is_zero3),
        "gradient checkpointing is reentrant": is_cached and reentrant,
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


def can_share_rollout(trainer: GRPOTrainer) -> bool:
    """Whether completions are sampled here, token by token.

    vLLM shares prompts by itself. Sharded weights must be gathered by all processes in step, which only transformers'
    own loop does.
    """
    if trainer.use_vllm or trainer.is_fsdp_enabled or trainer._dist.is_zero3:
        return False
    config = trainer.generation_config
    is_sampled = config.get_generation_mode() in (GenerationMode.SAMPLE, GenerationMode.GREEDY_SEARCH)
    return is_sampled and config.cache_implementation is None


def backbone_of(model):
    """The model without its head: it computes positions and returns the last hidden states."""
    return (model.get_base_model() if is_peft_model(model) else model).base_model


def accept_packed_rows(model) -> None:
    """Let a model attend over packed rows, and run its head on the tokens that predict one."""
    backbone = backbone_of(model)
    backbone.language_model.config._attn_implementation = attention.NAME
    if _keep_scored not in backbone._forward_hooks.values():  # an earlier trainer may have had the model
        backbone.register_forward_hook(_keep_scored, with_kwargs=True)


def _keep_scored(module, args, kwargs, output):
    """Drop the hidden states of packed rows that predict nothing."""
    if "packed_row" not in kwargs:
        return None
    packed: PackedRow = kwargs["packed_row"]
    hidden = output.last_hidden_state
    output.last_hidden_state = hidden[:, packed.scored.to(hidden.device)]
    return output
