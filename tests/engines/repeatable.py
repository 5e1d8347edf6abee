"""What the processes of a test do besides training, on request. See on_cpu/sitecustomize.py."""

from __future__ import annotations

import logging
import os
import random
import signal

from transformers import TrainerCallback


class EndAt(TrainerCallback):
    """A signal in the middle of a step: SIGTERM goes to torchrun where there is one, SIGKILL to the process itself."""

    def __init__(self, number: signal.Signals, step: int):
        self.number, self.step = number, step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step - 1:
            to_torchrun = self.number == signal.SIGTERM and "LOCAL_RANK" in os.environ
            os.kill(os.getppid() if to_torchrun else os.getpid(), self.number)


def prepare(trainer) -> None:
    """Change a trainer as the environment says; what it logs is shown."""
    log = logging.getLogger("scenerl")
    log.setLevel(logging.INFO)
    log.addHandler(logging.StreamHandler())
    last_rank = trainer.accelerator.num_processes - 1
    if (end := os.environ.get("END_AT")) and trainer.accelerator.process_index == last_rank:
        name, _, step = end.partition(":")
        trainer.add_callback(EndAt(signal.Signals[name], int(step)))
    if os.environ.get("SAME_COMPLETIONS"):
        give_completions(trainer)


def give_completions(trainer) -> None:
    """Let every rollout give completions that depend on nothing but its number and the row in the whole batch."""
    rollouts = 0
    stop = trainer.processing_class.tokenizer.eos_token_id
    words = sorted({*range(20, 400)} - {*trainer.checkpoint.banned_ids, stop})

    def given(prompt_ids, *_, **__):
        nonlocal rollouts
        rollouts += 1
        first = trainer.accelerator.process_index * len(prompt_ids)
        draws = [random.Random(f"{rollouts} {first + row}") for row in range(len(prompt_ids))]
        return [draw.choices(words, k=draw.randint(1, 12)) + [stop] for draw in draws], None

    trainer._generate_single_turn = given
