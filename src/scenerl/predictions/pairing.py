"""Predictions paired with their ground truth."""

from __future__ import annotations

from dataclasses import replace

from scenerl.answers.dialogue import Conversation
from scenerl.answers.elements import excerpt
from scenerl.data.ground_truth import GroundTruth
from scenerl.errors import DataError
from scenerl.metrics import Pair
from scenerl.predictions.contents import Predictions
from scenerl.predictions.notes import shown
from scenerl.predictions.row import decode
from scenerl.progress import track
from scenerl.types import ParseResult, SceneGraph

MISSING = ParseResult("no_answer", None)
NOTHING = ParseResult("ok", SceneGraph())


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
    means = "count as empty" if missing is MISSING else "have no detection"
    for ids, text in (
        (absent, f"images have no prediction and {means}"),
        (unknown, "predictions are of images that the data does not have and were left out"),
    ):
        if ids and not (ids is absent and missing is NOTHING):
            warnings.append(f"{len(ids)} {text}: {shown([excerpt(image_id) for image_id in ids])}")
    counts = {
        "predictions": len(predictions.entries),
        "missing_answers": len(absent),
        "unknown_images": len(unknown),
        **predictions.notes.counts(),
    }
    return pairs, counts, warnings
