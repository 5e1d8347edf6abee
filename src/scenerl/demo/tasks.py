"""What the demo trains and measures: the settings of its two tasks, scene graphs and open-vocabulary detection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from scenerl.data import synthetic


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything: the real demo, or the same code in about a minute.

    Attributes:
        zero_steps: of GRPO without SFT; 0 for none.
        warmup_steps, grounding_steps: of a model that is trained from scratch.
    """

    num_train: int
    num_test: int
    sft_steps: int
    grpo_steps: int
    batch_size: int
    rollouts: int
    zero_steps: int = 0
    warmup_steps: int = 0
    grounding_steps: int = 0


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
        settings: of GRPO, where they differ from the task's.
    """

    folder: str
    title: str
    start: str
    data: str
    weights: Mapping[str, float] | None
    steps: int
    settings: Mapping[str, Any] = field(default_factory=dict)


_SFT: Mapping[str, Any] = {"learning_rate": 5e-4, "weight_decay": 0.01}
GRPO: Mapping[str, Any] = {
    "num_generations": 8,
    "learning_rate": 1.5e-4,
    "lr_scheduler_type": "linear",
    "temperature": 1.0,
    "top_p": 0.9,  # with 1.0 a second relation is so often wrong that saying it does not pay
    "beta": 0.0,
    "loss_type": "dr_grpo",
    "scale_rewards": "batch",  # per group, one without a match would blow up noise
}
"""Settings of GRPO that the tasks share."""


@dataclass(frozen=True, slots=True)
class Task:
    """The settings of a demo.

    Attributes:
        make_data: (folder, num_train, num_test, seed, progress=...) writes the rows and images.
        num_scenes: (num_train, num_test) to how many scenes that draws.
        train: file of the rows for SFT and GRPO.
        tests: file of the test rows to predict on, to the titles and files of the annotations of its images.
        rewards: name of a reward set to its title and its rewards with weights; the first is the default.
        warmup: file of the rows for the warm-ups of a small model that is trained from scratch, where each object has
            one label; not given: everything starts from the base model of the package.
        sft, muon_learning_rate: settings of SFT, where the vision tower stays fixed as in GRPO.
        grpo: settings of GRPO. reward_options: those of its rewards.
        counts_training: whether metrics tell common from rare predicates, and triplets that training never showed.
        resamples: of the bootstrap.
    """

    title: str
    real: Scale
    smoke: Scale
    make_data: Callable[..., None]
    num_scenes: Callable[[int, int], int]
    train: str
    tests: Mapping[str, Mapping[str, str]]
    rewards: Mapping[str, tuple[str, Mapping[str, float]]]
    format: str
    metric_task: str
    max_tokens: int
    warmup: str | None = None
    sft: Mapping[str, Any] = field(default_factory=lambda: _SFT)
    muon_learning_rate: float = 0.005
    step: int = 100  # the raster that the scenes are drawn on
    text_width: int = 128  # as good as 192 after equal minutes of SFT, and a GRPO step costs half (docs/log.md)
    grpo: Mapping[str, Any] = field(default_factory=lambda: GRPO)
    reward_options: Mapping[str, Any] = field(default_factory=dict)
    counts_training: bool = False
    resamples: int = 1000

    @property
    def targets(self) -> dict[str, str]:
        """Titles of the annotations of all test images with their files."""
        return {title: file for targets in self.tests.values() for title, file in targets.items()}

    def stages(self, scale: Scale, reward: str, full: bool) -> list[Stage]:
        """The models to train, in order: SFT, GRPO after and without it; ``full``: on each reward."""
        stages = [Stage("sft", "SFT", "base", self.train, None, scale.sft_steps)]
        for name in self.rewards if full else [reward]:
            title, weights = self.rewards[name]
            stages.append(Stage(f"rl_{name}", f"SFT + RL ({title})", "sft", self.train, weights, scale.grpo_steps))
            if scale.zero_steps:
                stages.append(Stage(f"zero_{name}", f"Zero ({title})", "base", self.train, weights, scale.zero_steps))
        return stages


# Half of the relations are left out of the training annotations, so SFT learns to stop early and GRPO to write more.
GRAPH = Task(
    title="SceneRL demo",
    real=Scale(4000, 384, sft_steps=150, grpo_steps=130, zero_steps=150, batch_size=32, rollouts=64),
    smoke=Scale(64, 16, sft_steps=6, grpo_steps=3, zero_steps=3, batch_size=8, rollouts=16),
    make_data=synthetic.make,
    num_scenes=lambda num_train, num_test: num_train + num_test,
    train="train.jsonl",
    tests={"test.jsonl": {"sparse annotations": "test.jsonl", "complete annotations": "test_complete.jsonl"}},
    # Hard Recall does not penalise relations between ids that do not exist, so the format weighs more beside it.
    # docs/log.md has what else was tried.
    rewards={
        "triplet_f1": ("F1", {"format": 0.5, "node_box": 0.5, "triplet_f1": 3.0}),
        "hard_recall": ("Hard Recall", {"format": 1.0, "node_box": 0.5, "hard_recall": 3.0}),
    },
    format="json",
    metric_task="sgdet",
    max_tokens=80,  # the longest answer of the training data takes about 50
    # completions of two steps are sampled at once: a step takes a fifth less time, and it is no worse (docs/log.md)
    grpo=GRPO | {"learning_rate": 3e-4, "steps_per_generation": 2},
)

# An annotator overlooks objects, so SFT learns to stop early here too.
DETECTION = Task(
    title="SceneRL demo: open-vocabulary detection",
    real=Scale(4000, 384, sft_steps=120, grpo_steps=100, batch_size=32, rollouts=64),
    smoke=Scale(64, 16, sft_steps=6, grpo_steps=3, batch_size=8, rollouts=16),
    make_data=synthetic.make_detection,
    num_scenes=lambda num_train, num_test: num_train + num_test,
    train="train.jsonl",
    tests={"test.jsonl": {"complete annotations": "test.jsonl"}},
    rewards={
        "od_length": ("odLength", {"format": 0.5, "od_length": 3.0}),
        "ap": ("AP", {"format": 0.5, "ap": 3.0}),
    },
    format="detections",
    metric_task="det",
    max_tokens=80,  # four boxes take about 30; a model that cannot stop is cut here
    grpo=GRPO | {"learning_rate": 6e-4},
)

TASKS = {"graph": GRAPH, "detection": DETECTION}
"""Value of ``--task`` to its settings."""
