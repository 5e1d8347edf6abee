"""The command `score`: a file of answers, and ground truth, in; a row for each out, with means over all of them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scenerl.answers import OutputFormat, parse_answer
from scenerl.data import load
from scenerl.data.jsonl import DataError, excerpt, parse_row, read_rows, write_jsonl
from scenerl.data.vocabulary import Vocabulary
from scenerl.files import check_out
from scenerl.formats.box_format_check import check_box_format
from scenerl.formats.format_check import check_format
from scenerl.formats.predictions import tidy_id
from scenerl.progress import track
from scenerl.rewards import RELATION_REWARDS, REWARDS, reward_options_of, select_rewards
from scenerl.score.rows import score_row
from scenerl.types import Example

if TYPE_CHECKING:
    from scenerl.commands.score import ScoreOptions

_SHOWN_MESSAGES = 20
_LOOKED_AT = 50  # answers that tell whether the format and the frame were meant


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
    reward_options = reward_options_of(options)
    truth = None if options.data is None else _GroundTruth(options.data, options.split)
    errors, warnings = _Messages("error"), _Messages("warning")
    looked_at: list[tuple[Example, dict]] = []
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
                    scored, row_warnings = score_row(
                        row, where, output_format, reward_options, rewards, options.strict, example
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
        for suspicion in _suspicions(looked_at, output_format, "ok" in statuses):
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


def _suspicions(looked_at: Sequence[tuple[Example, dict]], output_format: OutputFormat, some_ok: bool) -> list[str]:
    """What speaks for another format, or another frame, than the answers were read in."""
    if not some_ok:
        return check_format([row["answer"] for _, row in looked_at], output_format)
    own = [
        (example, row)
        for example, row in looked_at
        if row.get("frame", output_format.box_format) == output_format.box_format != "resized"
    ]
    results = [parse_answer(row["answer"], output_format, example.image_wh) for example, row in own]
    return check_box_format([example for example, _ in own], results, output_format.box_format)


def _summary(out: Path | None, statuses: Counter[str], totals: Mapping[str, float]) -> str:
    count = statuses.total()
    states = ", ".join(f"{number} {status}" for status, number in statuses.most_common())
    means = "  ".join(f"{name} {total / count:.4f}" for name, total in totals.items())
    return f"{count} answers ({states}){f' -> {out}' if out else ''}\nmean rewards: {means}"
