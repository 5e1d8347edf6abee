"""Before training: do the rollout engine and the trainer give the same tokens the same probability?

They use different code (sampling with a cache, a padded forward pass; with vLLM other kernels), and a mismatch of
template, image size, position ids or weights trains on noise without any error.
"""

from __future__ import annotations

import copy
import math

import torch
from trl import GRPOTrainer
from trl.data_utils import prepare_multimodal_messages
from trl.models import unwrap_model_for_generation

from scenerl.errors import UserError
from scenerl.models.branching import BranchSampler
from scenerl.training.rollout import cut_at_stop, left_padded


class RolloutMismatch(UserError):
    """The rollout's log-probabilities are not the trainer's."""


@torch.no_grad()
def check_rollout(trainer: GRPOTrainer, num_prompts: int = 2, tolerance: float = 0.05, max_tokens: int = 128) -> float:
    """Sample completions of the first prompts the way a rollout does and score them the way an update does.

    Args:
        trainer: a built trainer; its model is left as it was.
        num_prompts: how many prompts of the training set.
        tolerance: largest mean absolute difference of log-probabilities per token. In float32 the two agree to 1e-4;
            bfloat16 and other kernels differ by about 0.01.
        max_tokens: length at which a completion is cut off; more say nothing new.

    Returns:
        The mean absolute difference per token, in nats.

    Raises:
        RolloutMismatch: the difference exceeds the tolerance or is no number; names it and the worst token.
    """
    rows = [trainer.train_dataset[index] for index in range(min(num_prompts, len(trainer.train_dataset)))]
    prompts = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in rows]
    was_training = trainer.model.training
    trainer.model.eval()
    try:
        with torch.random.fork_rng():
            prompt_ids, images, fields = trainer._tokenize_prompts(prompts)
            if trainer.use_vllm:
                completion_ids, rollout = _sample_vllm(trainer, prompt_ids, images, fields)
            else:
                completion_ids, rollout = _sample(trainer, prompt_ids, fields, max_tokens)
            scored = _score(trainer, prompt_ids, completion_ids, fields)
    finally:
        trainer.model.train(was_training)
    pairs = [
        (abs(a - b), token, a, b)
        for ids, ours, theirs in zip(completion_ids, rollout, scored, strict=True)
        for token, a, b in zip(ids, ours, theirs, strict=True)
    ]
    mean = sum(pair[0] for pair in pairs) / len(pairs)
    if not mean <= tolerance:  # also catches NaN
        _, token, a, b = max(pairs, key=lambda pair: (math.isnan(pair[0]), pair[0]))
        text = trainer._tokenizer.decode([token])
        raise RolloutMismatch(
            f"rollout and trainer disagree: log-probabilities differ by {mean:.4g} per token on average, allowed "
            f"{tolerance:g} (--rollout_check_tolerance). Worst token {text!a}: rollout {a:.4f}, trainer {b:.4f}. "
            "Usual causes: another chat template, image size or weights on one side"
        )
    return mean


def _sample_vllm(trainer: GRPOTrainer, prompt_ids, images, fields) -> tuple[list[list[int]], list[list[float]]]:
    """Completions of vLLM and its log-probabilities, over the whole vocabulary as the trainer's are."""
    engine = trainer.vllm_generation
    unlimited = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    limits = {name: getattr(engine, name) for name in unlimited}
    try:
        for name, value in unlimited.items():
            setattr(engine, name, value)
        completion_ids, rollout = trainer._generate_single_turn(prompt_ids, images, fields, 1)
    finally:
        for name, value in limits.items():
            setattr(engine, name, value)
    return completion_ids, [[math.nan if value is None else value for value in row] for row in rollout]


def _sample(trainer: GRPOTrainer, prompt_ids, fields, max_tokens: int) -> tuple[list[list[int]], list[list[float]]]:
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
        with unwrap_model_for_generation(
            trainer.model_wrapped, trainer.accelerator, generation_kwargs=trainer.generation_kwargs
        ) as model:
            output = model.generate(**inputs, generation_config=config)
        tokens = output.sequences[:, width:]
        logits = torch.stack(output.logits, dim=1).float() / trainer.temperature
        logps = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    completions = cut_at_stop(tokens, trainer.eos_token_ids)
    return completions, [row[: len(ids)] for row, ids in zip(logps.tolist(), completions, strict=True)]


def _score(trainer: GRPOTrainer, prompt_ids, completion_ids, fields) -> list[list[float]]:
    """The trainer's log-probabilities of the completions."""
    inputs = left_padded(prompt_ids, fields, trainer._tokenizer.pad_token_id, trainer.accelerator.device)
    longest = max(map(len, completion_ids))
    pad = trainer._tokenizer.pad_token_id
    device = trainer.accelerator.device
    ids = torch.tensor([list(c) + [pad] * (longest - len(c)) for c in completion_ids], device=device)
    mask = torch.tensor([[1] * len(c) + [0] * (longest - len(c)) for c in completion_ids], device=device)
    extra = {key: value for key, value in inputs.items() if key not in ("input_ids", "attention_mask")}
    if "mm_token_type_ids" in extra:
        extra["mm_token_type_ids"] = torch.cat([extra["mm_token_type_ids"], torch.zeros_like(ids)], dim=1)
    logps, *_ = trainer._get_per_token_logps_and_entropies(
        trainer.model,
        torch.cat([inputs["input_ids"], ids], dim=1),
        torch.cat([inputs["attention_mask"], mask], dim=1),
        longest,
        num_images=[1] * len(prompt_ids),
        **extra,
    )
    return [row[: len(c)] for row, c in zip(logps.tolist(), completion_ids, strict=True)]
