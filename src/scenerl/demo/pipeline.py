"""The demo: data, a base model, its training stages, evaluation of each, a table and a report, in one run folder.

A finished stage leaves ``done.json`` beside its files: a second run skips it, and a stage that was cut off goes on as
its command does.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from scenerl import data
from scenerl.answers import OutputFormat
from scenerl.commands.demo import DemoOptions
from scenerl.commands.eval import EvalOptions
from scenerl.commands.grpo import GRPOOptions
from scenerl.commands.predict import PredictOptions
from scenerl.commands.report import ReportOptions
from scenerl.commands.sft import SFTOptions
from scenerl.config import plain
from scenerl.demo.tasks import TASKS, Stage
from scenerl.errors import UserError
from scenerl.files import atomic_write_text, check_out_folder
from scenerl.metrics.registry import headline, spec
from scenerl.models.folders import BASE
from scenerl.progress import progress_bar
from scenerl.runs import claim_folder, default_values

TABLE_WIDTH = 118  # a narrower terminal wraps the tables; cut numbers would be worse
_REASONING_TOKENS = 32  # the tags and a short text


def run(options: DemoOptions) -> None:
    """The command."""
    if options.rebuild_base is not None:
        rebuild_base(options.rebuild_base, options.seed, options.smoke)
    else:
        Pipeline(options, Console()).run()


def rebuild_base(folder: Path, seed: int = 0, smoke: bool = False) -> None:
    """Train the base model of the package anew; interrupted, it goes on when called again."""
    from scenerl.tiny import pretrain

    check_out_folder(folder, "rebuild_base")
    warmup_steps, steps = (1, 2) if smoke else (pretrain.WARMUP_STEPS, pretrain.STEPS)
    with progress_bar("vision tower", warmup_steps) as warmed, progress_bar("language model", steps) as trained:
        done = {"vision": warmed, "language": trained}
        pretrain.pretrain(folder, steps, warmup_steps, seed, lambda stage, step, metrics: done[stage](1))
    print(f"{folder}: a base model, for --model {folder}")


class Pipeline:
    """One run of the demo.

    Args:
        options: the command's options.
        console: where progress and tables are printed.

    Raises:
        UserError: the task has no such reward.
    """

    def __init__(self, options: DemoOptions, console: Console):
        self.options, self.out, self.console = options, options.out, console
        self.task = TASKS[options.task]
        self.reward = options.reward or next(iter(self.task.rewards))
        if self.reward not in self.task.rewards:
            raise UserError(
                f"reward: {self.reward!r} is not one of task {options.task!r}; allowed: {', '.join(self.task.rewards)}"
            )
        self.scale = self.task.smoke if options.smoke else self.task.real
        self.max_tokens = self.task.max_tokens + (_REASONING_TOKENS if options.envelope == "think" else 0)
        self.evaluated: dict[str, str] = {}  # name in files to the title

    def run(self) -> None:
        """Every stage, then table and report."""
        started = time.time()
        fingerprint = {**plain(self.options), "reward": self.reward, "grid": self.task.step, **asdict(self.scale)}
        before = default_values(type(self.options))
        if claim_folder(self.out, fingerprint, fresh=self.options.fresh, free=("fresh", "out"), defaults=before):
            self._say(f"Continuing in {self.out}; --fresh starts over")
        stages = self.task.stages(self.scale, self.reward, self.options.full)
        self._say_how_long(stages)
        self._once("data", "drawing scenes", self._make_data)
        if self.task.warmup:
            self._once(BASE, "building a small Qwen2-VL and warming it up", self._make_base)
        self._evaluate(BASE, "base" if self.task.warmup else "base (zero-shot)")
        for stage in stages:
            train = self._sft if stage.weights is None else self._grpo
            self._once(stage.folder, stage.title, lambda stage=stage, train=train: train(stage))
            self._evaluate(stage.folder, stage.title)
        self._finish(time.time() - started)

    def _say_how_long(self, stages: Sequence[Stage]) -> None:
        """What is still to be done, in minutes on this machine."""
        from scenerl.demo import timing

        scale, steps = self.scale, 0.0
        if self.task.warmup and not self._is_done(BASE):
            steps += (scale.warmup_steps + scale.grounding_steps) * scale.batch_size * timing.WARMUP_EXAMPLE
        for stage in stages:
            if not self._is_done(stage.folder):
                is_sft = stage.weights is None
                cost = scale.batch_size * timing.SFT_EXAMPLE if is_sft else scale.rollouts * timing.COMPLETION
                steps += stage.steps * cost + scale.num_test * timing.ANSWER
        if steps:
            minutes = (timing.STARTUP_SECONDS + steps * timing.seconds_per_step()) / 60
            self._say(f"This will take about {max(1, minutes):.0f} min on this machine")

    def _is_done(self, folder: str) -> bool:
        return (self.out / folder / "done.json").is_file()

    def _once(self, folder: str, title: str, work: Callable[[], None]) -> None:
        """Do a stage unless its ``done.json`` is there, which is written when the stage is whole."""
        if self._is_done(folder):
            self._say(f"{folder}: finished before, skipped")
            return
        self.console.rule(f"{folder}: {title}", align="left")
        started = time.time()
        work()
        seconds = round(time.time() - started, 1)
        atomic_write_text(self.out / folder / "done.json", json.dumps({"seconds": seconds}) + "\n")
        self._say(f"{folder}: {seconds:.0f} s")

    def _make_data(self) -> None:
        scale, task = self.scale, self.task
        with progress_bar("scenes", task.num_scenes(scale.num_train, scale.num_test)) as advance:
            sizes = (scale.num_train, scale.num_test, self.options.seed)
            task.make_data(self.out / "data", *sizes, progress=advance)

    def _make_base(self) -> None:
        from scenerl import tiny

        task, scale = self.task, self.scale
        with progress_bar("warm-up", scale.warmup_steps + scale.grounding_steps) as advance:
            metrics = tiny.create(
                self.out / BASE,
                list(data.load(self._data(task.train))),
                OutputFormat(task.format, self.options.envelope, step=task.step),
                tiny.TinyShape(text_width=task.text_width),
                seed=self.options.seed,
                warmup_steps=scale.warmup_steps,
                batch_size=scale.batch_size,
                progress=lambda step, metrics: advance(1),
                seen=list(data.load(self._data(task.warmup))),
                grounding_steps=scale.grounding_steps,
            )
        self._say(f"box error {metrics['box_l1']:.3f} of the image, class accuracy {metrics['accuracy']:.3f}")
        self._say(f"box numbers of named objects right: {metrics['grounding_accuracy']:.3f}")

    def _sft(self, stage: Stage) -> None:
        from scenerl.training import sft

        rate = self.task.muon_learning_rate
        options = SFTOptions(**self._files(stage), muon=True, muon_learning_rate=rate, freeze_vision=True)
        schedule = {"lr_scheduler_type": "cosine", "warmup_steps": min(30, stage.steps // 2)}
        sft.run(options, self._training(stage.steps, self.scale.batch_size) | schedule | self.task.sft)

    def _grpo(self, stage: Stage) -> None:
        from scenerl.training import grpo

        options = GRPOOptions(**self._files(stage), rewards=list(stage.weights), freeze_vision=True)
        rewards = {"reward_weights": list(stage.weights.values()), "max_completion_length": self.max_tokens}
        grpo.run(options, self._training(stage.steps, self.scale.rollouts) | rewards | self.task.grpo)

    def _files(self, stage: Stage) -> dict[str, Any]:
        return {
            "model": self._model(stage.start),
            "format": self.task.format,
            "envelope": self.options.envelope,
            "grid": self.task.step,
            "data": self._data(stage.data),
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
            "seed": self.options.seed,
        }

    def _evaluate(self, name: str, title: str) -> None:
        """Predict the test images with a stage's model and evaluate against every annotation of them."""
        self.evaluated[name] = title
        predictions = self.out / "predictions" / f"{name}.jsonl"
        metrics = {target: self._metrics_path(name, target) for target in self.task.targets}
        if all(path.is_file() for path in metrics.values()):
            self._say(f"{name}: predicted and evaluated before, skipped")
            return
        from scenerl.evaluate import run_eval
        from scenerl.inference import predict

        predict.run(
            PredictOptions(
                model=self._model(name),
                format=self.task.format,
                envelope=self.options.envelope,
                data=self._data(next(iter(self.task.targets.values()))),
                out=predictions,
                batch_size=64,
                max_new_tokens=self.max_tokens,
                dtype="float32",
                seed=self.options.seed,
            )
        )
        for target, path in metrics.items():
            options = EvalOptions(
                pred=predictions, data=self._data(self.task.targets[target]), out=path, task=self.task.metric_task
            )
            run_eval(options, Console(quiet=True))

    def _finish(self, seconds: float) -> None:
        from scenerl.report import command as report

        metrics = {
            title: {
                target: json.loads(self._metrics_path(name, target).read_text())["metrics"]
                for target in self.task.targets
            }
            for name, title in self.evaluated.items()
        }
        atomic_write_text(self.out / "metrics.json", json.dumps(metrics, indent=1) + "\n")
        atomic_write_text(self.out / "report.json", json.dumps(self._manifest(), indent=1) + "\n")
        report.run(ReportOptions(run=[self.out]))
        wide = Console(width=max(self.console.width, TABLE_WIDTH), file=self.console.file)
        for target in self.task.targets:
            rows = {title: of_target[target] for title, of_target in metrics.items()}
            wide.print(headline_table(f"Against {target} (95 % intervals)", rows))
        self._say(f"{seconds:.0f} s in this run. Report: {self.out / 'report.html'}")

    def _manifest(self) -> Mapping[str, Any]:
        """What report.json holds: which files make the report."""
        stages = []
        for name, title in self.evaluated.items():
            stage: dict[str, Any] = {"name": title, "predictions": f"predictions/{name}.jsonl"}
            stage["metrics"] = {
                target: str(self._metrics_path(name, target).relative_to(self.out)) for target in self.task.targets
            }
            if (self.out / name / "log.jsonl").is_file():
                stage["log"] = f"{name}/log.jsonl"
            stages.append(stage)
        predicates = Counter(
            relation.predicate
            for example in data.load(self._data(self.task.train))
            for relation in example.graph.relations
        )
        return {
            "title": self.task.title,
            "targets": [{"name": name, "path": f"data/{path}"} for name, path in self.task.targets.items()],
            "stages": stages,
            **({"predicate_counts": dict(predicates.most_common())} if predicates else {}),
        }

    def _model(self, name: str) -> str:
        """What ``--model`` names a stage's model by."""
        return BASE if name == BASE and not self.task.warmup else str(self.out / name)

    def _data(self, name: str) -> str:
        return str(self.out / "data" / name)

    def _metrics_path(self, name: str, target: str) -> Path:
        return self.out / "metrics" / f"{name}.{target.split()[0]}.json"

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)


def headline_table(title: str, stages: Mapping[str, Mapping[str, dict]]) -> Table:
    """Stages as rows and headline metrics as columns, each with its 95 % interval.

    Args:
        title: what the stages were measured against.
        stages: title of a stage to the ``metrics`` of its metrics.json.
    """
    names = headline({name for metrics in stages.values() for name in metrics})
    table = Table(title=title, title_justify="left")
    table.add_column("stage")
    for name in names:
        table.add_column(spec(name).title, justify="right")
    for stage, metrics in stages.items():
        table.add_row(stage, *(_cell(metrics.get(name)) for name in names))
    return table


def _cell(metric: dict | None) -> str:
    if metric is None or metric["value"] is None:
        return "–"
    text = f"{metric['value']:.3f}"
    if metric.get("interval"):
        low, high = metric["interval"]
        text += f"\n{low:.2f}–{high:.2f}"
    return text
