"""Detection rewards by hand, and average precision against pycocotools."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from scenerl.rewards import REWARDS, Comparison
from scenerl.types import ParseResult, SceneGraph, SceneObject

A, B = (0, 0, 10, 10), (20, 0, 30, 10)
A_06 = (0, 0, 10, 6)  # IoU 0.6 with A
NOWHERE = (80, 80, 90, 90)


def graph(*objects) -> SceneGraph:
    return SceneGraph(tuple(SceneObject(label, tuple(map(float, box))) for label, box in objects))


def value(name: str, predicted: SceneGraph, target: SceneGraph, crowds=()) -> float:
    return REWARDS[name](Comparison(ParseResult("ok", predicted), target, (100, 100), crowds=crowds))


def test_ap_of_one_box_counts_the_thresholds_it_passes():
    # IoU 0.6 passes 0.50, 0.55 and 0.60 of ten; COCO's 0.6 is the float 0.6
    assert value("ap", graph(("cat", A_06)), graph(("cat", A))) == pytest.approx(0.3)
    assert value("ap50", graph(("cat", A_06)), graph(("cat", A))) == 1.0


def test_ap_follows_the_order_of_emission():
    target = graph(("cat", A), ("cat", B))
    # right, wrong, right: precision 1 up to recall 0.5 (51 points), then 2/3 (50 points)
    late = graph(("cat", A), ("cat", NOWHERE), ("cat", B))
    assert value("ap", late, target) == pytest.approx((51 + 50 * 2 / 3) / 101)
    # wrong first: precision 1/2 at the first hit, raised to 2/3 by the second
    early = graph(("cat", NOWHERE), ("cat", A), ("cat", B))
    assert value("ap", early, target) == pytest.approx(2 / 3)
    # wrong last costs nothing in AP, but length does: 2 targets for 3 boxes
    last = graph(("cat", A), ("cat", B), ("cat", NOWHERE))
    assert value("ap", last, target) == 1.0
    assert value("od_length", last, target) == pytest.approx(2 / 3)


def test_half_of_the_targets_is_just_over_half_of_the_points():
    # recall 0.5 covers the points 0.00 to 0.50: 51 of 101
    assert value("ap", graph(("cat", A)), graph(("cat", A), ("cat", B))) == pytest.approx(51 / 101)
    assert value("od_length", graph(("cat", A)), graph(("cat", A), ("cat", B))) == pytest.approx(51 / 101)


def test_ap_is_the_mean_over_the_targets_labels_and_ignores_others():
    target = graph(("cat", A), ("dog", B))
    assert value("ap", graph(("cat", A), ("cow", B)), target) == 0.5
    assert value("ap", graph(("cat", A), ("dog", B), ("cow", B)), target) == 1.0
    assert value("od_length", graph(("cat", A), ("dog", B), ("cow", B)), target) == pytest.approx(2 / 3)


def test_a_second_box_on_the_same_target_is_a_false_alarm():
    # right, double, right
    predicted = graph(("cat", A), ("cat", A), ("cat", B))
    assert value("ap", predicted, graph(("cat", A), ("cat", B))) == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_weighted_sum():
    target = graph(("cat", A), ("dog", B))
    # The cat with IoU 0.6, a cow for the dog: position 0.6 / 2, miss rate 1/2, false alarm rate 1/2.
    predicted = graph(("cat", A_06), ("cow", B))
    assert value("weighted_sum", predicted, target) == pytest.approx(0.7 * 0.3 + 0.3 * (1 - 0.5))
    # One more wrong box: false alarm rate 2/3.
    more = graph(("cat", A_06), ("cow", B), ("cat", NOWHERE))
    assert value("weighted_sum", more, target) == pytest.approx(0.7 * 0.3 + 0.3 * (1 - (1 / 2 + 2 / 3) / 2))


def test_weighted_sum_matches_the_highest_iou_first():
    # Two boxes for one cat: the better one is taken although it comes second. False alarm rate 1/2.
    predicted = graph(("cat", A_06), ("cat", A))
    assert value("weighted_sum", predicted, graph(("cat", A))) == pytest.approx(0.7 + 0.3 * 0.75)


def test_boxes_below_the_threshold_are_not_matched():
    assert value("weighted_sum", graph(("cat", (0, 0, 10, 4))), graph(("cat", A))) == 0.0


def test_boxes_on_a_crowd_are_neither_right_nor_wrong():
    target, crowd = graph(("cat", A)), graph(("cat", (20, 0, 60, 10))).objects
    # two boxes on the crowd and one on the cat; one of four tenths on the crowd; one of another label
    predicted = graph(("cat", B), ("cat", (40, 0, 50, 10)), ("cat", A))
    expected = {"ap": 1, "od_length": 1, "weighted_sum": 1, "hallucination": 0, "box_count": 1}
    assert {name: value(name, predicted, target, crowd) for name in expected} == expected
    assert value("od_length", predicted, target) == pytest.approx(1 / 9)  # precision 1/3, 1 target for 3 boxes
    for wrong in (("cat", (56, 0, 66, 10)), ("dog", B)):
        more = graph(*((item.label, item.box) for item in predicted.objects), wrong)
        assert value("ap", more, target, crowd) == 1.0
        assert value("od_length", more, target, crowd) == value("box_count", more, target, crowd) == 1 / 2
        assert value("hallucination", more, target, crowd) == 1 / 2
        assert value("weighted_sum", more, target, crowd) == pytest.approx(0.7 + 0.3 * 0.75)


def test_a_crowd_with_nothing_else():
    crowd, nothing = graph(("cat", (0, 0, 60, 10))).objects, graph()
    for name in ("ap", "od_length", "weighted_sum", "box_count"):
        assert value(name, graph(("cat", A), ("cat", B)), nothing, crowd) == 1.0, name
        assert value(name, graph(("cat", A), ("cat", NOWHERE)), nothing, crowd) == 0.0, name
    assert value("ap", graph(("cat", A)), graph(("cat", NOWHERE)), crowd) == 0.0
    assert value("hallucination", graph(("cat", A)), nothing, crowd) == 0.0


# COCO


def coco_ap(predicted: SceneGraph, target: SceneGraph, crowds: tuple[SceneObject, ...] = ()) -> tuple[float, float]:
    """AP and AP50 of pycocotools for one image with all scores 1."""
    labels = sorted({item.label for item in (*predicted.objects, *target.objects, *crowds)})

    def entry(item: SceneObject, index: int, crowd: int = 0) -> dict:
        x1, y1, x2, y2 = item.box
        box = [x1, y1, x2 - x1, y2 - y1]
        return {
            "id": index,
            "image_id": 1,
            "category_id": labels.index(item.label) + 1,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": crowd,
            "score": 1.0,
        }

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": 1, "width": 100, "height": 100}],
            "categories": [{"id": index + 1, "name": label} for index, label in enumerate(labels)],
            "annotations": [entry(item, index) for index, item in enumerate(target.objects, start=1)]
            + [entry(item, index, 1) for index, item in enumerate(crowds, start=100)],
        }
        truth.createIndex()
        results = truth.loadRes([entry(item, index) for index, item in enumerate(predicted.objects, start=1)])
        evaluator = COCOeval(truth, results, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
    precision = evaluator.eval["precision"][:, :, :, 0, -1]  # all areas, at most 100 detections
    present = precision[:, :, precision[0, 0] > -1]
    return float(np.mean(present)), float(np.mean(present[0]))


# Small whole coordinates: many overlaps, many equal IoU, and boxes that pycocotools reads without rounding.
POSITION = st.integers(0, 6)
SIDE = st.integers(6, 12)
BOX = st.tuples(POSITION, POSITION, SIDE, SIDE).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
OBJECTS = st.lists(st.tuples(st.sampled_from(["cat", "dog", "cow"]), BOX), min_size=1, max_size=9)


@settings(max_examples=200)
@given(OBJECTS, OBJECTS, st.lists(st.tuples(st.sampled_from(["cat", "dog"]), BOX), max_size=2))
def test_ap_equals_pycocotools(predicted, target, crowds):
    predicted, target, crowds = graph(*predicted), graph(*target), graph(*crowds).objects
    expected, expected_50 = coco_ap(predicted, target, crowds)
    assert value("ap", predicted, target, crowds) == pytest.approx(expected, abs=1e-9)
    assert value("ap50", predicted, target, crowds) == pytest.approx(expected_50, abs=1e-9)


def test_ap_equals_pycocotools_with_many_boxes():
    random = np.random.default_rng(0)
    corners = random.integers(0, 60, (150, 2))
    boxes = np.concatenate([corners, corners + random.integers(10, 30, (150, 2))], axis=1)
    # 150 targets of one label: more hits than recall points; 260 predictions: more than COCO looks at
    target = graph(*(("cat", box) for box in boxes))
    moved = np.concatenate([boxes, boxes[:110]]) + random.integers(0, 3, (260, 1))
    predicted = graph(*(("cat", box) for box in moved))
    expected, expected_50 = coco_ap(predicted, target)
    assert 0.1 < expected < expected_50
    assert value("ap", predicted, target) == pytest.approx(expected, abs=1e-9)
    assert value("ap50", predicted, target) == pytest.approx(expected_50, abs=1e-9)
