"""Pretraining of the base model: a small Qwen2-VL that has seen much of the synthetic worlds, only not the task.

First the vision tower learns where objects are (:mod:`~scenerl.tiny.vision_warmup`), then the language half reads
conversations of the :mod:`~scenerl.tiny.mixture`. Every word of a conversation carries the loss, as in pretraining.
Training is in float32; the weights are saved as bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from scenerl.answers.dialogue import save_output_format
from scenerl.data.synthetic_detection import PHRASES
from scenerl.files import apply_umask
from scenerl.tiny import mixture
from scenerl.tiny.architectures import ARCHITECTURES, TinyShape, build_model
from scenerl.tiny.checkpoint import MODEL_TYPE
from scenerl.tiny.optimizer import MuonWithAdamW
from scenerl.tiny.tokenizer import build_tokenizer, chat_template, shared_phrases, split_at
from scenerl.tiny.vision_warmup import warm_up_vision

WARMUP_STEPS, STEPS = 700, 1600
_BATCH_SIZE = 24
_WARMUP_BATCH_SIZE, _WARMUP_SCENES = 32, 6000
_LEARNING_RATE, _MUON_LEARNING_RATE = 2e-3, 0.02
_RISE = 50  # steps over which the learning rates rise
_DECAY = 0.4  # share of the steps over which they fall to zero
_TOKENIZER_ROWS = 600
_VOCABULARY = 700
_SAVE_EVERY = 100
_STATE = "pretraining.pt"

Report = Callable[[str, int, dict[str, float]], None]
"""Called after a step with the stage, the step's number and its metrics."""


def pretrain(
    folder: str | Path,
    steps: int = STEPS,
    warmup_steps: int = WARMUP_STEPS,
    seed: int = 0,
    report: Report = lambda stage, step, metrics: None,
) -> None:
    """Make the base model in ``folder``: its weights, its processor and its output format.

    Interrupted training continues from the last whole hundred steps when called again with the same arguments.

    Args:
        steps: of language training, with 24 conversations each.
        warmup_steps: of the vision tower, with 32 pictures each.
        seed: of the weights and of everything that is drawn.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model, processor = _build(seed)
    model.model.visual.requires_grad_(False)  # features that move are learnt to be read later (docs/log.md)
    optimizer = MuonWithAdamW(model, _LEARNING_RATE, _MUON_LEARNING_RATE)
    first = 1
    if (folder / _STATE).is_file():
        state = torch.load(folder / _STATE, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"] + 1
    elif warmup_steps:
        model.model.visual.requires_grad_(True)
        num_scenes = min(warmup_steps * _WARMUP_BATCH_SIZE, _WARMUP_SCENES)
        warm_up_vision(
            model,
            processor,
            [mixture.row(f"{seed}/warm-up/{number}").example_with_image() for number in range(num_scenes)],
            warmup_steps,
            _WARMUP_BATCH_SIZE,
            bins=1000 // mixture.STEP,
            seed=seed,
            progress=lambda step, metrics: report("vision", step, metrics),
        )
        model.model.visual.requires_grad_(False)
        _save_state(folder, model, optimizer, 0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps), last_epoch=first - 2)
    for step in range(first, steps + 1):
        rows = [mixture.row(f"{seed}/{step}/{number}") for number in range(_BATCH_SIZE)]
        loss, accuracy = loss_and_accuracy(model, processor, rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        report("language", step, {"loss": loss.item(), "accuracy": accuracy})
        if step % _SAVE_EVERY == 0:
            _save_state(folder, model, optimizer, step)
    write(model, processor, folder)
    (folder / _STATE).unlink(missing_ok=True)


def write(model, processor, folder: Path) -> None:
    """The checkpoint folder: the weights are bfloat16, to be loaded as float32, which every CPU is fast in."""
    weights = {name: value.bfloat16() for name, value in model.state_dict().items() if name != "lm_head.weight"}
    processor.save_pretrained(folder)
    model.save_pretrained(folder, state_dict=weights)  # lm_head is tied to the embeddings
    apply_umask(folder)
    save_output_format(mixture.GRAPH, folder)


def _save_state(folder: Path, model, optimizer, step: int) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    torch.save(state, folder / f"{_STATE}.part")
    (folder / f"{_STATE}.part").replace(folder / _STATE)


def _build(seed: int):
    """The untrained model and its processor; the tokens are those of the mixture."""
    shape, architecture = TinyShape(text_width=128), ARCHITECTURES[MODEL_TYPE]
    graph, *detections = mixture.prompts()
    phrases = [graph, *shared_phrases(sorted(detections), sorted(PHRASES))]
    rows = (mixture.row(f"{seed}/tokenizer/{number}") for number in range(_TOKENIZER_ROWS))
    texts = [text for row in rows for turn in row.turns for text in turn]
    numbers = range(0, 1001, mixture.STEP)
    tokenizer = build_tokenizer(split_at(texts, phrases), numbers, phrases, _VOCABULARY, MODEL_TYPE)
    images = architecture.build_images(shape)
    processor = architecture.build_processor(images, tokenizer, chat_template=chat_template(architecture))
    return build_model(MODEL_TYPE, tokenizer, shape, seed), processor


def loss_and_accuracy(model, processor, rows: Sequence[mixture.Row]) -> tuple[torch.Tensor, float]:
    """Loss and token accuracy of a batch of conversations."""
    inputs = processor(
        text=[_chat(processor, row) for row in rows],
        images=[row.image for row in rows],
        return_tensors="pt",
        padding=True,
        padding_side="right",
    )
    ids, is_text = inputs["input_ids"], inputs.pop("attention_mask").bool()
    is_text &= inputs["mm_token_type_ids"] == 0
    targets = ids[:, 1:].masked_fill(~is_text[:, 1:], -100)
    # padding is on the right, where no token of a conversation attends to it: no mask is needed
    hidden = model.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
    counts = targets != -100
    logits, targets = model.lm_head(hidden[counts]), targets[counts]
    loss = F.cross_entropy(logits, targets)
    return loss, (logits.argmax(-1) == targets).float().mean().item()


def _chat(processor, row: mixture.Row) -> str:
    messages = []
    for question, answer in row.turns:
        image = [] if messages else [{"type": "image"}]
        messages.append({"role": "user", "content": [*image, {"type": "text", "text": question}]})
        messages.append({"role": "assistant", "content": answer})
    return processor.apply_chat_template(messages, tokenize=False)


def _rate(step: int, steps: int) -> float:
    """Share of the learning rates in a step: a rise, a plateau, then a straight line down."""
    return min(1.0, (step + 1) / _RISE, (steps - step) / (_DECAY * steps))
