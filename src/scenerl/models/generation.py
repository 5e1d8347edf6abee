"""Arguments of transformers' ``generate`` and what comes back: the same for prediction and for validation."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from scenerl.models.loading import Checkpoint


def encode_prompts(processor, prompts: Sequence[list[dict]]):
    """The model's inputs for prompts of any lengths, padded on the left: token ids, mask, pixels."""
    return processor.apply_chat_template(
        list(prompts),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left"},
    )


def generation_settings(
    checkpoint: Checkpoint, max_new_tokens: int, temperature: float = 0.0, top_p: float = 1.0, top_k: int = 0
) -> dict:
    """Arguments of ``generate``; temperature 0 is greedy. Anything else comes from the checkpoint's
    ``generation_config.json``, where some checkpoints ship a temperature or a repetition penalty; answers are lists,
    which repeat themselves."""
    settings = {"do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": 50}  # only the first has an effect
    if temperature > 0:
        settings = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": top_k}
    return {
        **settings,
        "repetition_penalty": 1.0,
        "max_new_tokens": max_new_tokens,
        "suppress_tokens": checkpoint.banned_ids,
        "eos_token_id": checkpoint.stop_ids,
    }


def until_stop(ids: Sequence[int], stop_ids: Collection[int]) -> tuple[list[int], bool]:
    """The tokens of an answer before the one that ends it, and whether the token limit cut it off."""
    length = next((place for place, token in enumerate(ids) if token in stop_ids), None)
    return list(ids[:length]), length is None
