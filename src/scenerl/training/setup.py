"""What SFT and GRPO share: TRL's configuration, data, run folder and checkpoint."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate.utils import is_peft_model
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config
from transformers.modeling_layers import GradientCheckpointingLayer

from scenerl import data, tiny
from scenerl.answers import OutputFormat
from scenerl.answers.dialogue import Conversation
from scenerl.commands.sources import Source, eval_sources_of, sources_of
from scenerl.config import plain, resolve_extra
from scenerl.config.batch import accumulation_steps
from scenerl.data.provided import boxes_for
from scenerl.data.vocabulary import Vocabulary
from scenerl.errors import DataError, UserError, counted
from scenerl.models.family import Family
from scenerl.models.loading import Checkpoint, family_of, load
from scenerl.models.output_formats import output_format_for
from scenerl.plugins import keep_code
from scenerl.progress import track
from scenerl.runs import claim_folder, default_values
from scenerl.training import smoke, vllm_engine
from scenerl.training.adapters import check_tuning, quantization
from scenerl.training.checks import check_prompts
from scenerl.training.engine import check_processes
from scenerl.training.mixture import MixedConversation, Mixture, Part, mix, output_format_of, rewards_of
from scenerl.training.validation import (
    MAX_NEW_TOKENS,
    Validation,
    check_metric,
    sampled,
    validation_defaults,
    warn_of_overlap,
)
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


@dataclass(frozen=True)
class Run:
    """Everything a trainer needs.

    Attributes:
        args: TRL's configuration.
        validation: what is answered at every evaluation; None: there is none.
        mixture: the sources of the examples where there are several, or one with settings of its own.
    """

    checkpoint: Checkpoint
    conversation: Conversation | MixedConversation
    examples: Sequence[Example]
    args: Any
    validation: Validation | None
    mixture: Mixture | None


def open_run(options, extra: Mapping[str, Any], cls, may_build: bool = False, **defaults: Any) -> Run:
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
    defaults |= _accumulation(options, extra, cls)
    defaults |= validation_defaults(options, resolve_extra(cls, extra, own=type(options)), cls)
    args, provided = trl_config(cls, extra, options.out, type(options), **defaults)
    check_processes(args)
    built = smoke.family(options) if options.smoke else tiny.requested_family(options) if may_build else None
    check_tuning(options)
    is_new = built is not None and not Path(options.model).is_dir()
    family = built or family_of(options.model)
    output_format = output_format_for(options, family, is_new=is_new)
    sources = sources_of(options.data)
    formats = [output_format_of(source, options, output_format, family) for source in sources]
    names, weights = getattr(options, "rewards", ()), getattr(args, "reward_weights", None)
    rewards: list[dict[str, float]] = [{}]
    if is_mixture := isinstance(options.data, list):
        rewards = [rewards_of(*pair, names, weights) for pair in zip(sources, formats, strict=True)]
    read = [_read_source(options, *pair) for pair in zip(sources, formats, strict=True)]
    if built:
        resize = tiny.resize_of_run(options, built)
        conversations = [Conversation(own_format, resize) for own_format in formats]
        read = _all_usable(options, sources, read, conversations)
    held_out = _read_validation(options, args, provided, output_format, family, list(chain(*read)))
    model = options.model
    with args.main_process_first(local=False, desc="run folder"):  # the others find it as that of their own run
        fresh = options.fresh and args.process_index == 0
        fingerprint, before = {**plain(options), **plain(provided)}, default_values(type(options))
        claim_folder(options.out, fingerprint, fresh=fresh, free=_FREE, defaults=before)
        if args.process_index == 0:
            own = [source.source for source in [*sources, *eval_sources_of(options.eval_data)]]
            keep_code(options.out, [*own, *names, *chain(*rewards)])
        if built:
            with _unsharded(args):
                parts = list(zip(read, formats, strict=True))
                model = tiny.checkpoint_of_run(options, built, parts, args.seed, args.per_device_train_batch_size)
    checkpoint = load_for_training(options, model, args.trust_remote_code)
    conversation = checkpoint.conversation(output_format)
    validation = _validation(options, args, held_out, checkpoint) if held_out else None
    conversations = [checkpoint.conversation(own_format) for own_format in formats]
    read = _all_usable(options, sources, read, conversations)
    if not is_mixture:
        return Run(checkpoint, conversation, read[0], args, validation, None)
    parts = [Part(source.label, *rest) for source, *rest in zip(sources, read, conversations, rewards, strict=True)]
    mixture = mix(parts, [source.weight for source in sources], args.seed)
    _log.info("training data: %s", mixture.describe())
    return Run(checkpoint, MixedConversation(conversation, parts), mixture.examples, args, validation, mixture)


def _all_usable(
    options, sources: Sequence[Source], read: Sequence[Sequence[Example]], conversations: Sequence[Conversation]
) -> list[Sequence[Example]]:
    """:func:`usable_shapes` of every source."""
    return [
        usable_shapes(examples, conversation, replace(options, data=source.source))
        for source, examples, conversation in zip(sources, read, conversations, strict=True)
    ]


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
        raise DataError(f"{options.data}: the model takes none of the {counted(len(examples), 'image')}")
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


def _read_source(options, source: Source, output_format: OutputFormat) -> list[Example]:
    """The examples of a training source. Every row is checked now, images are opened later."""
    if options.smoke:
        examples = smoke.draw_examples(options, output_format)
    else:
        split, limit = source.split or options.split, source.limit or options.limit
        examples = _read(options, source.source, split, output_format, limit)
    if output_format.objects is not None and output_format.predicates is not None:
        Vocabulary(output_format.objects, output_format.predicates).require(examples, source.source)
    return examples


def _read(
    options, source: str, split: str | None, output_format: OutputFormat, limit: int | None = None
) -> list[Example]:
    examples = data.load(
        source,
        split=split,
        limit=limit,
        skip_bad=options.skip_bad,
        need_images=True,
        boxes=boxes_for(options) if output_format.provided else None,
        stored=limit is None,  # for a few rows the whole set is neither fetched nor stored
    )
    return list(track(examples, "rows"))  # of a large set every image's header is read


def _read_validation(
    options,
    args,
    provided: Mapping[str, Any],
    output_format: OutputFormat,
    family: Family,
    training: Sequence[Example],
) -> list[Part]:
    """A fixed sample of the images of each validation source. A smoke run takes drawn ones."""
    parts = []
    for source in eval_sources_of(options.eval_data):
        own_format = output_format_of(source, options, output_format, family)
        if options.smoke:
            found = smoke.draw_examples(options, own_format)
        else:
            split = source.split or options.eval_split
            found = _read(options, source.source, split, own_format, source.limit)
            warn_of_overlap(source.source, found, training)
        parts.append(Part(source.label, sampled(found, options.eval_samples), Conversation(own_format)))
    if parts:
        check_metric(args, provided, parts)
    return parts


def _validation(options, args, held_out: Sequence[Part], checkpoint: Checkpoint) -> Validation:
    limit = options.eval_max_new_tokens or getattr(args, "max_completion_length", None) or MAX_NEW_TOKENS
    sources, parts = eval_sources_of(options.eval_data), []
    for source, part in zip(sources, held_out, strict=True):
        conversation = checkpoint.conversation(part.conversation.output_format)
        examples = usable_shapes(part.examples, conversation, replace(options, data=source.source))
        check_prompts(checkpoint, conversation, examples, limit)
        parts.append(replace(part, examples=examples, conversation=conversation))
    metric = args.metric_for_best_model and args.metric_for_best_model.removeprefix("eval_")
    return Validation(parts, checkpoint, limit, metric, options.early_stopping_patience)
