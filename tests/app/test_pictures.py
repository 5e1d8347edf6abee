"""Uploaded files: what is shown is what the model gets, and nothing hostile gets that far."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from app.image_files import animated, encoded, header_bomb, png, two_colors
from scenerl.app import pictures
from scenerl.app.pictures import Pictures, read_picture
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
    picture = read_picture(content, MOST)
    assert (picture.image.mode, picture.image_wh) == ("RGB", (60, 40))
    (r, _, b), (r2, _, b2) = picture.image.getpixel((50, 20)), picture.image.getpixel((5, 20))
    assert r > 180 > 80 > b and b2 > 180 > 80 > r2
    assert Image.open(io.BytesIO(picture.shown)).size == (60, 40)


def test_sixteen_bits():
    content = encoded(Image.new("I;16", (30, 20), 40_000), "PNG")
    assert read_picture(content, MOST).image.mode == "RGB"


def test_of_an_animation_the_first_frame():
    r, g, b = read_picture(animated(), MOST).image.getpixel((10, 10))
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
    got = read_picture(content, MOST).image
    assert got.size == expected.size
    assert np.abs(np.asarray(got, float) - np.asarray(expected, float)).mean() < 10


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_exif_that_is_damaged_turns_nothing():
    content = encoded(two_colors(), "JPEG", exif=b"Exif\0\0II*\0" + b"\xff" * 30)
    assert read_picture(content, MOST).image_wh == (60, 40)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
def test_thin_images(size):
    assert read_picture(png(*size), MOST).image_wh == size


def test_large_images_are_shown_smaller():
    picture = read_picture(png(3000, 100), MOST)
    assert picture.image_wh == (3000, 100)
    assert Image.open(io.BytesIO(picture.shown)).size == (1600, 53)


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
        read_picture(content, MOST)
    assert "upload" not in str(error.value) and "\n" not in str(error.value)


def test_the_oldest_are_let_go(monkeypatch):
    monkeypatch.setattr(pictures, "KEPT_PIXELS", 5000)
    kept = Pictures()
    picture = read_picture(png(60, 40), MOST)
    names = [kept.add(picture) for _ in range(3)]
    assert [kept.get(name) is not None for name in names] == [False, True, True]
    assert kept.get("") is None
    alone = kept.add(read_picture(png(600, 40), MOST))
    assert kept.get(alone) is not None and kept.get(names[2]) is None
