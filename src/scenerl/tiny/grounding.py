"""Grounding warm-up: the language half of a small model learns to locate named objects before it is trained on answers.

A row is an image followed by its objects in random order, one per line: the label, then the four numbers of its box,
which carry the loss. Predicting the numbers after the label teaches the label to attend to the object. Pretrained
checkpoints learnt this from grounded captions (Qwen-VL, arXiv 2308.12966, section 3.1). From the ``detections`` format
alone, where the box precedes its label, a randomly initialised language half learns it late or not at all (figures in
docs/log.md).
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from scenerl.answers import OutputFormat
from scenerl.answers.writer import box_coordinates
from scenerl.data.images import open_image
from scenerl.errors import UserError
from scenerl.tiny.optimizer import MuonWithAdamW
from scenerl.types import Example

_LEARNING_RATE, _MUON_LEARNING_RATE = 2e-3, 0.02
_RISE = 20  # steps over which the learning rates rise


def warm_up_grounding(
    model,
    processor,
    examples: Sequence[Example],
    output_format: OutputFormat,
    input_wh: Callable[[tuple[int, int]], tuple[int, int]],
    steps: int = 150,
    batch_size: int = 48,
    seed: int = 0,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, float]:
    """Train ``model``'s language half in place to predict the boxes of named objects; its vision tower stays as it is.

    Args:
        examples: images with boxes; those without an object are left out.
        output_format: decides box format and quantisation step.
        input_wh: size of an image in pixels to its size as the model sees it.
        steps: optimiser steps. batch_size: images in each.
        seed: of what each batch shows, and in which order.
        progress: called after each step with the step's number and its metrics.

    Returns:
        The last step's metrics: ``loss`` and ``accuracy``, the share of numbers that were right.

    Raises:
        UserError: no example has an object.
    """
    examples = [example for example in examples if example.graph.objects]
    if not examples:
        raise UserError("the grounding warm-up needs examples with objects; there are none")
    pieces = processor.tokenizer.batch_decode([[token] for token in range(len(processor.tokenizer))])
    is_number = torch.tensor([piece.strip(", ").replace(".", "", 1).isdecimal() for piece in pieces])
    tower = model.model.visual
    tower.requires_grad_(False)
    optimizer = MuonWithAdamW(model, _LEARNING_RATE, _MUON_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / _RISE) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    rng = random.Random(seed)
    metrics: dict[str, float] = {}
    for step in range(1, steps + 1):
        batch = [rng.choice(examples) for _ in range(batch_size)]
        texts = [named_boxes(example, output_format, input_wh(example.image_wh), rng) for example in batch]
        inputs = processor(
            text=[_chat(processor, text) for text in texts],
            images=[open_image(example) for example in batch],
            return_tensors="pt",
            padding=True,
            padding_side="right",
        )
        targets = inputs["input_ids"][:, 1:]
        is_target = is_number[targets]
        hidden = model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
        logits = model.lm_head(hidden[is_target])
        loss = F.cross_entropy(logits, targets[is_target])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        right = logits.argmax(-1) == targets[is_target]
        metrics = {"loss": loss.item(), "accuracy": right.float().mean().item()}
        if progress:
            progress(step, metrics)
    tower.requires_grad_(True)
    return metrics


def named_boxes(example: Example, output_format: OutputFormat, input_wh: tuple[int, int], rng: random.Random) -> str:
    """A line for each object, in an order drawn from ``rng``: its label and the numbers of its box."""
    objects = rng.sample(example.graph.objects, len(example.graph.objects))
    boxes = box_coordinates([item.box for item in objects], output_format, example.image_wh, input_wh)
    return "\n".join(f"{item.label} {', '.join(map(str, box))}" for item, box in zip(objects, boxes, strict=True))


def _chat(processor, text: str) -> str:
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}
    return processor.apply_chat_template([message], tokenize=False)
