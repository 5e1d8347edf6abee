"""Image files to pixels, with bounds: what a file claims is not believed until it is checked.

Boxes are in the frame of the pixels as stored, which is how the annotations of COCO, Visual Genome and PSG were made:
EXIF orientation is ignored. Only where a row's width and height fit the turned image and not the stored one is the
image turned. An image that has neither size is an error, because its boxes would silently be in a wrong frame.
"""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from scenerl.data.rows import DataError
from scenerl.types import Example

MAX_PIXELS = 80_000_000
"""Largest image that is decoded, in pixels: beyond it a small file could fill the memory."""

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""Formats that are decoded (GIF and TIFF: the first frame). Others, EPS for one, run more code than data needs."""


def open_image(example: Example) -> Image.Image:
    """The pixels of an example's image as a PIL image of mode RGB and of size ``example.image_wh``.

    Raises:
        DataError: there is no image, it is missing, truncated, not an image, too large or not of the size that the
            row states. The message names the image.
    """
    name = _name(example)
    if example.image is None:
        raise DataError(
            f"{name}: the row names no image; allowed: a file_name relative to the images/ folder beside "
            "the JSONL file, or absolute"
        )
    image = _open(example.image, name)
    try:
        image.load()
        if image.size != example.image_wh:
            image = _turned(image, example, name)
        return image if image.mode == "RGB" else image.convert("RGB")
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError) as error:
        # Pillow's decoders raise any of these on damaged files.
        if isinstance(error, DataError):
            raise
        raise DataError(f"{name}: the image cannot be decoded, it is truncated or damaged ({error})") from error


def image_size(image: Path | bytes, name: str) -> tuple[int, int]:
    """(width, height) of the stored pixels, read from the header alone.

    Raises:
        DataError: as :func:`open_image`, as far as the header tells.
    """
    with _open(image, name) as header:
        return header.size


def _name(example: Example) -> str:
    file = f" ({example.image})" if isinstance(example.image, Path) else ""
    return f"image {example.image_id!r}{file}"


def _open(source: Path | bytes, name: str) -> Image.Image:
    if isinstance(source, Path) and not source.is_file():
        raise DataError(f"{name}: there is no such image file")
    Image.init()  # all of Pillow's formats; without it only the commonest are known. Does nothing the second time.
    known = [kind for kind in FORMATS if kind in Image.OPEN]
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=known)
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: not an image that can be read; allowed: {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: more than {MAX_PIXELS} pixels") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError) as error:
        raise DataError(f"{name}: the image cannot be read ({error})") from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise DataError(f"{name}: {image.width} x {image.height} is more than {MAX_PIXELS} pixels")
    return image


def _turned(image: Image.Image, example: Example, name: str) -> Image.Image:
    turned = ImageOps.exif_transpose(image)
    if turned.size == example.image_wh:
        return turned
    raise DataError(
        f"{name}: the image is {image.width} x {image.height}, but its row says {example.width} x {example.height}"
    )
