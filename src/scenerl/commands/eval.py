"""The command `eval`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from scenerl.commands.groups import IOU_HELP, ROWS, SIMILARITY_HELP, SOURCE_HELP, SPLIT_HELP, AnswerOptions
from scenerl.config.options import Share, TaskName, option
from scenerl.errors import UserError

EXAMPLES = (
    "scenerl eval predictions.jsonl --data data/shapes/test.jsonl --out metrics.json",
    "scenerl eval answers.jsonl --data mine.jsonl --format json --frame norm1000 --train mine_train.jsonl",
    "scenerl eval A=a.jsonl:format=gemini B=b.jsonl:format=auto YOLO=y.json:names=coco --data test.jsonl --task det",
    "scenerl eval --compare sft.jsonl grpo.jsonl --data data/shapes/test.jsonl",
)
MOST_USED = ("pred", "others", "data", "out", "task", "format", "frame", "metrics", "protocol", "compare")
MATCHING, MAPPING, INTERVALS = "Matching", "Labels outside the vocabulary", "Intervals"
PROTOCOL = "Default: the protocol's, else {}"


@dataclass(frozen=True, kw_only=True)
class EvalOptions(AnswerOptions):
    """Metrics of one or several models against ground truth, with 95 % bootstrap intervals and paired tests."""

    pred: Path | None = option(
        None,
        "predictions: JSONL rows with `image_id` and `answer`, or another project's file; as NAME=FILE:KEY=VALUE,… "
        "with its own format, frame, input, envelope and names (of category ids: coco, vg150, psg or a file)",
        positional=True,
    )
    others: list[str] = option(
        [], "further predictions, written alike: all in one table, every pair tested", positional=True
    )
    data: str = option(..., f"ground truth: {SOURCE_HELP}")
    out: Path | None = option(
        None, "metrics.json to write, or the table as .csv, .tex or .md. Default: print the table only"
    )
    metrics: list[str] = option(
        [],
        "metrics that tables show; all: every one. Default: the headline; .csv: all. FILE.py:FUNCTION adds one of your "
        "own (docs/own_code.md)",
    )
    input: Literal["auto", "jsonl", "r1-sgg", "toon", "sgbench", "arrays", "coco", "ovdeval"] = option(
        "auto", "file format of the predictions; auto: by content"
    )
    task: TaskName | None = option(None, f"scene graphs, or object detection. {PROTOCOL.format('sgdet')}")
    compare: list[Path] = option(
        [], "two files of predictions: paired bootstrap with p-values, and the images that differ most"
    )
    export: list[str] = option([], "FORMAT=FILE …: write the predictions for other tools; formats: sgbench, coco")
    protocol: Literal["r1-sgg", "motifs", "sgbench", "rex-omni", "ovdeval", "coco"] | None = option(
        None, "conventions of a publication; explicit options win over it", MATCHING
    )
    ks: list[PositiveInt] = option([20, 50, 100], "K of R@K, ng-R@K, mR@K, zR@K", MATCHING)
    iou_threshold: Share = option(0.5, IOU_HELP, MATCHING)
    plus_one: bool | None = option(
        None, f"add a pixel to widths and heights, as Motifs' descendants do. {PROTOCOL.format('no')}", MATCHING
    )
    absent_as_zero: bool | None = option(
        None, f"mR@K counts predicates without a target as 0. {PROTOCOL.format('no')}", MATCHING
    )
    hits: Literal["one_to_many", "one_to_one", "best_target"] | None = option(
        None, f"targets that one prediction may match. {PROTOCOL.format('one_to_many')}", MATCHING
    )
    graph_constraint: Literal["scored", "always", "never"] | None = option(
        None, f"R@K counts only one predicate per pair. {PROTOCOL.format('where there are scores')}", MATCHING
    )
    ties: Literal["emission", "expected"] | None = option(
        None,
        f"rank equal scores by emission, or in expectation over all orders. {PROTOCOL.format('emission')}",
        MATCHING,
    )
    failed: Literal["empty", "skipped", "skipped_in_means", "skipped_if_empty"] | None = option(
        None, f"how failed outputs count. {PROTOCOL.format('empty')}", MATCHING
    )
    f1_average: Literal["micro", "classes"] | None = option(
        None, f"F1 at IoU over all boxes, or the mean over classes. {PROTOCOL.format('micro')}", MATCHING
    )
    filtered: bool = option(False, "COCO filtered: leave out, per image, categories with more than 10 boxes", MATCHING)
    train: str | None = option(None, "training data: triplet types seen by zR@K; head, body and tail", MATCHING)
    train_split: str | None = option(None, "split of the training data, where it has several", MATCHING)
    group_bounds: list[PositiveInt] = option(
        [], "fewest training relations of body and of head, as 500 10000. Default: thirds of the predicates", MATCHING
    )
    map_table: Path | None = option(None, "JSON file {objects: {label: target}, predicates: {…}}", MAPPING)
    map_wordnet: Path | None = option(None, "WordNet's database folder: map synonyms", MAPPING)
    map_similarity: str | None = option(None, f"map to the most similar label. {SIMILARITY_HELP}", MAPPING)
    map_threshold: Share = option(0.8, "least similarity of a mapping", MAPPING)
    split: str | None = option(None, SPLIT_HELP, ROWS)
    resamples: NonNegativeInt = option(1000, "bootstrap resamples over images; 0: no intervals", INTERVALS)
    seed: NonNegativeInt = option(0, "seed of the bootstrap", INTERVALS)

    def __post_init__(self) -> None:
        if len(self.compare) not in (0, 2):
            more = "; name more than two without --compare" if len(self.compare) > 2 else ""
            raise UserError(f"compare: two files of predictions are needed, found {len(self.compare)}{more}")
        if len(self.group_bounds) not in (0, 2):
            raise UserError(f"group_bounds: two numbers are needed, found {len(self.group_bounds)}")
