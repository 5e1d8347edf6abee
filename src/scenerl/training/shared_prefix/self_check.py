"""At the first update: are the log-probabilities with a shared prefix those of TRL's own forward pass?"""

from __future__ import annotations

import logging
from typing import Any

import torch
from trl import GRPOTrainer

from scenerl.training.checks import raise_together
from scenerl.training.shared_prefix.padded_rows import IMAGE_FIELDS, PaddedRows, join_images, split_images

FLOAT32_TOLERANCE, HALF_TOLERANCE = 1e-4, 0.05
"""Largest mean difference per token, in nats. Half precision rounds products that are summed in another order, as any
two kernels do; a token that attends to a wrong one is off by far more."""

_log = logging.getLogger(__name__)


@torch.no_grad()
def check_first_group(trainer: GRPOTrainer, model, inputs: dict[str, Any]) -> None:
    """Score a batch's first group both ways.

    Every process runs the model the same number of times, as sharded weights need: completions beyond the smallest
    first group among the processes are left out.

    Raises:
        UserError: in one of the processes the two differ; names the worst token and both values.
    """
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    keep = inputs["completion_ids"].shape[1]
    images = {key: inputs.get(key) for key in IMAGE_FIELDS}
    types = inputs.get("mm_token_type_ids")
    group = PaddedRows.unpad(ids, mask, keep, types, **images).groups(range(len(ids)))[0]
    size = torch.tensor(len(group), device=trainer.accelerator.device)
    rows = slice(group.start, group.start + int(trainer.accelerator.gather(size).min()))
    fields = join_images({key: None if value is None else value[rows] for key, value in split_images(images).items()})
    fields["mm_token_type_ids"] = None if types is None else types[rows]
    batch = (model, ids[rows], mask[rows], keep)
    was_training = model.training
    model.eval()
    try:
        shared, *_ = trainer._get_per_token_logps_and_entropies(*batch, **fields)
        plain, *_ = GRPOTrainer._get_per_token_logps_and_entropies(trainer, *batch, batch_size=1, **fields)
    finally:
        model.train(was_training)
    scored = inputs["completion_mask"][rows].bool()
    shared, plain = shared[scored].float(), plain[scored].float()
    difference = (shared - plain).abs()
    is_float32 = trainer.model.dtype == torch.float32 and trainer.accelerator.mixed_precision == "no"
    tolerance = FLOAT32_TOLERANCE if is_float32 else HALF_TOLERANCE
    problem = None
    if len(difference) and not difference.mean() <= tolerance:  # also catches NaN
        worst = int(difference.nan_to_num(nan=torch.inf).argmax())
        token = trainer._tokenizer.decode([int(inputs["completion_ids"][rows][scored][worst])])
        problem = (
            f"shared_prefix: log-probabilities differ by {difference.mean():.4g} per token on average from those "
            f"without it, allowed {tolerance:g}. Worst token {token!a}: {shared[worst]:.4f} with, "
            f"{plain[worst]:.4f} without; train with --shared_prefix off, and please report this"
        )
    raise_together(problem)
    if len(difference):
        _log.info("with and without shared prefix: log-probabilities differ by %.2g per token", difference.mean())
