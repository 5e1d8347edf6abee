"""Stopping when asked to: SIGTERM, which SLURM sends before it kills, ends a run at a checkpoint, not in the middle."""

from __future__ import annotations

import signal
import sys

import torch
import torch.distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

REQUEUE = 75
"""Exit code of a run that was asked to stop and can go on: EX_TEMPFAIL of sysexits.h, "try again later"."""
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopOnSignal(TrainerCallback):
    """While it is entered, SIGTERM and SIGUSR1 end training with a checkpoint after the current step.

    Every process has to stop after the same step, or the others would wait for it forever. So they agree after each:
    when one was asked, all stop.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._stops = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopOnSignal:
        for number in SIGNALS:
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread, which alone receives signals
                break
        return self

    def __exit__(self, *exc_info) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame) -> None:
        self.asked = signal.Signals(number)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs
    ) -> TrainerControl:
        self._stops = self._any_was_asked(args.device)
        if self._stops:
            control.should_save = control.should_training_stop = True
        return control

    def _any_was_asked(self, device: torch.device) -> bool:
        asked = self.asked is not None
        if not torch.distributed.is_initialized():
            return asked
        votes = torch.tensor(int(asked), device=device)
        torch.distributed.all_reduce(votes, torch.distributed.ReduceOp.MAX)
        return bool(votes.item())

    def leave(self, state: TrainerState) -> None:
        """End the process where training was stopped before its last step.

        Raises:
            SystemExit: with :data:`REQUEUE`.
        """
        if self._stops and state.global_step < state.max_steps:
            if state.is_world_process_zero:
                name = self.asked.name if self.asked else "another process"
                text = f"stopped by {name} with a checkpoint after {state.global_step} of {state.max_steps} steps"
                print(f"scenerl: {text}; the same command goes on", file=sys.stderr)
            raise SystemExit(REQUEUE)
