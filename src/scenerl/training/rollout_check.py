"""Do the sampler and the trainer give the same tokens the same probability?

They run different code: sampling with a cache and a padded forward pass, with vLLM also other kernels, weights and
caches of its own. A mismatch of chat template, image size, position ids or weights would train on noise without any
error.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from trl.data_utils import prepare_multimodal_messages

from scenerl.models.branching import BranchSampler
from scenerl.training.checks import raise_together
from scenerl.training.shared_prefix.rollout import cut_at_stop, left_padded, padded
from scenerl.training.shared_prefix.trainer import SharedPrefixGRPOTrainer
from scenerl.training.vllm_engine import sampling_as


@torch.no_grad()
def check_rollout(
    trainer: SharedPrefixGRPOTrainer, rows: Sequence[dict[str, Any]], tolerance: float = 0.05, max_tokens: int = 128
) -> float:
    """Sample completions as a rollout does and score them as an update does.

    Sharded weights need every process to give as many rows.

    Args:
        trainer: its model and random numbers are left as they were.
        rows: of the training set, one completion is sampled for each.
        tolerance: largest mean absolute difference of log-probabilities per token. In float32 the two agree to 1e-4;
            bfloat16 and other kernels differ by about 0.01.
        max_tokens: limit of a completion's length.

    Returns:
        The mean absolute difference per token, in nats.

    Raises:
        UserError: in one of the processes the difference exceeds the tolerance or is NaN; names it and the worst token.
    """
    prompts = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in rows]
    was_training = trainer.model.training
    trainer.model.eval()
    try:
        with torch.random.fork_rng():
            prompt_ids, images, fields = trainer._tokenize_prompts(prompts)
            if trainer.use_vllm:
                completion_ids, sampled = _sample_vllm(trainer, prompt_ids, images, fields)
            else:
                completion_ids, sampled = _sample(trainer, prompt_ids, fields, max_tokens)
            scored = _score(trainer, prompt_ids, completion_ids, fields)
    finally:
        trainer.model.train(was_training)
    pairs = [
        (abs(a - b), token, a, b)
        for ids, ours, theirs in zip(completion_ids, sampled, scored, strict=True)
        for token, a, b in zip(ids, ours, theirs, strict=True)
    ]
    mean, problem = sum(pair[0] for pair in pairs) / len(pairs), None
    if not mean <= tolerance:  # also catches NaN
        _, token, a, b = max(pairs, key=lambda pair: (math.isnan(pair[0]), pair[0]))
        text = trainer._tokenizer.decode([token])
        problem = (
            f"rollout and trainer disagree: log-probabilities differ by {mean:.4g} per token on average, allowed "
            f"{tolerance:g} (--rollout_check_tolerance). Worst token {text!a}: rollout {a:.4f}, trainer {b:.4f}. "
            "Usual causes: another chat template, image size or weights on one side"
        )
    raise_together(problem)
    return mean


def _sample_vllm(trainer, prompt_ids, images, fields) -> tuple[list[list[int]], list[list[float]]]:
    """Completions of vLLM and its log-probabilities, over the whole vocabulary as the trainer's are."""
    with sampling_as(trainer.vllm_generation):
        completion_ids, logps = trainer._generate_single_turn(prompt_ids, images, fields, 1)
    return completion_ids, [[math.nan if value is None else value for value in row] for row in logps]


def _sample(trainer, prompt_ids, fields, max_tokens: int) -> tuple[list[list[int]], list[list[float]]]:
    """Sampled completions and the log-probability of each token under the sampler's own logits."""
    inputs = left_padded(prompt_ids, fields, trainer._tokenizer.pad_token_id, trainer.accelerator.device)
    width = inputs["input_ids"].shape[1]
    length = min(max_tokens, trainer.generation_config.max_new_tokens)
    if trainer.shares_rollout:
        sampler = BranchSampler([1] * len(prompt_ids), temperature=trainer.temperature)
        tokens = trainer.sample(inputs, sampler, max_new_tokens=length)[:, width:]
        logps = sampler.logps
    else:
        config = copy.deepcopy(trainer.generation_config)
        config.update(output_logits=True, return_dict_in_generate=True, max_new_tokens=length)
        with trainer.generating() as model:
            output = model.generate(**inputs, generation_config=config)
        tokens = output.sequences[:, width:]
        logits = torch.stack(output.logits, dim=1).float() / trainer.temperature
        logps = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    completions = cut_at_stop(tokens, trainer.eos_token_ids)
    return completions, [row[: len(ids)] for row, ids in zip(logps.tolist(), completions, strict=True)]


def _score(trainer, prompt_ids, completion_ids, fields) -> list[list[float]]:
    """The trainer's log-probabilities of the completions."""
    device = trainer.accelerator.device
    inputs = left_padded(prompt_ids, fields, trainer._tokenizer.pad_token_id, device)
    ids = padded(completion_ids, trainer._tokenizer.pad_token_id).to(device)
    mask = padded([[1] * len(row) for row in completion_ids], 0).to(device)
    input_ids = torch.cat([inputs.pop("input_ids"), ids], dim=1)
    attention_mask = torch.cat([inputs.pop("attention_mask"), mask], dim=1)
    if "mm_token_type_ids" in inputs:
        inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(ids)], dim=1)
    logps, *_ = trainer._get_per_token_logps_and_entropies(
        trainer.model, input_ids, attention_mask, ids.shape[1], num_images=[1] * len(prompt_ids), **inputs
    )
    return [row[: len(c)] for row, c in zip(logps.tolist(), completion_ids, strict=True)]
