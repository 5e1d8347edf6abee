"""AP: hand-computed, equal to two COCO evaluators, and equal under image weights to a data set that repeats images."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics.graphs import QUICK, boxes, data_sets, graph, pair, pairs_of, values
from scenerl.metrics import MetricOptions, matches_of
from scenerl.metrics.arrays import collect
from scenerl.metrics.detection import NAMES, CocoMetrics, greedy_matches, kept_by_nms
from scenerl.types import SceneGraph, SceneObject

A, B, C = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)


def coco_metrics(pairs):
    objects = collect(pairs, QUICK).objects
    return CocoMetrics(objects, greedy_matches(objects), len(pairs))


def own_values(pairs):
    return dict(zip(NAMES, coco_metrics(pairs)(np.ones((len(pairs), 1)))[:, 0].tolist(), strict=True))


def pycocotools_evaluator():
    coco = pytest.importorskip("pycocotools.coco")
    return coco.COCO, pytest.importorskip("pycocotools.cocoeval").COCOeval


def faster_evaluator():
    faster = pytest.importorskip("faster_coco_eval")
    return faster.COCO, faster.COCOeval_faster


EVALUATORS = (pycocotools_evaluator, faster_evaluator)


def coco_values(pairs, evaluator):
    """What one of the maintained evaluators says. Crowd regions are annotations with ``iscrowd``."""
    coco, cocoeval = evaluator()
    labels = sorted({entry.label for both in pairs for entry in both.target.objects})

    def row(image, entry, crowd=0):
        x1, y1, x2, y2 = entry.box
        box = [x1, y1, x2 - x1, y2 - y1]
        score = 1.0 if entry.score is None else entry.score
        label = labels.index(entry.label) + 1
        return {
            "image_id": image, "category_id": label, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd,
            "score": score,
        }  # fmt: skip

    annotations, found = [], []
    for image, both in enumerate(pairs, start=1):
        annotations += [row(image, entry) for entry in both.target.objects]
        annotations += [row(image, entry, 1) for entry in both.crowds if entry.label in labels]
        found += [row(image, entry) for entry in both.result.graph.objects if entry.label in labels]
    if not found:
        return dict.fromkeys(NAMES, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco()
        truth.dataset = {
            "info": {},
            "images": [{"id": n + 1} for n in range(len(pairs))],
            "categories": [{"id": n + 1} for n in range(len(labels))],
            "annotations": [{**row, "id": n + 1} for n, row in enumerate(annotations)],
        }
        truth.createIndex()
        evaluation = cocoeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = list(evaluation.stats)
    return dict(zip(NAMES, [float(stats[n]) for n in (0, 1, 2, 8)], strict=True))


def test_average_precision_by_hand():
    target = graph([("dog", A), ("dog", B)])
    # miss, hit, hit: precision 1/2 at recall 1/2, 2/3 at recall 1; interpolated 2/3 everywhere
    found = values([pair(graph([("dog", C), ("dog", A), ("dog", B)]), target)])
    assert found["AP"] == pytest.approx(2 / 3, abs=1e-12)
    assert found["AP50"] == pytest.approx(2 / 3, abs=1e-12)
    assert found["AR100"] == 1
    # hit, miss: precision 1 up to recall 1/2, that is at 51 of 101 points
    assert values([pair(graph([("dog", A), ("dog", C)]), target)])["AP50"] == pytest.approx(51 / 101, abs=1e-12)


def test_iou_levels():
    # IoU 8/10 = 0.8: a hit at .50 .55 .60 .65 .70 .75 .80, that is 7 of 10 thresholds
    found = values([pair(graph([("dog", (0, 0, 10, 8))]), graph([("dog", A)]))])
    assert found["AP"] == found["AR100"] == found["F1_mean"] == pytest.approx(7 / 10)
    assert found["AP50"] == found["AP75"] == found["F1@0.5"] == 1
    assert found["F1@0.95"] == 0


def test_order_decides_when_scores_are_equal_or_missing():
    target = graph([("dog", A)])
    right, wrong = ("dog", A), ("dog", C)
    assert values([pair(graph([right, wrong]), target)])["AP50"] == 1
    assert values([pair(graph([wrong, right]), target)])["AP50"] == 1 / 2
    assert values([pair(graph([(*wrong, 0.2), (*right, 0.9)]), target)])["AP50"] == 1
    # greedy precision and F1 do not care
    assert values([pair(graph([right, wrong]), target)])["F1@0.5"] == 2 / 3
    assert values([pair(graph([wrong, right]), target)])["F1@0.5"] == 2 / 3


def test_images_are_taken_in_the_order_of_their_ids():
    """As pycocotools takes them; the order of the file used to decide, which gave 1.0 here."""
    target, found = graph([("dog", A)]), graph([("dog", A, 1.0)])
    pairs = [pair(found, target, "2"), pair(found, graph([]), "1")]
    assert values(pairs)["AP"] == values(pairs[::-1])["AP"] == 1 / 2
    # whole numbers by value, other names as text
    pairs = [pair(found, target, "10"), pair(found, graph([]), "9")]
    assert values(pairs)["AP"] == 1 / 2
    pairs = [pair(found, target, "10.jpg"), pair(found, graph([]), "9.jpg")]
    assert values(pairs)["AP"] == 1


@settings(max_examples=20)
@given(data_sets(scored=True), st.randoms(use_true_random=False))
def test_average_precision_does_not_depend_on_the_order_of_the_images(data, random):
    pairs = pairs_of(*data)
    shuffled = random.sample(pairs, len(pairs))
    assert own_values(shuffled) == pytest.approx(own_values(pairs), abs=1e-12, nan_ok=True)
    if any(target.objects for target in data[1]):
        assert own_values(shuffled) == pytest.approx(coco_values(pairs, pycocotools_evaluator), abs=1e-9)


def test_classes_are_averaged_and_classes_without_a_target_play_no_part():
    target = graph([("dog", A), ("cat", B)])
    found = values([pair(graph([("dog", A), ("hat", C)]), target)])
    assert found["AP50"] == (1 + 0) / 2
    assert found["greedy_precision"] == 1 / 2
    assert found["greedy_recall"] == 1 / 2
    assert values([pair(graph([("hat", C)]), target)])["AP"] == 0


def test_at_most_100_detections_of_an_image_and_class_count():
    wrong = [("dog", C)] * 100
    found = values([pair(graph([*wrong, ("dog", A)]), graph([("dog", A)]))])
    assert found["AP50"] == found["AR100"] == 0
    assert found["greedy_recall"] == 1
    assert values([pair(graph([*wrong[:99], ("dog", A)]), graph([("dog", A)]))])["AP50"] == pytest.approx(1 / 100)


@settings(max_examples=60)
@given(data_sets(scored=True))
def test_equal_to_both_coco_evaluators(data):
    pairs = pairs_of(*data)
    if not any(target.objects for target in data[1]):
        assert values(pairs)["AP"] is None
        return
    reported = own_values(pairs)
    for evaluator in EVALUATORS:
        assert reported == pytest.approx(coco_values(pairs, evaluator), abs=1e-9)


def test_equal_to_both_coco_evaluators_on_crowded_images():
    generator = np.random.default_rng(0)

    def crowd(count, scored):
        corner = generator.integers(0, 40, size=(count, 2))
        size = generator.integers(8, 30, size=(count, 2))
        score = generator.integers(1, 6, size=count) / 5
        objects = []
        for n in range(count):
            box = tuple(float(v) for v in (*corner[n], *(corner[n] + size[n])))
            objects.append(SceneObject(("dog", "cat")[n % 2], box, float(score[n]) if scored else None))
        return SceneGraph(tuple(objects))

    for scored in (False, True):
        pairs = pairs_of([crowd(120, scored) for _ in range(4)], [crowd(30, False) for _ in range(4)])
        reported = own_values(pairs)
        assert reported["AP"] > 0.01
        for evaluator in EVALUATORS:
            assert reported == pytest.approx(coco_values(pairs, evaluator), abs=1e-9)


def numbered(found, start):
    """The graph with a different score for every object, so that no order is left open."""
    objects = [SceneObject(entry.label, entry.box, 1 / (start + n)) for n, entry in enumerate(found.objects)]
    return SceneGraph(tuple(objects))


@settings(max_examples=40)
@given(data_sets(), st.data())
def test_an_image_weight_is_a_number_of_copies(data, draw):
    predicted = [numbered(found, 10 * n + 1) for n, found in enumerate(data[0])]
    weights = draw.draw(st.lists(st.integers(0, 3), min_size=len(predicted), max_size=len(predicted)))
    copies = [n for n, weight in enumerate(weights) for _ in range(weight)]
    weighted = coco_metrics(pairs_of(predicted, data[1]))(np.array(weights, dtype=float)[:, None])[:, 0]
    repeated = pairs_of([predicted[n] for n in copies], [data[1][n] for n in copies])
    if any(both.target.objects for both in repeated):
        expected = coco_values(repeated, pycocotools_evaluator)
        assert weighted == pytest.approx([expected[name] for name in NAMES], abs=1e-9)
    else:
        assert np.isnan(weighted).all()


@settings(max_examples=40)
@given(data_sets(scored=True, max_images=3), st.data())
def test_crowd_regions_are_ignored_as_coco_ignores_them(data, draw):
    crowds = draw.draw(
        st.lists(
            st.lists(st.builds(SceneObject, st.sampled_from(("dog", "cat")), boxes, st.none()), max_size=2),
            min_size=len(data[0]), max_size=len(data[0]),
        )
    )  # fmt: skip
    pairs = [pair(found, target, str(n), crowds=crowds[n]) for n, (found, target) in enumerate(zip(*data, strict=True))]
    if any(both.target.objects for both in pairs):
        assert own_values(pairs) == pytest.approx(coco_values(pairs, pycocotools_evaluator), abs=1e-9)


def test_a_prediction_on_a_crowd_is_neither_right_nor_wrong():
    target, crowd = graph([("dog", A)]), [SceneObject("dog", (20, 0, 60, 10))]
    found = graph([("dog", B), ("dog", C), ("dog", A)])
    assert own_values([pair(found, target)])["AP50"] == pytest.approx(1 / 3)
    assert own_values([pair(found, target, crowds=crowd)])["AP50"] == 1
    assert values([pair(found, target, crowds=crowd)])["greedy_precision"] == 1
    # two predictions fit the one target: the one that lies on the crowd may go without
    twice = graph([("dog", (0, 0, 10, 8)), ("dog", A)])
    for order in (twice, SceneGraph(twice.objects[::-1])):
        both = pair(order, target, crowds=[SceneObject("dog", (0, 0, 10, 8))])
        got = values([both])
        assert got["object_precision"] == got["object_f1"] == 1 and got["object_hallucination"] == 0
        assert matches_of(both).objects.f1 == 1
    for name, expected in (("object_precision", 1), ("object_hallucination", 0)):
        assert values([pair(found, target, crowds=crowd)])[name] == expected
    assert values([pair(found, target)])["object_hallucination"] == pytest.approx(2 / 3)


def test_thinning_takes_an_overlap_above_one_half():
    """The cat has an IoU of exactly 0.5 with the dog: it is not near it, and stays."""
    predicted = graph([("dog", (0, 0, 10, 10), 0.9), ("cat", (0, 0, 10, 5), 0.8), ("cow", (0, 0, 10, 6), 0.7)])
    target = graph([("dog", (0, 0, 10, 10))])
    assert kept_by_nms(collect([pair(predicted, target)], MetricOptions(task="det")).objects).tolist() == [1, 1, 0]
