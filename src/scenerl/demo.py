"""The ``demo`` command: from nothing to a report on two cores, by the same commands that users run on their own data.

Scenes are made, a small Qwen2-VL is built and its vision tower warmed up, SFT teaches it to answer, GRPO makes it
better; every stage predicts the test images and is evaluated against the sparse and the complete annotations. Each
stage leaves its files under the run folder and a mark when it is done, so that a second run skips what is finished and
goes on where the first was stopped.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from scenerl.config import DemoOptions, EvalOptions, GRPOOptions, PredictOptions, ReportOptions, SFTOptions, plain
from scenerl.progress import progress_bar
from scenerl.runs import atomic_write_text, claim_folder

TARGETS = {"sparse annotations": "test.jsonl", "complete annotations": "test_complete.jsonl"}
GRID = 100  # the raster that the scenes are drawn on
TEXT_WIDTH = 128
MOST_TOKENS = 80  # the longest answer of the training data takes about 50
HEADLINE = {
    "failure_rate": "failed",
    "Recall": "Recall",
    "R@50": "R@50",
    "mR@50": "mR@50",
    "triplet_precision": "precision",
    "triplet_f1": "F1",
    "AP50": "AP50",
    "relations_per_image": "rel/img",
}
TABLE_WIDTH = 118  # a narrower terminal wraps the tables; cut numbers would be worse
REWARD_NAMES = {"triplet_f1": "F1", "hard_recall": "Hard Recall"}
# What each reward is trained with. Hard Recall pays for naming every relation of every pair of ids, existing or not, so
# the format has to weigh more beside it.
WEIGHTS = {
    "triplet_f1": {"format": 0.5, "node_box": 0.5, "triplet_f1": 3.0, "hallucination": -0.25},
    "hard_recall": {"format": 1.0, "node_box": 0.5, "hard_recall": 3.0},
}


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


REAL = Scale(10000, 384, 180, 550, 150, 60, 32, 64)
SMOKE = Scale(64, 16, 4, 6, 3, 3, 8, 16)

_SMALL_MODEL = {"gradient_checkpointing": False, "report_to": "none"}


class Demo:
    """One run of the demo in one folder."""

    def __init__(self, options: DemoOptions, console: Console):
        self.options = options
        self.out = options.out
        self.console = console
        self.scale = SMOKE if options.smoke else REAL
        self.stages: dict[str, str] = {}  # folder name to the name shown

    def run(self) -> None:
        started = time.time()
        fingerprint = {**plain(self.options), "grid": GRID, **asdict(self.scale)}
        if claim_folder(self.out, fingerprint, fresh=self.options.fresh, free=("fresh", "out")):
            self._say(f"Going on in {self.out}; --fresh starts over")
        self.once("data", "making scenes", self._make_data)
        self.once("base", "building a small Qwen2-VL and warming up its vision tower", self._make_base)
        self._judge("base", "base")
        self.once("sft", "SFT", self._sft)
        self._judge("sft", "SFT")
        rewards = list(REWARD_NAMES) if self.options.full else [self.options.reward]
        for reward in rewards:
            folder = f"rl_{reward}"
            self.once(folder, f"GRPO on {REWARD_NAMES[reward]}", lambda r=reward, f=folder: self._grpo(f, "sft", r))
            self._judge(folder, f"SFT + RL ({REWARD_NAMES[reward]})")
        if self.options.full:
            reward = self.options.reward
            self.once("zero", "GRPO without SFT", lambda: self._grpo("zero", "base", reward, self.scale.zero_steps))
            self._judge("zero", f"RL without SFT ({REWARD_NAMES[reward]})")
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

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    def _make_data(self) -> None:
        from scenerl.data import synthetic

        total = self.scale.num_train + self.scale.num_test
        with progress_bar("scenes", total) as advance:
            synthetic.make(
                self.out / "data", self.scale.num_train, self.scale.num_test, self.options.seed, progress=advance
            )

    def _make_base(self) -> None:
        from scenerl.answers import AnswerStyle
        from scenerl.models.tiny import TinyShape
        from scenerl.training.from_scratch import create

        style = AnswerStyle(format="json", grid=GRID)
        with progress_bar("vision warm-up", self.scale.warmup_steps) as advance:
            metrics = create(
                self.out / "base",
                self._examples("train.jsonl"),
                style,
                TinyShape(text_width=TEXT_WIDTH),
                seed=self.options.seed,
                warmup_steps=self.scale.warmup_steps,
                batch_size=self.scale.batch_size,
                progress=lambda step, metrics: advance(1),
            )
        self._say(f"box error {metrics['box_l1']:.3f} of the image, class accuracy {metrics['accuracy']:.3f}")

    def _examples(self, name: str) -> list:
        from scenerl import data

        return list(data.load(self.out / "data" / name))

    def _sft(self) -> None:
        from scenerl.training.sft import run

        options = SFTOptions(
            model=str(self.out / "base"), data=self._data("train.jsonl"), out=self.out / "sft", muon=True
        )
        run(
            options,
            self._training(self.scale.sft_steps, self.scale.batch_size)
            | {
                "learning_rate": 2e-3,
                "weight_decay": 0.01,
                "lr_scheduler_type": "cosine",
                "warmup_steps": min(30, self.scale.sft_steps // 2),
            },
        )

    def _grpo(self, folder: str, model: str, reward: str, steps: int | None = None) -> None:
        from scenerl.training.grpo import run

        options = GRPOOptions(
            model=str(self.out / model),
            data=self._data("train.jsonl"),
            out=self.out / folder,
            rewards=list(WEIGHTS[reward]),
            freeze_vision=True,
        )
        run(
            options,
            self._training(steps or self.scale.grpo_steps, self.scale.rollouts)
            | {
                "reward_weights": list(WEIGHTS[reward].values()),
                "num_generations": 8,
                "max_completion_length": MOST_TOKENS,
                "learning_rate": 1.5e-4,
                "lr_scheduler_type": "linear",
                "temperature": 1.0,
                "top_p": 0.9,
                "beta": 0.0,
                "loss_type": "dr_grpo",
                "scale_rewards": "batch",  # in a group without a hit nothing but noise would be blown up
            },
        )

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

    def _judge(self, folder: str, shown: str) -> None:
        """Predict the test images with a stage's model and evaluate against both annotations."""
        self.stages[folder] = shown
        predictions = self.out / "predictions" / f"{folder}.jsonl"
        metrics = {target: self._metrics_path(folder, target) for target in TARGETS}
        if all(path.is_file() for path in metrics.values()):
            self._say(f"{folder}: predicted and evaluated before, skipped")
            return
        from scenerl.evaluate import run_eval
        from scenerl.inference.predict import run

        run(
            PredictOptions(
                model=str(self.out / folder),
                data=self._data("test.jsonl"),
                out=predictions,
                batch_size=64,
                max_new_tokens=MOST_TOKENS,
                seed=self.options.seed,
            )
        )
        quiet = Console(quiet=True)
        for target, path in metrics.items():
            run_eval(EvalOptions(pred=predictions, data=self._data(TARGETS[target]), out=path), quiet)

    def _metrics_path(self, folder: str, target: str) -> Path:
        return self.out / "metrics" / f"{folder}.{target.split()[0]}.json"

    def _finish(self, seconds: float) -> None:
        from scenerl.report.command import run

        everything = {
            shown: {target: json.loads(self._metrics_path(folder, target).read_text())["metrics"] for target in TARGETS}
            for folder, shown in self.stages.items()
        }
        atomic_write_text(self.out / "metrics.json", json.dumps(everything, indent=1) + "\n")
        self._write_manifest()
        run(ReportOptions(run=self.out))
        wide = Console(width=max(self.console.width, TABLE_WIDTH), file=self.console.file)
        for target in TARGETS:
            wide.print(headline_table(target, {name: found[target] for name, found in everything.items()}))
        self._say(f"{seconds:.0f} s in this run. Report: {self.out / 'report.html'}")

    def _write_manifest(self) -> None:
        stages = []
        for folder, shown in self.stages.items():
            log = self.out / folder / "log.jsonl"
            stages.append(
                {
                    "name": shown,
                    "predictions": f"predictions/{folder}.jsonl",
                    "metrics": {
                        target: str(self._metrics_path(folder, target).relative_to(self.out)) for target in TARGETS
                    },
                    **({"log": f"{folder}/log.jsonl"} if log.is_file() else {}),
                }
            )
        counts = Counter(
            relation.predicate for example in self._examples("train.jsonl") for relation in example.graph.relations
        )
        manifest = {
            "title": "SceneRL demo",
            "targets": [{"name": name, "path": f"data/{path}"} for name, path in TARGETS.items()],
            "stages": stages,
            "predicate_counts": dict(counts.most_common()),
        }
        atomic_write_text(self.out / "report.json", json.dumps(manifest, indent=1) + "\n")


def headline_table(target: str, stages: dict[str, dict[str, dict]]) -> Table:
    """Stages as rows and headline metrics as columns, each with its 95 % interval.

    Args:
        target: what the stages were measured against, for the title.
        stages: shown name to the ``metrics`` of its metrics.json.
    """
    table = Table(title=f"Against {target} (95 % intervals)", title_justify="left")
    table.add_column("stage")
    for name in HEADLINE.values():
        table.add_column(name, justify="right")
    for shown, metrics in stages.items():
        table.add_row(shown, *(_cell(metrics.get(key)) for key in HEADLINE))
    return table


def _cell(metric: dict | None) -> str:
    if metric is None or metric["value"] is None:
        return "–"
    text = f"{metric['value']:.3f}"
    if metric.get("interval"):
        low, high = metric["interval"]
        text += f"\n{low:.2f}–{high:.2f}"
    return text


def run(options: DemoOptions) -> None:
    """The command."""
    Demo(options, Console()).run()
