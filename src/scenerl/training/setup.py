"""What both training commands do before and beside TRL: data, checkpoint, run folder, TRL's configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from scenerl import data
from scenerl.config import plain, resolve_extra
from scenerl.conversation import Conversation, style_for
from scenerl.data.vocabulary import Vocabulary
from scenerl.models.loading import family_of, load
from scenerl.runs import claim_folder
from scenerl.training import from_scratch
from scenerl.types import Example

# Fields of TRL's configuration that change what is shown or kept, never what is learnt: a run may go on with others.
_FREE = ("fresh", "logging_steps", "report_to", "save_steps", "save_total_limit", "log_completions", "run_name",
         "disable_tqdm", "sample_log_every", "constant_reward_window", "rollout_check_tolerance", "logging_dir")


def trl_config(cls, extra: Mapping[str, Any], output_dir: Path, own: type, **defaults: Any):
    """TRL's configuration from the fields given, over our defaults, over TRL's; and the fields given, converted.

    Without an accelerator TRL's default of bfloat16 becomes float32.
    """
    given = resolve_extra(cls, extra, own=own)
    values = {**defaults, **given}
    if not torch.cuda.is_available() and "bf16" not in values and "fp16" not in values:
        values["bf16"] = False
    return cls(output_dir=str(output_dir), **values), given


def open_run(
    options, extra: Mapping[str, Any], cls, may_build: bool = False, **defaults: Any
) -> tuple[Conversation, Sequence[Example], Any]:
    """Everything a trainer needs, in the order in which a mistake costs least: options, data, folder, model.

    Args:
        options: the command's own options.
        extra: the fields given for TRL's configuration class ``cls``; ``defaults`` are ours for it.
        may_build: build a small model when the options ask for one (:mod:`scenerl.training.from_scratch`).

    Raises:
        ValueError: a wrong field, a bad row, labels outside the closed vocabulary, a folder of another run, a
            checkpoint that cannot be loaded.
    """
    args, given = trl_config(cls, extra, options.out, type(options), **defaults)
    build = may_build and from_scratch.is_wanted(options)
    style = style_for(options, from_scratch.FAMILY if build else family_of(options.model))
    examples = list(data.load(options.data, split=options.split, limit=options.limit, need_images=True))
    if style.objects is not None and style.predicates is not None:
        Vocabulary(style.objects, style.predicates).require(examples, options.data)
    claim_folder(options.out, {**plain(options), **plain(given)}, fresh=options.fresh, free=_FREE)
    model = options.model
    if build:
        model = from_scratch.checkpoint_of_run(options, style, examples, args.seed, args.per_device_train_batch_size)
    checkpoint = load(model, dtype="float32", min_pixels=options.min_pixels, max_pixels=options.max_pixels)
    return Conversation(style, checkpoint), examples, args


def last_checkpoint(folder: str | Path) -> str | None:
    """The newest whole checkpoint in a run folder; one that was cut off while it was saved is passed over."""
    found = []
    for path in Path(folder).glob("checkpoint-*"):
        number = path.name.removeprefix("checkpoint-")
        whole = (path / "trainer_state.json").is_file() and (path / "optimizer.pt").is_file()
        if number.isdecimal() and whole:
            found.append((int(number), path))
    return str(max(found)[1]) if found else None


class SaveConversation(TrainerCallback):
    """Puts ``scenerl.json`` into every checkpoint, so that each can be used for prediction."""

    def __init__(self, conversation: Conversation):
        self.conversation = conversation

    def on_save(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self.conversation.save(Path(args.output_dir) / f"checkpoint-{state.global_step}")
