"""The report: support, notes, conventions, per-predicate table, JSON, and bootstrap intervals."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings

from metrics.graphs import QUICK, data_sets, graph, pair, pairs_of
from scenerl.metrics import MetricOptions, evaluate
from scenerl.metrics.arrays import collect
from scenerl.metrics.bootstrap import interval, resample_weights, samples
from scenerl.metrics.precision import RatioMetrics
from scenerl.metrics.recall import PredicateMeans, hit_targets, rank

A, B, C = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)
THREE = [("dog", A), ("cat", B), ("hat", C)]
TARGET = graph(THREE, [(0, "on", 1), (1, "near", 2), (0, "on", 2)])


def test_a_metric_without_support_says_so_and_is_neither_zero_nor_nan():
    nothing = graph([])
    report = evaluate([pair(nothing, nothing)])
    for name, metric in report.metrics.items():
        if name == "failure_rate" or name.endswith("_per_image"):
            assert metric.value == 0
        else:
            assert metric.value is None and metric.interval is None and metric.support == 0
            assert metric.note.startswith(("no ", "neither ")), name
    assert report.metrics["R@50"].note == "no target relations"
    assert report.metrics["triplet_precision"].note == "no predicted relations"
    assert report.metrics["AP"].note == "no target objects"
    # predictions without a target: precision exists, recall does not
    report = evaluate([pair(TARGET, nothing)])
    assert report.metrics["triplet_precision"].value == report.metrics["triplet_f1"].value == 0
    assert report.metrics["triplet_recall"].value is None


def test_no_images():
    report = evaluate([])
    assert all(metric.value is None for metric in report.metrics.values())
    assert report.metrics["failure_rate"].note == "no images"
    assert report.counts["images"] == 0


def test_detection_task_has_objects_only():
    names = set(evaluate([pair(TARGET, TARGET)], MetricOptions(task="det", bootstrap_samples=10)).metrics)
    assert names == {
        "failure_rate", "object_precision", "object_recall", "object_f1", "objects_per_image",
        "duplicate_objects_per_image", "object_hallucination", "AP", "AP50", "AP75", "AR100", "greedy_precision",
        "greedy_recall", "F1@0.5", "F1@0.95", "F1_mean", "NMS-AP", "NMS-AP50", "NMS-AP75", "NMS-AR100",
    }  # fmt: skip


def test_recall_never_stands_without_precision_and_density():
    names = list(evaluate([pair(TARGET, TARGET)], QUICK).metrics)
    assert names.index("R@100") < names.index("triplet_precision") < names.index("relations_per_image")


def test_per_predicate_table():
    predicted = graph(THREE, [(0, "on", 1)])
    report = evaluate([pair(predicted, TARGET, "1"), pair(TARGET, TARGET, "2")], QUICK)
    # "on": 1/2 in image 1, 2/2 in image 2; "near": 0/1 and 1/1; the commonest predicate comes first
    assert list(report.per_predicate) == ["on", "near"]
    assert report.per_predicate["on"] == {
        "recall": 3 / 4, "R@20": 3 / 4, "R@50": 3 / 4, "R@100": 3 / 4, "ng-R@20": 3 / 4, "ng-R@50": 3 / 4,
        "ng-R@100": 3 / 4, "num_targets": 4, "num_images": 2,
    }  # fmt: skip
    assert report.per_predicate["near"]["recall"] == 1 / 2
    mean = np.mean([row["recall"] for row in report.per_predicate.values()])
    assert report.metrics["mRecall"].value == mean == 5 / 8


def test_counts_and_options_are_complete():
    options = MetricOptions(predicates=("on", "near", "eating"), bootstrap_samples=0, plus_one=True)
    report = evaluate([pair(TARGET, TARGET)], options, {("dog", "on", "cat")})
    expected = {
        "images": 1, "target_relations": 3, "predicted_relations": 3, "target_objects": 3, "predicates": 2,
        "absent_predicates": 1, "images_with_relations": 1, "unseen_target_relations": 2,
    }  # fmt: skip
    assert expected.items() <= report.counts.items()
    for field in dataclasses.fields(MetricOptions):
        assert field.name in report.options
    assert report.options["plus_one"] is True


def test_two_pairs_with_one_image_id_are_an_error():
    with pytest.raises(ValueError, match="'7'"):
        evaluate([pair(TARGET, TARGET, "7"), pair(TARGET, TARGET, "7")])


@pytest.mark.parametrize(
    "wrong",
    [{"task": "segmentation"}, {"hits": "some"}, {"graph_constraint": "often"}, {"ks": ()}, {"ks": (0,)},
     {"iou_threshold": 0}, {"bootstrap_samples": -1}],
)  # fmt: skip
def test_wrong_options_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MetricOptions(**wrong)


@settings(max_examples=20)
@given(data_sets(scored=True))
def test_json_holds_and_intervals_hold_the_value(data):
    report = evaluate(pairs_of(*data), MetricOptions(bootstrap_samples=50), set())
    loaded = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert list(loaded)[:7] == ["metrics", "failures", "issues", "options", "counts", "per_predicate", "warnings"]
    scored = any(entry.score is not None for found in data[0] for entry in (*found.objects, *found.relations))
    assert set(loaded) - set(list(loaded)[:7]) == ({"calibration"} if scored else set())
    for name, metric in loaded["metrics"].items():
        assert (metric["value"] is None) == ("note" in metric) == (metric["support"] == 0), name
        if metric["value"] is not None:
            low, high = metric["interval"]
            assert low <= high
            if not name.endswith("_per_image") and not name.startswith("wR@"):  # a target may count twice in wR@K
                assert low >= -1e-12 and high <= 1 + 1e-12, name


def test_resamples_are_seeded_and_draw_as_many_images_as_there_are():
    def weights(seed):
        return np.concatenate(list(resample_weights(30, 200, seed)), axis=1)

    assert weights(3).shape == (30, 200)
    assert (weights(3).sum(axis=0) == 30).all()
    assert (weights(3) == weights(3)).all()
    assert (weights(3) != weights(4)).any()
    assert weights(3).mean() == 1


def test_interval_of_a_mean_is_that_of_the_normal_approximation():
    draws = np.random.default_rng(0).random(400)
    ratios = RatioMetrics()
    ratios.add("mean", draws)
    low, high = interval(samples(ratios, 400, 4000, seed=1)["mean"])
    half = 1.96 * draws.std() / np.sqrt(400)
    assert low == pytest.approx(draws.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(draws.mean() + half, abs=0.15 * half)


@settings(max_examples=20)
@given(data_sets())
def test_a_resample_is_the_data_set_with_repeated_images(data):
    """Weights give the value of the data set with each image repeated, for ratios and predicate means alike."""
    num_images = len(data[0])
    weights = next(resample_weights(num_images, 5, 0))
    relations = collect(pairs_of(*data), QUICK).relations
    free, _ = rank(relations.predicted, num_images, "never")
    hit_T = hit_targets(relations.fits, free, len(relations.target), np.inf)
    target = relations.target
    means = PredicateMeans(target.predicate_R, target.image_R, {"mRecall": hit_T}, num_images)
    for column in weights.T:
        copies = [n for n, weight in enumerate(column) for _ in range(int(weight))]
        again = evaluate(pairs_of([data[0][n] for n in copies], [data[1][n] for n in copies]), QUICK)
        value = float(means(column[:, None])[0, 0])
        expected = again.metrics["mRecall"].value
        assert np.isnan(value) if expected is None else value == pytest.approx(expected, abs=1e-12)


def test_small_matrices_say_what_sparse_ones_say(monkeypatch):
    generator = np.random.default_rng(0)
    targets = [TARGET if generator.random() < 0.5 else graph(THREE, [(0, "on", 1)]) for _ in range(12)]
    predicted = [graph(THREE, [(0, "on", 1)][: int(generator.integers(2))]) for _ in range(12)]
    options = MetricOptions(bootstrap_samples=40)
    dense = evaluate(pairs_of(predicted, targets), options)
    monkeypatch.setattr("scenerl.metrics.arrays._DENSE", -1)
    sparse = evaluate(pairs_of(predicted, targets), options)
    assert dense.per_predicate == sparse.per_predicate and dense.metrics.keys() == sparse.metrics.keys()
    for name, metric in sparse.metrics.items():
        found = dense.metrics[name]
        assert (found.value, *found.interval) == pytest.approx((metric.value, *metric.interval), abs=1e-12), name


def test_intervals_do_not_depend_on_the_block_size(monkeypatch):
    generator = np.random.default_rng(0)
    targets = [TARGET if generator.random() < 0.5 else graph(THREE, [(0, "on", 1)]) for _ in range(12)]
    predicted = [graph(THREE, [(0, "on", 1)][: int(generator.integers(2))]) for _ in range(12)]
    whole = evaluate(pairs_of(predicted, targets), MetricOptions(bootstrap_samples=40))
    monkeypatch.setattr("scenerl.metrics.bootstrap._BLOCK", 12 * 8)
    blocks = evaluate(pairs_of(predicted, targets), MetricOptions(bootstrap_samples=40))
    for name, metric in whole.metrics.items():
        assert metric.interval == pytest.approx(blocks.metrics[name].interval, abs=1e-12), name
