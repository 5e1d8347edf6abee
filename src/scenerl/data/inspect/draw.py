"""Draw examples: the image with its boxes and labels, and the relations listed beside it."""

from __future__ import annotations

import colorsys
import random
import re
from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from scenerl.data.images import open_image
from scenerl.types import Example

_MIN_SIDE, _MAX_SIDE = 480, 1600  # of the drawn image: small ones are enlarged until their labels can be read
_FONT_SIZE = 14
_LINE = 20
_PANEL = 360


def choose(examples: Iterable[Example], count: int, seed: int = 0) -> list[Example]:
    """``count`` examples drawn at random from a stream, in its order; holds no more than those."""
    rng = random.Random(seed)
    kept: list[tuple[int, Example]] = []
    for n, example in enumerate(examples):
        if n < count:
            kept.append((n, example))
        elif (place := rng.randrange(n + 1)) < count:
            kept[place] = (n, example)
    return [example for _, example in sorted(kept, key=lambda pair: pair[0])]


def draw_example(example: Example) -> Image.Image:
    """The example as a picture: boxes with ``label.N``, and a panel that lists the relations or the query.

    Raises:
        DataError: the image cannot be opened.
    """
    picture = open_image(example)
    scale = min(max(1.0, _MIN_SIDE / min(picture.size)), max(_MAX_SIDE / max(picture.size), 0.05))
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    lines = _lines(example)
    canvas = Image.new("RGB", (size[0] + _PANEL, max(size[1], _LINE * (len(lines) + 1))), "white")
    canvas.paste(picture.resize(size), (0, 0))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(_FONT_SIZE)
    ratio = size[0] / example.width, size[1] / example.height
    for n, found in enumerate(example.graph.objects, start=1):
        x1, y1, x2, y2 = (value * ratio[axis % 2] for axis, value in enumerate(found.box))
        colour = _colour(n)
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=2)
        text = _shown(f"{found.label}.{n}")
        place = draw.textbbox((x1 + 2, max(0, y1 - _FONT_SIZE - 3)), text, font=font)
        draw.rectangle((place[0] - 2, place[1] - 1, place[2] + 2, place[3] + 1), fill=colour)
        draw.text((x1 + 2, max(0, y1 - _FONT_SIZE - 3)), text, fill="black", font=font)
    draw.rectangle((size[0], 0, canvas.width, canvas.height), fill="white")  # labels may have run into the panel
    for n, line in enumerate(lines):
        draw.text((size[0] + 10, 6 + n * _LINE), _shown(line), fill="black", font=font)
    return canvas


def write_drawings(examples: Iterable[Example], out_dir: Path) -> list[Path]:
    """Draw each example into ``out_dir`` as ``<image_id>.png``.

    Raises:
        DataError: an image cannot be opened.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = []
    for n, example in enumerate(examples):
        path = out_dir / f"{n:03d}_{file_stem(example.image_id)}.png"
        draw_example(example).save(path)
        paths.append(path)
    return paths


def file_stem(image_id: str) -> str:
    """An image id as part of a file name: letters, digits, dash, dot and underscore, at most 80 of them."""
    return re.sub(r"[^\w.-]", "_", image_id, flags=re.ASCII)[:80].lstrip(".") or "image"


def _lines(example: Example) -> list[str]:
    objects = example.graph.objects
    title = f"{example.image_id}: {example.width} x {example.height}"
    if example.query is not None:
        present = {found.label for found in objects}
        return [title, "query:", *(f"{label}{'' if label in present else '  (absent)'}" for label in example.query)]
    ids = [f"{found.label}.{n}" for n, found in enumerate(objects, start=1)]
    relations = [
        f"{ids[relation.subject]}  {relation.predicate}  {ids[relation.object]}" for relation in example.graph.relations
    ]
    return [title, *(relations or ["no relations"])]


def _colour(n: int) -> tuple[int, int, int]:
    """Bright colours; neighbours in number differ in hue by the golden angle."""
    red, green, blue = colorsys.hsv_to_rgb(n * 0.618 % 1, 0.55, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def _shown(text: str, limit: int = 48) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
