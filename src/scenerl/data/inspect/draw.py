"""Draw examples: the image with its boxes and labels, and the relations listed beside it."""

from __future__ import annotations

import colorsys
import math
import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from scenerl.data.images import open_image
from scenerl.types import Box, Example

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
    boxes = [[value * ratio[axis % 2] for axis, value in enumerate(item.box)] for item in example.graph.objects]
    for n, (x1, y1, x2, y2) in enumerate(boxes, start=1):
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=_colour(n), width=2)
    taken: list[Box] = []
    for n, (item, box) in enumerate(zip(example.graph.objects, boxes, strict=True), start=1):
        text = _shown(f"{item.label}.{n}")
        taken.append(_label_box(box, (draw.textlength(text, font) + 4, _FONT_SIZE + 4), size, taken))
        draw.rectangle(taken[-1], fill=_colour(n))
        draw.text((taken[-1][0] + 2, taken[-1][1]), text, fill="black", font=font)
    draw.rectangle((size[0], 0, canvas.width, canvas.height), fill="white")  # labels may have run into the panel
    for n, line in enumerate(lines):
        draw.text((size[0] + 10, 6 + n * _LINE), _shown(line), fill="black", font=font)
    return canvas


def _label_box(box: Sequence[float], size: tuple[float, float], canvas: tuple[int, int], taken: Sequence[Box]) -> Box:
    """Where the label of a box stands: at the first of its corners where it hides no other, else where it hides least.

    Args:
        box: x1, y1, x2, y2. size: width and height of the label. canvas: width and height that it stays in.
        taken: the labels that are there.
    """
    x1, y1, x2, y2 = box
    width, height = size
    corners = [
        (x1, y1 - height),
        (x1, y1),
        (x2 - width, y1 - height),
        (x1, y2 - height),
        (x1, y2),
        (x2, y1),
        (x2 - width, y2),
    ]
    best, least = None, math.inf
    for left, top in corners:
        left = max(0.0, min(left, canvas[0] - width))
        top = max(0.0, min(top, canvas[1] - height))
        place = left, top, left + width, top + height
        if (hidden := sum(_overlap(place, other) for other in taken)) < least:
            best, least = place, hidden
        if not hidden:
            break
    return best


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


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
