"""Predictions paired with their ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scenerl.answers.dialogue import Conversation
from scenerl.answers.elements import excerpt
from scenerl.data.ground_truth import GroundTruth
from scenerl.errors import DataError, counted
from scenerl.metrics import Pair
from scenerl.predictions.contents import Predictions
from scenerl.predictions.notes import shown
from scenerl.predictions.row import decode
from scenerl.progress import track
from scenerl.types import Example, ParseResult, SceneGraph

MISSING = ParseResult("no_answer", None)
NOTHING = ParseResult("ok", SceneGraph())


def match_file_names(predictions: Predictions, examples: Sequence[Example]) -> list[str]:
    """Give predictions the ids of the images whose files their ids name, with or without folder and extension.

    Detectors call an image by its file (``frame_12`` for frame_12.jpg) where COCO instances number it. Nothing changes
    where an id is known, and a name that two images share is of neither.

    Returns:
        A sentence that says so, if ids were matched.
    """
    if any(example.image_id in predictions.entries for example in examples):
        return []
    ids: dict[str, str | None] = {}
    for example in examples:
        path = example.image if isinstance(example.image, Path) else next(iter(example.tried), None)
        for name in {path.name, path.stem} if path is not None else ():
            ids[name] = None if name in ids else example.image_id
    matched = {image_id: ids.get(Path(image_id).name) for image_id in predictions.entries}
    if not any(matched.values()):
        return []
    entries, predictions.entries = predictions.entries, {}
    for image_id, entry in entries.items():
        predictions.add(matched[image_id] or image_id, entry)
    return ["image ids are read as names of image files"]


def pair_up(
    predictions: Predictions,
    truth: GroundTruth,
    conversation: Conversation,
    missing: ParseResult = MISSING,
    keep_labels: bool = False,
) -> tuple[list[Pair], dict[str, int], list[str]]:
    """Predictions with their ground truth, one pair per example and in their order.

    An image without a prediction gets ``missing``; predictions of unknown images are left out. Both are counted.

    Args:
        conversation: how answers are parsed, unless their row says otherwise.
        keep_labels: do not drop labels outside an example's query from its answer.

    Returns:
        The pairs, the counts, and warnings.

    Raises:
        DataError: a row cannot be used, or no image id is known.
    """
    known = {example.image_id for example in truth.examples}
    unknown = [image_id for image_id in predictions.entries if image_id not in known]
    if len(unknown) == len(predictions.entries):
        raise DataError(
            f"{predictions.path}: none of its {len(unknown)} image ids is in the data; the first is "
            f"{excerpt(unknown[0])}, the data's first is {excerpt(truth.examples[0].image_id)}"
        )
    pairs, absent = [], []
    for example in track(truth.examples, "answers", len(truth.examples)):
        entry = predictions.entries.get(example.image_id)
        result = missing if entry is None else entry.result
        if entry is None:
            absent.append(example.image_id)
        elif result is None:
            unrestricted = replace(example, query=None) if keep_labels else example
            result = decode(entry.row, entry.where, conversation, unrestricted, predictions.notes)
        pairs.append(Pair(example.image_id, result, example.graph, example.image_wh, example.crowds, example.query))
    warnings = predictions.notes.warnings()
    for ids, noun, text in (
        (absent if missing is MISSING else [], "image", "without a prediction, counted as empty"),
        (unknown, "prediction", "of images that the data does not have, left out"),
    ):
        if ids:
            listed = shown([excerpt(image_id) for image_id in ids])
            warnings.append(f"{predictions.path}: {counted(len(ids), noun)} {text}: {listed}")
    counts = {
        "predictions": len(predictions.entries),
        "missing_answers": len(absent),
        "unknown_images": len(unknown),
        **predictions.notes.counts(),
    }
    return pairs, counts, warnings
