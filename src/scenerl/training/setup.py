"""What SFT and GRPO share: TRL's configuration, data, run folder and checkpoint."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate.utils import is_peft_model
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config
from transformers.modeling_layers import GradientCheckpointingLayer

from scenerl import data, tiny
from scenerl.answers.dialogue import Conversation
from scenerl.config import plain, resolve_extra
from scenerl.config.batch import accumulation_steps
from scenerl.data.provided import boxes_for
from scenerl.data.vocabulary import Vocabulary
from scenerl.errors import DataError, UserError
from scenerl.models.loading import Checkpoint, family_of, load
from scenerl.models.output_formats import output_format_for
from scenerl.plugins import keep_code
from scenerl.progress import track
from scenerl.runs import claim_folder, default_values
from scenerl.training import smoke, vllm_engine
from scenerl.training.adapters import check_tuning, quantization
from scenerl.training.engine import check_processes
from scenerl.types import Example

_log = logging.getLogger(__name__)

_FREE = (
    "constant_reward_window", "dataloader_num_workers", "dataloader_pin_memory", "disable_tqdm", "fresh",
    "log_completions", "logging_steps", "logging_strategy", "max_tokens_per_row", "out", "report_to",
    "rollout_check_every", "rollout_check_tolerance", "run_name", "sample_log_every", "save_steps", "save_strategy",
    "save_total_limit", "shared_prefix", "vllm_group_port", "vllm_server_base_url", "vllm_server_host",
    "vllm_server_port", "vllm_server_timeout", "vllm_sync", "vllm_sync_folder",
)  # fmt: skip
"""Options that change what is shown or kept, never what is learnt: a run may go on with others."""

# TRL 1.16 sets these fields by their old names itself; nobody who runs a command can do anything about it.
warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)


def trl_config(cls, extra: Mapping[str, Any], output_dir: Path, own: type, **defaults: Any):
    """TRL's configuration from the provided fields, over our defaults, over TRL's; and the provided fields, converted.

    Without an accelerator TRL's default of bfloat16 becomes float32, and memory is not pinned.

    Raises:
        UserError: an unknown field, a value that is not allowed, or one that needs a package that is not installed.
    """
    provided = resolve_extra(cls, extra, own=own)
    values = {**defaults, **provided}
    if not torch.cuda.is_available():
        if values.get("bf16") is None and not values.get("fp16"):
            values["bf16"] = False
        values.setdefault("dataloader_pin_memory", False)
    with trl_checks():
        args = cls(output_dir=str(output_dir), **values)
    installed = get_available_reporting_integrations()
    if missing := [name for name in args.report_to if name not in installed]:
        raise UserError(
            f"report_to: {', '.join(missing)} is not installed or not known; allowed: {', '.join(['none', *installed])}"
        )
    if getattr(args, "use_vllm", False):
        vllm_engine.check_version()
    return args, provided


@contextmanager
def trl_checks() -> Iterator[None]:
    """TRL and transformers refuse options that do not go together with a ValueError or ImportError; it is the user's.

    Raises:
        UserError: in place of them.
    """
    try:
        yield
    except UserError:
        raise
    except (ValueError, ImportError) as error:
        raise UserError(" ".join(str(error).split())) from error


def _accumulation(options, extra: Mapping[str, Any], cls) -> dict[str, int]:
    """Gradient accumulation by which this run's processes reach the global batch, where one is given."""
    if options.global_batch_size is None:
        return {}
    if "gradient_accumulation_steps" in extra:
        raise UserError("gradient_accumulation_steps: follows from global_batch_size; give one of the two")
    provided = resolve_extra(cls, extra, own=type(options))
    per_device = provided.get("per_device_train_batch_size", cls.per_device_train_batch_size)
    num_processes = int(os.environ.get("WORLD_SIZE", "1"))
    return {"gradient_accumulation_steps": accumulation_steps(options.global_batch_size, per_device, num_processes)}


def load_for_training(options, model: str | Path, trust_remote_code: bool = False) -> Checkpoint:
    """The checkpoint to train, with the vision modules frozen where the options say so."""
    checkpoint = load(
        model,
        options.dtype,
        min_pixels=options.min_pixels,
        max_pixels=options.max_pixels,
        trainable=True,
        quantization=quantization(options),
        attn_implementation=options.attn_implementation,
        trust_remote_code=trust_remote_code,
        allow_pickle=options.allow_pickle,
    )
    if options.freeze_vision and not is_peft_model(checkpoint.model):  # an adapter leaves the tower alone anyway
        for name in checkpoint.family.vision_modules:
            checkpoint.model.get_submodule(name).requires_grad_(False)
    # what FSDP shards one by one where its configuration names no classes: what gradient checkpointing runs again
    blocks = (module for module in checkpoint.model.modules() if isinstance(module, GradientCheckpointingLayer))
    checkpoint.model._no_split_modules = {type(module).__name__ for module in blocks}
    return checkpoint


def open_run(
    options, extra: Mapping[str, Any], cls, may_build: bool = False, **defaults: Any
) -> tuple[Checkpoint, Conversation, Sequence[Example], Any]:
    """Everything a trainer needs, in the order in which a mistake costs least: options, data, folder, model.

    Args:
        options: the command's own options.
        extra: the fields given for TRL's configuration class ``cls``; ``defaults`` are ours for it.
        may_build: build a small model where the options request one (:mod:`scenerl.tiny`); a smoke run
            (:mod:`scenerl.training.smoke`) always does.

    Raises:
        UserError: a wrong field, processes that do not fit the machine, a bad row, labels outside the closed
            vocabulary, a folder of another run, a checkpoint that cannot be loaded.
    """
    transformers.utils.logging.disable_progress_bar()  # they tear our own table apart
    args, provided = trl_config(
        cls, extra, options.out, type(options), **defaults, **_accumulation(options, extra, cls)
    )
    check_processes(args)
    built = smoke.family(options) if options.smoke else tiny.requested_family(options) if may_build else None
    check_tuning(options)
    is_new = built is not None and not Path(options.model).is_dir()
    output_format = output_format_for(options, built or family_of(options.model), is_new=is_new)
    examples = smoke.draw_examples(options, output_format) if options.smoke else _read_examples(options)
    if built:
        examples = usable_shapes(examples, Conversation(output_format, tiny.resize_of_run(options, built)), options)
    if output_format.objects is not None and output_format.predicates is not None:
        Vocabulary(output_format.objects, output_format.predicates).require(examples, options.data)
    model = options.model
    with args.main_process_first(local=False, desc="run folder"):  # the others find it as that of their own run
        fresh = options.fresh and args.process_index == 0
        fingerprint, before = {**plain(options), **plain(provided)}, default_values(type(options))
        claim_folder(options.out, fingerprint, fresh=fresh, free=_FREE, defaults=before)
        if args.process_index == 0:
            keep_code(options.out, [options.data, *getattr(options, "rewards", ())])
        if built:
            with _unsharded(args):
                model = tiny.checkpoint_of_run(
                    options, built, output_format, examples, args.seed, args.per_device_train_batch_size
                )
    checkpoint = load_for_training(options, model, args.trust_remote_code)
    conversation = checkpoint.conversation(output_format)
    return checkpoint, conversation, usable_shapes(examples, conversation, options), args


def usable_shapes(examples: Sequence[Example], conversation: Conversation, options) -> Sequence[Example]:
    """The examples whose images the model takes; some families refuse images of extreme shape.

    Raises:
        DataError: an image is refused, unless ``skip_bad`` leaves it out with a warning, or none is left.
    """
    kept = []
    for example in examples:
        try:
            conversation.input_wh(example)
        except DataError as error:
            if not options.skip_bad:
                raise DataError(f"{options.data}: {error}; --skip_bad leaves such images out") from error
            _log.warning("%s: row skipped: %s", options.data, error)
        else:
            kept.append(example)
    if examples and not kept:
        raise DataError(f"{options.data}: the model takes none of the {len(examples)} images")
    return examples if len(kept) == len(examples) else kept


@contextmanager
def _unsharded(args) -> Iterator[None]:
    """Models are built whole: one process builds alone, and under ZeRO-3 transformers would wait for the others."""
    config = args.deepspeed_plugin and (getattr(args, "hf_deepspeed_config", None) or args.deepspeed_plugin.dschf)
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if config:
            set_hf_deepspeed_config(config)


def _read_examples(options) -> list[Example]:
    """The training set. Every row is checked now, images are opened later."""
    examples = data.load(
        options.data,
        split=options.split,
        limit=options.limit,
        skip_bad=options.skip_bad,
        need_images=True,
        boxes=boxes_for(options),
        stored=options.limit is None,  # for a few rows the whole set is neither fetched nor stored
    )
    return list(track(examples, "rows"))  # of a large set every image's header is read
