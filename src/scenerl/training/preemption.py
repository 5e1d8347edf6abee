"""Preemption: SIGTERM, which SLURM sends before it kills, ends a run with a checkpoint."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from scenerl.training.engine import leave_processes

REQUEUE = 75
"""Exit code of a preempted run, which can go on: EX_TEMPFAIL of sysexits.h, "try again later"."""
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))  # Windows has one


class PreemptionCallback(TrainerCallback):
    """While it is entered, SIGTERM and SIGUSR1 end training with a checkpoint after the current step.

    Processes agree after each step: all stop when one received a signal, as none can go on without the others.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._stops = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> PreemptionCallback:
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
        self.received = signal.Signals(number)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs
    ) -> TrainerControl:
        self._stops = self._any_received(args.device)
        if self._stops:
            control.should_save = control.should_training_stop = True
            if marker := os.environ.get("SCENERL_STOPPED"):  # for the job script: torchrun ends with 1 in any case
                Path(marker).touch()
        return control

    def _any_received(self, device: torch.device) -> bool:
        received = self.received is not None
        if not torch.distributed.is_initialized():
            return received
        votes = torch.tensor(int(received), device=device)
        torch.distributed.all_reduce(votes, torch.distributed.ReduceOp.MAX)
        return bool(votes.item())

    def leave(self, state: TrainerState) -> None:
        """End the process if training was stopped before its last step.

        Raises:
            SystemExit: with :data:`REQUEUE`.
        """
        if self._stops and state.global_step < state.max_steps:
            if state.is_world_process_zero:
                name = self.received.name if self.received else "another process"
                text = f"stopped by {name} with a checkpoint after {state.global_step} of {state.max_steps} steps"
                print(f"scenerl: {text}; the same command goes on", file=sys.stderr)
            leave_processes()
            raise SystemExit(REQUEUE)
