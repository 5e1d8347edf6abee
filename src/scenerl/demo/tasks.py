"""What the demo trains and measures: the settings of its two tasks, scene graphs and open-vocabulary detection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from scenerl.data import synthetic, synthetic_detection


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything: the real demo, or the same code in about a minute."""

    num_train: int
    num_test: int
    sft_steps: int
    grpo_steps: int
    zero_steps: int
    batch_size: int
    rollouts: int


@dataclass(frozen=True, slots=True)
class Stage:
    """One trained model of a run.

    Attributes:
        folder: its folder in the run folder.
        title: its name in tables.
        start: the model that it starts from: folder of another stage, or ``base``.
        data: file of its training rows.
        weights: rewards with their weights for GRPO; None for SFT.
        steps: optimiser steps.
    """

    folder: str
    title: str
    start: str
    data: str
    weights: Mapping[str, float] | None
    steps: int


@dataclass(frozen=True, slots=True)
class Task:
    """The settings of a demo.

    Attributes:
        make_data: (folder, num_train, num_test, seed, progress=...) writes the rows and images.
        num_scenes: (num_train, num_test) to how many scenes that draws.
        train, train_rl: files of the rows for SFT and for GRPO.
        targets: titles of the annotations of the test images with their files; the first file is predicted on.
        rewards: name of a reward set to its title and its rewards with weights; the first is the default.
    """

    title: str
    real: Scale
    smoke: Scale
    make_data: Callable[..., None]
    num_scenes: Callable[[int, int], int]
    train: str
    train_rl: str
    targets: Mapping[str, str]
    rewards: Mapping[str, tuple[str, Mapping[str, float]]]
    format: str
    metric_task: str
    max_tokens: int
    step: int = 100  # the raster that the scenes are drawn on
    sft: Mapping[str, Any] = field(default_factory=lambda: {"learning_rate": 5e-4, "weight_decay": 0.01})
    grpo: Mapping[str, Any] = field(
        default_factory=lambda: {
            "num_generations": 8,
            "learning_rate": 1.5e-4,
            "lr_scheduler_type": "linear",
            "temperature": 1.0,
            "top_p": 1.0,
            "beta": 0.0,
            "loss_type": "dr_grpo",
            "scale_rewards": "batch",  # per group, one without a match would blow up noise
        }
    )

    def stages(self, scale: Scale, reward: str, full: bool) -> list[Stage]:
        """The models to train, in order: SFT, then GRPO from it and from the base; ``full``: on each reward set."""
        stages = [Stage("sft", "SFT", "base", self.train, None, scale.sft_steps)]
        for name in self.rewards if full else [reward]:
            title, weights = self.rewards[name]
            stages += [
                Stage(f"rl_{name}", f"SFT + RL ({title})", "sft", self.train_rl, weights, scale.grpo_steps),
                Stage(f"zero_{name}", f"Zero ({title})", "base", self.train_rl, weights, scale.zero_steps),
            ]
        return stages


# Half of the relations are left out of the training annotations, so SFT learns to stop early and GRPO to write more.
GRAPH = Task(
    title="SceneRL demo",
    real=Scale(4000, 384, 120, 80, 80, 32, 64),
    smoke=Scale(64, 16, 6, 3, 3, 8, 16),
    make_data=synthetic.make,
    num_scenes=lambda num_train, num_test: num_train + num_test,
    train="train.jsonl",
    train_rl="train.jsonl",
    targets={"sparse annotations": "test.jsonl", "complete annotations": "test_complete.jsonl"},
    # Hard Recall does not penalise relations between ids that do not exist, so the format weighs more beside it; F1
    # gets a small penalty for predictions that match nothing. docs/log.md has what else was tried.
    rewards={
        "triplet_f1": ("F1", {"format": 0.5, "node_box": 0.5, "triplet_f1": 3.0, "hallucination": -0.25}),
        "hard_recall": ("Hard Recall", {"format": 1.0, "node_box": 0.5, "hard_recall": 3.0}),
    },
    format="json",
    metric_task="sgdet",
    max_tokens=80,  # the longest answer of the training data takes about 50
)

# Nearly all of SFT's queries are for what is there; half of GRPO's and of the test's are hard negatives, as in D³ and
# OVDEval.
DETECTION = Task(
    title="SceneRL demo: open-vocabulary detection",
    real=Scale(4000, 384, 120, 80, 80, 32, 64),
    smoke=Scale(64, 16, 6, 3, 3, 8, 16),
    make_data=synthetic_detection.make,
    num_scenes=lambda num_train, num_test: sum(
        count for count, _ in synthetic_detection.num_scenes(num_train, num_test).values()
    ),
    train="train.jsonl",
    train_rl="train_negatives.jsonl",
    targets={"complete annotations": "test.jsonl"},
    rewards={
        "od_length": ("odLength", {"format": 0.5, "od_length": 3.0}),
        "ap": ("AP", {"format": 0.5, "ap": 3.0}),
    },
    format="detections",
    metric_task="det",
    max_tokens=64,
)

TASKS = {"graph": GRAPH, "detection": DETECTION}
"""Value of ``--task`` to its settings."""
