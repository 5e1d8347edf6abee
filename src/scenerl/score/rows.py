"""One answer and its ground truth in, its rewards, what became of it and what it matched out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scenerl.answers.dialogue import Conversation
from scenerl.data.records import excerpt
from scenerl.data.rows import read_row
from scenerl.errors import DataError
from scenerl.predictions.row import parse_row_answer
from scenerl.rewards import REWARDS, Comparison, Reward, RewardOptions
from scenerl.types import Example, ParseResult


def score_answer(
    example: Example,
    answer: str | None,
    conversation: Conversation,
    options: RewardOptions | None = None,
    rewards: Mapping[str, Reward] = REWARDS,
    strict: bool = False,
    truncated: bool = False,
    num_tokens: int | None = None,
) -> dict:
    """Parse one answer and compute its rewards.

    Args:
        example: the ground truth; its image is not read.
        answer: the model's text, or None.
        conversation: how the model was prompted and is parsed.
        options: conventions of the rewards.
        rewards: name to reward.
        strict: any issue makes the whole answer a failure.
        truncated: the engine stopped at its token limit.
        num_tokens: length of the answer, for `cosine_length`.

    Returns:
        A row for JSON: `image_id`, `status`, `issues`, `rewards` (name to value) and `matches`, see
        :func:`describe_matches`.
    """
    result = conversation.parse(answer, example, truncated=truncated, strict=strict)
    return _output(Comparison(result, example.graph, example.image_wh, options, answer, num_tokens), example, rewards)


def _output(comparison: Comparison, example: Example, rewards: Mapping[str, Reward]) -> dict:
    result = comparison.result
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


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """``output`` is the row for JSON, with the row's ``sample`` if it has one; ``warnings`` are about the row."""

    output: dict
    example: Example
    result: ParseResult
    warnings: list[str]


def score_row(
    row: Mapping,
    where: str,
    conversation: Conversation,
    options: RewardOptions | None = None,
    rewards: Mapping[str, Reward] = REWARDS,
    strict: bool = False,
    example: Example | None = None,
) -> ScoredRow:
    """As :func:`score_answer`, for a data row with an `answer`, or for a row of `predict` and its ``example``.

    The row's `frame`, `input_wh` (needed by the frame `resized`), `finish_reason` and `num_tokens` count, as `predict`
    writes them. With an ``example`` that is the ground truth, and a `status` that the answer does not have any more
    gives a warning.

    Raises:
        DataError: the row cannot be used; names ``where`` and what is allowed.
    """
    joined = example is not None
    if not joined and "answer" in row and not {"objects", "relationships", "detections"} & set(row):
        raise DataError(f"{where}: an answer without ground truth; name the data set that has it with --data")
    warnings = []
    if not joined:
        record = read_row(row, where)
        example, warnings = record.unwrap(), [f"{where}: {warning}" for warning in record.warnings]
    if "answer" not in row:
        raise DataError(f"{where}: the key 'answer' is missing; it holds the model's text, or null")
    num_tokens = row.get("num_tokens")
    if num_tokens is not None and (type(num_tokens) is not int or num_tokens < 0):
        raise DataError(f"{where}: num_tokens must be a whole number from 0 on, found {excerpt(num_tokens)}")
    result = parse_row_answer(row, where, conversation, example, strict)
    comparison = Comparison(result, example.graph, example.image_wh, options, row["answer"], num_tokens)
    output = _output(comparison, example, rewards)
    if joined and not strict and row.get("status", result.status) != result.status:
        warnings.append(
            f"{where}: the answer was {excerpt(row['status'])} when it was predicted and is {result.status} now; "
            "are the format and the envelope the same?"
        )
    if "sample" in row:
        output["sample"] = row["sample"]
    return ScoredRow(output, example, result, warnings)
