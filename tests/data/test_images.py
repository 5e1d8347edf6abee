"""Images: good ones open as RGB, and no file can do harm."""

from __future__ import annotations

import io
import random
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from scenerl.data import images
from scenerl.data.images import image_size, open_image
from scenerl.data.rows import DataError
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


def test_exif_orientation_counts_only_where_the_row_says_so():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    data = encoded("JPEG", exif=exif)
    stored, turned = open_image(example(data)), open_image(example(data, (30, 40)))
    assert stored.size == (40, 30) and turned.size == (30, 40)
    assert turned.tobytes() == stored.transpose(Image.Transpose.ROTATE_270).tobytes()
    with pytest.raises(DataError, match="but its row says 50 x 50"):
        open_image(example(data, (50, 50)))


def test_limit_is_checked_before_decoding(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(DataError, match="40 x 30 is more than 100 pixels"):
        open_image(example(encoded()))
