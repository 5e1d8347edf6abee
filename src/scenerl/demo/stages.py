"""What every demo shares: stages that leave their files and a mark, so that a second run skips what is finished and
goes on where the first was stopped; the training, prediction and evaluation of a stage; table and report at the end.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from scenerl.config import DemoOptions, EvalOptions, GRPOOptions, PredictOptions, ReportOptions, SFTOptions, plain
from scenerl.demo.table import headline_table
from scenerl.files import atomic_write_text
from scenerl.progress import progress_bar
from scenerl.runs import claim_folder, default_values

TABLE_WIDTH = 118  # a narrower terminal wraps the tables; cut numbers would be worse

_REASONING_TOKENS = 32  # what the tags take, and a short thought

_SMALL_MODEL = {"gradient_checkpointing": False, "report_to": "none"}


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything: the real demo, or the same code in about a minute."""

    num_train: int
    num_test: int
    warmup_steps: int
    sft_steps: int
    grpo_steps: int
    zero_steps: int
    batch_size: int
    rollouts: int
    grounding_steps: int = 0


@dataclass(frozen=True, slots=True)
class Settings:
    """What a story tells its stages.

    ``train`` is the file of SFT's rows, ``train_rl`` that of GRPO's, ``warmup`` that of the rows on which the vision
    tower is warmed up, with one label for each object; ``targets`` are shown names of annotations of the test images
    and their files, of which the first is predicted on; ``headline`` is metrics and the heads of their columns;
    ``freeze_vision`` is SFT's (GRPO always does).
    """

    title: str
    scale: Scale
    train: str
    train_rl: str
    warmup: str
    targets: Mapping[str, str]
    headline: Mapping[str, str]
    answer_format: str
    task: str
    step: int
    text_width: int
    most_tokens: int
    sft: Mapping[str, Any]
    grpo: Mapping[str, Any]
    freeze_vision: bool = False


class Demo(ABC):
    """One run of a demo in one folder; a story fills in :meth:`settings`, :meth:`make_data` and :meth:`tell`."""

    def __init__(self, options: DemoOptions, console: Console):
        self.options = options
        self.out = options.out
        self.console = console
        self.its = self.settings()
        self.scale = self.its.scale
        self.most_tokens = self.its.most_tokens + (_REASONING_TOKENS if options.envelope == "think" else 0)
        self.stages: dict[str, str] = {}  # name in files to the name shown

    @abstractmethod
    def settings(self) -> Settings:
        """The story's settings for these options."""

    @abstractmethod
    def make_data(self, progress: Callable[[int], None]) -> None:
        """Write the rows and images into ``data/``; ``progress`` is called with 1 after each scene."""

    @abstractmethod
    def tell(self) -> None:
        """All stages after the base model, in order."""

    def num_scenes(self) -> int:
        """How many scenes :meth:`make_data` makes."""
        return self.scale.num_train + self.scale.num_test

    def manifest_extras(self) -> dict[str, Any]:
        """What the story adds to report.json."""
        return {}

    def run(self) -> None:
        """Every stage, then table and report."""
        started = time.time()
        fingerprint = {**plain(self.options), "grid": self.its.step, **asdict(self.scale)}
        before = default_values(type(self.options))
        if claim_folder(self.out, fingerprint, fresh=self.options.fresh, free=("fresh", "out"), defaults=before):
            self._say(f"Going on in {self.out}; --fresh starts over")
        self.once("data", "making scenes", self._make_data)
        self.once("base", "building a small Qwen2-VL and warming it up", self._make_base)
        self.judge("base", "base")
        self.tell()
        self._finish(time.time() - started)

    def once(self, folder: str, what: str, work: Callable[[], None]) -> None:
        """Do a stage unless its mark is there; the mark is written when the stage is whole."""
        mark = self.out / folder / "done.json"
        if mark.is_file():
            self._say(f"{folder}: finished before, skipped")
            return
        self.console.rule(f"{folder}: {what}", align="left")
        started = time.time()
        work()
        seconds = round(time.time() - started, 1)
        atomic_write_text(mark, json.dumps({"seconds": seconds}) + "\n")
        self._say(f"{folder}: {seconds:.0f} s")

    def sft(self, folder: str = "sft", rows: str | None = None) -> None:
        """A stage of SFT, from ``base``, on the training rows or others."""
        from scenerl.training.sft import run

        options = SFTOptions(
            model=str(self.out / "base"),
            data=self._data(rows or self.its.train),
            out=self.out / folder,
            muon=True,
            freeze_vision=self.its.freeze_vision,
        )
        schedule = {"lr_scheduler_type": "cosine", "warmup_steps": min(30, self.scale.sft_steps // 2)}
        run(options, self._training(self.scale.sft_steps, self.scale.batch_size) | schedule | self.its.sft)

    def grpo(self, folder: str, model: str, weights: Mapping[str, float], steps: int | None = None) -> None:
        """A stage of GRPO from the stage ``model``, with rewards and their weights."""
        from scenerl.training.grpo import run

        options = GRPOOptions(
            model=str(self.out / model),
            data=self._data(self.its.train_rl),
            out=self.out / folder,
            rewards=list(weights),
            freeze_vision=True,
        )
        rewards = {"reward_weights": list(weights.values()), "max_completion_length": self.most_tokens}
        run(options, self._training(steps or self.scale.grpo_steps, self.scale.rollouts) | rewards | self.its.grpo)

    def judge(self, folder: str, shown: str, constrain: bool = False) -> None:
        """Predict the test images with a stage's model and evaluate against every annotation of them.

        Answers decoded under constraints are a stage of their own.
        """
        stage = f"{folder}_constrained" if constrain else folder
        self.stages[stage] = shown
        predictions = self.out / "predictions" / f"{stage}.jsonl"
        metrics = {target: self._metrics_path(stage, target) for target in self.its.targets}
        if all(path.is_file() for path in metrics.values()):
            self._say(f"{stage}: predicted and evaluated before, skipped")
            return
        from scenerl.evaluate import run_eval
        from scenerl.inference.predict import run

        run(
            PredictOptions(
                model=str(self.out / folder),
                data=self._data(next(iter(self.its.targets.values()))),
                out=predictions,
                batch_size=64,
                max_new_tokens=self.most_tokens,
                constrain=constrain,
                seed=self.options.seed,
            )
        )
        quiet = Console(quiet=True)
        for target, path in metrics.items():
            data = self._data(self.its.targets[target])
            run_eval(EvalOptions(pred=predictions, data=data, out=path, task=self.its.task), quiet)

    def examples(self, name: str) -> list:
        """The rows of a file of the run's data."""
        from scenerl import data

        return list(data.load(self.out / "data" / name))

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def _make_data(self) -> None:
        with progress_bar("scenes", self.num_scenes()) as advance:
            self.make_data(advance)

    def _make_base(self) -> None:
        from scenerl.answers import OutputFormat
        from scenerl.tiny import TinyShape, create

        output_format = OutputFormat(self.its.answer_format, self.options.envelope, step=self.its.step)
        with progress_bar("warm-up", self.scale.warmup_steps + self.scale.grounding_steps) as advance:
            metrics = create(
                self.out / "base",
                self.examples(self.its.train),
                output_format,
                TinyShape(text_width=self.its.text_width),
                seed=self.options.seed,
                warmup_steps=self.scale.warmup_steps,
                batch_size=self.scale.batch_size,
                progress=lambda step, metrics: advance(1),
                seen=self.examples(self.its.warmup),
                grounding_steps=self.scale.grounding_steps,
            )
        self._say(f"box error {metrics['box_l1']:.3f} of the image, class accuracy {metrics['accuracy']:.3f}")
        if self.scale.grounding_steps:
            self._say(f"numbers right in boxes of named objects: {metrics['grounding_accuracy']:.3f}")

    def _training(self, steps: int, batch_size: int) -> dict[str, Any]:
        return {
            **_SMALL_MODEL,
            "max_steps": steps,
            "per_device_train_batch_size": batch_size,
            "logging_steps": max(1, min(10, steps // 3)),
            "save_steps": max(1, min(50, steps // 2)),
            "save_total_limit": 1,
            "seed": self.options.seed,
        }

    def _data(self, name: str) -> str:
        return str(self.out / "data" / name)

    def _metrics_path(self, stage: str, target: str) -> Path:
        return self.out / "metrics" / f"{stage}.{target.split()[0]}.json"

    def _finish(self, seconds: float) -> None:
        from scenerl.report.command import run

        everything = {
            shown: {
                target: json.loads(self._metrics_path(stage, target).read_text())["metrics"]
                for target in self.its.targets
            }
            for stage, shown in self.stages.items()
        }
        atomic_write_text(self.out / "metrics.json", json.dumps(everything, indent=1) + "\n")
        self._write_manifest()
        run(ReportOptions(run=[self.out]))
        wide = Console(width=max(self.console.width, TABLE_WIDTH), file=self.console.file)
        for target in self.its.targets:
            found = {name: metrics[target] for name, metrics in everything.items()}
            wide.print(headline_table(f"Against {target} (95 % intervals)", self.its.headline, found))
        self._say(f"{seconds:.0f} s in this run. Report: {self.out / 'report.html'}")

    def _write_manifest(self) -> None:
        stages = []
        for stage, shown in self.stages.items():
            log = self.out / stage / "log.jsonl"
            metrics = {
                target: str(self._metrics_path(stage, target).relative_to(self.out)) for target in self.its.targets
            }
            stages.append(
                {
                    "name": shown,
                    "predictions": f"predictions/{stage}.jsonl",
                    "metrics": metrics,
                    **({"log": f"{stage}/log.jsonl"} if log.is_file() else {}),
                }
            )
        manifest = {
            "title": self.its.title,
            "targets": [{"name": name, "path": f"data/{path}"} for name, path in self.its.targets.items()],
            "stages": stages,
            **self.manifest_extras(),
        }
        atomic_write_text(self.out / "report.json", json.dumps(manifest, indent=1) + "\n")
