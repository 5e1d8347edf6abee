"""Uploaded images: bytes of a stranger to pixels, within bounds, a few of them kept in memory."""

from __future__ import annotations

import io
import secrets
import struct
import threading
from collections import OrderedDict
from dataclasses import dataclass

from PIL import Image
from PIL.Image import Transpose

from scenerl.data.images import FORMATS, image_size, open_image
from scenerl.errors import DataError
from scenerl.types import Example, SceneGraph

KEPT_PIXELS = 120_000_000
"""Of all pictures in memory, three bytes each; the latest is always kept."""
SHOWN_SIDE = 1600
"""Longest side, in pixels, of the copy that the page shows."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""EXIF orientation to what makes the image upright."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Pixels as the model gets them, upright, and a WebP copy for the page. Boxes are in pixels of ``image``."""

    image: Image.Image
    shown: bytes

    @property
    def image_wh(self) -> tuple[int, int]:
        return self.image.size


def read_picture(content: bytes, max_pixels: int) -> Picture:
    """Decode an uploaded file. Unlike annotated images it is turned as its EXIF orientation says.

    Raises:
        DataError: not an image, damaged, or of more pixels; the message can be shown.
    """
    try:
        width, height = image_size(content, "the file")
        if width * height > max_pixels:
            raise DataError(f"the image is {width} x {height}; allowed: {max_pixels} pixels")
        image = open_image(Example("upload", width, height, SceneGraph(), content))
    except DataError as error:
        raise DataError(str(error).replace("image 'upload'", "the file")) from error
    turn = _TURNS.get(_orientation(content))
    image = image if turn is None else image.transpose(turn)
    shown = image.copy()
    shown.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    buffer = io.BytesIO()
    shown.save(buffer, "WEBP", quality=88)
    return Picture(image, buffer.getvalue())


def _orientation(content: bytes) -> object:
    """The EXIF orientation of an image file, None where there is none that can be read. Of TIFF, Pillow's decoder has
    seen to it."""
    try:
        with Image.open(io.BytesIO(content), formats=[kind for kind in FORMATS if kind in Image.OPEN]) as image:
            return None if image.format == "TIFF" else image.getexif().get(_ORIENTATION)
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error):
        return None  # the orientation is damaged; the pixels were not


class Pictures:
    """The last few pictures by id; an id cannot be guessed. Used by several threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Picture] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, picture: Picture) -> str:
        name = secrets.token_urlsafe(16)
        with self._lock:
            self._kept[name] = picture
            while len(self._kept) > 1 and sum(map(_num_pixels, self._kept.values())) > KEPT_PIXELS:
                self._kept.popitem(last=False)
        return name

    def get(self, name: str) -> Picture | None:
        with self._lock:
            if name in self._kept:
                self._kept.move_to_end(name)
            return self._kept.get(name)


def _num_pixels(picture: Picture) -> int:
    width, height = picture.image_wh
    return width * height
