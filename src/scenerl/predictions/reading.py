"""How the raw answers in a file are read: as the options say, or as they are recognised (``--format auto``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from scenerl.answers.dialogue import Conversation
from scenerl.answers.formats import FORMATS
from scenerl.answers.recognise import explained
from scenerl.data.vocabulary import Vocabulary
from scenerl.errors import UserError, counted
from scenerl.predictions.checks import find_box_format
from scenerl.predictions.notes import Notes
from scenerl.predictions.row import DEFAULT_BOX_FORMAT, conversation_of, decode
from scenerl.types import Example

if TYPE_CHECKING:
    from scenerl.commands.groups import AnswerOptions
    from scenerl.predictions.contents import RawPrediction

SAMPLED = 200
"""Answers by which format and box format are recognised, spread over the file."""


def reading_of(
    options: AnswerOptions, vocabulary: Vocabulary | None, answers: Sequence[tuple[RawPrediction, Example]]
) -> tuple[Conversation, list[str]]:
    """How the answers of a file are read, and what was recognised, in sentences.

    Args:
        options: format, response template and box format; ``auto`` and None are recognised.
        vocabulary: closed; None leaves it open.
        answers: the file's rows with their ground truth; those that are parsed already do not count.

    Raises:
        UserError: no format explains any answer.
    """
    if options.format != "auto":
        return conversation_of(options, vocabulary), []
    raw = [(entry, example) for entry, example in answers if entry.row is not None and is_raw(entry.row)]
    raw = raw[:: max(1, len(raw) // SAMPLED)]
    if not raw:
        return conversation_of(replace(options, format="json"), vocabulary), []
    counts = explained((entry.row.get("answer"), example.query) for entry, example in raw)
    if not counts:
        raise UserError(
            f"{raw[0][0].where}: no format explains any of the {counted(len(raw), 'answer')} that were tried; choose "
            f"one with --format: {', '.join(FORMATS)}"
        )
    name, *others = counts
    said = f"read as {name}, which explains {counts[name]} of the {counted(len(raw), 'answer')} that were tried"
    if others:
        said += f" ({', '.join(f'{other}: {counts[other]}' for other in others)})"
    options = replace(options, format=name)
    conversation = conversation_of(options, vocabulary)
    if FORMATS[name].box_format is not None:
        return conversation, [f"{said}; the format fixes its boxes"]
    if options.frame is not None:
        return conversation, [f"{said}; boxes as --frame says: {options.frame}"]
    if all("frame" in entry.row for entry, _ in raw):
        return conversation, [f"{said}; boxes as the rows say"]
    raw = [(entry, example) for entry, example in raw if "frame" not in entry.row]
    notes = Notes("")
    results = [decode(entry.row, entry.where, conversation, example, notes) for entry, example in raw]
    found = find_box_format([example for _, example in raw], results, DEFAULT_BOX_FORMAT)
    said += f"; boxes read as {found.name} ({found.reason})"
    if not found.is_clear:
        said += ", which is not certain: say it with --frame"
    return conversation_of(replace(options, frame=found.name), vocabulary), [said]


def is_raw(row) -> bool:
    """Whether a row holds an answer that has yet to be parsed."""
    return "status" not in row and not isinstance(row.get("graph"), dict) and "answer" in row
