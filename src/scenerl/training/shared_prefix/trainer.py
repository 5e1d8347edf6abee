"""TRL's GRPOTrainer, with the image and the prompt of an update run once per group instead of once per completion.

TRL runs each completion with a copy of its prompt, and the prompt, image tokens included, is most of the tokens. Here
the completions of a group share it, in a packed row (:mod:`scenerl.training.shared_prefix.packing`) or behind a cache
(:mod:`scenerl.training.shared_prefix.caching`). Rewards, advantages, losses and the
optimiser are TRL's own. Only the source of the log-probabilities changes; the numbers are the same.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import split_tensor_dict

from scenerl.errors import UserError
from scenerl.models.branching import BranchSampler
from scenerl.training.constrained import ConstrainedRollouts
from scenerl.training.shared_prefix import caching
from scenerl.training.shared_prefix.packing import pack, parts_within, runs, shuffle_groups, split_further
from scenerl.training.shared_prefix.padded_rows import IMAGE_FIELDS, PaddedRows, share_images, split_images
from scenerl.training.shared_prefix.rollout import cut_at_stop, ensure_eos, left_padded, once_per_image, select_prompts
from scenerl.training.shared_prefix.self_check import check_first_group
from scenerl.training.shared_prefix.support import (
    PACKED,
    accept_packed_rows,
    backbone_of,
    can_share_rollout,
    unsupported_reason,
)

_log = logging.getLogger(__name__)


class SharedPrefixGRPOTrainer(GRPOTrainer):
    """TRL's trainer on groups that share their prompt.

    Args:
        shared_prefix: ``on``, ``off``, or ``auto``: on where the model and the settings allow it.
        max_tokens_per_row: limit of the tokens that run together, prompts counted once, which bounds memory. A group
            that does not fit is split, each part with its prompt. None: a micro-batch runs as a whole. The other
            arguments are GRPOTrainer's.

    Attributes:
        constraint: holds completions to the output format; None: sampling is free.

    Raises:
        UserError: ``on`` where it is not possible; names the reason.
    """

    constraint: ConstrainedRollouts | None = None

    def __init__(
        self,
        *args,
        shared_prefix: Literal["auto", "on", "off"] = "auto",
        max_tokens_per_row: int | None = None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.max_tokens_per_row = max_tokens_per_row
        reason = "shared_prefix is off" if shared_prefix == "off" else unsupported_reason(self)
        if reason and shared_prefix == "on":
            raise UserError(f"shared_prefix: on is not possible: {reason}")
        if reason and shared_prefix == "auto":
            _log.warning("prompts are run once per completion: %s", reason)
        self.shares_prefix = not reason
        self.shares_rollout = self.shares_prefix and can_share_rollout(self)
        self._rows: list[int] = []  # of the rollout's prompts in the data set, where there is a constraint
        self._is_checked = False
        self._packs = self.accelerator.unwrap_model(self.model).config.model_type in PACKED
        if self.shares_prefix and self._packs:
            for model in filter(None, (self.model, self.ref_model)):
                accept_packed_rows(self.accelerator.unwrap_model(model))

    # --- the update ---

    def _prepare_inputs(self, generation_batch):
        """As TRL, but groups stay together in micro-batches, and neighbours share the pixels of their image."""
        if not (self.shares_prefix and self.model.training):
            return super()._prepare_inputs(generation_batch)
        steps = self.args.steps_per_generation
        if self._step % (steps * self.num_iterations) == 0 or self._buffered_inputs is None:
            batch = split_images(self._generate_and_score_completions(generation_batch))
            count = len(batch["prompt_ids"])
            first = self.accelerator.process_index * count
            group_of = [row // self.num_generations for row in range(first, first + count)]
            self._buffered_inputs = split_tensor_dict(share_images(_shuffle(batch, group_of)), steps)
        return self._buffered_inputs[self._step % steps]

    def _compute_loss(self, model, inputs):
        if self.shares_prefix and not self._is_checked:
            check_first_group(self, model, inputs)
            self._is_checked = True
        return super()._compute_loss(model, inputs)

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        score = self._shared_logps if self.shares_prefix else super()._get_per_token_logps_and_entropies
        return score(*args, **kwargs)

    def _shared_logps(
        self,
        model,
        input_ids,
        attention_mask,
        logits_to_keep,
        batch_size=None,
        compute_entropy=False,
        compute_aux_loss=False,
        **fields,
    ):
        """As TRL: log-probabilities and entropies (B, C) of the completions, each prompt run once."""
        images = {key: fields.pop(key, None) for key in (*IMAGE_FIELDS, "mm_token_type_ids")}
        if unknown := sorted(key for key, value in fields.items() if value is not None):
            raise UserError(f"shared_prefix: off is needed with {', '.join(unknown)}")
        rows = PaddedRows.unpad(input_ids, attention_mask, logits_to_keep, **images)
        size = batch_size or len(input_ids)
        chunks = [range(start, min(start + size, len(input_ids))) for start in range(0, len(input_ids), size)]
        parts = [part for chunk in chunks for part in self._parts(rows, chunk)]
        scores = [self._score(model, rows, *part) for part in zip(parts, self._batches(rows, parts), strict=True)]
        scored = attention_mask[:, -logits_to_keep:].bool()
        logps, entropies = (
            values[0].new_zeros(scored.shape).masked_scatter(scored, torch.cat(values))
            for values in zip(*scores, strict=True)
        )
        return logps, entropies if compute_entropy else None, None

    def _parts(self, rows: PaddedRows, chunk: range) -> list[range]:
        """Completions of a chunk that run together, as many parts in all processes: a forward may gather."""
        if self.max_tokens_per_row is None:
            return [chunk]
        sizes = [list(map(len, tokens)) for tokens in (rows.prompts, rows.completions)]
        parts = parts_within(rows.groups(chunk), *sizes, self.max_tokens_per_row)
        count = torch.tensor(len(parts), device=self.accelerator.device)
        return split_further(parts, int(self.accelerator.gather(count).max()))

    def _batches(self, rows: PaddedRows, parts: Sequence[range]) -> list[int]:
        """How many batches the completions of each part run in behind a cache, as many in all processes."""
        if self._packs:
            return [1] * len(parts)
        lengths = [[len(rows.completions[row]) for row in part if len(rows.completions[row])] for part in parts]
        counts = [len(caching.batches_of(own or [1])) for own in lengths]
        gathered = self.accelerator.gather(torch.tensor(counts, device=self.accelerator.device))
        return gathered.view(-1, len(parts)).amin(dim=0).tolist()

    def _score(self, model, rows: PaddedRows, part: range, num_batches: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and entropy (S,) of the S completion tokens of some rows, one row after the other."""
        device = self.accelerator.device
        backbone = backbone_of(self.accelerator.unwrap_model(model))
        groups = rows.groups(part)
        firsts = [group.start for group in groups]
        prompts = [rows.prompts[row] for row in firsts]
        completions = [[rows.completions[row] for row in group] for group in groups]
        num_scored = sum(len(completion) for members in completions for completion in members)
        if not num_scored:  # every completion is masked: the result is empty, but still depends on the weights
            completions[0] = [prompts[0][-1:]]
        positions = [rows.positions(row, backbone) for row in firsts]
        images = rows.images_of(firsts)
        with self.accelerator.autocast():
            if self._packs:
                packed = pack(prompts, positions, completions)
                output = model(
                    input_ids=packed.input_ids.to(device),
                    position_ids=packed.position_ids.to(device),
                    shift_labels=packed.labels.to(device),
                    packed_row=packed,
                    fused_lm_head=True,
                    **images,
                )
            else:
                output = caching.score(model, backbone, prompts, positions, completions, images, device, num_batches)
        entropies = output.log_probs if output.entropy is None else output.entropy  # the reference model has none
        return output.log_probs[0, :num_scored], entropies[0, :num_scored]

    # --- the rollout ---

    def _generate_and_score_completions(self, inputs):
        self._rows = [row["row"] for row in inputs] if self.constraint else []
        with once_per_image(self.processing_class):
            return super()._generate_and_score_completions(inputs)

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        """As TRL: completion ids of every prompt, and their log-probabilities where an engine gives them."""
        if not (self.shares_rollout or self.constraint):
            completions, logps = super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
            return ensure_eos(completions, logps, self._tokenizer.eos_token_id)
        images = images or [None] * len(prompt_ids)
        keys = range(len(prompt_ids))
        if self.shares_rollout:
            keys = [(ids, [id(image) for image in own or ()]) for ids, own in zip(prompt_ids, images, strict=True)]
        groups = runs(keys)
        firsts = [group.start for group in groups]
        image_token = self.accelerator.unwrap_model(self.model).config.image_token_id
        num_image_tokens = [list(ids).count(image_token) for ids in prompt_ids]
        inputs = left_padded(
            [prompt_ids[row] for row in firsts],
            select_prompts(multimodal_fields, firsts, [len(own or ()) for own in images], num_image_tokens),
            self._tokenizer.pad_token_id,
            self.accelerator.device,
        )
        sampler = BranchSampler([len(group) for group in groups]) if self.shares_rollout else None
        rows = [self._rows[row] for row in firsts] if self.constraint else None
        sequences = self.sample(inputs, sampler, rows=rows)
        return cut_at_stop(sequences[:, inputs["input_ids"].shape[1] :], self.eos_token_ids), None

    def sample(
        self,
        inputs: dict[str, torch.Tensor],
        sampler: BranchSampler | None,
        max_new_tokens: int | None = None,
        rows: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Token ids (B, P + T) of prompts and completions, sampled as in a rollout.

        Args:
            sampler: see :class:`~scenerl.models.branching.BranchSampler`; None: one completion per prompt, by
                transformers' own loop.
            rows: of the prompts in the data set, where completions are held to the output format.
        """
        config = copy.deepcopy(self.generation_config)
        config.max_new_tokens = max_new_tokens or config.max_new_tokens
        processors = None
        if rows is not None:
            counts = None if sampler is None else sampler.counts.tolist()
            processors, sampler = self.constraint.sampling(rows, config.max_new_tokens, counts)
        with self.generating() as model:
            return model.generate(
                **inputs, generation_config=config, custom_generate=sampler, logits_processor=processors
            )

    @contextmanager
    def generating(self) -> Iterator[Any]:
        """The model as TRL prepares it for ``generate``: unwrapped, sharded weights gathered, no gradients."""
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
                generation_kwargs=self.generation_kwargs,
                gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
            ) as model,
            torch.no_grad(),
            self._dist.summon_full_params(self.model_wrapped, recurse=False),
        ):
            yield model


def _shuffle(batch: dict[str, Any], group_of: Sequence[int]) -> dict[str, Any]:
    """Shuffle the groups of a batch; TRL shuffles sequences, which spreads a group over micro-batches."""
    order = shuffle_groups(torch.randperm(len(group_of)).tolist(), group_of)

    def permute(value):
        if isinstance(value, torch.Tensor):
            return value[order] if value.ndim else value
        return None if value is None else [value[row] for row in order]

    return {key: permute(value) for key, value in batch.items()}
