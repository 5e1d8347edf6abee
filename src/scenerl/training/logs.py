"""Logs of a training run: one JSON line per logging step in ``log.jsonl``, and a table that grows on the terminal."""

from __future__ import annotations

import json
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

LOG_NAME = "log.jsonl"
_COLUMNS = {
    "loss": "loss",
    "reward": "reward",
    "reward_std": "±",
    "scene/failure_rate": "failed",
    "scene/relations_per_image": "rel/img",
    "completions/mean_length": "tokens",
    "entropy": "entropy",
    "mean_token_accuracy": "token acc.",
    "grad_norm": "grad",
    "learning_rate": "lr",
}


class LogFile(TrainerCallback):
    """Appends TRL's log dictionaries to ``log.jsonl``. A resumed run takes back the lines it will write again."""

    def __init__(self, folder: str | Path):
        self.path = Path(folder) / LOG_NAME

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    if json.loads(line)["step"] <= state.global_step:
                        kept.append(line)
                except (json.JSONDecodeError, KeyError, TypeError):
                    break  # a line cut off by a kill; what follows it is written again
        self.path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs:
            row = {"step": state.global_step, "time": round(time.time(), 3), **logs}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


class ConsoleTable(TrainerCallback):
    """A progress bar over the steps and one table row per logging step, with the rewards as columns."""

    def __init__(self, console: Console | None = None):
        self.console = console or Console(stderr=True)
        self.progress: Progress | None = None
        self._shown: list[str] = []

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.progress.start()
        self._task = self.progress.add_task("steps", total=state.max_steps, completed=state.global_step)

    def on_step_end(self, args, state, control, **kwargs):
        if self.progress:
            self.progress.update(self._task, completed=state.global_step)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.progress is None or not logs or "train_runtime" in logs:
            return
        columns = [key for key in _COLUMNS if key in logs]
        rewards = [key for key in logs if key.startswith("rewards/") and key.endswith("/mean")]
        keys = columns[:2] + rewards + columns[2:] if rewards else columns
        heading = keys != self._shown
        self._shown = keys
        table = Table(box=None, show_header=heading, pad_edge=False)
        names = [_COLUMNS.get(key, key.removeprefix("rewards/").removesuffix("/mean")) for key in keys]
        widths = [max(9, len(name)) for name in names]
        table.add_column("step", justify="right", width=6)
        for name, width in zip(names, widths, strict=True):
            table.add_column(name, justify="right", width=width)
        table.add_row(str(state.global_step), *(_number(logs[key]) for key in keys))
        self.progress.console.print(table)

    def on_train_end(self, args, state, control, **kwargs):
        if self.progress:
            self.progress.stop()
            self.progress = None


def _number(value) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "–"


def quiet_console(trainer, console: Console | None = None) -> None:
    """Replace the trainer's own printing by :class:`ConsoleTable`."""
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(ConsoleTable(console))
