"""TRL's GRPOTrainer with every image and every prompt of an update run once per group instead of once per completion.

TRL runs each completion with a copy of its prompt, and the prompt, image tokens included, is most of the tokens. Here
the completions of a group share it (:mod:`scenerl.training.packing`). Rewards, advantages, losses and the optimiser are
TRL's own; only where its log-probabilities come from changes, and they are the same numbers.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any, Literal

import torch
from accelerate.utils import is_peft_model
from transformers.generation import GenerationMode
from trl import GRPOTrainer
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict

from scenerl.errors import UserError
from scenerl.models.branching import BranchSampler
from scenerl.training import prefix_attention
from scenerl.training.constrained import ConstrainedRollouts
from scenerl.training.packing import PackedRow, pack, parts_within, runs, shuffle_groups, split_further
from scenerl.training.padded_rows import PaddedRows, join_images, share_images, split_images
from scenerl.training.rollout import cut_at_stop, fields_of, left_padded, once_per_image, with_an_end

MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Architectures of which the tests have shown that sharing changes nothing."""

FLOAT32_TOLERANCE, HALF_TOLERANCE = 1e-4, 0.05
"""What log-probabilities may differ by at the first step: the mean per token, in nats. Half precision rounds products
that are summed in another order, as any two kernels do; a token that sees a wrong one is off by far more."""

_log = logging.getLogger(__name__)


class SharedPrefixMismatch(UserError):
    """Log-probabilities with a shared prefix are not those without."""


class SharedPrefixGRPOTrainer(GRPOTrainer):
    """TRL's trainer on packed groups.

    Args:
        shared_prefix: ``on``, ``off``, or ``auto``: on where the model and the settings allow it.
        max_tokens_per_row: groups are run in rows of at most so many tokens, which bounds the memory that a single row
            takes; one that does not fit is split over several, each with its prompt. None: a row for each micro-batch.
            The other arguments are GRPOTrainer's.

    Raises:
        UserError: ``on`` where it is not possible; says why.
    """

    def __init__(
        self,
        *args,
        shared_prefix: Literal["auto", "on", "off"] = "auto",
        max_tokens_per_row: int | None = None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.max_tokens_per_row = max_tokens_per_row
        obstacle = "shared_prefix is off" if shared_prefix == "off" else _obstacle(self)
        if obstacle and shared_prefix == "on":
            raise UserError(f"shared_prefix: on is not possible: {obstacle}")
        if obstacle and shared_prefix == "auto":
            _log.warning("prompts are run once per completion: %s", obstacle)
        self.shares_prefix = not obstacle
        self.constraint: ConstrainedRollouts | None = None
        self._rows: list[int] = []
        self.shares_rollout = self.shares_prefix and _can_branch(self)
        self._is_checked = False
        if self.shares_prefix:
            for model in filter(None, (self.model, self.ref_model)):
                backbone = _backbone(self.accelerator.unwrap_model(model))
                backbone.language_model.config._attn_implementation = prefix_attention.NAME
                if _keep_scored not in backbone._forward_hooks.values():  # an earlier trainer may have had the model
                    backbone.register_forward_hook(_keep_scored, with_kwargs=True)

    def _prepare_inputs(self, generation_batch):
        if not (self.shares_prefix and self.model.training):
            return super()._prepare_inputs(generation_batch)
        steps = self.args.steps_per_generation
        if self._step % (steps * self.num_iterations) == 0 or self._buffered_inputs is None:
            batch = split_pixel_values_by_grid(self._generate_and_score_completions(generation_batch))
            batch = share_images(_shuffle(batch, self._group_of_rows(len(batch["prompt_ids"]))))
            self._buffered_inputs = split_tensor_dict(batch, steps)
        return self._buffered_inputs[self._step % steps]

    def _group_of_rows(self, count: int) -> list[int]:
        first = self.accelerator.process_index * count
        return [row // self.num_generations for row in range(first, first + count)]

    def _generate_and_score_completions(self, inputs):
        self._rows = [row["row"] for row in inputs] if self.constraint else []
        with once_per_image(self.processing_class):
            return super()._generate_and_score_completions(inputs)

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False):
        if self.constraint and not self.shares_rollout:
            inputs = left_padded(prompt_ids, multimodal_fields, self._tokenizer.pad_token_id, self.accelerator.device)
            sequences = self.sample(inputs, None, rows=self._rows)
            return cut_at_stop(sequences[:, inputs["input_ids"].shape[1] :], self.eos_token_ids), None
        if not self.shares_rollout:
            answers, logps = super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, has_tool_images
            )
            return with_an_end(answers, logps, self._tokenizer.eos_token_id)
        pictures = images or [None] * len(prompt_ids)
        groups = runs(
            [(ids, [id(image) for image in own or ()]) for ids, own in zip(prompt_ids, pictures, strict=True)]
        )
        firsts = [group.start for group in groups]
        inputs = left_padded(
            [prompt_ids[row] for row in firsts],
            fields_of(multimodal_fields, firsts, [len(own or ()) for own in pictures]),
            self._tokenizer.pad_token_id,
            self.accelerator.device,
        )
        rows = [self._rows[row] for row in firsts] if self.constraint else None
        sequences = self.sample(inputs, BranchSampler([len(group) for group in groups]), rows=rows)
        return cut_at_stop(sequences[:, inputs["input_ids"].shape[1] :], self.eos_token_ids), None

    @torch.no_grad()
    def sample(
        self,
        inputs: dict[str, torch.Tensor],
        sampler: BranchSampler | None,
        max_new_tokens: int | None = None,
        rows: Sequence[int] | None = None,
    ):
        """Answers to prompts as a rollout samples them: token ids (B, P + T), see :class:`BranchSampler`; None: one
        each, by transformers' own loop. ``rows``: of the prompts in the data set, to hold the answers to their form."""
        config = copy.deepcopy(self.generation_config)
        config.max_new_tokens = max_new_tokens or config.max_new_tokens
        processors = None
        if rows is not None:
            counts = None if sampler is None else sampler.counts.tolist()
            processors, sampler = self.constraint.sampling(rows, config.max_new_tokens, counts)
        with unwrap_model_for_generation(
            self.model_wrapped,
            self.accelerator,
            generation_kwargs=self.generation_kwargs,
            gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
        ) as model:
            return model.generate(
                **inputs, generation_config=config, custom_generate=sampler, logits_processor=processors
            )

    def _get_per_token_logps_and_entropies(
        self,
        model,
        input_ids,
        attention_mask,
        logits_to_keep,
        batch_size=None,
        compute_entropy=False,
        compute_aux_loss=False,
        pixel_values=None,
        image_grid_thw=None,
        num_images=None,
        mm_token_type_ids=None,
        **others,
    ):
        images = {"pixel_values": pixel_values, "image_grid_thw": image_grid_thw, "num_images": num_images}
        if not self.shares_prefix:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, compute_aux_loss,
                mm_token_type_ids=mm_token_type_ids, **images, **others,
            )  # fmt: skip
        given = sorted(key for key, value in others.items() if value is not None)
        if given:
            raise UserError(f"shared_prefix: off is needed with {', '.join(given)}")
        rows = PaddedRows.unpad(input_ids, attention_mask, logits_to_keep, mm_token_type_ids, **images)
        size = batch_size or len(input_ids)
        chunks = [range(start, min(start + size, len(input_ids))) for start in range(0, len(input_ids), size)]
        parts = [self._score(model, rows, part) for chunk in chunks for part in self._parts(rows, chunk)]
        scored = attention_mask[:, -logits_to_keep:].bool()
        logps, entropies = (
            values[0].new_zeros(scored.shape).masked_scatter(scored, torch.cat(values))
            for values in zip(*parts, strict=True)
        )
        return logps, entropies if compute_entropy else None, None

    def _parts(self, rows: PaddedRows, chunk: range) -> list[range]:
        """Completions of a chunk that are packed in one row each, as many in all processes: a forward may gather."""
        if self.max_tokens_per_row is None:
            return [chunk]
        sizes = [list(map(len, tokens)) for tokens in (rows.prompts, rows.completions)]
        parts = parts_within(rows.groups(chunk), *sizes, self.max_tokens_per_row)
        count = torch.tensor(len(parts), device=self.accelerator.device)
        return split_further(parts, int(self.accelerator.gather(count).max()))

    def _score(self, model, rows: PaddedRows, part: range) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and entropy of every completion token of some rows, one row after the other: (S,) each."""
        device = self.accelerator.device
        backbone = _backbone(self.accelerator.unwrap_model(model))
        groups = rows.groups(part)
        firsts = [group.start for group in groups]
        prompts = [rows.prompts[row] for row in firsts]
        completions = [[rows.completions[row] for row in group] for group in groups]
        num_scored = sum(len(completion) for members in completions for completion in members)
        if not num_scored:  # every completion is masked: what comes back is empty, but hangs on the model
            completions[0] = [prompts[0][-1:]]
        packed = pack(prompts, [rows.positions(row, backbone) for row in firsts], completions)
        inputs = {}
        with_image = [row for row in firsts if rows.grids[row] is not None]
        if with_image:
            inputs["pixel_values"] = torch.cat([rows.pixels[row] for row in with_image])
            inputs["image_grid_thw"] = torch.cat([rows.grids[row] for row in with_image])
        with self.accelerator.autocast():
            output = model(
                input_ids=packed.input_ids.to(device),
                position_ids=packed.position_ids.to(device),
                shift_labels=packed.labels.to(device),
                packed_row=packed,
                fused_lm_head=True,
                **inputs,
            )
        entropies = output.log_probs if output.entropy is None else output.entropy  # the reference model has none
        return output.log_probs[0, :num_scored], entropies[0, :num_scored]

    def _compute_loss(self, model, inputs):
        if self.shares_prefix and not self._is_checked:
            self._check_first_group(model, inputs)
            self._is_checked = True
        return super()._compute_loss(model, inputs)

    @torch.no_grad()
    def _check_first_group(self, model, inputs: dict[str, Any]) -> None:
        """Score the batch's first group both ways.

        Raises:
            SharedPrefixMismatch: they differ; names the worst token and both values.
        """
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        keep = inputs["completion_ids"].shape[1]
        fields = {key: inputs.get(key) for key in ("pixel_values", "image_grid_thw", "num_images")}
        types = inputs.get("mm_token_type_ids")
        group = PaddedRows.unpad(ids, mask, keep, types, **fields).groups(range(len(ids)))[0]
        rows = slice(group.start, group.stop)
        fields = join_images(
            {key: None if value is None else value[rows] for key, value in split_images(fields).items()}
        )
        arguments = (model, ids[rows], mask[rows], keep)
        fields["mm_token_type_ids"] = None if types is None else types[rows]
        was_training = model.training
        model.eval()
        try:
            shared, *_ = self._get_per_token_logps_and_entropies(*arguments, **fields)
            plain, *_ = super()._get_per_token_logps_and_entropies(*arguments, batch_size=1, **fields)
        finally:
            model.train(was_training)
        seen = inputs["completion_mask"][rows].bool()
        shared, plain = shared[seen].float(), plain[seen].float()
        if not len(shared):
            return
        difference = (shared - plain).abs()
        tolerance = FLOAT32_TOLERANCE if self._is_float32() else HALF_TOLERANCE
        if not difference.mean() <= tolerance:  # also catches NaN
            worst = int(difference.nan_to_num(nan=torch.inf).argmax())
            token = self._tokenizer.decode([int(inputs["completion_ids"][rows][seen][worst])])
            raise SharedPrefixMismatch(
                f"shared_prefix: log-probabilities differ by {difference.mean():.4g} per token on average from those "
                f"without it, allowed {tolerance:g}. Worst token {token!a}: {shared[worst]:.4f} with, "
                f"{plain[worst]:.4f} without; train with --shared_prefix off, and please report this"
            )
        _log.info("with and without shared prefix: log-probabilities differ by %.2g per token", difference.mean())

    def _is_float32(self) -> bool:
        return self.model.dtype == torch.float32 and self.accelerator.mixed_precision == "no"


def _obstacle(trainer: GRPOTrainer) -> str | None:
    """Why a trainer's groups cannot be packed, or None."""
    model, args = trainer.accelerator.unwrap_model(trainer.model), trainer.args
    if model.config.model_type not in MODEL_TYPES:
        return f"model_type {model.config.model_type!r} is not one of {', '.join(MODEL_TYPES)}"
    text = model.config.get_text_config()
    if text._attn_implementation not in ("sdpa", prefix_attention.NAME):
        return f"the attention is {text._attn_implementation!r}, not 'sdpa'"
    found = {
        "the model has sliding windows": set(getattr(text, "layer_types", None) or ()) - {"full_attention"},
        "the model drops out attention weights": getattr(text, "attention_dropout", 0),
        "the model is a mixture of experts with an auxiliary loss": trainer.aux_loss_enabled,
        "tools are in use": trainer.tools,
        "torch_compile is on": args.torch_compile,
        "sequences are split over devices": args.parallelism_config,
        "the adapter learns a prompt": is_peft_model(model) and model.active_peft_config.is_prompt_learning,
    }
    return next((why for why, is_so in found.items() if is_so), None)


def _can_branch(trainer: GRPOTrainer) -> bool:
    """Whether rollouts are sampled here, token by token: engines of their own share prompts by themselves, and sharded
    weights must be gathered in step by all processes."""
    if trainer.use_vllm or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        return False
    config = trainer.generation_config
    is_sampled = config.get_generation_mode() in (GenerationMode.SAMPLE, GenerationMode.GREEDY_SEARCH)
    model = trainer.accelerator.unwrap_model(trainer.model)
    return is_sampled and config.cache_implementation is None and BranchSampler.suits(_backbone(model))


def _backbone(model):
    """The model without its head: what knows positions and ends with the last hidden states."""
    return (model.get_base_model() if is_peft_model(model) else model).base_model


def _keep_scored(module, args, kwargs, output):
    """Leave the hidden states of packed rows that predict a token: the head is then run on those alone."""
    if "packed_row" not in kwargs:
        return None
    packed: PackedRow = kwargs["packed_row"]
    hidden = output.last_hidden_state
    output.last_hidden_state = hidden[:, packed.scored.to(hidden.device)]
    return output


def _shuffle(batch: dict[str, Any], group_of: Sequence[int]) -> dict[str, Any]:
    """Shuffle the groups of a batch; TRL shuffles sequences, which spreads a group over micro-batches."""
    order = shuffle_groups(torch.randperm(len(group_of)).tolist(), group_of)

    def permute(value):
        if isinstance(value, torch.Tensor):
            return value[order] if value.ndim else value
        return None if value is None else [value[row] for row in order]

    return {key: permute(value) for key, value in batch.items()}
