"""``--smoke``: a run in two small steps, by the same code, to see whether everything it needs is there.

What is replaced is the data, by a handful of drawn examples; the model, by a small one of its family; and sizes. All
else is the run's own: format, prompt, vocabulary, rewards, loss, adapters, how the model is divided, vLLM.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from scenerl import tiny
from scenerl.answers import OutputFormat
from scenerl.answers.formats import FORMATS
from scenerl.config import Extra
from scenerl.data.instances import labels_of
from scenerl.models.family import Family
from scenerl.models.loading import family_named, family_of
from scenerl.models.output_formats import saved_output_format
from scenerl.types import Example, SceneGraph

NUM_STEPS = 2
IMAGE_SIDE = 112
"""Width and height of the drawn images in pixels."""

_RELEASED = {"qwen25vl": "qwen2_5_vl", "qwen2vl": "qwen2_vl", "qwen3vl": "qwen3_vl"}
"""What hub names and recipes' names call released models, to their ``model_type``."""
_PER_PROCESS = 4  # examples or completions that each process sees in a step
_REPLACED = ("gradient_accumulation_steps", "steps_per_generation", "generation_batch_size")  # sizes set here otherwise


def shrink(options, extra: Mapping[str, Any]):
    """The options of the smoke run that a run's options ask for, and its fields for TRL's configuration class; as they
    are where they ask for none."""
    if not options.smoke:
        return options, extra
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    source = "synthetic_detection" if _is_detection(options) else "synthetic"
    changed = {
        "data": f"{source}:count={_PER_PROCESS * processes},size={IMAGE_SIDE}",
        "out": options.out.with_name(f"{options.out.name}_smoke"),
        "fresh": True,
        "global_batch_size": _PER_PROCESS * processes,
        "max_pixels": IMAGE_SIDE * IMAGE_SIDE,
        **dict.fromkeys(("split", "limit", "boxes", "min_pixels")),
    }
    fields = {
        "max_steps": NUM_STEPS,
        "per_device_train_batch_size": 2,
        "logging_steps": 1,
        "report_to": "none",
        "push_to_hub": False,
    }
    if hasattr(options, "tiny_warmup_steps"):
        changed["tiny_warmup_steps"] = min(options.tiny_warmup_steps, NUM_STEPS)
    if hasattr(options, "rewards"):
        changed["predicate_counts"] = None  # of the training data, which is not read
        fields |= {"num_generations": 2, "max_completion_length": 16}
    if not torch.cuda.is_available():
        fields |= {"bf16": False, "fp16": False}
    kept = {key: value for key, value in extra.items() if key not in _REPLACED}
    return dataclasses.replace(options, **changed), Extra({**kept, **fields}, getattr(extra, "where", {}))


def _is_detection(options) -> bool:
    """Whether a run's answers are detections, as :func:`scenerl.models.output_formats.output_format_for` has it."""
    if options.task is not None:
        return options.task == "det"
    saved = saved_output_format(options.model) if Path(options.model).is_dir() else None
    return not FORMATS[options.format or (saved or OutputFormat()).format].graph


def family(options) -> Family:
    """The family of a run's model: by the name of a released one, which need not be at hand, else by its checkpoint.

    Raises:
        UserError: there is no such checkpoint.
    """
    if (wanted := tiny.requested_family(options)) is not None:
        return wanted
    if not Path(options.model).is_dir():
        name = re.sub("[^a-z0-9]", "", options.model.lower())
        if released := next((model_type for short, model_type in _RELEASED.items() if short in name), None):
            return family_named(released)
    return family_of(options.model)


def in_vocabulary(examples: Sequence[Example], output_format: OutputFormat) -> list[Example]:
    """Drawn examples with a closed vocabulary's words in place of theirs; as they are where the vocabulary is open.

    Relations are left out where the vocabulary has no predicates.
    """
    if output_format.objects is None:
        return list(examples)
    labels = {label for example in examples for label in labels_of(example)}
    named = _renamed(labels, output_format.objects)
    predicates = {edge.predicate for example in examples for edge in example.graph.relations}
    said = _renamed(predicates, output_format.predicates or ())
    return [
        dataclasses.replace(
            example,
            graph=SceneGraph(
                tuple(dataclasses.replace(found, label=named[found.label]) for found in example.graph.objects),
                tuple(
                    dataclasses.replace(edge, predicate=said[edge.predicate])
                    for edge in example.graph.relations
                    if edge.predicate in said
                ),
            ),
            query=example.query and tuple(dict.fromkeys(named[label] for label in example.query)),
        )
        for example in examples
    ]


def _renamed(words: set[str], vocabulary: Sequence[str]) -> dict[str, str]:
    """Each word's name in the vocabulary, which is gone through again where it is shorter."""
    if not vocabulary:
        return {}
    return {word: vocabulary[number % len(vocabulary)] for number, word in enumerate(sorted(words))}
