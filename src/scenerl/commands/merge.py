"""The command `merge`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from scenerl.config.options import Options, Range, Share, option

EXAMPLES = (
    "scenerl merge sampled.jsonl --out merged.jsonl",
    "scenerl merge sampled.jsonl --out merged.jsonl --min_share 0.5",
)


@dataclass(frozen=True, kw_only=True)
class MergeOptions(Options):
    """Merge several outputs per image into one graph by vote. Needs no torch."""

    samples: Path = option(..., "JSONL file of `predict --num_samples`", positional=True)
    out: Path = option(..., "JSONL file to write: one row per image, with votes and scores")
    iou_threshold: Annotated[float, Range(ge=0.01, le=1)] = option(
        0.5, "smallest IoU at which two objects with equal labels are the same"
    )
    min_share: Share = option(0.25, "leave out what fewer than this share of the outputs hold; 0: keep everything")
