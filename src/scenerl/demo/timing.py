"""How long the demo will take on this machine, from a few timed training steps."""

from __future__ import annotations

import time

import torch

from scenerl.models.folders import BASE
from scenerl.models.loading import load
from scenerl.tiny import mixture, pretrain

SFT_EXAMPLE, COMPLETION, ANSWER = 0.025, 0.03, 0.02
"""What an example of SFT, a completion of GRPO and an answer cost, in timed steps."""
STARTUP_SECONDS = 25
"""Imports, scenes, evaluation and the report."""
_TIMED = 3
_BATCH_SIZE = 24


def seconds_per_step(threads: int) -> float:
    """Seconds of a forward and backward pass of the base model: the fastest of three, after one that is not timed."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _fastest()
    finally:
        torch.set_num_threads(before)


def _fastest() -> float:
    checkpoint = load(BASE, "float32", trainable=True)
    rows = [mixture.row(f"timing/{number}") for number in range(_BATCH_SIZE)]
    seconds = []
    for _ in range(1 + _TIMED):
        started = time.perf_counter()
        loss, _ = pretrain.loss_and_accuracy(checkpoint.model, checkpoint.processor, rows)
        loss.backward()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])
