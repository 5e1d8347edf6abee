"""What the study trains: its tasks, and the models of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from scenerl.demo.tasks import DETECTION, GRAPH, Scale, Stage, Task
from scenerl.study import worlds

DENSITIES = (1.0, 0.75, 0.5, 0.25, 0.1)
"""Probabilities with which an annotator mentions a relation."""
DENSITY = 0.5
"""That of the experiments about anything else."""

_HARD_RECALL = {"format": 1.0, "node_box": 0.5, "hard_recall": 3.0}
_F1 = {"format": 0.25, "node_box": 0.5, "triplet_f1": 3.0}
_PRECISION = {"format": 0.25, "node_box": 0.5, "triplet_f_beta": 3.0}
_EVERY_STEP = {"logging_steps": 1}


@dataclass(frozen=True, slots=True)
class Experiment:
    """Models that are trained on the same data.

    Attributes:
        name: of its folder.
        task: data, tests and settings.
        models: in the order of training; the first starts from the base model.
        template: response template.
    """

    name: str
    task: Task
    models: tuple[Stage, ...]
    template: str = "plain"


def density_name(keep: float) -> str:
    """Name of the experiment with that share of the relations annotated."""
    return f"graphs_{round(100 * keep)}"


def experiments(smoke: bool = False) -> dict[str, Experiment]:
    """The experiments by name.

    Args:
        smoke: the same with tiny numbers of everything.
    """
    found = [_graphs(keep, smoke) for keep in DENSITIES]
    found += [_detection(smoke), _detection_with_reasoning(smoke)]
    return {experiment.name: experiment for experiment in found}


def _graphs(keep: float, smoke: bool) -> Experiment:
    tests = {
        "test.jsonl": {"sparse annotations": "test.jsonl", "complete annotations": "test_complete.jsonl"},
        "triplets.jsonl": {"triplets never trained": "triplets.jsonl"},
        "places.jsonl": {"places never trained": "places.jsonl"},
        "other.jsonl": {"other look": "other.jsonl"},
    }
    task = replace(
        GRAPH,
        make_data=partial(worlds.make_graphs, keep=keep),
        num_scenes=worlds.num_graphs,
        tests=tests,
        reward_options={"f_beta": 0.5},
        counts_training=True,
        resamples=0,
        real=Scale(4000, 192, sft_steps=120, grpo_steps=45, zero_steps=80, batch_size=32, rollouts=64),
        smoke=Scale(12, 4, sft_steps=1, grpo_steps=1, zero_steps=1, batch_size=4, rollouts=16),
    )
    scale = task.smoke if smoke else task.real

    def rl(folder: str, weights: Mapping[str, float], start: str = "sft", **settings) -> Stage:
        steps = scale.zero_steps if start == "base" else scale.grpo_steps
        return Stage(folder, folder, start, task.train, weights, steps, _EVERY_STEP | settings)

    models = [
        Stage("sft", "sft", "base", task.train, None, scale.sft_steps),
        rl("hard_recall", _HARD_RECALL),
        rl("f1", _F1),
        rl("precision", _PRECISION),
    ]
    if keep == DENSITY:
        soft = {"soft_recall" if name == "hard_recall" else name: weight for name, weight in _HARD_RECALL.items()}
        models += [
            rl("soft_recall", soft),
            rl("zero", _HARD_RECALL, "base"),
            rl("beta", _HARD_RECALL, beta=0.04),
            rl("long", _HARD_RECALL, max_completion_length=2 * task.max_tokens),
            rl("groups_of_16", _HARD_RECALL, num_generations=16),
        ]
    return Experiment(density_name(keep), task, tuple(models))


def _detection_task() -> Task:
    return replace(
        DETECTION,
        resamples=0,
        real=replace(DETECTION.real, num_test=192),
        smoke=Scale(16, 4, sft_steps=1, grpo_steps=1, batch_size=4, rollouts=16, warmup_steps=1, grounding_steps=1),
    )


def _detection(smoke: bool) -> Experiment:
    task = _detection_task()
    rewards = {"od_length": {}, "ap": {}, "ap_beta": {"beta": 0.04}}
    return Experiment("detection", task, _detectors(task, rewards, smoke))


def _detection_with_reasoning(smoke: bool) -> Experiment:
    task = _detection_task()
    return Experiment("detection_think", task, _detectors(task, {"od_length": {}}, smoke), "think")


def _detectors(task: Task, rewards: Mapping[str, Mapping], smoke: bool) -> tuple[Stage, ...]:
    scale = task.smoke if smoke else task.real
    sft = Stage("sft", "sft", "base", task.train, None, scale.sft_steps)
    trained = [
        Stage(
            folder,
            folder,
            "sft",
            task.train,
            {"format": 0.5, folder.removesuffix("_beta"): 3.0},
            scale.grpo_steps,
            _EVERY_STEP | settings,
        )
        for folder, settings in rewards.items()
    ]
    return sft, *trained
