"""Which images the gallery shows, and what they share on the page."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenerl.data.jsonl import read_jsonl
from scenerl.data.rows import parse_row
from scenerl.errors import UserError
from scenerl.report.card import Card, make_card
from scenerl.report.hits import compare
from scenerl.report.manifest import Manifest, Target
from scenerl.report.predictions import image_id_of, read_predictions, stream_predictions
from scenerl.report.text import short
from scenerl.types import Example, SceneGraph

DEFAULT_IMAGES = 48

COMPARED = 2000
"""Test images that are looked at for differences between stages, at most; drawn at random."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """The chosen images. ``values`` is what the page's script draws: the ``names`` of all stages, the places in them of
    those that have predictions (``stages``), the names of the ``others`` among the targets, and the ``cards``.
    ``notes`` are remarks about inputs that do not fit each other."""

    cards: tuple[Card, ...]
    num_test: int
    notes: tuple[str, ...]
    values: dict[str, Any]


def gather(manifest: Manifest, statuses: Mapping[str, Mapping[str, str]], num_images: int, seed: int) -> Gallery:
    """Choose images and read what there is of them.

    Args:
        statuses: stage name to image id to how its answer was read.
        num_images, seed: as for :func:`choose`.

    Raises:
        UserError: there is no ground truth, or a row of a file cannot be used; the message names it.
    """
    target = manifest.targets[-1]
    image_ids = list(dict.fromkeys(image_id_of(row) for _, row in read_jsonl(target.path)))
    if not image_ids:
        raise UserError(f"{target.path}: there are no rows in it")
    notes = []
    for name, found in statuses.items():
        strange = len(found.keys() - set(image_ids))
        absent = len(set(image_ids) - found.keys())
        if strange:
            notes.append(f"{name}: {strange} predictions are about images that {target.path.name} does not have.")
        if absent:
            notes.append(f"{name}: {absent} of {len(image_ids)} images have no prediction.")
    failed = {
        name: [image_id for image_id, status in found.items() if status != "ok"] for name, found in statuses.items()
    }
    files = [stage.predictions for stage in manifest.stages if stage.predictions]
    differences = {}
    if len(image_ids) > num_images and len(files) > 1:
        looked_at = random.Random(seed).sample(image_ids, min(len(image_ids), max(COMPARED, num_images)))
        differences = _differences(_examples(target, looked_at), files)
    chosen = choose(image_ids, failed, num_images, seed, differences)
    examples = _examples(target, chosen)
    others = [_examples(other, chosen) for other in manifest.targets[:-1]]
    predictions = [read_predictions(path, chosen) for path in files]
    cards = tuple(
        make_card(
            examples[image_id],
            [found.get(image_id) for found in predictions],
            [found[image_id].graph if image_id in found else None for found in others],
            len(chosen),
        )
        for image_id in chosen
    )
    values = {
        "stages": [place for place, stage in enumerate(manifest.stages) if stage.predictions],
        "names": [short(stage.name) for stage in manifest.stages],
        "others": [short(other.name) for other in manifest.targets[:-1]],
        "cards": [card.values for card in cards],
    }
    return Gallery(cards, len(image_ids), tuple(notes), values)


def choose(
    image_ids: Sequence[str],
    failed: Mapping[str, Sequence[str]],
    num_images: int,
    seed: int,
    differences: Mapping[str, float] | None = None,
) -> list[str]:
    """Some of the images, in data order: of every stage the first failed answer, so that the gallery shows what a
    failure looks like; up to a quarter where the stages differ most; the others at random.

    Args:
        image_ids: all test images.
        failed: stage name to the images on which its answer failed.
        differences: image to how far the stages' scores on it are apart, of as many images as were looked at.
    """
    if len(image_ids) <= num_images:
        return list(image_ids)
    known = set(image_ids)
    first_failed = (next((image_id for image_id in images if image_id in known), None) for images in failed.values())
    chosen = list(dict.fromkeys(image_id for image_id in first_failed if image_id is not None))[:num_images]
    apart = [image_id for image_id, gap in (differences or {}).items() if gap > 0 and image_id not in set(chosen)]
    apart.sort(key=lambda image_id: -differences[image_id])
    chosen += apart[: min(num_images // 4, num_images - len(chosen))]
    others = [image_id for image_id in image_ids if image_id not in set(chosen)]
    chosen += random.Random(seed).sample(others, num_images - len(chosen))
    order = {image_id: place for place, image_id in enumerate(image_ids)}
    return sorted(chosen, key=order.__getitem__)


def _differences(examples: Mapping[str, Example], files: Sequence[Path]) -> dict[str, float]:
    """How far the best and the worst F1 of an image are apart."""
    of_relations = any(example.graph.relations for example in examples.values())
    scores: dict[str, list[float]] = {}
    for path in files:
        for prediction in stream_predictions(path, examples):
            hits = compare(prediction.graph or SceneGraph(), examples[prediction.image_id].graph)
            scores.setdefault(prediction.image_id, []).append(hits.f1(of_relations))
    return {image_id: max(found) - min(found) for image_id, found in scores.items()}


def _examples(target: Target, image_ids: Sequence[str]) -> dict[str, Example]:
    wanted, examples = set(image_ids), {}
    for number, row in read_jsonl(target.path):
        if image_id_of(row) in wanted:
            example, _ = parse_row(row, f"{target.path}, row {number}", target.path.parent / "images")
            examples.setdefault(image_id_of(row), example)
    return examples
