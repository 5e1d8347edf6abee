"""The models of one run folder: their data, training, predictions and metrics, by the commands that users run.

A finished stage leaves ``done.json`` beside its files: a second run skips it, and a stage that was cut off goes on as
its command does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from scenerl import data
from scenerl.answers import OutputFormat
from scenerl.commands.eval import EvalOptions
from scenerl.commands.grpo import GRPOOptions
from scenerl.commands.predict import PredictOptions
from scenerl.commands.sft import SFTOptions
from scenerl.demo.tasks import Scale, Stage, Task
from scenerl.files import atomic_write_text
from scenerl.models.folders import BASE
from scenerl.progress import progress_bar

_REASONING_TOKENS = 32  # the tags and a short text


class Stages:
    """What is done in a run folder.

    Args:
        out: the folder.
        task: the settings.
        scale: how much of everything.
        seed: of data, models and sampling.
        template: response template.
        console: where progress is printed.
    """

    def __init__(self, out: Path, task: Task, scale: Scale, seed: int, template: str, console: Console):
        self.out, self.task, self.scale, self.seed, self.template = out, task, scale, seed, template
        self.console = console
        self.max_tokens = task.max_tokens + (_REASONING_TOKENS if template == "think" else 0)

    def is_done(self, folder: str) -> bool:
        """Whether a stage is whole."""
        return (self.out / folder / "done.json").is_file()

    def make_data(self) -> None:
        """Draw the scenes, once."""
        self._once("data", "drawing scenes", self._make_data)

    def make_base(self) -> None:
        """Where the task does not start from the base model of the package: a small model, warmed up, once."""
        if self.task.warmup:
            self._once(BASE, "building a small Qwen2-VL and warming it up", self._make_base)

    def train(self, stage: Stage) -> None:
        """Train a model, once."""
        self._once(stage.folder, stage.title, lambda: (self._sft if stage.weights is None else self._grpo)(stage))

    def evaluate(self, name: str) -> None:
        """Predict the test images with a stage's model and evaluate against every annotation of them, once."""
        if all(self.metrics_path(name, target).is_file() for target in self.task.targets):
            self.say(f"{name}: predicted and evaluated before, skipped")
            return
        for test, targets in self.task.tests.items():
            self._predict(name, test)
            for target, file in targets.items():
                self._evaluate(name, test, target, file)

    def metrics(self, name: str) -> dict[str, dict]:
        """Title of the annotations to the ``metrics`` of a stage's metrics.json."""
        return {
            target: json.loads(self.metrics_path(name, target).read_text())["metrics"] for target in self.task.targets
        }

    def predictions_path(self, name: str, test: str) -> Path:
        """A stage's predictions on a file of test rows; the first file is not named in it."""
        other = "" if test == next(iter(self.task.tests)) else f".{Path(test).stem}"
        return self.out / "predictions" / f"{name}{other}.jsonl"

    def metrics_path(self, name: str, target: str) -> Path:
        """A stage's metrics.json against annotations."""
        return self.out / "metrics" / f"{name}.{target.split()[0]}.json"

    def data_path(self, name: str) -> str:
        """A file of rows, as ``--data`` names it."""
        return str(self.out / "data" / name)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, highlight=False, markup=False)

    def _once(self, folder: str, title: str, work: Callable[[], None]) -> None:
        if self.is_done(folder):
            self.say(f"{folder}: finished before, skipped")
            return
        self.console.rule(f"{folder}: {title}", align="left")
        started = time.time()
        work()
        seconds = round(time.time() - started, 1)
        atomic_write_text(self.out / folder / "done.json", json.dumps({"seconds": seconds}) + "\n")
        self.say(f"{folder}: {seconds:.0f} s")

    def _make_data(self) -> None:
        scale, task = self.scale, self.task
        with progress_bar("scenes", task.num_scenes(scale.num_train, scale.num_test)) as advance:
            sizes = (scale.num_train, scale.num_test, self.seed)
            task.make_data(self.out / "data", *sizes, progress=advance)

    def _make_base(self) -> None:
        from scenerl import tiny

        task, scale = self.task, self.scale
        with progress_bar("warm-up", scale.warmup_steps + scale.grounding_steps) as advance:
            metrics = tiny.create(
                self.out / BASE,
                list(data.load(self.data_path(task.train))),
                OutputFormat(task.format, self.template, step=task.step),
                tiny.TinyShape(text_width=task.text_width),
                seed=self.seed,
                warmup_steps=scale.warmup_steps,
                batch_size=scale.batch_size,
                progress=lambda step, metrics: advance(1),
                seen=list(data.load(self.data_path(task.warmup))),
                grounding_steps=scale.grounding_steps,
                words=task.words,
            )
        self.say(f"box error {metrics['box_l1']:.3f} of the image, class accuracy {metrics['accuracy']:.3f}")
        self.say(f"box numbers of named objects right: {metrics['grounding_accuracy']:.3f}")

    def _sft(self, stage: Stage) -> None:
        from scenerl.training import sft

        rate = self.task.muon_learning_rate
        options = SFTOptions(**self._files(stage), muon=True, muon_learning_rate=rate, freeze_vision=True)
        schedule = {"lr_scheduler_type": "cosine", "warmup_steps": min(30, stage.steps // 2)}
        sft.run(options, self._training(stage.steps, self.scale.batch_size) | schedule | self.task.sft)

    def _grpo(self, stage: Stage) -> None:
        from scenerl.training import grpo

        options = GRPOOptions(
            **self._files(stage), rewards=list(stage.weights), freeze_vision=True, **self.task.reward_options
        )
        rewards = {"reward_weights": list(stage.weights.values()), "max_completion_length": self.max_tokens}
        grpo.run(options, self._training(stage.steps, self.scale.rollouts) | rewards | self.task.grpo | stage.settings)

    def _files(self, stage: Stage) -> dict[str, Any]:
        return {
            "model": self._model(stage.start),
            "format": self.task.format,
            "envelope": self.template,
            "grid": self.task.step,
            "data": self.data_path(stage.data),
            "out": self.out / stage.folder,
        }

    def _training(self, steps: int, batch_size: int) -> dict[str, Any]:
        return {
            "gradient_checkpointing": False,
            "report_to": "none",
            "max_steps": steps,
            "per_device_train_batch_size": batch_size,
            "logging_steps": max(1, min(10, steps // 3)),
            "save_steps": max(1, min(50, steps // 2)),
            "save_total_limit": 1,
            "seed": self.seed,
        }

    def _predict(self, name: str, test: str) -> None:
        from scenerl.inference import predict

        predict.run(
            PredictOptions(
                model=self._model(name),
                format=self.task.format,
                envelope=self.template,
                data=self.data_path(test),
                out=self.predictions_path(name, test),
                batch_size=64,
                max_new_tokens=self.max_tokens,
                dtype="float32",
                seed=self.seed,
            )
        )

    def _evaluate(self, name: str, test: str, target: str, file: str) -> None:
        from scenerl.evaluate import run_eval

        options = EvalOptions(
            pred=self.predictions_path(name, test),
            data=self.data_path(file),
            out=self.metrics_path(name, target),
            task=self.task.metric_task,
            train=self.data_path(self.task.train) if self.task.counts_training else None,
            resamples=self.task.resamples,
        )
        run_eval(options, Console(quiet=True))

    def _model(self, name: str) -> str:
        """What ``--model`` names a stage's model by."""
        return BASE if name == BASE and not self.task.warmup else str(self.out / name)
