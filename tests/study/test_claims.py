"""Means over seeds, what a comparison says, and that every claim names numbers that the study measures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scenerl.metrics.registry import is_registered
from scenerl.rewards.registry import REWARDS
from scenerl.study.claims import (
    CLAIMS,
    FAILS,
    HOLDS,
    OPPOSITE,
    PARTLY,
    UNKNOWN,
    Comparison,
    Result,
    judge,
    verdict_of,
)
from scenerl.study.experiments import experiments
from scenerl.study.measures import Measured, mean

SEEDS = range(3)


def measured(folder: Path, **models: list[float | None]) -> Measured:
    """A study with one experiment ``e``: models to their values of ``m`` for each seed."""
    for model, values in models.items():
        for seed, value in enumerate(values):
            path = folder / "e" / str(seed) / "metrics" / f"{model}.test.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"metrics": {"m": {"value": value}}}))
    return Measured(folder, SEEDS)


def test_the_interval_is_students_over_seeds():
    found = mean([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.value == 3.0
    assert found.half == pytest.approx(2.7764 * 1.5811 / 5**0.5, abs=1e-3)
    assert (found.low, found.high) == (found.value - found.half, found.value + found.half)
    assert mean([2.0]).half is None


@pytest.mark.parametrize(
    "first, second, expected, verdict",
    [
        ([0.5, 0.6, 0.7], [0.4, 0.5, 0.61], "higher", HOLDS),
        ([0.5, 0.6, 0.7], [0.4, 0.5, 0.61], "lower", OPPOSITE),
        ([0.5, 0.6, 0.7], [0.4, 0.5, 0.61], "not higher", FAILS),
        ([0.5, 0.6, 0.7], [0.6, 0.5, 0.72], "higher", FAILS),
        ([0.5, 0.6, 0.7], [0.6, 0.5, 0.72], "lower", FAILS),
        ([0.5, 0.6, 0.7], [0.6, 0.5, 0.72], "not higher", HOLDS),
        ([0.4, 0.5, 0.61], [0.5, 0.6, 0.7], "higher", OPPOSITE),
        ([0.4, 0.5, 0.61], [0.5, 0.6, 0.7], "not lower", FAILS),
        ([0.5, 0.6, 0.7], [0.4, 0.5, 0.61], "not lower", HOLDS),
    ],
)
def test_a_difference_counts_where_its_interval_leaves_out_zero(tmp_path, first, second, expected, verdict):
    found = judge(Comparison("", "e/a/test/m", "e/b/test/m", expected), measured(tmp_path, a=first, b=second))
    assert found.verdict == verdict
    assert found.difference.value == pytest.approx(sum(first) / 3 - sum(second) / 3)


def test_seeds_without_a_value_do_not_count(tmp_path):
    numbers = measured(tmp_path, a=[0.5, None, 0.7], b=[0.4, 0.5, 0.6])
    found = judge(Comparison("", "e/a/test/m", "e/b/test/m"), numbers)
    assert found.values[0].count == 2 and found.difference.value == pytest.approx(0.1)
    assert judge(Comparison("", "e/c/test/m", "e/b/test/m"), numbers) == Result((None, None), None, UNKNOWN)


def test_a_limit_is_compared_with_the_interval(tmp_path):
    numbers = measured(tmp_path, low=[0.01, 0.011, 0.009], near=[0.01, 0.03, 0.02], high=[0.05, 0.051, 0.052])
    verdicts = [judge(Comparison("", f"e/{m}/test/m", 0.02, "lower"), numbers).verdict for m in ("low", "near", "high")]
    assert verdicts == [HOLDS, FAILS, OPPOSITE]


def test_verdict_of_several_comparisons():
    def of(*verdicts):
        return verdict_of([Result((None, None), None, verdict) for verdict in verdicts])

    assert of(HOLDS, HOLDS) == HOLDS
    assert of(HOLDS, FAILS) == of(HOLDS, OPPOSITE) == PARTLY
    assert of(FAILS, OPPOSITE) == OPPOSITE
    assert of(FAILS, FAILS) == FAILS
    assert of(HOLDS, UNKNOWN) == of() == UNKNOWN


def test_numbers_of_a_log(tmp_path):
    folder = tmp_path / "e" / "0" / "m"
    folder.mkdir(parents=True)
    rewards = [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.2, 1.0]  # the last quarter: 1.2, 1.0
    rows = [{"step": n, "reward": reward} for n, reward in enumerate(rewards, start=1)]
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, [*rows, {"step": 8, "train_runtime": 1.0}])))
    study = Measured(tmp_path, [0])
    assert study.value("e/m/log/reward", 0) == pytest.approx(1.1)
    assert study.value("e/m/log/reward:noise", 0) is None  # one difference has no spread
    assert study.value("e/m/log/reward:rise", 0) == pytest.approx(1.1)  # the first quarter: 0.0, 0.0
    assert study.curve("e/m/log/reward")[2] == (3.0, 1.0)
    assert study.value("e/m/log/nothing", 0) is None and study.curve("e/x/log/reward") == []


def test_noise_is_the_spread_from_step_to_step(tmp_path):
    folder = tmp_path / "e" / "0" / "m"
    folder.mkdir(parents=True)
    rewards = [5.0] * 12 + [1.0, 2.0, 1.0, 2.0]  # differences of the last quarter: 1, -1, 1
    (folder / "log.jsonl").write_text(
        "\n".join(json.dumps({"step": n, "reward": reward}) for n, reward in enumerate(rewards))
    )
    assert Measured(tmp_path, [0]).value("e/m/log/reward:noise", 0) == pytest.approx((4 / 3) ** 0.5 / 2**0.5)


def numbers_of(claim) -> list[str]:
    return [
        name for comparison in claim.comparisons for name in (comparison.number, comparison.other) if type(name) is str
    ]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_a_claim_names_what_is_measured(claim):
    known = experiments()
    for name in numbers_of(claim):
        experiment, model, annotations, metric = name.split("/", 3)
        found = known[experiment]
        stage = {stage.folder: stage for stage in found.models}.get(model)
        assert stage or model == "base", name
        if annotations == "log":
            key = metric.partition(":")[0]
            assert key == "reward" or key.removeprefix("rewards/").removesuffix("/mean") in stage.weights, name
        elif annotations != "answers":
            assert annotations in {title.split()[0] for title in found.task.targets}, name
            assert is_registered(metric), name


def test_rewards_and_file_names():
    for experiment in experiments().values():
        titles = [title.split()[0] for title in experiment.task.targets]
        assert len(titles) == len(set(titles))  # they name files
        for stage in experiment.models:
            assert stage.weights is None or set(stage.weights) <= set(REWARDS)
            assert stage.start == "base" or stage.start in {other.folder for other in experiment.models}
