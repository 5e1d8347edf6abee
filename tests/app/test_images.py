"""Uploaded files: what is shown is what the model gets, and nothing hostile gets that far."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from app.image_files import animated, encoded, header_bomb, png, two_colors
from scenerl.app.answer import read_image
from scenerl.errors import DataError

MOST = 1_000_000


@pytest.mark.parametrize(
    "content",
    [
        encoded(two_colors(), "PNG"),
        encoded(two_colors(), "JPEG", quality=95),
        encoded(two_colors(), "WEBP", lossless=True),
        encoded(two_colors(), "BMP"),
        encoded(two_colors(), "TIFF"),
        encoded(two_colors(), "GIF"),
        encoded(two_colors().convert("CMYK"), "JPEG", quality=95),
        encoded(two_colors().convert("P"), "PNG"),
        encoded(two_colors().convert("RGBA"), "PNG"),
    ],
    ids=["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "CMYK", "P", "RGBA"],
)
def test_formats_and_modes(content):
    image = read_image(content, MOST)
    assert (image.mode, image.size) == ("RGB", (60, 40))
    (r, _, b), (r2, _, b2) = image.getpixel((50, 20)), image.getpixel((5, 20))
    assert r > 180 > 80 > b and b2 > 180 > 80 > r2


def test_sixteen_bits():
    content = encoded(Image.new("I;16", (30, 20), 40_000), "PNG")
    assert read_image(content, MOST).mode == "RGB"


def test_of_an_animation_the_first_frame():
    r, g, b = read_image(animated(), MOST).getpixel((10, 10))
    assert r > 200 and g < 60 and b < 60


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("orientation", range(10))
def test_upright_as_exif_says(kind, mode, orientation):
    """As Pillow turns a decoded image; 0 and 9 are no orientations."""
    if (kind, mode) == ("JPEG", "RGBA"):
        return
    image = two_colors().convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.getexif()[0x0112] = orientation
    content = encoded(two_colors().convert(mode), kind, exif=exif if kind == "TIFF" else exif.tobytes())
    expected = ImageOps.exif_transpose(image).convert("RGB")
    got = read_image(content, MOST)
    assert got.size == expected.size
    assert np.abs(np.asarray(got, float) - np.asarray(expected, float)).mean() < 10


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_exif_that_is_damaged_turns_nothing():
    content = encoded(two_colors(), "JPEG", exif=b"Exif\0\0II*\0" + b"\xff" * 30)
    assert read_image(content, MOST).size == (60, 40)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
def test_thin_images(size):
    assert read_image(png(*size), MOST).size == size


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not an image"),
        (b"hello", "not an image"),
        (b"%PDF-1.7 " + bytes(100), "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image"),
        (png(60, 40)[:60], "truncated or damaged"),
        (encoded(two_colors(600, 400), "JPEG")[:2000], "truncated or damaged"),
        (png(60, 40)[:8] + bytes(40), "the file"),
        (png(2000, 501), "2000 x 501; allowed: 1000000 pixels"),
        (header_bomb(), "more than 80000000 pixels"),
        (header_bomb(8000, 8000), "8000 x 8000; allowed"),
        (header_bomb(2**31 - 1, 2**31 - 1), "the file"),
    ],
    ids=range(11),
)
def test_what_is_no_image_is_named(content, says):
    with pytest.raises(DataError, match=says) as error:
        read_image(content, MOST)
    assert "upload" not in str(error.value) and "\n" not in str(error.value)
