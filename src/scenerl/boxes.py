"""Box arithmetic in numpy: ``xyxy``, any leading shape, both arguments in the same coordinates."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
_PAIRS = 2**14  # pairs of boxes whose numbers stay in the processor's cache


def as_boxes(boxes) -> Array:
    """Boxes as a float64 array of shape (N, 4); an empty sequence gives (0, 4)."""
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)


def area(boxes: Array, offset: float = 0.0) -> Array:
    """Areas of boxes (..., 4); reversed corners count as no area. ``offset`` as in :func:`iou_matrix`."""
    return _side(boxes[..., 0], boxes[..., 2], offset) * _side(boxes[..., 1], boxes[..., 3], offset)


def _side(low: Array, high: Array, offset: float) -> Array:
    """Lengths from ``low`` to ``high``, 0 where they are reversed. Columns of boxes, because numpy is slow on pairs."""
    side = high - low
    if offset:
        side += offset
    return np.maximum(side, 0.0, out=side)


_SIGNS = np.array([[-1.0], [-1.0], [1.0], [1.0]])


def _corners(boxes: Array) -> Array:
    """Boxes (N, 4) as (4, N), left and top negated.

    So one minimum over pairs of boxes finds all four sides of the overlap and one maximum those of the hull, and width
    and height are the sum of the halves. Arrays of a dozen boxes cost what their number of operations costs.
    """
    return np.multiply(boxes.T, _SIGNS, order="C")


def _area_between(corners: Array, offset: float = 0.0) -> Array:
    """Areas from (4, ...) corners of :func:`_corners`; reversed ones count as no area."""
    size = corners[:2] + corners[2:]
    if offset:
        size += offset
    np.maximum(size, 0.0, out=size)
    return size[0] * size[1]


def iou_and_union(a_N: Array, b_M: Array, offset: float = 0.0) -> tuple[Array, Array]:
    """As :func:`iou_matrix`, with the area of the union of every pair, (N, M), beside it."""
    a_4N, b_4M = _corners(a_N), _corners(b_M)
    overlap = _area_between(np.minimum(a_4N[:, :, None], b_4M[:, None, :]), offset)
    union = np.add.outer(_area_between(a_4N, offset), _area_between(b_4M, offset))
    union -= overlap
    iou = np.divide(overlap, union, out=np.zeros(overlap.shape), where=union > 0)
    return iou, union


def iou_matrix(a_N: Array, b_M: Array, offset: float = 0.0) -> Array:
    """Intersection over union of every pair.

    Args:
        a_N: (N, 4) boxes. b_M: (M, 4) boxes in the same coordinates.
        offset: added to widths and heights; 1.0 reproduces the evaluators descended from Motifs, whose boxes include
            their last pixel. Continuous coordinates, and everything else here, use 0.

    Returns:
        (N, M) in [0, 1]; 0 where the union has no area.

    >>> iou_matrix(as_boxes([[0, 0, 10, 10]]), as_boxes([[5, 0, 15, 10], [20, 20, 30, 30]])).round(4).tolist()
    [[0.3333, 0.0]]
    """
    return iou_and_union(a_N, b_M, offset)[0]


def overlap_of_pairs(a_N: Array, b_M: Array, n_C: Array, m_C: Array, offset: float = 0.0) -> Array:
    """Areas of the overlap of chosen pairs, (C,): box ``n_C`` of (N, 4) with box ``m_C`` of (M, 4).

    ``offset`` as in :func:`iou_matrix`.
    """
    a_4N, b_4M = np.ascontiguousarray(a_N.T), np.ascontiguousarray(b_M.T)
    overlap_C = np.empty(len(n_C))
    for start in range(0, len(n_C), _PAIRS):
        part = slice(start, start + _PAIRS)
        a_4C, b_4C = ([column.take(index[part]) for column in boxes] for boxes, index in ((a_4N, n_C), (b_4M, m_C)))
        width, height = (
            _side(np.maximum(a_4C[axis], b_4C[axis]), np.minimum(a_4C[axis + 2], b_4C[axis + 2]), offset)
            for axis in (0, 1)
        )
        np.multiply(width, height, out=overlap_C[part])
    return overlap_C


def share_inside(boxes_N: Array, regions_M: Array, n_C: Array, m_C: Array) -> Array:
    """How much of each box lies in a region: of the pairs of box ``n_C`` and region ``m_C`` the largest share of the
    box's area, (N,), 0 without a pair. COCO's overlap with a crowd region.

    >>> boxes, regions = as_boxes([[0, 0, 10, 10], [50, 0, 60, 10]]), as_boxes([[5, 0, 99, 10], [0, 0, 10, 2]])
    >>> share_inside(boxes, regions, np.array([0, 0, 1]), np.array([0, 1, 1])).tolist()
    [0.5, 0.0]
    """
    size_C = area(boxes_N)[n_C]
    overlap_C = overlap_of_pairs(boxes_N, regions_M, n_C, m_C)
    share_N = np.zeros(len(boxes_N))
    np.maximum.at(share_N, n_C, np.divide(overlap_C, size_C, out=np.zeros(len(n_C)), where=size_C > 0))
    return share_N


def iou_of_pairs(a_N: Array, b_M: Array, n_C: Array, m_C: Array, offset: float = 0.0) -> Array:
    """Intersection over union of chosen pairs, (C,): entries (n, m) of :func:`iou_matrix`, bit for bit.

    >>> boxes = as_boxes([[0, 0, 10, 10], [5, 0, 15, 10]])
    >>> iou_of_pairs(boxes, boxes, np.array([0, 1]), np.array([1, 1])).round(4).tolist()
    [0.3333, 1.0]
    """
    overlap = overlap_of_pairs(a_N, b_M, n_C, m_C, offset)
    union = area(a_N, offset).take(n_C) + area(b_M, offset).take(m_C)
    union -= overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def giou_matrix(a_N: Array, b_M: Array, iou_union: tuple[Array, Array] | None = None) -> Array:
    """Generalised IoU of every pair (Rezatofighi et al. 2019): IoU less the empty share of the enclosing box.

    Args:
        a_N: (N, 4) boxes. b_M: (M, 4) boxes in the same coordinates.
        iou_union: what :func:`iou_and_union` gave for them, where it is known already.

    Returns:
        (N, M) in [-1, 1]; boxes that enclose no area together give -1.
    """
    iou, union = iou_union or iou_and_union(a_N, b_M)
    hull = _area_between(np.maximum(_corners(a_N)[:, :, None], _corners(b_M)[:, None, :]))
    empty_share = np.divide(hull - union, hull, out=np.ones(hull.shape), where=hull > 0)
    return iou - empty_share


def l1_matrix(a_N: Array, b_M: Array) -> Array:
    """Sum of absolute coordinate differences of every pair, (N, M), in the units of the boxes."""
    difference = np.subtract(a_N.T[:, :, None], b_M.T[:, None, :], order="C")
    return np.add.reduce(np.abs(difference, out=difference))


def hull_of_pairs(a_C: Array, b_C: Array) -> Array:
    """The smallest boxes around both of each pair, (C, 4)."""
    return np.concatenate([np.minimum(a_C[:, :2], b_C[:, :2]), np.maximum(a_C[:, 2:], b_C[:, 2:])], axis=1)


def xyxy_to_xywh(boxes: Array) -> Array:
    """Corners to COCO's (x, y, width, height)."""
    boxes = np.asarray(boxes, dtype=np.float64)
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def rescale(boxes: Array, from_wh: tuple[float, float], to_wh: tuple[float, float]) -> Array:
    """Boxes of an image of size ``from_wh`` to the same image at size ``to_wh`` (no rounding, no clipping).

    Equal sizes may be unknown (0).
    """
    if tuple(from_wh) == tuple(to_wh):
        return np.asarray(boxes, dtype=np.float64)
    factor = np.array([to_wh[0] / from_wh[0], to_wh[1] / from_wh[1]] * 2)
    return np.asarray(boxes, dtype=np.float64) * factor


def clip(boxes: Array, image_wh: tuple[float, float]) -> Array:
    """Boxes cut to the image: x to [0, width], y to [0, height]."""
    limit = np.array([image_wh[0], image_wh[1]] * 2, dtype=np.float64)
    return np.clip(np.asarray(boxes, dtype=np.float64), 0.0, limit)
