"""The only box arithmetic of the project: numpy, ``xyxy``, any leading shape, any one frame for both arguments."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def as_boxes(boxes) -> Array:
    """Boxes as a float64 array of shape (N, 4); an empty sequence gives (0, 4)."""
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4)


def area(boxes: Array, offset: float = 0.0) -> Array:
    """Areas of boxes (..., 4); reversed corners count as no area. ``offset`` as in :func:`iou_matrix`."""
    size = np.maximum(boxes[..., 2:] - boxes[..., :2] + offset, 0.0)
    return size[..., 0] * size[..., 1]


def _intersection(a_N: Array, b_M: Array, offset: float) -> Array:
    top_left = np.maximum(a_N[:, None, :2], b_M[None, :, :2])
    bottom_right = np.minimum(a_N[:, None, 2:], b_M[None, :, 2:])
    size = np.maximum(bottom_right - top_left + offset, 0.0)
    return size[..., 0] * size[..., 1]


def iou_matrix(a_N: Array, b_M: Array, offset: float = 0.0) -> Array:
    """Intersection over union of every pair.

    Args:
        a_N: (N, 4) boxes. b_M: (M, 4) boxes of the same frame.
        offset: added to widths and heights; 1.0 reproduces the evaluators descended from Motifs, whose boxes include
            their last pixel. Continuous coordinates, and everything else here, use 0.

    Returns:
        (N, M) in [0, 1]; 0 where the union has no area.

    >>> iou_matrix(as_boxes([[0, 0, 10, 10]]), as_boxes([[5, 0, 15, 10], [20, 20, 30, 30]])).round(4).tolist()
    [[0.3333, 0.0]]
    """
    overlap = _intersection(a_N, b_M, offset)
    union = area(a_N, offset)[:, None] + area(b_M, offset)[None, :] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)


def giou_matrix(a_N: Array, b_M: Array) -> Array:
    """Generalised IoU of every pair (Rezatofighi et al. 2019): IoU less the empty share of the enclosing box.

    Returns:
        (N, M) in [-1, 1]; boxes that enclose no area together give -1.
    """
    overlap = _intersection(a_N, b_M, 0.0)
    union = area(a_N)[:, None] + area(b_M)[None, :] - overlap
    top_left = np.minimum(a_N[:, None, :2], b_M[None, :, :2])
    bottom_right = np.maximum(a_N[:, None, 2:], b_M[None, :, 2:])
    hull = area(np.concatenate([top_left, bottom_right], axis=-1))
    iou = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    empty_share = np.divide(hull - union, hull, out=np.ones_like(hull), where=hull > 0)
    return iou - empty_share


def l1_matrix(a_N: Array, b_M: Array) -> Array:
    """Sum of absolute coordinate differences of every pair, (N, M), in the units of the boxes."""
    return np.abs(a_N[:, None, :] - b_M[None, :, :]).sum(axis=-1)


def xywh_to_xyxy(boxes: Array) -> Array:
    """COCO's (x, y, width, height) to corners."""
    boxes = np.asarray(boxes, dtype=np.float64)
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def xyxy_to_xywh(boxes: Array) -> Array:
    """Corners to COCO's (x, y, width, height)."""
    boxes = np.asarray(boxes, dtype=np.float64)
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def rescale(boxes: Array, from_wh: tuple[float, float], to_wh: tuple[float, float]) -> Array:
    """Boxes of an image of size ``from_wh`` to the same image at size ``to_wh`` (no rounding, no clipping)."""
    factor = np.array([to_wh[0] / from_wh[0], to_wh[1] / from_wh[1]] * 2)
    return np.asarray(boxes, dtype=np.float64) * factor


def clip(boxes: Array, image_wh: tuple[float, float]) -> Array:
    """Boxes cut to the image: x to [0, width], y to [0, height]."""
    limit = np.array([image_wh[0], image_wh[1]] * 2, dtype=np.float64)
    return np.clip(np.asarray(boxes, dtype=np.float64), 0.0, limit)
