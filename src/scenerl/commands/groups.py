"""Options that several commands share, each written once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import NonNegativeInt, PositiveInt

from scenerl.commands.sources import sources_of
from scenerl.config.options import (
    BoxFormatName,
    Dtype,
    FormatName,
    Options,
    Range,
    Share,
    TaskName,
    TemplateName,
    option,
)

OUTPUT = "Prompt and output format"
ROWS = "Rows"
IMAGE = "Images"
REWARD = "Rewards"
SAMPLING = "Sampling"
LOADING = "Loading"
VALIDATION = "Validation"
LORA = "LoRA"
QUANTISED = "Quantised weights (QLoRA)"
BATCH = "Batch"

SOURCE_HELP = (
    "JSONL file, folder, Parquet file, COCO instances or psg.json, hub:OWNER/NAME, or a released set: vg150:FOLDER, "
    "vg:FOLDER, psg:FOLDER, sgg_coco:FILE, vcoco:FOLDER, coco:FILE, d3:FOLDER, ovdeval:FOLDER, vlmr1_jsonl:FILE, "
    "rec:FILE; or of an annotation tool: annotated:FOLDER, cvat:FILE, label_studio:FILE; or your own: FILE.py:FUNCTION"
)
SPLIT_HELP = "split of the data set, where it has several"
FORMAT_HELP = (
    "json: R1-SGG's JSON; compact: one short line per object and relation; detections: VLM-R1's list of boxes, and "
    "lists like it; toon: SceneGraphVLM's tables; the others are read only, as the family of the name writes them"
)
TEMPLATE_HELP = "response template. plain: the output alone; think: <think>…</think><answer>…</answer>"
VOCABULARY_HELP = (
    'vg150, psg, coco or a JSON file {"objects": […], "predicates": […]}; other labels are counted as issues. '
    "Default: any label"
)
TRAINED = "Default: as the model was trained, else {}"
SIMILARITY_HELP = "label similarity: exact, vectors (GloVe), vectors:FILE (word vectors) or spacy:MODEL"
IOU_HELP = "smallest IoU at which two boxes match"
CONSTRAIN_HELP = "constrained decoding: every output parses, refers to existing objects only and ends within the limit"


@dataclass(frozen=True, kw_only=True)
class RowOptions(Options):
    """Which rows of a data set are read."""

    split: str | None = option(None, SPLIT_HELP, ROWS)
    limit: PositiveInt | None = option(None, "read the first N rows only", ROWS)


@dataclass(frozen=True, kw_only=True)
class PixelOptions(Options):
    """Size of the images that a model sees."""

    min_pixels: PositiveInt | None = option(None, "fewest pixels of the resized image. Default: the model's", IMAGE)
    max_pixels: PositiveInt | None = option(None, "most pixels of the resized image. Default: the model's", IMAGE)


@dataclass(frozen=True, kw_only=True)
class OutputFormatOptions(Options):
    """Prompt and output format of a model; shared by training and prediction."""

    format: FormatName | None = option(None, f"{FORMAT_HELP}. {TRAINED.format('json')}", OUTPUT)
    envelope: TemplateName | None = option(None, f"{TEMPLATE_HELP}. {TRAINED.format('plain')}", OUTPUT)
    vocabulary: Path | None = option(
        None, VOCABULARY_HELP.replace("Default: any label", TRAINED.format("any label")), OUTPUT
    )
    grid: PositiveInt | None = option(
        None, f"quantisation step: coordinates are multiples of it. {TRAINED.format('1')}", OUTPUT
    )
    task: TaskName | None = option(
        None,
        "sgdet: whole graph; sgcls, predcls: the prompt provides the boxes (predcls: and labels) of the objects; det: "
        f"detection. {TRAINED.format('by the format')}",
        OUTPUT,
    )
    boxes: Path | None = option(
        None, "COCO results of a detector; sgcls and predcls use them in place of the ground truth's objects", OUTPUT
    )
    boxes_min_score: float | None = option(None, "leave out detected boxes below this score. Default: 0.3", OUTPUT)


@dataclass(frozen=True, kw_only=True)
class AnswerOptions(Options):
    """How the texts in a file of predictions are parsed."""

    format: FormatName | Literal["auto"] = option(
        "json", f"{FORMAT_HELP}; auto: the one that explains most answers of the file, and it says which", OUTPUT
    )
    envelope: TemplateName = option("plain", TEMPLATE_HELP, OUTPUT)
    frame: BoxFormatName | None = option(
        None,
        "box format, where neither the row nor the format of the answer states its own. Default: norm1000; with "
        "--format auto, the one in which the boxes fit images and targets best, and it says which",
        OUTPUT,
    )
    vocabulary: Path | None = option(None, VOCABULARY_HELP, OUTPUT)


@dataclass(frozen=True, kw_only=True)
class RewardFlags(Options):
    """Rewards and their conventions; the same for GRPO and `score`."""

    rewards: list[str] = option(
        [], "rewards by name, or functions of your own: FILE.py:FUNCTION (docs/own_code.md)", REWARD
    )
    similarity: str = option("exact", SIMILARITY_HELP, REWARD)
    iou_threshold: Share = option(0.5, IOU_HELP, REWARD)
    one_to_one: bool = option(
        False, "a predicted relation counts for one target only; in the papers it may count for several", REWARD
    )
    f_beta: Annotated[float, Range(ge=0.001, le=1000)] = option(
        1.0, "beta of triplet_f_beta: above 1 recall weighs more, below 1 precision", REWARD
    )
    predicate_counts: Path | None = option(
        None, "JSON file {predicate: count in the training set}, for predicate_weighted_recall", REWARD
    )
    strict: bool = option(
        False, "any issue makes the whole output a failure, and `format` pays nothing without the template", REWARD
    )
    cosine_max_tokens: PositiveInt = option(1024, "length at which cosine_length stops changing", REWARD)
    cosine_correct: Share = option(
        0.7, "cosine_length takes an output as correct from this value of weighted_sum", REWARD
    )


@dataclass(frozen=True, kw_only=True)
class LoadOptions(Options):
    """Which code a checkpoint may run when it is loaded. TRL's configurations have trust_remote_code themselves."""

    trust_remote_code: bool = option(False, "run Python code that comes with the checkpoint", LOADING)
    allow_pickle: bool = option(False, "load weights from .bin files, which can run code", LOADING)


@dataclass(frozen=True, kw_only=True)
class TuningOptions(Options):
    """Full fine-tuning, or LoRA on weights that may be quantised. Names and defaults are those of TRL's ModelConfig."""

    allow_pickle: bool = option(False, "load weights from .bin files, which can run code", LOADING)
    dtype: Dtype = option("float32", "number type of the loaded weights; auto: as saved", LOADING)
    attn_implementation: str | None = option(
        None, "attention, by transformers' name. Default: transformers chooses", LOADING
    )
    use_peft: bool = option(False, "train LoRA adapters; a checkpoint that is an adapter is trained further", LORA)
    lora_r: PositiveInt = option(16, "rank", LORA)
    lora_alpha: PositiveInt = option(32, "the update is scaled by lora_alpha / lora_r", LORA)
    lora_dropout: Share = option(0.05, "dropout before the adapters", LORA)
    lora_target_modules: list[str] = option(
        [], "modules to adapt, or all-linear. Default: the linear layers of the language model", LORA
    )
    lora_modules_to_save: list[str] = option([], "further modules, trained in full", LORA)
    use_rslora: bool = option(False, "scale by lora_alpha / sqrt(lora_r)", LORA)
    use_dora: bool = option(False, "weight-decomposed adapters (DoRA)", LORA)
    load_in_4bit: bool = option(False, "4-bit base model; needs use_peft and bitsandbytes", QUANTISED)
    load_in_8bit: bool = option(False, "8-bit base model; needs use_peft and bitsandbytes", QUANTISED)
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = option("nf4", "4-bit number type", QUANTISED)
    use_bnb_nested_quant: bool = option(False, "quantise the scales as well", QUANTISED)
    bnb_4bit_quant_storage: str | None = option(None, "storage type of 4-bit weights, for FSDP", QUANTISED)


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(TuningOptions, PixelOptions, RowOptions, OutputFormatOptions):
    """What SFT and GRPO share."""

    model: str = option(..., "model folder or hub name; base: the small model in this package")
    data: str | list[str | dict[str, Any]] = option(
        ..., f"training data: {SOURCE_HELP}. Several of them are a mixture; recipes can weigh them (docs/validation.md)"
    )
    out: Path = option(..., "folder for checkpoints, the final model, log.jsonl and config.yaml")
    fresh: bool = option(False, "start over. Without it an interrupted run continues from its last checkpoint")
    smoke: bool = option(
        False, "two steps of the same run with a small model of its family on synthetic images, in OUT_smoke"
    )
    skip_bad: bool = option(False, "leave out unusable rows and images, with a warning each", ROWS)
    global_batch_size: PositiveInt | None = option(
        None,
        "examples (SFT) or completions (GRPO) per optimiser step over all processes; gradient accumulation follows "
        "from it, so that a step is the same on any number of GPUs",
        BATCH,
    )
    freeze_vision: bool = option(False, "freeze the vision tower and projector", IMAGE)
    eval_data: str | list[str | dict[str, Any]] | None = option(
        None,
        "validation data, one source or several as --data: greedy outputs are evaluated every --eval_steps (Default: "
        "--save_steps); --metric_for_best_model NAME and --load_best_model_at_end true keep the best checkpoint",
        VALIDATION,
    )
    eval_split: str | None = option(None, "split of the validation data, where it has several", VALIDATION)
    eval_samples: NonNegativeInt = option(
        200, "images of each source to answer, the same ones each time; 0: all", VALIDATION
    )
    eval_max_new_tokens: PositiveInt | None = option(
        None, "token limit of these outputs. Default: max_completion_length (GRPO), 1024 (SFT)", VALIDATION
    )
    early_stopping_patience: NonNegativeInt = option(
        0, "stop after N evaluations without a better metric_for_best_model; 0: never", VALIDATION
    )

    def __post_init__(self) -> None:
        sources_of(self.data)  # a mistake in one is found before anything starts
