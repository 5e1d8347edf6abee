"""TRL's GRPOTrainer with every image and every prompt of an update run once per group instead of once per completion.

TRL runs each completion with a copy of its prompt, and the prompt, image tokens included, is most of the tokens. Here
the completions of a group share it (:mod:`scenerl.training.packing`). Rewards, advantages, losses and the optimiser are
TRL's own; only where its log-probabilities come from changes, and they are the same numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from accelerate.utils import is_peft_model
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import make_flat_list_of_images
from trl import GRPOTrainer
from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict

from scenerl.training import prefix_attention
from scenerl.training.packing import PackedRow, pack, runs, shuffle_groups

MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Architectures of which the tests have shown that sharing changes nothing."""

FLOAT32_TOLERANCE, HALF_TOLERANCE = 1e-4, 0.05
"""What log-probabilities may differ by at the first step: the mean per token, in nats. Half precision rounds products
that are summed in another order, as any two kernels do; a token that sees a wrong one is off by far more."""

_log = logging.getLogger(__name__)


class SharedPrefixMismatch(ValueError):
    """Log-probabilities with a shared prefix are not those without."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """Completions as TRL hands them over, without padding and on the CPU.

    Attributes:
        prompts, types: token ids and their kinds (0 text, 1 image), (P,) of each row.
        completions: token ids (C,) of each row.
        pixels, grids: each row's patches (n, D) and image sizes (k, 3), or None where it has no image.
    """

    prompts: list[torch.Tensor]
    types: list[torch.Tensor]
    completions: list[torch.Tensor]
    pixels: list[torch.Tensor | None]
    grids: list[torch.Tensor | None]

    @classmethod
    def unpad(
        cls, input_ids, attention_mask, num_completion, mm_token_type_ids, pixel_values, image_grid_thw, num_images
    ) -> _Rows:
        """Take padded rows apart.

        Args:
            input_ids, attention_mask: (B, P + C), prompts and completions padded anywhere.
            num_completion: C.
            mm_token_type_ids: (B, P + C), or None where nothing has images.
            pixel_values, image_grid_thw: as the processor gives them for all rows, or lists of each row's own.
            num_images: (B) images of each row; not needed with lists.

        Raises:
            ValueError: a prompt without a token, an image in or at the end of it that does not fit its tokens, an
                image in a completion, or a completion with a hole.
        """
        images = _split({"pixel_values": pixel_values, "image_grid_thw": image_grid_thw, "num_images": num_images})
        count = len(input_ids)
        ids, masks = input_ids.cpu(), attention_mask.bool().cpu()
        kinds = torch.zeros_like(ids) if mm_token_type_ids is None else mm_token_type_ids.cpu()
        prompts, types, completions = [], [], []
        for row_ids, row_mask, row_kinds in zip(ids, masks, kinds, strict=True):
            mask = row_mask[:-num_completion]
            prompts.append(row_ids[:-num_completion][mask])
            types.append(row_kinds[:-num_completion][mask])
            seen = row_mask[-num_completion:]
            length = int(seen.sum())
            completions.append(row_ids[-num_completion:][:length])
            if not len(prompts[-1]) or types[-1][-1] or row_kinds[-num_completion:].any() or not seen[:length].all():
                raise ValueError(
                    "shared_prefix: a prompt must end with text, and a completion must be text without gaps; train "
                    "with --shared_prefix off"
                )
        nothing = [None] * count
        grids = images["image_grid_thw"] or nothing
        pixels = images["pixel_values"] or nothing
        has_image = [grid is not None and len(grid) > 0 for grid in grids]
        return cls(
            prompts,
            types,
            completions,
            [value if has else None for value, has in zip(pixels, has_image, strict=True)],
            [value if has else None for value, has in zip(grids, has_image, strict=True)],
        )

    def positions(self, row: int, backbone) -> torch.Tensor:
        """M-RoPE positions (3, P) of a row's prompt.

        Raises:
            ValueError: image tokens and images differ in number.
        """
        prompt, types, grid = self.prompts[row], self.types[row], self.grids[row]
        merge = backbone.config.vision_config.spatial_merge_size
        sizes = [] if grid is None else (grid.prod(dim=-1) // merge**2).tolist()
        if int(types.count_nonzero()) != sum(sizes) or 0 in sizes:
            raise ValueError(
                f"a prompt holds {int(types.count_nonzero())} image tokens, but its images make {sizes}, a number each"
            )
        if grid is None:
            return torch.arange(len(prompt)).expand(3, -1)
        index, _ = backbone.get_rope_index(
            prompt[None], mm_token_type_ids=types[None], image_grid_thw=grid.cpu(), attention_mask=None
        )
        return index[:, 0]

    def same_prompt(self, a: int, b: int) -> bool:
        return (
            torch.equal(self.prompts[a], self.prompts[b])
            and torch.equal(self.types[a], self.types[b])
            and _equal(self.grids[a], self.grids[b])
            and _equal(self.pixels[a], self.pixels[b])
        )

    def groups(self, rows: range) -> list[range]:
        """Neighbours with the same prompt and images, whatever they were meant to be."""
        keys = []
        for row in rows:
            keys.append(keys[-1] if keys and self.same_prompt(row - 1, row) else row)
        return [range(rows[run.start], rows[run.start] + len(run)) for run in runs(keys)]


def _equal(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    return a is b or (a is not None and b is not None and torch.equal(a, b))


class SharedPrefixGRPOTrainer(GRPOTrainer):
    """TRL's trainer on packed groups.

    Args:
        shared_prefix: ``on``, ``off``, or ``auto``: on where the model and the settings allow it. The other arguments
            are GRPOTrainer's.

    Raises:
        ValueError: ``on`` where it is not possible; says why.
    """

    def __init__(self, *args, shared_prefix: Literal["auto", "on", "off"] = "auto", **kwargs):
        super().__init__(*args, **kwargs)
        obstacle = "shared_prefix is off" if shared_prefix == "off" else _obstacle(self)
        if obstacle and shared_prefix == "on":
            raise ValueError(f"shared_prefix: on is not possible: {obstacle}")
        if obstacle and shared_prefix == "auto":
            _log.warning("prompts are run once per completion: %s", obstacle)
        self.shares_prefix = not obstacle
        self._is_checked = False
        if self.shares_prefix:
            for model in filter(None, (self.model, self.ref_model)):
                backbone = _backbone(self.accelerator.unwrap_model(model))
                backbone.language_model.config._attn_implementation = prefix_attention.NAME
                backbone.register_forward_hook(_keep_scored, with_kwargs=True)

    def _prepare_inputs(self, generation_batch):
        if not (self.shares_prefix and self.model.training):
            return super()._prepare_inputs(generation_batch)
        steps = self.args.steps_per_generation
        if self._step % (steps * self.num_iterations) == 0 or self._buffered_inputs is None:
            batch = split_pixel_values_by_grid(self._generate_and_score_completions(generation_batch))
            batch = _share_images(_shuffle(batch, self._group_of_rows(len(batch["prompt_ids"]))))
            self._buffered_inputs = split_tensor_dict(batch, steps)
        return self._buffered_inputs[self._step % steps]

    def _group_of_rows(self, count: int) -> list[int]:
        first = self.accelerator.process_index * count
        return [row // self.num_generations for row in range(first, first + count)]

    def _generate_and_score_completions(self, inputs):
        with _once_per_image(self.processing_class):
            return super()._generate_and_score_completions(inputs)

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
            raise ValueError(f"shared_prefix: off is needed with {', '.join(given)}")
        rows = _Rows.unpad(input_ids, attention_mask, logits_to_keep, mm_token_type_ids, **images)
        size = batch_size or len(input_ids)
        parts = [
            self._score(model, rows, range(start, min(start + size, len(input_ids))))
            for start in range(0, len(input_ids), size)
        ]
        scored = attention_mask[:, -logits_to_keep:].bool()
        logps, entropies = (
            values[0].new_zeros(scored.shape).masked_scatter(scored, torch.cat(values))
            for values in zip(*parts, strict=True)
        )
        return logps, entropies if compute_entropy else None, None

    def _score(self, model, rows: _Rows, part: range) -> tuple[torch.Tensor, torch.Tensor]:
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
        group = _Rows.unpad(ids, mask, keep, types, **fields).groups(range(len(ids)))[0]
        rows = slice(group.start, group.stop)
        fields = _join_images({key: None if value is None else value[rows] for key, value in _split(fields).items()})
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
                f"without it, allowed {tolerance:g}. Worst token {ascii(token)}: {shared[worst]:.4f} with, "
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
    if text._attn_implementation != "sdpa":
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


def _split(images: dict[str, Any]) -> dict[str, Any]:
    """Pixels and grids row by row, as lists, which a buffered batch has already."""
    if images["pixel_values"] is None or isinstance(images["pixel_values"], list):
        return images
    return split_pixel_values_by_grid(images)


def _join_images(images: dict[str, Any]) -> dict[str, Any]:
    return {
        key: torch.cat(value) if key != "num_images" and isinstance(value, list) else value
        for key, value in images.items()
    }


def _share_images(batch: dict[str, Any]) -> dict[str, Any]:
    """Let neighbours with equal images hold one tensor, and drop the copies."""
    shared = dict(batch)
    for key in ("pixel_values", "image_grid_thw"):
        values = batch.get(key)
        if values is not None:
            kept: list[torch.Tensor] = []
            for value in values:
                kept.append(kept[-1] if kept and torch.equal(kept[-1], value) else value.clone())
            shared[key] = kept
    return shared


class _OncePerImage:
    """An image processor that does an image once however often it is asked for it; keeps what it has seen."""

    def __init__(self, processor):
        self._processor = processor
        self._seen: dict[int, tuple[Any, Any]] = {}  # image, kept alive so that its id stays its own; what came out

    def __getattr__(self, name: str):
        return getattr(self._processor, name)

    def __call__(self, images, return_tensors=None, **kwargs) -> BatchFeature:
        images = make_flat_list_of_images(images)
        new = {id(image): image for image in images if id(image) not in self._seen}
        for key, image in new.items():
            self._seen[key] = image, self._processor([image], **kwargs)
        outputs = [self._seen[id(image)][1] for image in images]
        data = {key: torch.cat([torch.as_tensor(output[key]) for output in outputs]) for key in outputs[0]}
        return BatchFeature(data, tensor_type=return_tensors)


@contextmanager
def _once_per_image(processor):
    """While TRL prepares a batch: it asks for every completion's image, and twice."""
    images = getattr(processor, "image_processor", None)
    if images is None:
        yield
        return
    processor.image_processor = _OncePerImage(images)
    try:
        yield
    finally:
        processor.image_processor = images
