"""Image files to pixels, with bounds: what a file claims is not believed until it is checked.

Images are upright, turned as their EXIF orientation says: so do browsers, annotation tools and ``datasets``. Only
where a row's width and height are those of the pixels as stored, and not of the upright picture, are its boxes taken to
be in stored pixels. An image that has neither size is an error, because its boxes would silently be wrong; where both
have the row's size nobody can know, and :func:`orientation_note` says so.

Pixels are what a viewer shows: of an animation the first frame, transparent pixels on white, 16-bit grey as 8-bit.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from scenerl.errors import DataError
from scenerl.types import Example, StoredImage

MAX_PIXELS = 80_000_000
"""Largest image that is decoded, in pixels: beyond it a small file could fill the memory."""

ORIENTATION = 0x0112
"""EXIF's tag: 1 is upright, 6 and 8 are turned by a quarter, 3 by a half, the others mirrored."""

_TURNS = range(2, 9)
_BACK = {
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""Orientation to what takes upright pixels back to those that are stored."""

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""Formats that are decoded (GIF and TIFF: the first frame). Others, EPS for one, run more code than data needs."""

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError)
"""What Pillow's decoders raise on damaged files."""


def open_image(example: Example) -> Image.Image:
    """The pixels of an example's image as a PIL image of mode RGB and of size ``example.image_wh``.

    Raises:
        DataError: there is no image, it is missing, truncated, not an image, too large or not of the size that the
            row states. The message names the image.
    """
    name = _name(example)
    if example.image is None and example.tried:
        raise missing_file(name, example.tried)
    if example.image is None:
        raise DataError(
            f"{name}: the row names no image; allowed: a file_name relative to the images/ folder beside "
            "the JSONL file, or absolute"
        )
    image = _open(example.image, name, example.tried)
    try:
        return _as_rgb(_oriented(image, example, name), name)
    except _DAMAGE as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name}: the image cannot be decoded, it is truncated or damaged ({error})") from error


def check_image(example: Example) -> None:
    """As :func:`open_image`, but only from the header and the end of the file: a file that is whole is not decoded, so
    damage in the middle of it goes unseen.

    Raises:
        DataError: as :func:`open_image`.
    """
    if example.image is None:
        open_image(example)
    with _open(example.image, _name(example), example.tried) as image:
        is_whole = image.mode in _PLAIN_MODES and _ends_well(example.image, image)
        if not (is_whole and image.size == example.image_wh and _orientation(image) is None):
            open_image(example).close()


def orientation_note(example: Example) -> str | None:
    """A remark where an image has an EXIF orientation and its boxes may be those of the pixels as stored.

    Raises:
        DataError: as :func:`open_image`, as far as the header shows it.
    """
    with _open(example.image, _name(example), example.tried) as image:
        orientation = _orientation(image)
        upright, stored = _sizes(image, orientation)
        if orientation is None or not upright == stored == example.image_wh:
            return None
        return (
            f"{_name(example)}: is turned upright by its EXIF orientation {orientation}; are its boxes those of the "
            "upright picture?"
        )


def image_size(image: Path | bytes, name: str) -> tuple[int, int]:
    """(width, height) of the upright picture, read from the header alone.

    Raises:
        DataError: as :func:`open_image`, as far as the header shows it.
    """
    with _open(image, name) as header:
        return _sizes(header, _orientation(header))[0]


def without_orientation(example: Example) -> Example:
    """The example for readers that may or may not turn images: one with an EXIF orientation becomes a PNG of the pixels
    that its boxes are about, without the orientation.

    Raises:
        DataError: as :func:`open_image`.
    """
    with _open(example.image, _name(example), example.tried) as image:
        if _orientation(image) is None:
            return example
    buffer = io.BytesIO()
    open_image(example).save(buffer, "PNG")
    return replace(example, image=buffer.getvalue())


def _orientation(image: Image.Image) -> int | None:
    """The EXIF orientation of an opened file from 2 to 8; None where its pixels are upright. EXIF that cannot be read
    turns nothing."""
    if image.format == "PNG" and "exif" not in image.info:
        return None  # Pillow would decode the image to look for it at the end of the file
    try:
        orientation = image.getexif().get(ORIENTATION)
    except (*_DAMAGE, struct.error):
        return None
    return orientation if orientation in _TURNS else None


def _sizes(image: Image.Image, orientation: int | None) -> tuple[tuple[int, int], tuple[int, int]]:
    """The sizes of an opened file, upright and as its pixels are stored; orientations from 5 on are quarter turns.
    Pillow turns TIFF files itself when it decodes them, and states their size so from the start."""
    other = image.size[::-1] if orientation is not None and orientation >= 5 else image.size
    return (image.size, other) if image.format == "TIFF" else (other, image.size)


def _as_rgb(image: Image.Image, name: str) -> Image.Image:
    """The image as RGB: grey of 16 bits is scaled down, where Pillow cuts it off at 255; transparent pixels become
    white, where Pillow shows whatever lies behind them."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise DataError(f"{name}: its pixels are numbers of 32 bits, whose range is unknown; allowed: 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


_SHOWN = 12  # paths that a message lists
_PLAIN_MODES = ("RGB", "L", "P", "RGBA", "CMYK", "1", "LA")
_TAIL = 64


def _ends_well(source: Path | bytes | StoredImage, image: Image.Image) -> bool:
    """Whether the last bytes of a file are those that its format ends with; False where the format has none."""
    if isinstance(source, StoredImage):
        source = source.read_bytes()
    if isinstance(source, bytes):
        size, head, tail = len(source), source[:12], source[-_TAIL:]
    else:
        with source.open("rb") as file:
            head = file.read(12)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            tail = file.read()
    if image.format in ("JPEG", "MPO"):
        return tail.endswith(b"\xff\xd9")
    if image.format == "PNG":
        return tail.endswith(b"IEND\xaeB`\x82")
    return image.format == "WEBP" and int.from_bytes(head[4:8], "little") + 8 <= size


def _name(example: Example) -> str:
    file = f" ({example.image})" if isinstance(example.image, Path) else ""
    return f"image {example.image_id!r}{file}"


def missing_file(name: str, tried: Sequence[Path] = ()) -> DataError:
    """The error of an image file that is not there; it lists where the file was looked for."""
    places = ", ".join(map(str, tried[:_SHOWN])) + (f" and {len(tried) - _SHOWN} more" if len(tried) > _SHOWN else "")
    return DataError(f"{name}: there is no such image file" + (f"; tried: {places}" if tried else ""))


def _open(source: Path | bytes | StoredImage, name: str, tried: Sequence[Path] = ()) -> Image.Image:
    if isinstance(source, StoredImage):
        source = source.read_bytes()
    if isinstance(source, Path) and not source.is_file():
        raise missing_file(name, tried)
    Image.init()  # all of Pillow's formats; without it only the commonest are known. Does nothing the second time.
    known = [kind for kind in FORMATS if kind in Image.OPEN]
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=known)
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: not an image that can be read; allowed: {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: more than {MAX_PIXELS} pixels") from error
    except _DAMAGE as error:
        raise DataError(f"{name}: the image cannot be read ({error})") from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise DataError(f"{name}: {image.width} x {image.height} is more than {MAX_PIXELS} pixels")
    return image


def _oriented(image: Image.Image, example: Example, name: str) -> Image.Image:
    """The decoded pixels upright, or as stored where only that is the size of the row.

    Raises:
        DataError: neither is.
    """
    orientation = _orientation(image)  # decoding may drop it
    upright, stored = _sizes(image, orientation)
    is_turned = image.format == "TIFF"
    image.load()
    if upright == example.image_wh:
        if orientation is None or is_turned:
            return image
        image.getexif()[ORIENTATION] = orientation
        return ImageOps.exif_transpose(image)
    if stored == example.image_wh:
        return image.transpose(_BACK[orientation]) if is_turned else image
    raise DataError(
        f"{name}: the image is {image.width} x {image.height}, but its row says {example.width} x {example.height}"
    )
