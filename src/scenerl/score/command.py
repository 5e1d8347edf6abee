"""The command `score`: a file of answers, and ground truth, in; a row for each out, with means over all of them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from scenerl.answers import OutputFormat
from scenerl.answers.dialogue import Conversation
from scenerl.config import ScoreOptions
from scenerl.data import load
from scenerl.data.instances import tidy_id
from scenerl.data.jsonl import read_rows, write_jsonl
from scenerl.data.rows import excerpt
from scenerl.data.vocabulary import Vocabulary
from scenerl.errors import DataError
from scenerl.files import check_out
from scenerl.predictions.checks import check_box_format, check_format
from scenerl.progress import track
from scenerl.rewards import RELATION_REWARDS, REWARDS, build_reward_options, select_rewards
from scenerl.score.rows import ScoredRow, score_row
from scenerl.types import Example

_SHOWN_MESSAGES = 20
_SAMPLED = 50  # answers that are checked for another format or frame


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
        UserError: options that are not allowed, no rows, or rows that could not be used.
    """
    check_out(options.out, [options.rows, options.data, options.vocabulary, options.predicate_counts])
    vocabulary = Vocabulary.read(options.vocabulary) if options.vocabulary is not None else None
    output_format = OutputFormat(
        format=options.format,
        template=options.envelope,
        objects=vocabulary.objects if vocabulary else None,
        predicates=vocabulary.predicates if vocabulary else None,
        box_format=options.frame,
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
    conversation = Conversation(output_format)
    sampled: list[tuple[dict, ScoredRow]] = []
    statuses: Counter[str] = Counter()
    totals = dict.fromkeys(rewards, 0.0)
    has_bar = options.out is not None or not sys.stdout.isatty()  # else the rows themselves are seen to come

    def scored_rows() -> Iterator[dict]:
        try:
            for number, row, wrong in track(read_rows(options.rows), "rows") if has_bar else read_rows(options.rows):
                where = f"{options.rows}, row {number}"
                try:
                    if wrong:
                        raise DataError(f"{where}: {wrong}")
                    example = None if truth is None else truth.of(row, where)
                    scored = score_row(row, where, conversation, reward_options, rewards, options.strict, example)
                except DataError as error:
                    errors.add(str(error))
                    continue
                if len(sampled) < _SAMPLED and scored.result.status != "no_answer":
                    sampled.append((row, scored))
                for warning in scored.warnings:
                    warnings.add(warning)
                statuses[scored.result.status] += 1
                for name, value in scored.output["rewards"].items():
                    totals[name] += value
                yield scored.output
        except DataError as error:  # a file that cannot be read, or not further
            if not (statuses or errors.count):
                raise
            errors.add(f"{error}; reading stopped there")
        if not statuses:
            raise DataError(errors.first or f"{options.rows} holds no rows; expected data rows with an 'answer'")
        if truth is not None and truth.unanswered:
            first = excerpt(next(iter(truth.unanswered)))
            warnings.add(f"{len(truth.unanswered)} images of {options.data} have no answer, the first: {first}")
        for suspicion in _suspicions(sampled, output_format, "ok" in statuses):
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


def _suspicions(sampled: Sequence[tuple[dict, ScoredRow]], output_format: OutputFormat, some_ok: bool) -> list[str]:
    """Signs that the answers are in another format, or another frame, than they were parsed in."""
    if not some_ok:
        return check_format([row["answer"] for row, _ in sampled], output_format)
    box_format = output_format.box_format
    own = [scored for row, scored in sampled if row.get("frame", box_format) == box_format != "resized"]
    return check_box_format([scored.example for scored in own], [scored.result for scored in own], box_format)


def _summary(out: Path | None, statuses: Counter[str], totals: Mapping[str, float]) -> str:
    count = statuses.total()
    states = ", ".join(f"{number} {status}" for status, number in statuses.most_common())
    means = "  ".join(f"{name} {total / count:.4f}" for name, total in totals.items())
    return f"{count} answers ({states}){f' -> {out}' if out else ''}\nmean rewards: {means}"
