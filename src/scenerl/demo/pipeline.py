"""The demo: data, a base model, its training stages, evaluation of each, a table and a report, in one run folder."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from scenerl import data
from scenerl.commands.demo import DemoOptions
from scenerl.commands.report import ReportOptions
from scenerl.config import plain
from scenerl.demo.processes import named_lines, num_cores, side_by_side
from scenerl.demo.stages import Stages
from scenerl.demo.tasks import TASKS
from scenerl.errors import UserError
from scenerl.files import atomic_write_text, check_out_folder
from scenerl.metrics.registry import headline, spec
from scenerl.models.folders import BASE
from scenerl.progress import progress_bar
from scenerl.runs import claim_folder, default_values

TABLE_WIDTH = 118  # a narrower terminal wraps the tables; cut numbers would be worse


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
        self.stages = Stages(self.out, self.task, self.scale, options.seed, options.envelope, console)
        self.trained = self.task.stages(self.scale, self.reward, options.full)
        self.titles = {BASE: "base (zero-shot)"}  # name in files to the title
        self.titles |= {stage.folder: stage.title for stage in self.trained}
        from_base = sum(stage.start == BASE for stage in self.trained)
        self.workers = options.workers or (1 if options.smoke else min(num_cores(), from_base))
        self.threads = max(1, num_cores() // self.workers)

    def run(self) -> None:
        """Every stage, then table and report."""
        started, stages = time.time(), self.stages
        fingerprint = {**plain(self.options), "reward": self.reward, "grid": self.task.step, **asdict(self.scale)}
        before = default_values(type(self.options))
        free = ("fresh", "out", "workers")
        if claim_folder(self.out, fingerprint, fresh=self.options.fresh, free=free, defaults=before):
            stages.say(f"Continuing in {self.out}; --fresh starts over")
        self._say_how_long()
        stages.make_data()
        if self.workers == 1:
            stages.evaluate(BASE)
            for stage in self.trained:
                stages.train(stage)
                stages.evaluate(stage.folder)
        else:
            self._run_side_by_side()
        self._finish(time.time() - started)

    def _run_side_by_side(self) -> None:
        trainings = [(self.options, "train", stage.folder) for stage in self.trained]
        evaluations = [(self.options, "evaluate", name) for name in self.titles]
        starts = {stage.folder: stage.start for stage in self.trained}

        def needs(job: _Job) -> _Job | None:
            options, kind, name = job
            model = name if kind == "evaluate" else starts[name]
            return None if model == BASE else (options, "train", model)

        jobs = [*trainings, *evaluations]  # the longest first
        with contextlib.closing(side_by_side(_work, jobs, self.workers, self.threads, needs)) as ended:
            for _, error in ended:
                if error:
                    raise error

    def _say_how_long(self) -> None:
        """What is still to be done, in minutes on this machine."""
        from scenerl.demo import timing

        scale = self.scale
        steps: dict[str, float] = {}
        until: dict[str, float] = {BASE: 0.0}  # when a model is there at the earliest
        for stage in self.trained:
            steps[stage.folder] = 0.0
            if not self.stages.is_done(stage.folder):
                is_sft = stage.weights is None
                cost = scale.batch_size * timing.SFT_EXAMPLE if is_sft else scale.rollouts * timing.COMPLETION
                steps[stage.folder] = stage.steps * cost + scale.num_test * timing.ANSWER
            until[stage.folder] = until[stage.start] + steps[stage.folder]
        if total := sum(steps.values()):
            total = max(total / self.workers, *until.values())
            minutes = (timing.STARTUP_SECONDS + total * timing.seconds_per_step(self.threads)) / 60
            self.stages.say(f"This will take about {max(1, minutes):.0f} min on this machine")

    def _finish(self, seconds: float) -> None:
        from scenerl.report import command as report

        metrics = {title: self.stages.metrics(name) for name, title in self.titles.items()}
        atomic_write_text(self.out / "metrics.json", json.dumps(metrics, indent=1) + "\n")
        atomic_write_text(self.out / "report.json", json.dumps(self._manifest(), indent=1) + "\n")
        report.run(ReportOptions(run=[self.out]))
        wide = Console(width=max(self.console.width, TABLE_WIDTH), file=self.console.file)
        for target in self.task.targets:
            rows = {title: of_target[target] for title, of_target in metrics.items()}
            wide.print(headline_table(f"Against {target} (95 % intervals)", rows))
        self.stages.say(f"{seconds:.0f} s in this run. Report: {self.out / 'report.html'}")

    def _manifest(self) -> Mapping[str, Any]:
        """What report.json holds: which files make the report."""
        rows = []
        for name, title in self.titles.items():
            row: dict[str, Any] = {"name": title, "predictions": f"predictions/{name}.jsonl"}
            row["metrics"] = {
                target: str(self.stages.metrics_path(name, target).relative_to(self.out))
                for target in self.task.targets
            }
            if (self.out / name / "log.jsonl").is_file():
                row["log"] = f"{name}/log.jsonl"
            rows.append(row)
        predicates = Counter(
            relation.predicate
            for example in data.load(self.stages.data_path(self.task.train))
            for relation in example.graph.relations
        )
        return {
            "title": self.task.title,
            "targets": [{"name": name, "path": f"data/{path}"} for name, path in self.task.targets.items()],
            "stages": rows,
            **({"predicate_counts": dict(predicates.most_common())} if predicates else {}),
        }


_Job = tuple[DemoOptions, str, str]
"""Options, ``train`` or ``evaluate``, and the name of a model."""


def _work(options: DemoOptions, kind: str, name: str) -> None:
    """Train or evaluate a model, in a process of its own."""
    # "rl" and "zero" tell the lines apart, unless there is one for each reward
    with named_lines(f"{name if options.full else name.split('_')[0]:4} "):
        pipeline = Pipeline(options, Console())
        if kind == "evaluate":
            pipeline.stages.evaluate(name)
        else:
            pipeline.stages.train(next(stage for stage in pipeline.trained if stage.folder == name))


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
