"""The command `data`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import NonNegativeInt, PositiveInt

from scenerl.commands.groups import ROWS, SOURCE_HELP, VOCABULARY_HELP, RowOptions
from scenerl.config.options import Range, option

EXAMPLES = (
    "scenerl data make --out data/shapes --num_train 4096",
    "scenerl data stats data/shapes/train.jsonl",
    "scenerl data check mine.jsonl --vocabulary vg150.json",
    "scenerl data draw mine.jsonl --num_images 4 --out drawn",
    "scenerl data split mine.jsonl --test 0.1 --out data/mine",
    "scenerl data convert vg150:data/vg --split train --out vg150_train.jsonl",
)
MOST_USED = ("action", "source", "out", "split", "limit", "vocabulary", "num_images", "images", "test", "to")


@dataclass(frozen=True, kw_only=True)
class DataOptions(RowOptions):
    """Make, describe, check, draw, split or convert a data set."""

    action: Literal["make", "stats", "triplets", "check", "draw", "split", "convert"] = option(
        ...,
        "make: write the synthetic set; stats: print statistics; triplets: write triplet types and predicate counts; "
        "check: list the problems of each row; draw: draw examples; split: write train.jsonl and test.jsonl; convert: "
        "write another format",
        positional=True,
    )
    source: str | None = option(None, f"{SOURCE_HELP}. Not used by make", positional=True)
    out: Path | None = option(None, "file or folder to write")
    vocabulary: Path | None = option(None, VOCABULARY_HELP, ROWS)
    seed: NonNegativeInt = option(0, "seed of synthetic scenes, of the images to draw, or of the split")
    num_train: PositiveInt = option(4096, "number of training scenes", "make")
    num_test: PositiveInt = option(384, "number of test scenes", "make")
    num_images: PositiveInt = option(8, "number of images", "draw")
    images: bool = option(True, "decode every image; --no-images checks the annotations only", "check")
    test: Annotated[float, Range(gt=0, lt=1)] = option(0.1, "share of the images that is for testing", "split")
    only: list[str] = option([], "rows whose image_id matches one of these patterns, such as 'vcoco_*'", "convert")
    to: Literal["jsonl", "hub", "coco", "turtle", "cypher"] = option(
        "jsonl",
        "jsonl: our rows (.jsonl); hub: graphs with R1-SGG's columns (.parquet); coco: COCO instances (.json); turtle, "
        "cypher: RDF (.ttl) and Cypher (.cypher) for graph stores; --out must end so",
        "convert",
    )
    train_source: str | None = option(
        None, "training data, or the file of `data triplets`: count triplet types unseen in it", "stats"
    )
    train_split: str | None = option(None, "split of the training data, where it has several", "stats")
