"""What options are made of: fields with help and range, and the choices, groups and texts that several share."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from scenerl.errors import UserError

AnswerFormat = Literal["json", "compact", "detections"]
Envelope = Literal["plain", "think"]
Frame = Literal["pixels", "norm1000", "norm1", "resized"]
Task = Literal["sgdet", "sgcls", "predcls", "det"]
PredictionFormat = Literal["auto", "jsonl", "r1-sgg", "toon", "sgbench", "arrays", "coco", "ovdeval"]
ProtocolName = Literal["r1-sgg", "motifs", "sgbench", "rex-omni", "ovdeval", "coco"]


def option(
    default: Any,
    text: str,
    group: str = "Options",
    positional: bool = False,
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """A dataclass field with its help text and range; ``default`` is ``...`` for a required one, a list is copied."""
    metadata = {"help": text, "group": group, "positional": positional, "low": low, "high": high}
    if default is ...:
        return field(metadata=metadata)
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every command's options share: numbers are held to the range that their field gives.

    Raises:
        UserError: a number outside its range.
    """

    def __post_init__(self) -> None:
        for item in fields(self):
            low, high, value = item.metadata["low"], item.metadata["high"], getattr(self, item.name)
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, int | float) and not (
                    (low is None or number >= low) and (high is None or number <= high)
                ):
                    wanted = f"at least {low}" if high is None else f"{low} to {high}"
                    raise UserError(f"{item.name}: {number} is out of range; allowed: {wanted}")


ANSWER = "How the model answers"
WHICH = "Which rows"
MATCH = "Matching"
SAMPLE = "Sampling"
IMAGE = "Images"
SERVER = "With --engine openai"
REWARD = "Rewards"
MAP = "Labels outside the vocabulary"

SOURCE_HELP = (
    "JSONL file, folder, Parquet file, hub:OWNER/NAME, or a released set as vg150:FOLDER, psg:FOLDER, vcoco:FOLDER, "
    "coco:FILE, d3:FOLDER, ovdeval:FOLDER, vlmr1_jsonl:FILE"
)
FORMAT_HELP = "what an answer is: R1-SGG's JSON, the short line format, or VLM-R1's list of detections"
ENVELOPE_HELP = "what stands around it: nothing, or <think>…</think><answer>…</answer>"
VOCABULARY_HELP = (
    'vg150, psg, coco or a JSON file {"objects": […], "predicates": […]}; labels outside it are issues; '
    "not given: any label"
)
AS_TRAINED = "not given: as the model was trained"
AS_PROTOCOL = "not given: as the protocol says"
SIMILARITY_HELP = "how labels compare: exact, vectors (GloVe), vectors:FILE (word vectors) or spacy:MODEL"
IOU_HELP = "a predicted and a target box agree from this IoU on"
ONE_TO_ONE_HELP = "let a predicted relation count for one target only (the papers let it count for several)"
F_BETA_HELP = "beta of triplet_f_beta: above 1 recall weighs more, below 1 precision"
COUNTS_HELP = "JSON file {predicate: count in the training set}, for predicate_weighted_recall"
FREEZE_HELP = "keep the weights of vision tower and projector as they are"
PIXELS_HELP = "pixels of the resized input at {}; not given: the model's own setting"
