"""Predictions put beside their ground truth."""

from __future__ import annotations

from scenerl.answers import OutputFormat
from scenerl.data.ground_truth import GroundTruth
from scenerl.data.rows import excerpt
from scenerl.errors import DataError
from scenerl.formats.predictions import Predictions, shown
from scenerl.formats.rows import read_row
from scenerl.metrics import Pair
from scenerl.progress import track
from scenerl.types import ParseResult, SceneGraph

MISSING = ParseResult("no_answer", None)
NOTHING = ParseResult("ok", SceneGraph())


def pair_up(
    predictions: Predictions, truth: GroundTruth, output_format: OutputFormat, missing: ParseResult = MISSING
) -> tuple[list[Pair], dict[str, int]]:
    """Predictions with their ground truth, one pair per example and in their order.

    An image without a prediction gets ``missing``; predictions of unknown images are left out. Both are counted and put
    on the predictions' warnings.

    Returns:
        The pairs and the counts.

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
            result = read_row(entry.row, entry.where, output_format, example, predictions)
        pairs.append(Pair(example.image_id, result, example.graph, example.image_wh, example.crowds, example.query))
    predictions.warnings.clear()
    predictions.close()  # reading rows has found more to note
    means = "count as empty" if missing is MISSING else "have no detection"
    for ids, text in (
        (absent, f"images have no prediction and {means}"),
        (unknown, "predictions are of images that the data does not have and were left out"),
    ):
        if ids and not (ids is absent and missing is NOTHING):
            predictions.warnings.append(f"{len(ids)} {text}: {shown([excerpt(image_id) for image_id in ids])}")
    return pairs, {
        "predictions": len(predictions.entries),
        "missing_answers": len(absent),
        "unknown_images": len(unknown),
        **predictions.counts,
    }
