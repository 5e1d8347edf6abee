"""Images: good ones open as RGB, and no file can do harm."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from scenerl.data import images
from scenerl.data.images import check_image, image_size, open_image, orientation_note, without_orientation
from scenerl.errors import DataError
from scenerl.types import Example, SceneGraph

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")


def encoded(kind: str = "PNG", size=(40, 30), mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    rng = random.Random(0)
    noise = Image.frombytes("RGB", size, rng.randbytes(3 * size[0] * size[1]))
    noise.convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def example(image: Path | bytes | None, size=(40, 30)) -> Example:
    return Example("a", *size, SceneGraph(), image)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("PNG", "RGB"),
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("PNG", "L"),
        ("PNG", "1"),
        ("JPEG", "RGB"),
        ("JPEG", "CMYK"),
        ("WEBP", "RGB"),
        ("GIF", "P"),
        ("BMP", "RGB"),
        ("TIFF", "RGB"),
    ],
)
def test_formats_and_modes_open_as_rgb_from_bytes_and_files(tmp_path, kind, mode):
    data = encoded(kind, mode=mode)
    path = tmp_path / "picture"
    path.write_bytes(data)
    for source in (data, path):
        picture = open_image(example(source))
        assert picture.mode == "RGB" and picture.size == (40, 30)
        assert image_size(source, "a") == (40, 30)


def test_missing_image(tmp_path):
    with pytest.raises(DataError, match=r"image 'a' \(.*none\.png\): there is no such image file"):
        open_image(example(tmp_path / "none.png"))
    with pytest.raises(DataError, match="there is no such image file"):
        open_image(example(tmp_path))
    with pytest.raises(DataError, match="the row names no image; allowed: a file_name"):
        open_image(example(None))


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"%!PS-Adobe-3.0 EPSF", b"{" * 1000]
)
def test_what_is_no_image(data):
    with pytest.raises(DataError, match="image 'a': .*(not an image that can be read|cannot be)"):
        open_image(example(data))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_at_any_byte(kind):
    data = encoded(kind)
    for length in range(0, len(data) * 9 // 10, 97):
        with pytest.raises(DataError, match="image 'a'"):
            open_image(example(data[:length]))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_damaged_bytes_open_or_give_a_data_error(kind):
    rng = random.Random(1)
    good = encoded(kind)
    for _ in range(150):
        data = bytearray(good)
        for _ in range(rng.randint(1, 8)):
            # The header is where damage does most.
            data[rng.randrange(len(data) if rng.random() < 0.3 else 60)] = rng.randrange(256)
        try:
            assert open_image(example(bytes(data))).mode == "RGB"
        except DataError:
            pass


def png_claiming(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(9000, 9000), (100_000, 100_000), (10_000_000, 10)])
def test_image_that_claims_to_be_huge_is_not_decoded(size):
    with pytest.raises(DataError, match="more than 80000000 pixels"):
        open_image(example(png_claiming(*size), size))


def test_size_that_differs_from_the_row():
    with pytest.raises(DataError, match="the image is 40 x 30, but its row says 41 x 30"):
        open_image(example(encoded(), (41, 30)))
    with pytest.raises(DataError, match="the image is 40 x 30, but its row says 30 x 40"):
        open_image(example(encoded(), (30, 40)))


def turned_by(orientation: int, size: tuple[int, int] = (40, 30), kind: str = "JPEG") -> bytes:
    """A picture whose left upper corner is red as stored, with an EXIF orientation."""
    image = Image.new("RGB", size, "blue")
    image.paste("red", (0, 0, size[0] // 2, size[1] // 2))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(image, kind, exif=exif)


def red_corner(picture: Image.Image) -> tuple[bool, bool]:
    """Whether the red quarter is on the right, and whether it is below."""
    red = np.asarray(picture, int)[..., 0] > 128
    height, width = red.shape
    return bool(red[:, width // 2 :].any()), bool(red[height // 2 :].any())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright_as_for_pillow_and_datasets(kind, orientation):
    data = turned_by(orientation, kind=kind)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert image_size(data, "a") == upright.size
    picture = open_image(example(data, upright.size))
    assert picture.size == upright.size and red_corner(picture) == red_corner(upright)
    check_image(example(data, upright.size))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])  # Pillow turns TIFF files itself
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_row_of_the_stored_size_is_about_the_pixels_as_stored(kind, orientation):
    data = turned_by(orientation, kind=kind)
    assert red_corner(open_image(example(data, (40, 30)))) == (False, False)
    right, below = red_corner(open_image(example(data, (30, 40))))
    assert (right, below) == (orientation in (6, 7), orientation in (7, 8))
    check_image(example(data, (40, 30)))
    with pytest.raises(DataError, match="but its row says 50 x 50"):
        open_image(example(data, (50, 50)))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
@pytest.mark.parametrize("size", [(40, 30), (30, 40)])
def test_what_is_exported_is_the_same_to_readers_that_turn_and_that_do_not(size, kind):
    one = example(turned_by(6, kind=kind), size)
    plain = Image.open(io.BytesIO(without_orientation(one).image))
    assert plain.getexif().get(0x0112) is None and plain.tobytes() == open_image(one).tobytes()
    upright = example(encoded("JPEG"))
    assert without_orientation(upright) is upright


def test_limit_is_checked_before_decoding(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(DataError, match="40 x 30 is more than 100 pixels"):
        open_image(example(encoded()))


def save(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_16_bits_is_scaled_and_not_cut_off(kind):
    levels = np.array([[0, 257 * 100], [257 * 200, 65535]], dtype=np.uint16)
    picture = open_image(example(save(Image.fromarray(levels), kind), (2, 2)))
    assert np.asarray(picture)[..., 0].tolist() == [[0, 100], [200, 255]]


@pytest.mark.parametrize("number", [np.int32, np.float32])
def test_pixels_of_32_bits_are_refused(number):
    data = save(Image.fromarray(np.full((2, 2), 3, dtype=number)), "TIFF")
    with pytest.raises(DataError, match="image 'a': its pixels are numbers of 32 bits"):
        open_image(example(data, (2, 2)))


def test_colours_of_cmyk():
    picture = open_image(example(save(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"), (8, 8)))
    assert np.abs(np.asarray(picture, dtype=int) - (255, 0, 0)).max() < 8


def test_what_cannot_be_seen_is_white():
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.putdata([0, 1])
    rgba = Image.new("RGBA", (2, 1), (9, 9, 9, 0))
    rgba.putpixel((1, 0), (255, 0, 0, 255))
    half = Image.new("LA", (2, 1), (0, 0))
    half.putpixel((1, 0), (0, 128))
    for data, second in (
        (save(palette, "PNG", transparency=0), (255, 0, 0)),
        (save(palette, "GIF", transparency=0), (255, 0, 0)),
        (save(rgba, "PNG"), (255, 0, 0)),
        (save(rgba, "WEBP", lossless=True), (255, 0, 0)),
        (save(half, "PNG"), (127, 127, 127)),
    ):
        picture = open_image(example(data, (2, 1)))
        assert [picture.getpixel((0, 0)), picture.getpixel((1, 0))] == [(255, 255, 255), second]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(kind):
    box_formats = [Image.new("RGB", (8, 6), color) for color in ("#ff0000", "#00ff00", "#0000ff")]
    data = save(box_formats[0], kind, save_all=True, append_images=box_formats[1:], duration=50)
    picture = open_image(example(data, (8, 6)))
    assert np.abs(np.asarray(picture, dtype=int) - (255, 0, 0)).max() < 8


def test_one_pixel():
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        assert open_image(example(encoded(kind, (1, 1)), (1, 1))).size == (1, 1)


def test_20000_by_20000_pixels_are_refused_by_the_header():
    with pytest.raises(DataError, match="image 'a': .*more than 80000000 pixels"):
        open_image(example(png_claiming(20_000, 20_000), (20_000, 20_000)))


def test_a_bomb_in_a_text_chunk_is_an_error():
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    good = encoded("PNG")
    bomb = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * 200_000_000))
    data = good[:33] + bomb + good[33:]  # after the header
    assert len(data) < 300_000
    with pytest.raises(DataError, match="image 'a'"):
        open_image(example(data))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_checking_without_decoding_finds_what_is_cut_off(tmp_path, kind, monkeypatch):
    data = encoded(kind)
    path = tmp_path / "picture"
    for length in (0, 10, len(data) // 2, len(data) * 9 // 10):
        path.write_bytes(data[:length])
        for source in (data[:length], path):
            with pytest.raises(DataError, match="image 'a'"):
                check_image(example(source))
    with pytest.raises(DataError, match="row says 41 x 30"):
        check_image(example(data, (41, 30)))
    with pytest.raises(DataError, match="the row names no image"):
        check_image(example(None))
    if kind in ("PNG", "JPEG", "WEBP"):  # the others do not say where they end
        monkeypatch.setattr(images, "open_image", lambda example: pytest.fail("it was decoded"))
    path.write_bytes(data)
    check_image(example(data))
    check_image(example(path))


def test_a_jpeg_with_bytes_after_its_end_is_good():
    check_image(example(encoded("JPEG") + b"\0" * 10))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "stored", "row", "said"),
    [
        (1, (40, 30), (40, 30), None),
        (6, (40, 30), (40, 30), None),  # the row has the size as stored
        (6, (40, 30), (30, 40), None),
        (6, (30, 30), (30, 30), "is turned upright by its EXIF orientation 6"),
        (3, (40, 30), (40, 30), "is turned upright by its EXIF orientation 3"),
        (99, (40, 30), (40, 30), None),
    ],
)
def test_orientations_that_leave_a_doubt_are_told(kind, orientation, stored, row, said):
    note = orientation_note(example(turned_by(orientation, stored, kind), row))
    assert note is None if said is None else said in note
