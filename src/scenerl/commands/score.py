"""The command `score`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from scenerl.commands.groups import REWARD, SOURCE_HELP, SPLIT_HELP, AnswerOptions, RewardOptions
from scenerl.config.options import option

EXAMPLES = (
    "scenerl score answers.jsonl --format json --frame norm1000 --out scores.jsonl",
    "scenerl score answers.jsonl --format compact --rewards hard_recall triplet_f1 --one_to_one",
    "scenerl score answers.jsonl --format detections --envelope think --frame pixels",
)
MOST_USED = ("rows", "data", "out", "rewards", "format", "frame", "vocabulary", "similarity", "iou_threshold", "strict")


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(AnswerOptions, RewardOptions):
    """Rewards of every output in a file, with issues and matches. Needs no torch."""

    rows: Path = option(
        ...,
        "JSONL file: data rows with an `answer` (text or null); with --data, rows of `predict`",
        positional=True,
    )
    data: str | None = option(None, f"ground truth by image_id: {SOURCE_HELP}. Default: in the rows")
    split: str | None = option(None, SPLIT_HELP)
    out: Path | None = option(None, "JSONL file to write. Default: standard output")
    rewards: list[str] = option([], "rewards by name. Default: all that suit the format", REWARD)
