"""Answers and ground truth in, every reward of every answer out, with what became of the answer and what it matched.

This is how to see why a reward is 0. It needs no images and no torch.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from scenerl.answers import AnswerStyle, parse_answer
from scenerl.config import ScoreOptions
from scenerl.data import load
from scenerl.data.jsonl import DataError, excerpt, parse_row, read_rows, write_jsonl
from scenerl.data.vocabulary import Vocabulary
from scenerl.formats.format_check import check_format
from scenerl.formats.frame_check import check_frame
from scenerl.formats.predictions import tidy_id
from scenerl.frames import FRAMES
from scenerl.outputs import check_out
from scenerl.rewards import (
    RELATION_REWARDS,
    REWARDS,
    Comparison,
    Reward,
    RewardOptions,
    build_reward_options,
    select_rewards,
)
from scenerl.types import Example

_SHOWN_MESSAGES = 20
_LOOKED_AT = 50  # answers that tell whether the format and the frame were meant
_LARGEST_SIDE = 1e9


def score_answer(
    example: Example,
    answer: str | None,
    style: AnswerStyle,
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
        style: how the model was asked to answer.
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
    result = parse_answer(answer, style, example.image_wh, input_wh, strict=strict, truncated=truncated)
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
    style: AnswerStyle,
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
    if joined and (frame := row.get("frame", style.frame)) != style.frame:
        if frame not in FRAMES:
            raise DataError(f"{where}: unknown frame {excerpt(frame)}; allowed: {', '.join(FRAMES)}")
        style = replace(style, frame=frame)
    if style.frame == "resized" and input_wh is None:
        raise DataError(f"{where}: the frame 'resized' needs input_wh, [width, height] of the resized image in pixels")
    truncated = row.get("finish_reason") == "length"
    scored = score_answer(example, answer, style, options, rewards, input_wh, strict, truncated, num_tokens)
    if joined and not strict and row.get("status", scored["status"]) != scored["status"]:
        warnings.append(
            f"{where}: the answer was {excerpt(row['status'])} when it was predicted and is {scored['status']} now; "
            "are the format and the envelope the same?"
        )
    if "sample" in row:
        scored["sample"] = row["sample"]
    return scored, warnings


class _GroundTruth:
    """Examples by image id, and which of them no row has named yet."""

    def __init__(self, source: str, split: str | None) -> None:
        self.source = source
        self.examples = {example.image_id: example for example in load(source, split)}
        self.unanswered = dict.fromkeys(self.examples)

    def of(self, row: dict, where: str) -> Example:
        image_id = tidy_id(row.get("image_id"))
        if image_id is None:
            found = excerpt(row["image_id"]) if "image_id" in row else "none"
            raise DataError(f"{where}: image_id must be a text or a whole number, found {found}")
        if image_id not in self.examples:
            raise DataError(f"{where}: {self.source} has no image_id {excerpt(image_id)}")
        self.unanswered.pop(image_id, None)
        return self.examples[image_id]


def _input_wh(value: object, where: str) -> tuple[float, float] | None:
    if value is None:
        return None
    if isinstance(value, list) and len(value) == 2:
        if all(type(side) in (int, float) and 0 < side < _LARGEST_SIDE for side in value):
            return value[0], value[1]
    raise DataError(f"{where}: input_wh must be [width, height] in pixels above 0, found {excerpt(value)}")


class _Messages:
    """Counts messages of one kind and shows the first few on standard error."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.count = 0
        self.first = ""

    def add(self, text: str) -> None:
        self.count += 1
        self.first = self.first or text
        if self.count <= _SHOWN_MESSAGES:
            print(f"scenerl: {self.kind}: {text}", file=sys.stderr)
        elif self.count == _SHOWN_MESSAGES + 1:
            print(f"scenerl: {self.kind}: further ones are counted, not shown", file=sys.stderr)


def run_score(options: ScoreOptions) -> None:
    """The command: score the answers of a JSONL file.

    A row that cannot be used is named and left out, the others are scored and written; the command then still fails.

    Raises:
        ValueError: options that are not allowed, no rows, or rows that could not be used.
    """
    check_out(options.out, [options.rows, options.data, options.vocabulary, options.predicate_counts])
    vocabulary = Vocabulary.read(options.vocabulary) if options.vocabulary is not None else None
    style = AnswerStyle(
        format=options.format,
        envelope=options.envelope,
        objects=vocabulary.objects if vocabulary else None,
        predicates=vocabulary.predicates if vocabulary else None,
        frame=options.frame,
    )
    names = options.rewards or [
        name for name in REWARDS if options.format != "detections" or name not in RELATION_REWARDS
    ]
    rewards = select_rewards(names)
    reward_options = build_reward_options(
        similarity=options.similarity,
        iou_threshold=options.iou_threshold,
        one_to_one=options.one_to_one,
        beta=options.f_beta,
        predicate_counts=options.predicate_counts,
        strict_format=options.strict,
    )
    truth = None if options.data is None else _GroundTruth(options.data, options.split)
    errors, warnings = _Messages("error"), _Messages("warning")
    looked_at: list[tuple[Example, dict]] = []
    statuses: Counter[str] = Counter()
    totals = dict.fromkeys(rewards, 0.0)

    def scored_rows() -> Iterator[dict]:
        try:
            for number, row, wrong in read_rows(options.rows):
                where = f"{options.rows}, row {number}"
                try:
                    if wrong:
                        raise DataError(f"{where}: {wrong}")
                    example = None if truth is None else truth.of(row, where)
                    scored, row_warnings = score_row(
                        row, where, style, reward_options, rewards, options.strict, example
                    )
                    if len(looked_at) < _LOOKED_AT and scored["status"] != "no_answer":
                        looked_at.append((example or parse_row(row, where)[0], row))
                except DataError as error:
                    errors.add(str(error))
                    continue
                for warning in row_warnings:
                    warnings.add(warning)
                statuses[scored["status"]] += 1
                for name, value in scored["rewards"].items():
                    totals[name] += value
                yield scored
        except DataError as error:  # a file that cannot be read, or not further
            if not (statuses or errors.count):
                raise
            errors.add(f"{error}; reading stopped there")
        if not statuses:
            raise DataError(errors.first or f"{options.rows} holds no rows; expected data rows with an 'answer'")
        if truth is not None and truth.unanswered:
            first = excerpt(next(iter(truth.unanswered)))
            warnings.add(f"{len(truth.unanswered)} images of {options.data} have no answer, the first: {first}")
        for suspicion in _suspicions(looked_at, style, "ok" in statuses):
            warnings.add(f"{options.rows}: {suspicion}")

    if options.out is None:
        for row in scored_rows():
            print(json.dumps(row))
    else:
        write_jsonl(options.out, scored_rows())
    print(_summary(options.out, statuses, totals), file=sys.stderr)
    if warnings.count:
        print(f"scenerl: {warnings.count} warnings", file=sys.stderr)
    if errors.count:
        raise DataError(f"{errors.count} rows could not be used and were left out, the first: {errors.first}")


def _suspicions(looked_at: Sequence[tuple[Example, dict]], style: AnswerStyle, some_ok: bool) -> list[str]:
    """What speaks for another format, or another frame, than the answers were read in."""
    if not some_ok:
        return check_format([row["answer"] for _, row in looked_at], style)
    own = [(example, row) for example, row in looked_at if row.get("frame", style.frame) == style.frame != "resized"]
    results = [parse_answer(row["answer"], style, example.image_wh) for example, row in own]
    return check_frame([example for example, _ in own], results, style.frame)


def _summary(out: Path | None, statuses: Counter[str], totals: Mapping[str, float]) -> str:
    count = statuses.total()
    states = ", ".join(f"{number} {status}" for status, number in statuses.most_common())
    means = "  ".join(f"{name} {total / count:.4f}" for name, total in totals.items())
    return f"{count} answers ({states}){f' -> {out}' if out else ''}\nmean rewards: {means}"
