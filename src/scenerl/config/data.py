"""Options of the command `data`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scenerl.config.option import SOURCE_HELP, VOCABULARY_HELP, WHICH, Options, option


@dataclass(frozen=True, kw_only=True)
class DataOptions(Options):
    """Make, describe, check, draw or convert a data set."""

    action: Literal["make", "stats", "triplets", "check", "draw", "convert"] = option(
        ...,
        "make the synthetic set; print statistics; write the triplet types and predicate counts of training data; list "
        "what is wrong with which row; draw examples; write as JSONL, Parquet or COCO instances",
        positional=True,
    )
    source: str | None = option(None, f"{SOURCE_HELP} (make: not needed)", positional=True)
    out: Path | None = option(None, "file or folder to write")
    split: str | None = option(None, "split to read, where the source has several", WHICH)
    limit: int | None = option(None, "read at most so many rows", WHICH, low=1)
    vocabulary: Path | None = option(None, VOCABULARY_HELP, WHICH)
    seed: int = option(0, "seed of the made scenes or of the choice of drawn images", low=0)
    num_train: int = option(4096, "training scenes to make", "make", low=1)
    num_test: int = option(384, "test scenes to make", "make", low=1)
    num_images: int = option(8, "images to draw", "draw", low=1)
    images: bool = option(True, "decode every image; --no-images only reads the annotations", "check")
    only: list[str] = option([], "rows whose image_id fits one of these patterns, such as 'vcoco_*'", "convert")
    to: Literal["jsonl", "hub", "coco"] = option(
        "jsonl", "what to write: our JSONL, Parquet with R1-SGG's columns (graphs), or COCO instances", "convert"
    )
    train_source: str | None = option(
        None, "training data, or what triplets wrote of it: say which triplet types it does not hold", "stats"
    )
    train_split: str | None = option(None, "split of the training data, where it has several", "stats")
