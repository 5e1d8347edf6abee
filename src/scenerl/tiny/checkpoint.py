"""Small models made for a data set: everything but the size is the real thing.

They are built where no checkpoint can be downloaded (the demo, the tests) and saved in the standard files, so that the
same code loads, trains and serves them as the real ones. Three million parameters learn the synthetic scenes in minutes
on two cores. ``scenerl sft --model tiny`` builds one for anybody's data; ``tiny:qwen2_5_vl`` is one of another family.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from scenerl.answers import OutputFormat, build_prompt, write_answer
from scenerl.answers.dialogue import FILE_NAME, Conversation, save_output_format
from scenerl.box_formats import extent_wh
from scenerl.errors import UserError
from scenerl.files import apply_umask
from scenerl.models.family import Family
from scenerl.models.loading import family_named
from scenerl.progress import progress_bar
from scenerl.tiny.architectures import ARCHITECTURES, TinyShape, build_model
from scenerl.tiny.grounding import warm_up_grounding
from scenerl.tiny.tokenizer import LEADS, build_tokenizer, chat_template, shared_phrases, split_at
from scenerl.tiny.vision_warmup import warm_up_vision
from scenerl.types import Example

NAME = "tiny"
"""The value of ``--model`` that requests such a model, and the folder in the run folder that it is saved in."""

MODEL_TYPE = "qwen2_vl"
"""The family of a model requested as plain ``tiny``."""

_TOKENIZER_EXAMPLES = 2000
_MOST_BINS = 50  # finer coordinates are learnt in fine-tuning

_log = logging.getLogger(__name__)


def build(
    examples: Sequence[Example],
    output_format: OutputFormat,
    shape: TinyShape | None = None,
    seed: int = 0,
    model_type: str = "qwen2_vl",
    more: Sequence[tuple[Sequence[Example], OutputFormat]] = (),
    words: bool = False,
):
    """A randomly initialised model and its processor for a data set: coordinates, labels and prompt are its own tokens.

    Args:
        examples: the training data; the answers to the first 2,000 make the tokenizer.
        output_format: of the answers; its box format is the family's.
        shape: sizes; not given: those of :class:`TinyShape`.
        seed: of the weights.
        model_type: the family, one of :data:`~scenerl.tiny.architectures.ARCHITECTURES`.
        more: further training data, with answers in formats of their own.
        words: the words of queried labels are tokens instead of the labels, so that others can be made of them.

    Raises:
        UserError: there is no example, or one cannot be written in ``output_format``.
    """
    if not examples:
        raise UserError("a small model is made for a data set, and this one has no examples")
    shape = shape or TinyShape()
    architecture, family = ARCHITECTURES[model_type], family_named(model_type)
    images, largest = architecture.build_images(shape), 0
    resize = partial(family.input_wh, SimpleNamespace(image_processor=images))
    texts, prompts, labels = [], set(), set()
    for part, form in ((examples, output_format), *more):
        conversation = Conversation(form, resize)
        for example in part[:_TOKENIZER_EXAMPLES]:
            input_wh = conversation.input_wh(example)
            texts.append(write_answer(example.graph, conversation.format_for(example), example.image_wh, input_wh))
            largest = max(largest, *map(int, extent_wh(form.box_format, example.image_wh, input_wh)))
            prompts.add(build_prompt(form, example.query, referring=example.referring))
            labels.update(example.query or ())
    if words:
        labels = {word for label in labels for word in label.split()}
    numbers = range(0, largest + 1, output_format.step)
    phrases = shared_phrases(sorted(prompts), sorted(labels))
    rest = [] if len(prompts) == 1 else split_at(sorted(prompts), phrases)
    vocab_size = 1000 + len(LEADS) * len(numbers)
    tokenizer = build_tokenizer(split_at(texts, phrases) + rest, numbers, phrases, vocab_size, model_type)
    processor = architecture.build_processor(images, tokenizer, chat_template=chat_template(architecture))
    return build_model(model_type, tokenizer, shape, seed), processor


def save(model, processor, folder: str | Path) -> None:
    """Write a checkpoint folder that :func:`scenerl.models.loading.load` and other tools read."""
    processor.save_pretrained(folder)
    model.save_pretrained(folder)
    apply_umask(folder)


def create(
    folder: str | Path,
    examples: Sequence[Example],
    output_format: OutputFormat,
    shape: TinyShape | None = None,
    seed: int = 0,
    warmup_steps: int = 0,
    batch_size: int = 32,
    progress: Callable[[int, dict[str, float]], None] | None = None,
    seen: Sequence[Example] | None = None,
    model_type: str = MODEL_TYPE,
    grounding_steps: int = 0,
    more: Sequence[tuple[Sequence[Example], OutputFormat]] = (),
    words: bool = False,
) -> dict[str, float]:
    """Save a small model for a data set as a checkpoint folder.

    Args:
        folder: where to; ``scenerl.json`` is written last, so a folder that holds it is whole.
        examples: the training data: its answers make the tokenizer, its images and boxes warm up the vision tower.
        output_format: of the model's answers.
        shape: its sizes; not given: :class:`~scenerl.tiny.architectures.TinyShape`'s own.
        seed: of the weights and of the warm-up's batches.
        warmup_steps: steps of :func:`~scenerl.tiny.vision_warmup.warm_up_vision`; 0 for none.
        batch_size: images in a step of a warm-up.
        progress: called after each step of a warm-up with its number and metrics.
        seen: what the warm-ups show in place of ``examples``: there an object should have one label.
        model_type: the family, one of :data:`~scenerl.tiny.architectures.ARCHITECTURES`.
        grounding_steps: steps of :func:`~scenerl.tiny.grounding.warm_up_grounding`, after the other; 0 for none.
        more, words: further training data, and how the tokenizer is made for it; see :func:`build`.

    Returns:
        The last metrics of the vision warm-up, and as ``grounding_accuracy`` those of the other; empty without one.

    Raises:
        UserError: an example that cannot be written in ``output_format``, or no object to warm up on.
    """
    model, processor = build(examples, output_format, shape, seed, model_type, more, words)
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
    save(model, processor, folder)
    save_output_format(output_format, folder)
    return metrics


def requested_family(options) -> Family | None:
    """The family of the small model that a command's ``model`` names; None for any other model.

    A folder of that name is a checkpoint as any other.

    Raises:
        UserError: no such family.
    """
    name, _, model_type = options.model.partition(":")
    if name != NAME or Path(options.model).is_dir():
        return None
    if (model_type or MODEL_TYPE) not in ARCHITECTURES:
        raise UserError(
            f"model {options.model!r}: no small model of family {model_type!r}; allowed: {', '.join(ARCHITECTURES)}"
        )
    return family_named(model_type or MODEL_TYPE)


def resize_of_run(options, family: Family) -> Callable[[tuple[int, int]], tuple[int, int]]:
    """Size of an image to that of the resized input, both in pixels, of the small model of a run before it is built."""
    images = ARCHITECTURES[family.model_type].build_images(_shape_for(options))
    return partial(family.input_wh, SimpleNamespace(image_processor=images))


def _shape_for(options) -> TinyShape:
    bounds = {"min_pixels": options.min_pixels, "max_pixels": options.max_pixels}
    return replace(TinyShape(), **{key: value for key, value in bounds.items() if value is not None})


def checkpoint_of_run(
    options,
    family: Family,
    parts: Sequence[tuple[Sequence[Example], OutputFormat]],
    seed: int,
    batch_size: int,
) -> Path:
    """The small model of a run: built in the run folder, or found there by a run that goes on.

    Args:
        parts: the training data with the formats of their answers, of which the first is saved with the model.
    """
    folder = options.out / NAME
    if (folder / FILE_NAME).is_file():
        return folder
    warmup_steps = getattr(options, "tiny_warmup_steps", 0)  # an option of SFT
    with progress_bar("vision warm-up", warmup_steps) as advance:
        metrics = create(
            folder,
            parts[0][0],
            parts[0][1],
            _shape_for(options),
            seed,
            warmup_steps,
            batch_size,
            progress=lambda step, metrics: advance(1),
            model_type=family.model_type,
            more=parts[1:],
        )
    if metrics:
        _log.info(
            "vision warm-up: box error %.3f of the image, class accuracy %.3f", metrics["box_l1"], metrics["accuracy"]
        )
    return folder
