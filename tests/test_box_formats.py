"""Coordinate frames: every one there and back, and wrong ones refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenerl.box_formats import BOX_FORMATS, extent_wh, from_pixels, to_pixels

SIZE = st.tuples(st.integers(1, 8000), st.integers(1, 8000))


def test_norm1000():
    # 640 x 480: x * 1000 / 640, y * 1000 / 480
    assert from_pixels([[64, 48, 320, 480]], "norm1000", (640, 480)).tolist() == [[100, 100, 500, 1000]]
    assert to_pixels([[100, 100, 500, 1000]], "norm1000", (640, 480)).tolist() == [[64, 48, 320, 480]]


def test_norm1_keeps_four_decimals():
    assert from_pixels([[1, 1, 2, 3]], "norm1", (3, 3)).tolist() == [[0.3333, 0.3333, 0.6667, 1.0]]


def test_resized_uses_the_input_size():
    # 1000 x 500 seen at 280 x 140
    assert from_pixels([[0, 0, 500, 250]], "resized", (1000, 500), (280, 140)).tolist() == [[0, 0, 140, 70]]
    with pytest.raises(ValueError, match="input_wh"):
        extent_wh("resized", (1000, 500))


def test_an_unknown_frame_is_refused_with_what_is_allowed():
    with pytest.raises(ValueError, match="'norm100'.*pixels, norm1000, norm1, resized"):
        to_pixels([[0, 0, 1, 1]], "norm100", (10, 10))


@pytest.mark.parametrize("box_format", BOX_FORMATS)
@given(image_wh=SIZE, input_wh=SIZE, corners=st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_round_trip_stays_within_half_a_unit(box_format, image_wh, input_wh, corners):
    pixels = np.array(corners) * np.array([*image_wh, *image_wh])
    size = extent_wh(box_format, image_wh, input_wh)
    unit = 1e-4 if box_format == "norm1" else 1.0
    written = from_pixels(pixels, box_format, image_wh, input_wh)
    back = to_pixels(written, box_format, image_wh, input_wh)
    half_unit_in_pixels = 0.5 * unit * np.array([*image_wh, *image_wh]) / np.array([*size, *size])
    assert (np.abs(back - pixels) <= half_unit_in_pixels * (1 + 1e-6)).all()
