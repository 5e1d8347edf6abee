"""The command `score`: answers and ground truth in, a row for each out, with its rewards and what it matched.

This is how to see why a reward is 0. It needs no images and no torch.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from scenerl.answers.dialogue import Conversation
from scenerl.answers.elements import excerpt
from scenerl.answers.formats import FORMATS
from scenerl.answers.recognise import closest
from scenerl.commands.score import ScoreOptions
from scenerl.data.ground_truth import load_ground_truth
from scenerl.data.instances import tidy_id
from scenerl.data.jsonl import read_rows, write_jsonl
from scenerl.data.rows import read_row
from scenerl.data.vocabulary import Vocabulary
from scenerl.errors import DataError, counted
from scenerl.files import check_out
from scenerl.predictions.checks import check_box_format, check_format
from scenerl.predictions.contents import RawPrediction
from scenerl.predictions.reading import SAMPLED, reading_of
from scenerl.predictions.row import parse_row_answer
from scenerl.progress import track
from scenerl.rewards import (
    RELATION_REWARDS,
    REWARDS,
    Comparison,
    Reward,
    RewardOptions,
    reward_options_of,
    select_rewards,
)
from scenerl.types import Example, ParseResult

_SHOWN_MESSAGES = 20
_SAMPLED = 50  # answers that are checked for another format or box format


def run_score(options: ScoreOptions) -> None:
    """The command: score the answers of a JSONL file.

    A row that cannot be used is named and left out, the others are scored and written; the command then still fails.

    Raises:
        UserError: options that are not allowed, no rows, or rows that could not be used.
    """
    inputs = [options.rows, options.data, options.vocabulary, options.predicate_counts, options.similarity]
    check_out(options.out, inputs)
    scoring = _Scoring(options)
    if options.out is None:
        for row in scoring.output():
            print(json.dumps(row))
    else:
        write_jsonl(options.out, scoring.output())
    print(scoring.summary(), file=sys.stderr)
    if scoring.warnings.count:
        print(f"scenerl: {counted(scoring.warnings.count, 'warning')}", file=sys.stderr)
    if errors := scoring.errors.count:
        raise DataError(f"{counted(errors, 'row')} left out, as unusable, the first: {scoring.errors.first}")


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


class _Scoring:
    """One run over a file: how it is scored, and what was found so far."""

    def __init__(self, options: ScoreOptions) -> None:
        self.options = options
        vocabulary = None if options.vocabulary is None else Vocabulary.read(options.vocabulary)
        self.examples: dict[str, Example] | None = None
        if options.data is not None:
            truth = load_ground_truth(options.data, options.split)
            self.examples = {example.image_id: example for example in truth.examples}
        self.conversation, recognised = reading_of(options, vocabulary, self._first_answers())
        for sentence in recognised:
            print(f"scenerl: {options.rows}: {sentence}", file=sys.stderr)
        is_graph = FORMATS[self.conversation.output_format.format].graph
        suitable = [name for name in REWARDS if is_graph or name not in RELATION_REWARDS]
        self.rewards = select_rewards(options.rewards or suitable)
        self.reward_options = reward_options_of(options)
        self.unanswered = dict.fromkeys(self.examples or ())
        self.errors, self.warnings = _Messages("error"), _Messages("warning")
        self.sampled: list[tuple[dict, ScoredRow]] = []
        self.statuses: Counter[str] = Counter()
        self.totals = dict.fromkeys(self.rewards, 0.0)

    def _first_answers(self) -> list[tuple[RawPrediction, Example]]:
        """The first rows that can be used with their ground truth, where the format is to be recognised by them."""
        path, found = self.options.rows, []
        if self.options.format != "auto":
            return found
        if not path.is_file():
            raise DataError(f"{path}: to recognise a format the rows are read twice, which needs a file; say --format")
        for number, row, wrong in read_rows(path):
            where = f"{path}, row {number}"
            if len(found) == SAMPLED:
                break
            if wrong:
                continue
            try:
                example = read_row(row, where).unwrap() if self.examples is None else self._example_of(row, where)
            except DataError:  # it is named when it is scored
                continue
            found.append((RawPrediction(where, row=row), example))
        return found

    def output(self) -> Iterator[dict]:
        """The scored rows. Warnings about the whole file come at the end.

        Raises:
            DataError: the file cannot be read, or holds no row that can be used.
        """
        path, options = self.options.rows, self.options
        rows = read_rows(path)
        # On a terminal, the rows that are printed show progress themselves.
        if options.out is not None or not sys.stdout.isatty():
            rows = track(rows, "rows")
        try:
            for number, row, wrong in rows:
                where = f"{path}, row {number}"
                try:
                    if wrong:
                        raise DataError(f"{where}: {wrong}")
                    example = None if self.examples is None else self._example_of(row, where)
                    if example is not None:
                        self.unanswered.pop(example.image_id, None)
                    scored = score_row(
                        row, where, self.conversation, self.reward_options, self.rewards, options.strict, example
                    )
                except DataError as error:
                    self.errors.add(str(error))
                    continue
                self._count(row, scored)
                yield scored.output
        except DataError as error:  # a file that cannot be read, or not further
            if not (self.statuses or self.errors.count):
                raise
            self.errors.add(f"{error}; reading stopped there")
        if not self.statuses:
            raise DataError(self.errors.first or f"{path} holds no rows; expected data rows with an 'answer'")
        if self.unanswered:
            first = excerpt(next(iter(self.unanswered)))
            self.warnings.add(
                f"{counted(len(self.unanswered), 'image')} of {options.data} without an answer, the first: {first}"
            )
        for suspicion in self._suspicions():
            self.warnings.add(f"{path}: {suspicion}")

    def _example_of(self, row: dict, where: str) -> Example:
        image_id = tidy_id(row.get("image_id"))
        if image_id is None:
            found = excerpt(row["image_id"]) if "image_id" in row else "none"
            raise DataError(f"{where}: image_id must be a text or a whole number, found {found}")
        if image_id not in self.examples:
            raise DataError(f"{where}: {self.options.data} has no image_id {excerpt(image_id)}")
        return self.examples[image_id]

    def _count(self, row: dict, scored: ScoredRow) -> None:
        if len(self.sampled) < _SAMPLED and scored.result.status != "no_answer":
            self.sampled.append((row, scored))
        for warning in scored.warnings:
            self.warnings.add(warning)
        self.statuses[scored.result.status] += 1
        for name, value in scored.output["rewards"].items():
            self.totals[name] += value

    def _suspicions(self) -> list[str]:
        """Signs that the answers are in another format, or another box format, than they were parsed in."""
        if "ok" not in self.statuses:
            return check_format([row["answer"] for row, _ in self.sampled], self.conversation.output_format)
        box_format = self.conversation.output_format.box_format
        own = [scored for row, scored in self.sampled if row.get("frame", box_format) == box_format != "resized"]
        return check_box_format([scored.example for scored in own], [scored.result for scored in own], box_format)

    def summary(self) -> str:
        """How many answers there were of each status, and the mean of each reward."""
        count = self.statuses.total()
        states = ", ".join(f"{number} {status}" for status, number in self.statuses.most_common())
        means = "  ".join(f"{name} {total / count:.4f}" for name, total in self.totals.items())
        written = f" -> {self.options.out}" if self.options.out else ""
        return f"{counted(count, 'answer')} ({states}){written}\nmean rewards: {means}"


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """A row for JSON, the ground truth and the parsed answer behind it, and warnings about the row."""

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
    """Parse one answer and compute its rewards.

    Args:
        row: a data row with an ``answer``, or a row of ``predict`` and its ``example``. Its ``frame``
            (box format), ``input_wh`` (needed by ``resized``), ``finish_reason`` and ``num_tokens`` count, as
            ``predict`` writes them.
        where: names file and row in errors.
        conversation: how the model was prompted and is parsed.
        options: conventions of the rewards.
        rewards: name to reward.
        strict: any issue makes the whole answer a failure.
        example: the ground truth, in place of that in the row; its image is not read. A ``status`` of the row that the
            answer does not have any more then gives a warning.

    Returns:
        Its ``output`` holds ``image_id``, ``status``, ``issues``, ``rewards`` (name to value), ``matches`` (see
        :func:`describe_matches`), of a failed answer what it came ``closest`` to, and the row's ``sample`` if it has
        one.

    Raises:
        DataError: the row cannot be used; names ``where`` and what is allowed.
    """
    joined = example is not None
    if not joined and "answer" in row and not {"objects", "relationships", "detections"} & set(row):
        raise DataError(f"{where}: an answer without ground truth; name the data set that has it with --data")
    warnings: list[str] = []
    if example is None:
        record = read_row(row, where)
        example, warnings = record.unwrap(), [f"{where}: {warning}" for warning in record.warnings]
    if "answer" not in row:
        raise DataError(f"{where}: the key 'answer' is missing; it holds the model's text, or null")
    num_tokens = row.get("num_tokens")
    if num_tokens is not None and (type(num_tokens) is not int or num_tokens < 0):
        raise DataError(f"{where}: num_tokens must be a whole number from 0 on, found {excerpt(num_tokens)}")
    if not all(example.image_wh):
        raise DataError(f"{where}: rewards need the image's width and height, which the data lacks")
    result = parse_row_answer(row, where, conversation, example, strict)
    comparison = Comparison.of(result, example, options, row["answer"], num_tokens)
    output = {
        "image_id": example.image_id,
        "status": result.status,
        "issues": [asdict(issue) for issue in result.issues],
        "rewards": {name: reward(comparison) for name, reward in rewards.items()},
        "matches": describe_matches(comparison),
    }
    if not result.ok:
        output["closest"] = closest(row["answer"], example.query, conversation.output_format.format)
    if joined and not strict and row.get("status", result.status) != result.status:
        warnings.append(
            f"{where}: the answer was {excerpt(row['status'])} when it was predicted and is {result.status} now; "
            "are format and response template the same?"
        )
    if "sample" in row:
        output["sample"] = row["sample"]
    return ScoredRow(output, example, result, warnings)


def describe_matches(comparison: Comparison) -> dict:
    """Which target each prediction matched, in the order of the parsed answer.

    Returns:
        `objects`: per predicted object its `label`, the `target` object that the Hungarian match gave it (an index, or
        None), their `iou` and label `similarity`, whether it is a `hit`, a match of `weighted_sum`, and whether it is
        `ignored`, because it lies on a crowd region.
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
                "ignored": n in comparison.ignored,
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
