"""What a run of ``predict`` leaves behind."""

from __future__ import annotations

from dataclasses import dataclass

from scenerl.predictions.counts import AnswerCounts


@dataclass(frozen=True, slots=True)
class Outcome:
    """The counts of the file, and a message for each image without an answer."""

    counts: AnswerCounts
    problems: list[str]
