"""Synthetic scenes: coloured shapes with exact boxes and relations, annotated as incompletely as real data sets are.

Scenes are drawn on a raster of 10 x 10 cells, so that every box is exact in steps of 100 on the 0-1000 scale. Each pair
of objects stands in exactly one relation, which the picture alone decides; scenes in which people would not agree on
it, because a pair is almost near or almost diagonal, are not drawn. How the pairs come about makes the predicates
long-tailed (``left of`` about fifteen times as common as ``in``).

The *complete* annotation lists every relation. The *sparse* one imitates Visual Genome: an annotator mentions each
relation with probability one half, in no particular order. A model that imitates such annotations learns to stop early,
because at every point "nothing more" is likelier than any single relation that is left: that is what reinforcement
learning can mend. Training rows are sparse; the test split is written both ways.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from scenerl.data.jsonl import write_jsonl
from scenerl.data.records import Record
from scenerl.data.rows import example_to_row
from scenerl.errors import DataError, UserError
from scenerl.types import Example, Relation, SceneGraph, SceneObject

CELLS = 10
NUM_OBJECTS = 3  # a crowded scene may end with two
CLASSES = ("apple", "book", "box", "grape", "lamp", "leaf")
PREDICATES = ("left of", "above", "near", "on", "in", "behind")
KEEP_PROBABILITY = 0.5
_FREQUENCY = {"apple": 0.24, "book": 0.20, "leaf": 0.17, "lamp": 0.14, "grape": 0.13, "box": 0.12}
_COLOUR = {
    "apple": (215, 50, 50),
    "book": (60, 90, 220),
    "box": (150, 95, 40),
    "grape": (150, 60, 200),
    "lamp": (235, 195, 30),
    "leaf": (50, 170, 60),
}
_NEAR_GAP = 1
_KEEP_NEAR = 0.3  # of the places that happen to be near something; all of them would make near twice as common
_APART = 3  # objects that are not near are this far apart, so that nothing is almost near
_DOMINANCE = 1.5  # how much larger the offset in the relation's direction is than the other: nothing is almost diagonal
_SPECIAL = (("on", 0.45), ("in", 0.35), ("behind", 0.2))

Cells = tuple[int, int, int, int]


def _pick_class(rng: random.Random) -> str:
    return rng.choices(list(_FREQUENCY), list(_FREQUENCY.values()))[0]


def gap(a: Cells, b: Cells) -> int:
    """Distance between two boxes in cells along the axis that separates them most; negative when they overlap."""
    return max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3])


def _fits(box: Cells, others: list[Cells]) -> bool:
    inside = box[0] >= 0 and box[1] >= 0 and box[2] <= CELLS and box[3] <= CELLS
    return inside and all(gap(box, other) >= 1 and _is_clear(box, other) for other in others)


def _free_box(rng: random.Random, label: str) -> Cells:
    low, high = (4, 5) if label == "box" else (2, 3)
    width = rng.randint(low, high)
    height = max(low, min(high, width + rng.randint(-1, 1)))
    x, y = rng.randint(0, CELLS - width), rng.randint(0, CELLS - height)
    return x, y, x + width, y + height


def _arranged_box(rng: random.Random, predicate: str, anchor: Cells) -> Cells:
    """A box for a new subject that stands in ``predicate`` to ``anchor``."""
    ax1, ay1, ax2, ay2 = anchor
    if predicate == "on":
        width, height = rng.randint(2, 3), rng.randint(2, 3)
        x = (ax1 + ax2 - width + rng.randint(0, 1)) // 2
        return x, ay1 - height, x + width, ay1
    if predicate == "in":
        size = 2
        x, y = rng.randint(ax1 + 1, ax2 - 1 - size), rng.randint(ay1 + 1, ay2 - 1 - size)
        return x, y, x + size, y + size
    # behind: shifted sideways so that about a third of it is covered
    width, height = 3, rng.randint(2, 3)
    x = ax2 - 1 if rng.random() < 0.5 else ax1 - width + 1
    y = ay1 + rng.randint(0, 1)
    return x, y, x + width, y + height


def _offset(a: Cells, b: Cells) -> tuple[float, float]:
    return (b[0] + b[2] - a[0] - a[2]) / 2, (b[1] + b[3] - a[1] - a[3]) / 2


def _is_clear(a: Cells, b: Cells) -> bool:
    """Whether a person would agree which relation the pair stands in: not almost near, not diagonal.

    What is near stands side by side, so that it is not taken for what is on top.
    """
    distance, (dx, dy) = gap(a, b), _offset(a, b)
    if distance <= _NEAR_GAP:
        return abs(dx) >= _DOMINANCE * abs(dy)
    return distance >= _APART and max(abs(dx), abs(dy)) >= _DOMINANCE * min(abs(dx), abs(dy))


def _relation(i: int, a: Cells, j: int, b: Cells) -> tuple[int, str, int]:
    """The relation that a pair without special arrangement stands in."""
    if gap(a, b) <= _NEAR_GAP:
        return i, "near", j
    dx, dy = _offset(a, b)
    if abs(dx) > abs(dy):
        return (i, "left of", j) if dx > 0 else (j, "left of", i)
    return (i, "above", j) if dy > 0 else (j, "above", i)


def _compose(rng: random.Random) -> tuple[list[tuple[str, Cells]], dict[tuple[int, int], str]]:
    """Objects in drawing order, and the special relations by (subject, object) index."""
    placed: list[tuple[str, Cells]] = []
    special: dict[tuple[int, int], str] = {}
    for _ in range(200):
        if len(placed) == NUM_OBJECTS:
            break
        label = _pick_class(rng)
        taken = {index for pair in special for index in pair}
        free = [k for k in range(len(placed)) if k not in taken]
        if free and rng.random() < 0.25:
            predicate = rng.choices([p for p, _ in _SPECIAL], [w for _, w in _SPECIAL])[0]
            anchors = [k for k in free if predicate != "in" or placed[k][0] == "box"]
            if predicate == "behind":  # of two shapes of one colour nobody sees which is behind
                anchors = [k for k in anchors if placed[k][0] != label]
            if not anchors or (predicate == "in" and label == "box"):
                continue
            anchor = rng.choice(anchors)
            box = _arranged_box(rng, predicate, placed[anchor][1])
            others = [b for k, (_, b) in enumerate(placed) if k != anchor]
            if not (_fits(box, others) and _fits(box, [])):
                continue
            special[len(placed), anchor] = predicate
        else:
            box = _free_box(rng, label)
            others = [b for _, b in placed]
            if not _fits(box, others):
                continue
            if min((gap(box, other) for other in others), default=CELLS) <= _NEAR_GAP and rng.random() > _KEEP_NEAR:
                continue
        placed.append((label, box))
    return placed, special


def _draw_shape(draw: ImageDraw.ImageDraw, label: str, box: tuple[float, ...], colour: tuple[int, int, int]) -> None:
    x1, y1, x2, y2 = box
    if label in ("apple", "grape"):
        draw.ellipse(box, fill=colour)
    elif label == "book":
        draw.rectangle(box, fill=colour)
    elif label == "box":
        draw.rectangle(box, outline=colour, width=4)
    elif label == "leaf":
        draw.polygon([(x1, y2), ((x1 + x2) / 2, y1), (x2, y2)], fill=colour)
    else:  # lamp: a four-pointed star that touches all four sides of its box
        cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
        tips = [(cx, y1), (x2, cy), (cx, y2), (x1, cy)]
        inner = [(cx + dx * (x2 - x1) / 6, cy + dy * (y2 - y1) / 6) for dx, dy in ((1, -1), (1, 1), (-1, 1), (-1, -1))]
        draw.polygon([point for pair in zip(tips, inner, strict=True) for point in pair], fill=colour)


def background(rng: random.Random, size: int) -> Image.Image:
    """Light that falls in from one corner: red fades from left to right, blue from top to bottom.

    The vision tower knows positions only relative to each other; the light tells a small one where in the picture a
    patch is, as sky and ground do in photographs.
    """
    fade = np.linspace(255, 155, size)
    pixels = np.empty((size, size, 3))
    pixels[..., 0] = fade[None, :]
    pixels[..., 1] = rng.randint(205, 255)
    pixels[..., 2] = fade[:, None]
    return Image.fromarray(pixels.round().astype(np.uint8))


def _render(rng: random.Random, placed: list[tuple[str, Cells]], special, size: int) -> Image.Image:
    image = background(rng, size)
    draw = ImageDraw.Draw(image)
    scale = size / CELLS
    hidden = {subject for (subject, _), predicate in special.items() if predicate == "behind"}
    for index in sorted(range(len(placed)), key=lambda k: k not in hidden):  # what is behind is drawn first
        label, box = placed[index]
        colour = tuple(max(0, min(255, channel + rng.randint(-15, 15))) for channel in _COLOUR[label])
        _draw_shape(draw, label, tuple(value * scale for value in box), colour)
    return image


def _graph(placed: list[tuple[str, Cells]], special: dict[tuple[int, int], str], size: int) -> SceneGraph:
    """Objects by class then place, relations by subject then object, boxes in pixels."""
    order = sorted(range(len(placed)), key=lambda k: (placed[k][0], placed[k][1]))
    rank = {old: new for new, old in enumerate(order)}
    relations = [(rank[s], predicate, rank[o]) for (s, o), predicate in special.items()]
    arranged = {frozenset(pair) for pair in special}
    for first in range(len(order)):
        for second in range(first + 1, len(order)):
            if frozenset((order[first], order[second])) not in arranged:
                relations.append(_relation(first, placed[order[first]][1], second, placed[order[second]][1]))
    scale = size / CELLS
    objects = tuple(
        SceneObject(label, tuple(round(value * scale, 2) for value in box)) for label, box in (placed[k] for k in order)
    )
    return SceneGraph(objects, tuple(Relation(s, p, o) for s, p, o in sorted(relations)))


def scene(seed: str, size: int = 112) -> tuple[Image.Image, SceneGraph]:
    """One scene with its complete graph.

    Args:
        seed: any text; the same text gives the same scene.
        size: width and height of the image in pixels.

    Returns:
        The image, and its graph: objects by class then place, relations by subject then object, boxes in pixels.
    """
    rng = random.Random(seed)
    placed, special = _compose(rng)
    image = _render(rng, placed, special, size)
    return image, _graph(placed, special, size)


def sparse(graph: SceneGraph, seed: str, keep: float = KEEP_PROBABILITY) -> SceneGraph:
    """The graph as a hurried annotator gives it: every relation with probability ``keep``, in random order.

    One is always there, as in VG150, which leaves out images without any.
    """
    rng = random.Random(seed)
    kept = [relation for relation in graph.relations if rng.random() < keep]
    if graph.relations and not kept:
        kept = [rng.choice(graph.relations)]
    rng.shuffle(kept)
    return SceneGraph(graph.objects, tuple(kept))


def detection_query(graph: SceneGraph, seed: str) -> tuple[SceneGraph, tuple[str, ...]]:
    """A detection task on a scene: the query, absent labels among it, and the graph that answers it."""
    rng = random.Random(seed)
    query = tuple(sorted(rng.sample(CLASSES, 3)))
    return SceneGraph(tuple(obj for obj in graph.objects if obj.label in query)), query


def make(
    out_dir: Path,
    num_train: int = 8000,
    num_test: int = 384,
    seed: int = 0,
    size: int = 112,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write ``train.jsonl``, ``test.jsonl`` (sparse), ``test_complete.jsonl``, the same as detection queries
    (``train_det.jsonl``, ``test_det.jsonl``), and ``images/``.

    The splits come from different seeds, so no scene is shared. Row files are written last and whole: a folder that
    has them is complete.

    Args:
        progress: called with 1 after each scene.
    """
    for name, value in (("num_train", num_train), ("num_test", num_test)):
        if value < 1:
            raise UserError(f"{name} is {value}; a split needs at least 1 scene")
    if size < 28:
        raise UserError(f"size is {size}; scenes are at least 28 pixels wide")
    out_dir = Path(out_dir)
    images = out_dir / "images"
    images.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", num_train), ("test", num_test)):
        rows, complete_rows, detection_rows = [], [], []
        for index in range(count):
            name = f"{split}_{index:05d}"
            key = f"{seed}/{name}"
            image, graph = scene(key, size)
            image.save(images / f"{name}.png", compress_level=1)
            file_name = f"{name}.png"
            example = Example(name, size, size, graph)
            rows.append(example_to_row(_with(example, sparse(graph, f"{key}/sparse")), file_name))
            complete_rows.append(example_to_row(example, file_name))
            found, query = detection_query(graph, f"{key}/query")
            detection_rows.append(example_to_row(_with(example, found, query), file_name))
            if progress:
                progress(1)
        write_jsonl(out_dir / f"{split}_det.jsonl", detection_rows)
        if split == "test":
            write_jsonl(out_dir / "test_complete.jsonl", complete_rows)
        write_jsonl(out_dir / f"{split}.jsonl", rows)


def _with(example: Example, graph: SceneGraph, query: tuple[str, ...] | None = None) -> Example:
    return Example(example.image_id, example.width, example.height, graph, example.image, query)


def load(count: int = 100, seed: int = 0, size: int = 112, complete: bool = False) -> Iterator[Example]:
    """Scenes made on the fly, without files: sparse annotations unless ``complete``; images as PNG bytes."""
    import io

    for index in range(count):
        key = f"{seed}/stream_{index:05d}"
        image, graph = scene(key, size)
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        shown = graph if complete else sparse(graph, f"{key}/sparse")
        yield Example(f"stream_{index:05d}", size, size, shown, buffer.getvalue())


def read(argument: str, split: str | None = None) -> Iterator[Record]:
    """``synthetic:count=100,seed=0``; splits ``sparse`` (as training data is annotated) and ``complete``."""
    return read_scenes(
        "synthetic", load, {"sparse": {"complete": False}, "complete": {"complete": True}}, argument, split
    )


def read_scenes(
    name: str,
    load_scenes: Callable[..., Iterator[Example]],
    splits: Mapping[str, Mapping[str, object]],
    argument: str,
    split: str | None,
) -> Iterator[Record]:
    """The records of a synthetic set.

    Args:
        splits: their names, the default first, with what each hands to ``load_scenes``.

    Raises:
        DataError: an unknown split or setting.
    """
    settings = {"count": 100, "seed": 0, "size": 112}
    if split is not None and split not in splits:
        raise DataError(f"{name} has no split {split!r}; allowed: {', '.join(splits)}")
    for part in filter(None, argument.split(",")):
        key, _, value = part.partition("=")
        if key not in settings or not value.isdecimal():
            raise DataError(
                f"{name}: {part!r} is not understood; allowed: {', '.join(settings)}, each =NUMBER, separated by commas"
            )
        settings[key] = int(value)
    examples = load_scenes(**settings, **splits[split or next(iter(splits))])
    return (Record(f"{name}, row {number}", example) for number, example in enumerate(examples, start=1))


def predicate_share(graph_count: int = 1000, seed: int = 0) -> dict[str, float]:
    """Share of each predicate among the complete relations of ``graph_count`` scenes (documentation and tests)."""
    counts = dict.fromkeys(PREDICATES, 0)
    for index in range(graph_count):
        for relation in scene(f"{seed}/share_{index}")[1].relations:
            counts[relation.predicate] += 1
    total = math.fsum(counts.values())
    return {predicate: count / total for predicate, count in counts.items()}
