"""A small model made for a data set, where no checkpoint is wanted: build it, warm up its vision tower, save it.

What comes out is a checkpoint folder like any other, with its ``scenerl.json``: the demo starts from one, and so does
``scenerl sft --model tiny`` on anybody's data, without a download. ``tiny:qwen2_5_vl`` is one of another family.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from scenerl.answers import OutputFormat
from scenerl.conversation import FILE_NAME, Conversation
from scenerl.errors import UserError
from scenerl.models import FAMILIES, tiny
from scenerl.models.family import Family
from scenerl.models.loading import Checkpoint, family_named
from scenerl.progress import progress_bar
from scenerl.training.grounding import warm_up_grounding
from scenerl.training.warmup import warm_up_vision
from scenerl.types import Example

NAME = "tiny"
"""The value of ``--model`` that asks for such a model, and the folder in the run folder that it is saved in."""

MODEL_TYPE = "qwen2_vl"
"""The family of a model that is asked for by no more than that."""

_MOST_BINS = 50  # finer coordinates are learnt in fine-tuning

_log = logging.getLogger(__name__)


def create(
    folder: str | Path,
    examples: Sequence[Example],
    output_format: OutputFormat,
    shape: tiny.TinyShape | None = None,
    seed: int = 0,
    warmup_steps: int = 0,
    batch_size: int = 32,
    progress: Callable[[int, dict[str, float]], None] | None = None,
    seen: Sequence[Example] | None = None,
    model_type: str = MODEL_TYPE,
    grounding_steps: int = 0,
) -> dict[str, float]:
    """Save a small model for a data set as a checkpoint folder.

    Args:
        folder: where to; ``scenerl.json`` is written last, so a folder that holds it is whole.
        examples: the training data: its answers make the tokenizer, its images and boxes warm up the vision tower.
        output_format: how the model will be asked and answer.
        shape: its sizes; not given: :class:`~scenerl.models.tiny.TinyShape`'s own.
        seed: of the weights and of the warm-up's batches.
        warmup_steps: steps of :func:`~scenerl.training.warmup.warm_up_vision`; 0 for none.
        batch_size: images in a step of a warm-up.
        progress: called after each step of a warm-up with its number and metrics.
        seen: what the warm-ups show in place of ``examples``: there an object should have one label.
        model_type: the family, one of :data:`scenerl.models.FAMILIES`.
        grounding_steps: steps of :func:`~scenerl.training.grounding.warm_up_grounding`, after the other; 0 for none.

    Returns:
        The last metrics of the vision warm-up, and as ``grounding_accuracy`` those of the other; empty without one.

    Raises:
        UserError: an example that cannot be written in ``style``, or no object to warm up on.
    """
    model, processor = tiny.build(examples, output_format, shape, seed, model_type)
    metrics = {}
    if warmup_steps:
        bins = min(_MOST_BINS, 1000 // output_format.step)
        metrics = warm_up_vision(
            model, processor, seen or examples, warmup_steps, batch_size, bins, seed=seed, progress=progress
        )
    family = family_named(model_type)
    if grounding_steps:
        found = warm_up_grounding(
            model,
            processor,
            seen or examples,
            output_format,
            partial(family.input_wh, processor),
            grounding_steps,
            batch_size,
            seed,
            progress,
        )
        metrics["grounding_accuracy"] = found["accuracy"]
    tiny.save(model, processor, folder)
    Conversation(output_format, Checkpoint(str(folder), family, model, processor)).save(folder)
    return metrics


def family_wanted(options) -> Family | None:
    """The family of the small model that a command's ``model`` asks for; None for any other model.

    A folder of that name is a checkpoint as any other.

    Raises:
        UserError: no such family.
    """
    name, _, model_type = options.model.partition(":")
    if name != NAME or Path(options.model).is_dir():
        return None
    if (model_type or MODEL_TYPE) not in FAMILIES:
        raise UserError(f"model {options.model!r}: no family {model_type!r}; allowed: {', '.join(FAMILIES)}")
    return family_named(model_type or MODEL_TYPE)


def checkpoint_of_run(
    options, family: Family, output_format: OutputFormat, examples: Sequence[Example], seed: int, batch_size: int
) -> Path:
    """The small model of a run: built in the run folder, or found there by a run that goes on."""
    folder = options.out / NAME
    if (folder / FILE_NAME).is_file():
        return folder
    bounds = {"min_pixels": options.min_pixels, "max_pixels": options.max_pixels}
    shape = replace(tiny.TinyShape(), **{key: value for key, value in bounds.items() if value is not None})
    warmup_steps = getattr(options, "tiny_warmup_steps", 0)  # an option of SFT
    with progress_bar("vision warm-up", warmup_steps) as advance:
        metrics = create(
            folder,
            examples,
            output_format,
            shape,
            seed,
            warmup_steps,
            batch_size,
            progress=lambda step, metrics: advance(1),
            model_type=family.model_type,
        )
    if metrics:
        _log.info(
            "vision warm-up: box error %.3f of the image, class accuracy %.3f", metrics["box_l1"], metrics["accuracy"]
        )
    return folder
