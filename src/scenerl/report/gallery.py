"""Which images the gallery shows, and what they share on the page."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from scenerl.data.ground_truth import load_ground_truth
from scenerl.errors import UserError
from scenerl.metrics import MetricOptions, Pair
from scenerl.metrics.matches import Matches, matches_of
from scenerl.report.answers import Answer, Outline, read_answers
from scenerl.report.card import make_card
from scenerl.report.inputs import Inputs
from scenerl.report.text import short
from scenerl.types import Example, ParseResult, SceneGraph

DEFAULT_IMAGES = 48

COMPARED = 2000
"""Test images that are looked at for differences between stages, at most; drawn at random."""


MATCHING = ("task", "iou_threshold", "plus_one", "hits")
"""Options of the metrics that decide what matches."""


@dataclass(frozen=True, slots=True)
class Gallery:
    """The chosen images.

    Attributes:
        pictures: in base64, None where there is none.
        notes: remarks about inputs that do not fit each other.
        values: what the page's script draws: the ``names`` of all stages, the places in them of those that have
            predictions (``stages``), the names of the ``others`` among the targets, whether F1 is of relations
            (``ofRelations``), whether there are any (``hasRelations``), and the ``cards``.
    """

    pictures: tuple[str | None, ...]
    num_test: int
    notes: tuple[str, ...]
    values: dict[str, Any]


def gather(
    inputs: Inputs,
    outlines: Mapping[str, Outline],
    options: Mapping[str, MetricOptions],
    num_images: int,
    seed: int,
) -> Gallery:
    """Choose images and read what there is of them.

    Args:
        outlines: of the stages with predictions, by name.
        options: how the metrics of these stages match, by name.
        num_images, seed: as for :func:`choose`.

    Raises:
        UserError: there is no ground truth, or a row of a file cannot be used; the message names it.
    """
    truths = [
        {example.image_id: example for example in load_ground_truth(target.source, target.split).examples}
        for target in inputs.targets
    ]
    *others, truth = truths
    if not truth:
        raise UserError(f"{inputs.targets[-1].source}: there are no rows in it")
    stages = [stage for stage in inputs.stages if stage.predictions]
    predicts_relations = any(outline.has_relations for outline in outlines.values())
    # Of relations, unless there are none to find, none were predicted or none were evaluated.
    of_relations = (
        any(example.graph.relations for example in truth.values())
        and (not outlines or predicts_relations)
        and not any(options[stage.name].task == "det" for stage in stages)
    )
    is_parsed = any(status == "ok" for outline in outlines.values() for status in outline.statuses.values())
    if is_parsed and not predicts_relations:
        # The answers are detections: no relation of the ground truth was to be found.
        truths = [
            {key: replace(example, graph=SceneGraph(example.graph.objects)) for key, example in one.items()}
            for one in truths
        ]
        *others, truth = truths
    failed = {
        name: [image_id for image_id, status in outline.statuses.items() if status != "ok"]
        for name, outline in outlines.items()
    }
    differences = {}
    if len(truth) > num_images and len(stages) > 1:
        looked_at = set(random.Random(seed).sample(list(truth), min(len(truth), max(COMPARED, num_images))))
        scores: dict[str, list[float]] = {}
        for stage in stages:
            for image_id, answer in read_answers(stage.predictions, looked_at):
                matches = _matches(answer, truth[image_id], options[stage.name])
                f1 = matches.relations.f1 if of_relations else matches.objects.f1
                scores.setdefault(image_id, []).append(f1)
        differences = {image_id: max(found) - min(found) for image_id, found in scores.items()}
    chosen = choose(list(truth), failed, num_images, seed, differences)
    answers = [dict(read_answers(stage.predictions, set(chosen))) for stage in stages]
    cards = []
    for image_id in chosen:
        example = truth[image_id]
        found = [side.get(image_id) for side in answers]
        matches = [_matches(item, example, options[stage.name]) for stage, item in zip(stages, found, strict=True)]
        lacking = _lacking(example, [other.get(image_id) for other in others])
        cards.append(make_card(example, list(zip(found, matches, strict=True)), lacking, len(chosen)))
    values = {
        "stages": [place for place, stage in enumerate(inputs.stages) if stage.predictions],
        "names": [short(stage.name) for stage in inputs.stages],
        "others": [short(target.name) for target in inputs.targets[:-1]],
        "ofRelations": of_relations,
        "hasRelations": predicts_relations or any(example.graph.relations for example in truth.values()),
        "cards": [values for _, values in cards],
    }
    return Gallery(
        tuple(picture for picture, _ in cards), len(truth), _notes(outlines, truth, inputs.targets[-1].name), values
    )


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
    rest = [image_id for image_id in image_ids if image_id not in set(chosen)]
    chosen += random.Random(seed).sample(rest, num_images - len(chosen))
    order = {image_id: place for place, image_id in enumerate(image_ids)}
    return sorted(chosen, key=order.__getitem__)


def options_of(described: Mapping[str, Any]) -> MetricOptions:
    """The conventions of matching from the ``options`` of a metrics.json; what it lacks has its default."""
    known = {item.name for item in fields(MetricOptions)}.intersection(MATCHING)
    return MetricOptions(**{name: described[name] for name in known if described.get(name) is not None})


def _matches(answer: Answer | None, example: Example, options: MetricOptions) -> Matches:
    result = ParseResult("no_answer", None) if answer is None else answer.result
    # Relations are marked where they are drawn, also where only objects were evaluated.
    shown = replace(options, task="sgdet") if options.task == "det" else options
    return matches_of(Pair(example.image_id, result, example.graph, example.image_wh), shown)


def _lacking(example: Example, others: Sequence[Example | None]) -> list[list[int]]:
    """Per relation, the numbers of the other targets that have the image and lack the relation."""
    found = [
        _matches(Answer(ParseResult("ok", other.graph), {}), example, MetricOptions()).relations.found
        if other
        else None
        for other in others
    ]
    return [
        [number for number, side in enumerate(found) if side and not side[n]]
        for n in range(len(example.graph.relations))
    ]


def _notes(outlines: Mapping[str, Outline], truth: Mapping[str, Example], target: str) -> tuple[str, ...]:
    notes = []
    for name, outline in outlines.items():
        if unknown := len(outline.statuses.keys() - truth.keys()):
            notes.append(f"{name}: {unknown} predictions are of images that {target} does not have.")
        if absent := len(truth.keys() - outline.statuses.keys()):
            notes.append(f"{name}: {absent} of {len(truth)} images have no prediction.")
    return tuple(notes)
