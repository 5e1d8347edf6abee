"""``--smoke``: two steps of a run with a small model of its family on drawn examples.

Data, model and sizes are replaced. Format, prompt, vocabulary, rewards, loss, adapters and sharding are the run's own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from transformers.utils import is_torch_bf16_gpu_available

from scenerl import data, tiny
from scenerl.answers import OutputFormat
from scenerl.answers.formats import FORMATS
from scenerl.config import Extra
from scenerl.models.family import Family
from scenerl.models.loading import family_named, family_of
from scenerl.tiny.architectures import ARCHITECTURES
from scenerl.types import Example, SceneGraph

NUM_STEPS = 2
IMAGE_SIDE = 112
"""Width and height of the drawn images in pixels."""
_PER_PROCESS = 4
"""Examples or completions that each process sees in a step."""


def shrink(options, extra: Mapping[str, Any]):
    """Options and TRL fields of the smoke run where ``options.smoke`` is set; otherwise as they are."""
    if not options.smoke:
        return options, extra
    size = _PER_PROCESS * int(os.environ.get("WORLD_SIZE", "1"))
    out = options.out.with_name(f"{options.out.name}_smoke")
    changed = {"out": out, "fresh": True, "global_batch_size": size, "max_pixels": IMAGE_SIDE**2}
    changed |= dict.fromkeys(("split", "limit", "boxes", "min_pixels"))
    fields = {"max_steps": NUM_STEPS, "per_device_train_batch_size": 2, "logging_steps": 1}
    fields |= {"report_to": "none", "push_to_hub": False}
    if hasattr(options, "tiny_warmup_steps"):
        changed["tiny_warmup_steps"] = min(options.tiny_warmup_steps, NUM_STEPS)
    if hasattr(options, "rewards"):
        changed["predicate_counts"] = None  # of the training data, which is not used
        fields |= {"num_generations": 2, "max_completion_length": 16}
    if options.eval_data is not None:
        changed |= {"eval_split": None, "eval_samples": 2, "eval_max_new_tokens": 16}
        fields |= {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    if not is_torch_bf16_gpu_available():
        fields["bf16"] = False
    if not torch.cuda.is_available():
        fields["fp16"] = False
    replaced = ("gradient_accumulation_steps", "steps_per_generation", "generation_batch_size")
    kept = {key: value for key, value in extra.items() if key not in replaced}
    return replace(options, **changed), Extra({**kept, **fields}, getattr(extra, "where", {}))


def family(options) -> Family:
    """The family of a run's model: from the name of a released one, which need not be here, else from its checkpoint.

    Raises:
        UserError: there is no such checkpoint.
    """
    name = _plain(options.model)
    released = next((model_type for model_type in ARCHITECTURES if _plain(model_type) in name), None)
    if released and not Path(options.model).is_dir():
        return family_named(released)
    return tiny.requested_family(options) or family_of(options.model)


def _plain(name: str) -> str:
    return re.sub("[^a-z0-9]", "", name.lower())


def draw_examples(options, output_format: OutputFormat) -> list[Example]:
    """A batch of synthetic examples, with words of the run's vocabulary where that is closed."""
    source = "synthetic" if FORMATS[output_format.format].graph else "synthetic_detection"
    drawn = data.load(f"{source}:count={options.global_batch_size},size={IMAGE_SIDE}", need_images=True)
    return [_in_vocabulary(example, output_format) for example in drawn]


def _in_vocabulary(example: Example, output_format: OutputFormat) -> Example:
    if output_format.objects is None:
        return example
    query = example.query and output_format.objects[: len(example.query)]
    labels, predicates = cycle(query or output_format.objects), cycle(output_format.predicates or ())
    objects = tuple(item._replace(label=label) for item, label in zip(example.graph.objects, labels))  # noqa: B905
    relations = zip(example.graph.relations, predicates)  # noqa: B905
    relations = tuple(edge._replace(predicate=predicate) for edge, predicate in relations)
    return replace(example, graph=SceneGraph(objects, relations), query=query)
