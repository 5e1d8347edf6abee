"""Box arithmetic on boxes small enough to work out by hand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from scenerl import boxes
from scenerl.boxes import as_boxes

COORDINATE = st.integers(0, 60)
BOX = st.tuples(COORDINATE, COORDINATE, st.integers(1, 40), st.integers(1, 40)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
BOXES = st.lists(BOX, min_size=1, max_size=5).map(as_boxes)


def test_as_boxes_of_nothing_has_four_columns():
    assert as_boxes([]).shape == (0, 4)
    assert as_boxes([(1, 2, 3, 4)]).dtype == np.float64


def test_area():
    # 10 x 20; a reversed corner has no area; with the added pixel 11 x 21
    assert boxes.area(as_boxes([[0, 0, 10, 20], [10, 0, 0, 20]])).tolist() == [200, 0]
    assert boxes.area(as_boxes([[0, 0, 10, 20]]), offset=1.0).tolist() == [231]


def test_iou():
    a = as_boxes([[0, 0, 10, 10]])
    b = as_boxes([[5, 0, 15, 10], [0, 0, 10, 10], [10, 0, 20, 10], [2, 2, 4, 4]])
    # half overlaps: 50 / (100 + 100 - 50); itself; touching edges share nothing; 4 of 100
    assert_allclose(boxes.iou_matrix(a, b), [[1 / 3, 1, 0, 0.04]])


def test_iou_with_the_added_pixel():
    # 11 x 11 boxes that share 6 x 11: 66 / (121 + 121 - 66)
    assert_allclose(boxes.iou_matrix(as_boxes([[0, 0, 10, 10]]), as_boxes([[5, 0, 15, 10]]), offset=1.0), [[66 / 176]])


def test_iou_of_boxes_without_area_is_zero_not_nan():
    point = as_boxes([[5, 5, 5, 5]])
    assert boxes.iou_matrix(point, point).tolist() == [[0.0]]


def test_giou():
    a = as_boxes([[0, 0, 10, 10]])
    b = as_boxes([[5, 0, 15, 10], [20, 0, 30, 10], [0, 0, 10, 10]])
    # hull 15 x 10 is full: IoU alone; hull 30 x 10 has 100 of 300 empty and no overlap; itself
    assert_allclose(boxes.giou_matrix(a, b), [[1 / 3, -1 / 3, 1]])
    point = as_boxes([[5, 5, 5, 5]])
    assert boxes.giou_matrix(point, point).tolist() == [[-1.0]]


def test_l1():
    assert boxes.l1_matrix(as_boxes([[0, 0, 10, 10]]), as_boxes([[1, 2, 13, 14]])).tolist() == [[1 + 2 + 3 + 4]]


def test_matrices_of_nothing_keep_their_shape():
    some, none = as_boxes([[0, 0, 1, 1], [0, 0, 2, 2]]), as_boxes([])
    for function in (boxes.iou_matrix, boxes.giou_matrix, boxes.l1_matrix):
        assert function(some, none).shape == (2, 0)
        assert function(none, some).shape == (0, 2)


def test_conversions():
    assert boxes.xyxy_to_xywh([[1, 2, 4, 6]]).tolist() == [[1, 2, 3, 4]]
    assert boxes.rescale([[10, 10, 20, 20]], (100, 50), (1000, 1000)).tolist() == [[100, 200, 200, 400]]
    assert boxes.clip([[-5, 5, 120, 60]], (100, 50)).tolist() == [[0, 5, 100, 50]]


@given(BOXES, BOXES)
def test_iou_and_giou_are_symmetric_and_in_range(a, b):
    iou, giou = boxes.iou_matrix(a, b), boxes.giou_matrix(a, b)
    assert_allclose(iou, boxes.iou_matrix(b, a).T)
    assert_allclose(giou, boxes.giou_matrix(b, a).T)
    known, union = boxes.iou_and_union(a, b)
    assert (known == iou).all() and (boxes.giou_matrix(a, b, (known, union)) == giou).all()
    assert_allclose(boxes.area(a)[:, None] + boxes.area(b), union * (1 + iou))  # overlap and union are both areas
    assert ((iou >= 0) & (iou <= 1)).all()
    assert ((giou > -1) & (giou <= iou + 1e-12)).all()
    assert (np.diag(boxes.iou_matrix(a, a)) == 1).all()


@given(BOXES)
def test_xywh_round_trip(a):
    corner, size = np.split(boxes.xyxy_to_xywh(a), 2, axis=1)
    assert (np.hstack([corner, corner + size]) == a).all()


NUMBERS = st.tuples(*[st.floats(0, 1000)] * 8)


@given(st.lists(NUMBERS, min_size=1, max_size=6).map(np.array), st.sampled_from([0.0, 1.0]))
def test_pairs_are_the_diagonal_of_the_matrix_to_the_last_bit(rows, offset):
    a, b = rows[:, :4], rows[:, 4:]
    n, m = (index.ravel() for index in np.indices((len(a), len(b))))
    assert boxes.iou_of_pairs(a, b, n, m, offset).tolist() == boxes.iou_matrix(a, b, offset).ravel().tolist()


def test_hulls_and_overlaps_of_pairs():
    a, b = as_boxes([[0, 0, 4, 4], [0, 0, 1, 1]]), as_boxes([[2, 1, 6, 3], [5, 5, 6, 7]])
    assert boxes.overlap_of_pairs(a, b, np.arange(2), np.arange(2)).tolist() == [4.0, 0.0]  # 2 x 2, and none
    assert boxes.hull_of_pairs(a, b).tolist() == [[0, 0, 6, 4], [0, 0, 6, 7]]
