"""What the study trains: its tasks, and the models of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from scenerl.data import synthetic_detection
from scenerl.demo.tasks import DETECTION, GRAPH, GRPO, Scale, Stage, Task
from scenerl.study import combinations, worlds

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
    found += [_detection(smoke), _phrases(smoke, "plain"), _phrases(smoke, "think"), _combinations(smoke)]
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
        grpo=GRAPH.grpo | {"steps_per_generation": 1},
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


def _detection(smoke: bool) -> Experiment:
    task = replace(
        DETECTION,
        resamples=0,
        real=replace(DETECTION.real, num_test=192),
        smoke=Scale(16, 4, sft_steps=1, grpo_steps=1, batch_size=4, rollouts=16),
    )
    rewards = {"od_length": {}, "ap": {}, "ap_beta": {"beta": 0.04}, "ap50": {}}
    return Experiment("detection", task, _detectors(task, rewards, smoke))


# In training one query in four is for nothing, in the test every second: hard negatives, as in D³ and OVDEval. With as
# many in GRPO, saying nothing pays while the model is often wrong, and RL ends in that. The base model of the package
# learns to look phrases up too slowly to start from (docs/log.md has both).
_PHRASES = replace(
    DETECTION,
    make_data=synthetic_detection.make,
    num_scenes=lambda num_train, num_test: sum(
        count for count, _ in synthetic_detection.num_scenes(num_train, num_test).values()
    ),
    sft={"learning_rate": 2e-3, "weight_decay": 0.01},
    muon_learning_rate=0.02,
    warmup="shapes.jsonl",
    max_tokens=64,
    grpo=GRPO,
    resamples=0,
    real=Scale(
        8000, 192, sft_steps=450, grpo_steps=120, batch_size=48, rollouts=64, warmup_steps=180, grounding_steps=150
    ),
    smoke=Scale(16, 4, sft_steps=1, grpo_steps=1, batch_size=4, rollouts=16, warmup_steps=1, grounding_steps=1),
)


# Answers of up to three boxes, of which the annotator overlooks some, as in the detection demo.
_COMBINATIONS = replace(
    _PHRASES,
    make_data=combinations.make,
    num_scenes=combinations.num_scenes,
    tests={
        "test.jsonl": {"complete annotations": "test.jsonl"},
        "names.jsonl": {"names never trained": "names.jsonl"},
        "negations.jsonl": {"negations never trained": "negations.jsonl"},
    },
    words=True,
)


def _combinations(smoke: bool) -> Experiment:
    return Experiment("combinations", _COMBINATIONS, _detectors(_COMBINATIONS, {"od_length": {}}, smoke))


def _phrases(smoke: bool, template: str) -> Experiment:
    name = "phrases" if template == "plain" else f"phrases_{template}"
    return Experiment(name, _PHRASES, _detectors(_PHRASES, {"od_length": {}}, smoke), template)


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
