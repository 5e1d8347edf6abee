"""Logs of a training run: one JSON line per logging step in ``log.jsonl``, and a table that grows on the terminal."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from scenerl.files import atomic_write_text
from scenerl.progress import hide, in_words, show

LOG_NAME = "log.jsonl"
_NUMBER_WIDTH = 9
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


def truncate_log(path: Path, first_step: int) -> None:
    """Remove from a JSONL file of steps what a run that goes on at ``first_step`` writes again.

    That is every row from this step on, the summary at the end of a run, and an incomplete line.
    """
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            if row["step"] < first_step and "train_runtime" not in row:
                kept.append(line)
        except (json.JSONDecodeError, KeyError, TypeError):
            break
    atomic_write_text(path, "".join(f"{line}\n" for line in kept))


class LogFile(TrainerCallback):
    """Appends TRL's log dictionaries to ``log.jsonl``; a resumed run first removes the lines it writes again."""

    def __init__(self, folder: str | Path):
        self.path = Path(folder) / LOG_NAME

    def on_train_begin(self, args, state, control, **kwargs):
        if not state.is_world_process_zero:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        truncate_log(self.path, state.global_step + 1)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs:
            row = {"step": state.global_step, "time": round(time.time(), 3)}
            for key, value in logs.items():  # JSON holds neither NaN nor infinity
                row[key] = None if isinstance(value, float) and not math.isfinite(value) else value
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, allow_nan=False) + "\n")


class ConsoleTable(TrainerCallback):
    """A progress bar over the steps and one table row per logging step, with the rewards as columns.

    Where there is no terminal for the bar, the rows themselves say how many steps there are and how long they take.
    """

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
        show(self.progress)
        self._begun = monotonic(), state.global_step
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
        first = self._how_far(state)
        names, texts = [name.rjust(len(text)) for name, text in first.items()], list(first.values())
        room = self.console.width - len(" ".join(texts))
        for key in keys:
            name = _COLUMNS.get(key, key.removeprefix("rewards/").removesuffix("/mean"))
            width = max(_NUMBER_WIDTH, len(name))
            room -= width + 1
            if room < 0:  # a narrow terminal shows the first columns; the log file holds all
                break
            names.append(name.rjust(width))
            texts.append(_number(logs[key]).rjust(width))
        for line in [texts] if names == self._shown else [names, texts]:
            self.progress.console.print(Text(" ".join(line)), soft_wrap=True)
        self._shown = names

    def _how_far(self, state) -> dict[str, str]:
        """The first columns."""
        if self.console.is_terminal:
            return {"step": str(state.global_step).rjust(6)}
        begun, first = self._begun
        seconds = (monotonic() - begun) / max(1, state.global_step - first)
        left = in_words(seconds * (state.max_steps - state.global_step))
        total = str(state.max_steps)
        return {"step": f"{state.global_step}/{total}".rjust(max(6, 2 * len(total) + 1)), "left": left.rjust(6)}

    def on_train_end(self, args, state, control, **kwargs):
        if self.progress:
            hide(self.progress)
            self.progress = None


def _number(value) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "–"


def quiet_console(trainer, console: Console | None = None) -> None:
    """Replace the trainer's own printing by :class:`ConsoleTable`."""
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(ConsoleTable(console))
