"""Validation: while a model trains, it answers a fixed sample of images greedily, and the metrics of `eval` judge it.

Everything around it is transformers' own: when to evaluate (``eval_strategy``, ``eval_steps``), which checkpoint is the
best (``metric_for_best_model``, ``load_best_model_at_end``) and early stopping.
"""

from __future__ import annotations

import logging
import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput
from trl.data_utils import prepare_multimodal_messages
from trl.distributed import DistributedBackend
from trl.models import unwrap_model_for_generation

from scenerl.config.convert import near_misses
from scenerl.data.images import open_image
from scenerl.errors import UserError
from scenerl.metrics import Metric, MetricOptions, Pair, evaluate
from scenerl.metrics.registry import METRICS, headline, spec
from scenerl.models.branching import BranchSampler
from scenerl.models.generation import encode_prompts, generation_settings, until_stop
from scenerl.models.loading import Checkpoint
from scenerl.training.best import BestCheckpoint, EarlyStopping
from scenerl.training.mixture import MixedConversation, Part
from scenerl.training.vllm_engine import sampling_as
from scenerl.types import Example, ParseResult

MAX_NEW_TOKENS = 1024
"""Limit of an answer where nothing else says one, as that of `predict`."""

LOSSES = ("loss", "mean_token_accuracy")
"""What SFT's validation gives besides metrics."""

_NEEDED = ("eval_strategy", "eval_steps", "eval_on_start", "load_best_model_at_end", "metric_for_best_model")

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Validation:
    """Answers of a model in training to the same images each time, and their metrics.

    Args:
        parts: the images of each source, and how the model is prompted and read there.
        checkpoint: of the model that is trained.
        max_new_tokens: limit of an answer.
        metric: name of a metric that is logged in any case; None for none. Metrics of several sources are called
            ``SOURCE/METRIC``.
        patience: evaluations without a better value after which training ends; 0: it never does.
    """

    parts: Sequence[Part]
    checkpoint: Checkpoint
    max_new_tokens: int
    metric: str | None = None
    patience: int = 0
    examples: Sequence[Example] = field(init=False)
    conversation: MixedConversation = field(init=False)

    def __post_init__(self) -> None:
        self.examples = [example for part in self.parts for example in part.examples]
        self.conversation = MixedConversation(self.parts[0].conversation, self.parts)

    def callbacks(self) -> list[TrainerCallback]:
        """What a trainer needs besides."""
        return [BestCheckpoint(), *([EarlyStopping(self.patience)] if self.patience else [])]

    def metrics(self, trainer: Trainer) -> dict[str, float]:
        """The metrics of greedy answers, the same in every process; those without support are left out."""
        shown = {}
        for part, prefix, found in _evaluate(self.parts, self._results(trainer)):
            known = {name: metric.value for name, metric in found.items() if metric.value is not None}
            is_detection = part.conversation.output_format.task == "det"
            more = ("greedy_precision", "greedy_recall") if is_detection else ("mRecall",)
            names = {name: f"{prefix}{name}" for name in known}
            wanted = [*headline(known), *more, *(name for name in known if names[name] == self.metric)]
            shown |= {names[name]: known[name] for name in dict.fromkeys(wanted) if name in known}
        return shown

    def _results(self, trainer: Trainer) -> list[ParseResult]:
        """The parsed answers to all examples; every process answers its part of them."""
        rank, count = trainer.accelerator.process_index, trainer.accelerator.num_processes
        # As many in every process, which gather sharded weights together: some may answer one that another answers too.
        own = [
            place % len(self.examples) for place in range(rank, count * math.ceil(len(self.examples) / count), count)
        ]
        size = trainer.args.per_device_eval_batch_size
        answer = _vllm_answers if getattr(trainer, "use_vllm", False) else _answers
        tokenizer, stops = self.checkpoint.processor.tokenizer, self.checkpoint.stop_ids
        found: dict[int, ParseResult] = {}
        for start in range(0, len(own), size):
            places = own[start : start + size]
            for place, ids in zip(places, answer(trainer, self, [self.examples[n] for n in places]), strict=True):
                kept, cut_off = until_stop(ids, stops)
                text = tokenizer.decode(kept, skip_special_tokens=True)
                found[place] = self.conversation.parse(text, self.examples[place], truncated=cut_off)
        gathered = dict(gather_object(list(found.items())))
        return [gathered[place] for place in range(len(self.examples))]


class ValidationMixin:
    """For TRL's trainers: an evaluation is that of :class:`Validation`, after transformers' own where that has a loss.

    Random numbers and the mode of the model are afterwards as they were, so that a run learns the same without it.
    """

    validation: Validation | None = None
    has_eval_loss = False

    def evaluation_loop(self, dataloader, description, *args, metric_key_prefix="eval", **kwargs) -> EvalLoopOutput:
        device = self.args.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            output = EvalLoopOutput(None, None, {}, len(self.validation.examples))
            if self.has_eval_loss:
                output = super().evaluation_loop(
                    dataloader, description, *args, metric_key_prefix=metric_key_prefix, **kwargs
                )
            self.model.eval()
            found = self.validation.metrics(self)
        output.metrics.update({f"{metric_key_prefix}_{name}": value for name, value in found.items()})
        return output

    def _determine_best_metric(self, metrics: dict[str, float], trial) -> bool:
        """As transformers, but an evaluation in which the metric has no support is not the best."""
        name = self.args.metric_for_best_model
        if name is not None and f"eval_{name.removeprefix('eval_')}" not in metrics:
            return False
        return super()._determine_best_metric(metrics, trial)


def _answers(trainer: Trainer, validation: Validation, examples: Sequence[Example]) -> list[list[int]]:
    """Token ids of greedy answers of the model in this process."""
    checkpoint = validation.checkpoint
    prompts = [validation.conversation.prompt(example, open_image(example)) for example in examples]
    inputs = encode_prompts(checkpoint.processor, prompts).to(trainer.args.device)
    settings = generation_settings(checkpoint, validation.max_new_tokens)
    with _generating(trainer) as (model, is_sharded):
        sampler = None if is_sharded else BranchSampler([1] * len(prompts))  # only transformers' own loop is in step
        output = model.generate(**inputs, **settings, custom_generate=sampler)
    return output[:, inputs["input_ids"].shape[1] :].tolist()


@contextmanager
def _generating(trainer: Trainer) -> Iterator[tuple[Any, bool]]:
    """The model as it is prepared for ``generate``, and whether its weights are divided over processes."""
    args, distributed = trainer.args, DistributedBackend(trainer.accelerator)
    with (
        unwrap_model_for_generation(
            trainer.model_wrapped,
            trainer.accelerator,
            gather_deepspeed3_params=getattr(args, "ds3_gather_for_generation", True),
            gradient_checkpointing_kwargs=args.gradient_checkpointing_kwargs,
        ) as model,
        torch.no_grad(),
        distributed.summon_full_params(trainer.model_wrapped, recurse=False),
    ):
        yield model, trainer.is_fsdp_enabled or distributed.is_zero3


def _vllm_answers(trainer, validation: Validation, examples: Sequence[Example]) -> list[list[int]]:
    """Token ids of greedy answers of the engine that samples the rollouts."""
    prompts = [
        prepare_multimodal_messages(validation.conversation.prompt(example, None), images=[open_image(example)])
        for example in examples
    ]
    prompt_ids, images, fields = trainer._tokenize_prompts(prompts)
    with sampling_as(trainer.vllm_generation, temperature=0.0, max_completion_length=validation.max_new_tokens):
        return trainer._generate_single_turn(prompt_ids, images, fields, 1)[0]


def _evaluate(
    parts: Sequence[Part], results: Sequence[ParseResult]
) -> Iterator[tuple[Part, str, Mapping[str, Metric]]]:
    """For each source the prefix of its metrics in logs and the metrics of its answers, by their own names."""
    start = 0
    for part in parts:
        own = results[start : start + len(part.examples)]
        start += len(part.examples)
        pairs = [
            Pair(str(place), result, example.graph, example.image_wh, example.crowds, example.query)
            for place, (example, result) in enumerate(zip(part.examples, own, strict=True))
        ]
        options = MetricOptions(task=part.conversation.output_format.task, bootstrap_samples=0)
        yield part, f"{part.name}/" if len(parts) > 1 else "", evaluate(pairs, options).metrics


# --- before training ---


def validation_defaults(options, provided: Mapping[str, Any], cls: type[TrainingArguments]) -> dict[str, Any]:
    """Fields of a trainer's configuration that follow from validation data: it evaluates when it saves.

    Args:
        options: of the command.
        provided: the fields that were given. cls: the configuration class.

    Raises:
        UserError: one of the fields needs validation data, and there is none; early stopping needs a best checkpoint.
    """
    given = [name for name in _NEEDED if provided.get(name) not in (None, False, "no")]
    if options.early_stopping_patience and not provided.get("load_best_model_at_end"):
        raise UserError("early_stopping_patience: add --load_best_model_at_end true and --metric_for_best_model NAME")
    if options.eval_data is None:
        if given:
            raise UserError(f"{given[0]}: needs validation data; give --eval_data")
        return {}
    saves = provided.get("save_strategy", "steps")
    strategy = "steps" if "eval_steps" in provided or saves not in ("steps", "epoch") else saves
    defaults = {"eval_strategy": strategy, "eval_steps": provided.get("save_steps", cls.save_steps)}
    if hasattr(cls, "num_generations_eval"):
        defaults["num_generations_eval"] = 1
    return defaults


def sampled(examples: Sequence[Example], count: int) -> list[Example]:
    """A fixed sample in the order of the data; 0: all. It depends on nothing but the two numbers."""
    if not count or count >= len(examples):
        return list(examples)
    return [examples[place] for place in sorted(random.Random(0).sample(range(len(examples)), count))]


def warn_of_overlap(source: str, examples: Sequence[Example], training: Sequence[Example]) -> int:
    """Warn of validation images that are trained on, and count them: the same file, or the same row."""
    known = {key for example in training for key in _keys(example)}
    count = sum(not known.isdisjoint(_keys(example)) for example in examples)
    if count:
        _log.warning("%s: %d of %d validation images are in the training data", source, count, len(examples))
    return count


def _keys(example: Example) -> list[tuple]:
    keys: list[tuple] = [(example.image_id, example.image_wh, example.graph)]
    if isinstance(example.image, Path):
        keys.append((_real(example.image.parent), example.image.name))
    return keys


_real = cache(os.path.realpath)


def check_metric(args: TrainingArguments, provided: Mapping[str, Any], parts: Sequence[Part]) -> None:
    """See that ``metric_for_best_model`` has a value on the validation data, and set which direction is better.

    Raises:
        UserError: it is no metric, has no value even where every answer is perfect, or neither direction is better.
    """
    if args.load_best_model_at_end and args.save_total_limit == 1:
        args.save_total_limit = 2  # at 1 transformers deletes the last checkpoint, by which a run knows that it is done
    if args.metric_for_best_model is None:
        return
    name = args.metric_for_best_model.removeprefix("eval_")
    losses = () if hasattr(args, "num_generations_eval") else LOSSES
    if name in losses:
        return
    perfect = [ParseResult("ok", example.graph) for part in parts for example in part.examples]
    known = {
        f"{prefix}{own}": (part, own, metric)
        for part, prefix, found in _evaluate(parts, perfect)
        for own, metric in found.items()
    }
    if name not in known:
        why = near_misses(name, [*known, *losses])
        if any(entry.name == name for entry in METRICS):
            tasks = ", ".join(dict.fromkeys(part.conversation.output_format.task for part in parts))
            why = f": it is not computed for task {tasks}" + why
            if sources := [f"{part.name}/{name}" for part in parts if f"{part.name}/{name}" in known]:
                why = f", which has several sources; allowed: {', '.join(sources)}"
        raise UserError(f"metric_for_best_model: {name!r} is no metric of the validation{why}")
    part, own, metric = known[name]
    if metric.value is None:
        raise UserError(f"metric_for_best_model: {name!r} has no value on {part.name}: {metric.note}")
    if "greater_is_better" not in provided:
        if not (better := spec(own).better):
            raise UserError(
                f"metric_for_best_model: of {name!r} neither more nor less is better; give greater_is_better"
            )
        args.greater_is_better = better == "higher"
