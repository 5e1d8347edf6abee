"""One answer and its ground truth in, its rewards, what became of it and what it matched out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from scenerl.answers import OutputFormat, parse_answer
from scenerl.box_formats import BOX_FORMATS
from scenerl.data.jsonl import DataError, excerpt, parse_row
from scenerl.rewards import REWARDS, Comparison, Reward, RewardOptions
from scenerl.types import Example

_LARGEST_SIDE = 1e9


def score_answer(
    example: Example,
    answer: str | None,
    output_format: OutputFormat,
    options: RewardOptions | None = None,
    rewards: Mapping[str, Reward] = REWARDS,
    input_wh: tuple[float, float] | None = None,
    strict: bool = False,
    truncated: bool = False,
    num_tokens: int | None = None,
) -> dict:
    """Parse one answer and compute its rewards.

    Args:
        example: the ground truth; its image is not read.
        answer: the model's text, or None.
        output_format: how the model was asked to answer.
        options: conventions of the rewards.
        rewards: name to reward.
        input_wh: size in pixels of the resized input, for the frame `resized`.
        strict: any issue makes the whole answer a failure.
        truncated: the engine stopped at its token limit.
        num_tokens: length of the answer, for `cosine_length`.

    Returns:
        A row for JSON: `image_id`, `status`, `issues`, `rewards` (name to value) and `matches`, see
        :func:`describe_matches`.
    """
    result = parse_answer(answer, output_format, example.image_wh, input_wh, strict=strict, truncated=truncated)
    comparison = Comparison(result, example.graph, example.image_wh, options, answer, num_tokens)
    return {
        "image_id": example.image_id,
        "status": result.status,
        "issues": [{"kind": issue.kind, "where": issue.where, "detail": issue.detail} for issue in result.issues],
        "rewards": {name: reward(comparison) for name, reward in rewards.items()},
        "matches": describe_matches(comparison),
    }


def describe_matches(comparison: Comparison) -> dict:
    """Which target each prediction matched, in the order of the parsed answer.

    Returns:
        `objects`: per predicted object its `label`, the `target` object that the Hungarian match gave it (an index, or
        None), their `iou` and label `similarity`, and whether it is a `hit`, a match of `weighted_sum`.
        `relations`: per predicted relation its `triplet`, the `target` relation it hits one-to-one (or None), and
        `boxes_agree`, the target relations with fitting boxes, whatever their labels.
    """
    iou, similarity = comparison.iou, comparison.similarity
    target_of = dict(comparison.node_match)
    hits = dict(comparison.detection_match)
    objects = []
    for n, item in enumerate(comparison.predicted.objects):
        m = target_of.get(n)
        objects.append(
            {
                "label": item.label,
                "target": m,
                "iou": None if m is None else round(iou[n][m], 4),
                "similarity": None if m is None else round(similarity(n, m), 4),
                "hit": n in hits,
            }
        )
    relation_target = dict(comparison.triplet_match)
    relations = [
        {"triplet": comparison.predicted.triplet(relation), "target": relation_target.get(r), "boxes_agree": []}
        for r, relation in enumerate(comparison.predicted.relations)
    ]
    for t, candidates in enumerate(comparison.candidates):
        for r in candidates:
            relations[r]["boxes_agree"].append(t)
    return {"objects": objects, "relations": relations}


def score_row(
    row: dict,
    where: str,
    output_format: OutputFormat,
    options: RewardOptions | None = None,
    rewards: Mapping[str, Reward] = REWARDS,
    strict: bool = False,
    example: Example | None = None,
) -> tuple[dict, list[str]]:
    """As :func:`score_answer`, for a data row with an `answer`, or for a row of `predict` and its ``example``.

    The row may also hold `input_wh` (needed by the frame `resized`), `num_tokens` and `finish_reason`, as `predict`
    writes them. With an ``example`` the ground truth is that, the row's `frame` comes before the style's, and a
    `status` that the answer does not have any more gives a warning.

    Returns:
        The output row, with the row's `sample` if it has one, and the warnings about the row.

    Raises:
        DataError: the row cannot be used; names ``where`` and what is allowed.
    """
    joined = example is not None
    if not joined and "answer" in row and not {"objects", "relationships", "detections"} & set(row):
        raise DataError(f"{where}: an answer without ground truth; name the data set that has it with --data")
    example, warnings = (example, []) if joined else parse_row(row, where)
    if "answer" not in row:
        raise DataError(f"{where}: the key 'answer' is missing; it holds the model's text, or null")
    answer = row["answer"]
    if answer is not None and not isinstance(answer, str):
        raise DataError(f"{where}: answer must be a text or null, found {excerpt(answer)}")
    num_tokens = row.get("num_tokens")
    if num_tokens is not None and (type(num_tokens) is not int or num_tokens < 0):
        raise DataError(f"{where}: num_tokens must be a whole number from 0 on, found {excerpt(num_tokens)}")
    input_wh = _input_wh(row.get("input_wh"), where)
    if joined and (box_format := row.get("frame", output_format.box_format)) != output_format.box_format:
        if box_format not in BOX_FORMATS:
            raise DataError(f"{where}: unknown frame {excerpt(box_format)}; allowed: {', '.join(BOX_FORMATS)}")
        output_format = replace(output_format, box_format=box_format)
    if output_format.box_format == "resized" and input_wh is None:
        raise DataError(f"{where}: the frame 'resized' needs input_wh, [width, height] of the resized image in pixels")
    truncated = row.get("finish_reason") == "length"
    scored = score_answer(example, answer, output_format, options, rewards, input_wh, strict, truncated, num_tokens)
    if joined and not strict and row.get("status", scored["status"]) != scored["status"]:
        warnings.append(
            f"{where}: the answer was {excerpt(row['status'])} when it was predicted and is {scored['status']} now; "
            "are the format and the envelope the same?"
        )
    if "sample" in row:
        scored["sample"] = row["sample"]
    return scored, warnings


def _input_wh(value: object, where: str) -> tuple[float, float] | None:
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 2:
        if all(type(side) in (int, float) and 0 < side < _LARGEST_SIDE for side in value):
            return value[0], value[1]
    raise DataError(f"{where}: input_wh must be [width, height] in pixels above 0, found {excerpt(value)}")
