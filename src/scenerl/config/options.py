"""The options of every command: plain dataclasses, so that recipes, the command line and Python share one vocabulary.

Nothing here imports more than the standard library. A field's type says what is accepted (``Literal`` lists the
choices), its default is the vetted setting, and its metadata holds the help text and the group it is shown under.
Adding an option is one line here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scenerl.config.data import DataOptions
from scenerl.config.launching import LaunchOptions, PlanOptions
from scenerl.config.option import (
    ANSWER,
    AS_PROTOCOL,
    AS_TRAINED,
    COUNTS_HELP,
    ENVELOPE_HELP,
    F_BETA_HELP,
    FORMAT_HELP,
    FREEZE_HELP,
    IMAGE,
    IOU_HELP,
    MAP,
    MATCH,
    ONE_TO_ONE_HELP,
    PIXELS_HELP,
    REWARD,
    SAMPLE,
    SERVER,
    SIMILARITY_HELP,
    SOURCE_HELP,
    VOCABULARY_HELP,
    WHICH,
    AnswerFormat,
    Envelope,
    Frame,
    Options,
    PredictionFormat,
    ProtocolName,
    Task,
    option,
)
from scenerl.config.tuning import ExportOptions, LoadOptions, TuningOptions
from scenerl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class DemoOptions(Options):
    """From nothing to a report: data, a small model, SFT, GRPO, tables."""

    out: Path = option(Path("runs/demo"), "folder of the run")
    fresh: bool = option(False, "start over; without it finished stages are skipped and a broken one goes on")
    smoke: bool = option(False, "the same code with tiny settings, about a minute")
    full: bool = option(
        False,
        "train both rewards and a control as well; the control: RL without SFT, for detection SFT on RL's questions",
    )
    task: Literal["graph", "detection"] = option("graph", "scene graphs, or open-vocabulary detection")
    reward: Literal["triplet_f1", "hard_recall", "od_length", "ap"] | None = option(
        None, "what RL maximises; not given: triplet_f1, for detection od_length; the others are hard_recall and ap"
    )
    envelope: Envelope = option("plain", ENVELOPE_HELP)
    seed: int = option(0, "seed of data, model and sampling", low=0)


@dataclass(frozen=True, kw_only=True)
class AnswerOptions(Options):
    """How a model is asked and answers; shared by training and prediction."""

    format: AnswerFormat | None = option(None, f"{FORMAT_HELP}; {AS_TRAINED}, else json", ANSWER)
    envelope: Envelope | None = option(None, f"{ENVELOPE_HELP}; {AS_TRAINED}, else plain", ANSWER)
    vocabulary: Path | None = option(
        None, VOCABULARY_HELP.replace("not given: any label", f"{AS_TRAINED}, else any label"), ANSWER
    )
    grid: int | None = option(
        None, f"write coordinates in multiples of so many frame units; {AS_TRAINED}, else 1", ANSWER, low=1
    )
    task: Task | None = option(
        None,
        "whole graph; prompt gives the objects' boxes (sgcls) or boxes and labels (predcls); detection; "
        f"{AS_TRAINED}, else by the format",
        ANSWER,
    )
    boxes: Path | None = option(
        None, "COCO results of a detector, given by sgcls and predcls in place of the ground truth's objects", ANSWER
    )
    boxes_min_score: float | None = option(None, "leave out boxes scored below; not given: 0.3", ANSWER)


CONSTRAIN_HELP = "let the model write only what reads as an answer, refers to no missing object and ends in time"
SKIP_HELP = "leave out rows that cannot be used, and rows whose image cannot, with a warning each"
SMOKE_HELP = "two steps of the same run with a small model of its family on drawn examples, in OUT_smoke"
GLOBAL_BATCH_HELP = (
    "{} per optimiser step over all processes; gradient_accumulation_steps follows from it, so that a step is the same "
    "on any number of GPUs"
)


@dataclass(frozen=True, kw_only=True)
class SFTOptions(TuningOptions, AnswerOptions):
    """Supervised fine-tuning on annotated graphs. The loss is on the answer only."""

    model: str = option(
        ...,
        "model folder or hub name; tiny: build a small Qwen2-VL for the training data in OUT/tiny, no download; "
        "tiny:MODEL_TYPE: one of another family",
    )
    data: str = option(..., f"training data: {SOURCE_HELP}")
    out: Path = option(..., "folder for checkpoints, the final model, log.jsonl and config.yaml")
    fresh: bool = option(False, "start over; without it an interrupted run goes on from its last checkpoint")
    smoke: bool = option(False, SMOKE_HELP)
    split: str | None = option(None, "split to read, where the source has several", WHICH)
    limit: int | None = option(None, "use at most so many rows", WHICH, low=1)
    skip_bad: bool = option(False, SKIP_HELP, WHICH)
    global_batch_size: int | None = option(None, GLOBAL_BATCH_HELP.format("examples"), "Batch", low=1)
    min_pixels: int | None = option(None, PIXELS_HELP.format("least"), IMAGE, low=1)
    max_pixels: int | None = option(None, PIXELS_HELP.format("most"), IMAGE, low=1)
    freeze_vision: bool = option(False, FREEZE_HELP, IMAGE)
    tiny_warmup_steps: int = option(
        0, "steps in which its vision tower learns where things are, before SFT; 0: none", "With --model tiny", low=0
    )
    muon: bool = option(
        False, "Muon for matrices, AdamW for the rest: for small models trained from scratch", "Optimiser"
    )
    muon_learning_rate: float = option(0.02, "learning rate of Muon; AdamW keeps learning_rate", "Optimiser", low=0)
    thought: Literal["empty", "summary"] = option(
        "empty", "what SFT puts in a thought: nothing, or how many of what the answer holds (envelope think)", ANSWER
    )


@dataclass(frozen=True, kw_only=True)
class GRPOOptions(TuningOptions, AnswerOptions):
    """Reinforcement learning with GRPO; rewards and their weights come from the recipe."""

    model: str = option(..., "model folder or hub name")
    data: str = option(..., f"training data: {SOURCE_HELP}")
    out: Path = option(..., "folder for checkpoints, the final model, log.jsonl, samples.jsonl and config.yaml")
    fresh: bool = option(False, "start over; without it an interrupted run goes on from its last checkpoint")
    smoke: bool = option(False, SMOKE_HELP)
    split: str | None = option(None, "split to read, where the source has several", WHICH)
    limit: int | None = option(None, "use at most so many rows", WHICH, low=1)
    skip_bad: bool = option(False, SKIP_HELP, WHICH)
    global_batch_size: int | None = option(None, GLOBAL_BATCH_HELP.format("completions"), "Batch", low=1)
    min_pixels: int | None = option(None, PIXELS_HELP.format("least"), IMAGE, low=1)
    max_pixels: int | None = option(None, PIXELS_HELP.format("most"), IMAGE, low=1)
    freeze_vision: bool = option(False, FREEZE_HELP, IMAGE)
    shared_prefix: Literal["auto", "on", "off"] = option(
        "auto", "run each image and prompt once per group of completions; auto: where the model allows it", "Speed"
    )
    max_tokens_per_row: int | None = option(
        None, "with shared_prefix: run groups that are longer in several rows, each with its prompt", "Speed", low=1
    )
    constrain: bool = option(False, f"rollouts: {CONSTRAIN_HELP}", SAMPLE)
    rewards: list[str] = option(
        ["format", "node_label", "node_box", "hard_recall"],
        "rewards by name; weights: --reward_weights, in order",
        REWARD,
    )
    similarity: str = option("exact", SIMILARITY_HELP, REWARD)
    iou_threshold: float = option(0.5, IOU_HELP, REWARD, low=0, high=1)
    one_to_one: bool = option(False, ONE_TO_ONE_HELP, REWARD)
    f_beta: float = option(1.0, F_BETA_HELP, REWARD, low=0.001, high=1000)
    predicate_counts: Path | None = option(None, COUNTS_HELP, REWARD)
    constant_reward_window: int = option(
        20, "warn when a reward has not moved for so many steps; 0: never", "Watching", low=0
    )
    rollout_check_tolerance: float = option(
        0.05,
        "largest difference between rollout and trainer log-probabilities at the start; 0: no check",
        "Watching",
        low=0,
    )
    sample_log_every: int = option(
        10, "write completions with their rewards to samples.jsonl every so many steps; 0: never", "Watching", low=0
    )


@dataclass(frozen=True, kw_only=True)
class PredictOptions(LoadOptions, AnswerOptions):
    """Answer every image of a data set; one JSONL row each, appended as it goes, resumable."""

    model: str = option(..., "model folder or hub name; with a server: its name there")
    data: str = option(..., SOURCE_HELP)
    out: Path = option(..., "JSONL file to append to; rows that are there already are not done again")
    fresh: bool = option(False, "overwrite the file instead of going on with it")
    shard: str | None = option(
        None, "i/n: answer the i-th of n parts into a file of its own; auto: as torchrun or srun number this process"
    )
    gather: int | None = option(None, "make OUT of the files of so many parts; answers nothing", low=1)
    split: str | None = option(None, "split to read, where the source has several", WHICH)
    limit: int | None = option(None, "answer at most so many images", WHICH, low=1)
    batch_size: int | None = option(None, "images at a time; with a server: requests at a time", low=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option("auto", "number type of the weights")
    device: str = option("auto", "auto, cpu, cuda, cuda:1, …")
    engine: Literal["hf", "openai"] = option(
        "hf", "hf: transformers, in this process; openai: a server with OpenAI's API (vLLM, SGLang, transformers serve)"
    )
    server: str = option("http://127.0.0.1:8000/v1", "its address; a key is read from $OPENAI_API_KEY", SERVER)
    checkpoint: str | None = option(
        None,
        "folder or hub name of the checkpoint it serves, of which scenerl.json, configuration and processor are read; "
        "not given: --model",
        SERVER,
    )
    family: str | None = option(None, "model_type of what it serves, where the checkpoint is not at hand", SERVER)
    timeout: float = option(300.0, "seconds that a request may take", SERVER, low=0.001)
    tries: int = option(5, "how often a request is made that the server or the network fails", SERVER, low=1)
    max_new_tokens: int = option(1024, "token limit of an answer", SAMPLE, low=1)
    num_samples: int = option(1, "answers per image; more than one needs a temperature", SAMPLE, low=1)
    temperature: float = option(0.0, "0 is greedy", SAMPLE, low=0)
    top_p: float = option(1.0, "sample from the likeliest tokens of this total probability", SAMPLE, low=0, high=1)
    top_k: int = option(0, "sample from so many likeliest tokens; 0: no limit", SAMPLE, low=0)
    seed: int = option(0, "seed of the sampling", SAMPLE, low=0)
    logprobs: bool = option(False, "score objects and relations by the log-probabilities of their tokens", SAMPLE)
    constrain: bool = option(False, CONSTRAIN_HELP, SAMPLE)
    merge: bool = option(
        False, "make one graph of the answers to an image by vote, as `merge` does; they are kept beside it", SAMPLE
    )
    min_pixels: int | None = option(None, PIXELS_HELP.format("least"), IMAGE, low=1)
    max_pixels: int | None = option(None, PIXELS_HELP.format("most"), IMAGE, low=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_samples > 1 and self.temperature == 0:
            raise UserError(
                f"num_samples: {self.num_samples} greedy answers would be equal; give a temperature above 0"
            )
        if self.shard and self.gather:
            raise UserError("gather: parts are gathered when all of them are done; give --shard or --gather")
        if self.merge and self.num_samples == 1:
            raise UserError("merge: there is nothing to merge in one answer; give --num_samples and --temperature")


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(Options):
    """Every reward of every answer, and why it is what it is. Needs no torch."""

    rows: Path = option(
        ...,
        "JSONL file: data rows with an `answer` (text or null); with --data, rows as `predict` writes them",
        positional=True,
    )
    data: str | None = option(None, f"ground truth by image_id: {SOURCE_HELP}; not given: in the rows")
    split: str | None = option(None, "split of the ground truth, where the source has several")
    out: Path | None = option(None, "JSONL file to write; not given: standard output")
    format: AnswerFormat = option("json", FORMAT_HELP, ANSWER)
    envelope: Envelope = option("plain", ENVELOPE_HELP, ANSWER)
    frame: Frame = option("norm1000", "what the numbers of a box mean", ANSWER)
    vocabulary: Path | None = option(None, VOCABULARY_HELP, ANSWER)
    strict: bool = option(False, "any issue makes the whole answer a failure", ANSWER)
    rewards: list[str] = option([], "rewards by name; not given: all that suit the format", REWARD)
    similarity: str = option("exact", SIMILARITY_HELP, REWARD)
    iou_threshold: float = option(0.5, IOU_HELP, REWARD, low=0, high=1)
    one_to_one: bool = option(False, ONE_TO_ONE_HELP, REWARD)
    f_beta: float = option(1.0, F_BETA_HELP, REWARD, low=0.001, high=1000)
    predicate_counts: Path | None = option(None, COUNTS_HELP, REWARD)


@dataclass(frozen=True, kw_only=True)
class EvalOptions(Options):
    """Metrics of predictions against ground truth, with 95 % bootstrap intervals; or two predictions compared."""

    pred: Path | None = option(
        None, "predictions: JSONL rows with `image_id` and `answer`, or another project's file", positional=True
    )
    data: str = option(..., f"ground truth: {SOURCE_HELP}; or a file of COCO instances, or psg.json")
    out: Path | None = option(None, "metrics.json to write; not given: the table only")
    input: PredictionFormat = option("auto", "what kind of file the predictions are; auto: by its content")
    task: Task | None = option(None, f"scene graphs, or object detection; {AS_PROTOCOL}, else sgdet")
    compare: list[Path] = option(
        [], "two files of predictions: paired bootstrap with p-values, and the images where they differ most"
    )
    export: list[str] = option([], "FORMAT=FILE: write the predictions for other tools, as sgbench or coco")
    format: AnswerFormat = option("json", FORMAT_HELP, ANSWER)
    envelope: Envelope = option("plain", ENVELOPE_HELP, ANSWER)
    frame: Frame = option("norm1000", "what the numbers of a box mean; parsed rows say it themselves", ANSWER)
    vocabulary: Path | None = option(None, VOCABULARY_HELP, ANSWER)
    protocol: ProtocolName | None = option(None, "conventions of a publication; options given win over it", MATCH)
    ks: list[int] = option([20, 50, 100], "the K of R@K, ng-R@K, mR@K, zR@K", MATCH, low=1)
    iou_threshold: float = option(0.5, IOU_HELP, MATCH, low=0, high=1)
    plus_one: bool | None = option(
        None, f"add a pixel to widths and heights, as Motifs' descendants do; {AS_PROTOCOL}, else no", MATCH
    )
    absent_as_zero: bool | None = option(
        None, f"mR@K counts predicates absent from the targets as 0; {AS_PROTOCOL}, else no", MATCH
    )
    hits: Literal["one_to_many", "one_to_one", "best_target"] | None = option(
        None, f"what one prediction may hit; {AS_PROTOCOL}, else one_to_many", MATCH
    )
    graph_constraint: Literal["scored", "always", "never"] | None = option(
        None, f"only one predicate of each pair counts in R@K; {AS_PROTOCOL}, else where there are scores", MATCH
    )
    ties: Literal["emission", "expected"] | None = option(
        None, f"equal scores rank by emission, or in expectation over all orders; {AS_PROTOCOL}, else emission", MATCH
    )
    failed: Literal["empty", "skipped", "skipped_in_means", "skipped_if_empty"] | None = option(
        None, f"what becomes of failed answers; {AS_PROTOCOL}, else empty", MATCH
    )
    f1_average: Literal["micro", "classes"] | None = option(
        None, f"F1 at IoU over all boxes, or over classes first; {AS_PROTOCOL}, else micro", MATCH
    )
    filtered: bool = option(False, "COCO filtered: leave out, per image, categories with more than 10 boxes", MATCH)
    train: str | None = option(None, "training data: seen triplet types of zR@K; head, body and tail", MATCH)
    train_split: str | None = option(None, "split of the training data, where it has several", MATCH)
    group_bounds: list[int] = option(
        [], "fewest training relations of body and of head, as 500 10000; not given: thirds of the predicates", MATCH
    )
    map_table: Path | None = option(None, "JSON file {objects: {label: target}, predicates: {…}}", MAP)
    map_wordnet: Path | None = option(None, "WordNet's database folder: map synonyms", MAP)
    map_similarity: str | None = option(None, f"map the most similar label; {SIMILARITY_HELP}", MAP)
    map_threshold: float = option(0.8, "least similarity of a mapping", MAP, low=0, high=1)
    split: str | None = option(None, "split of the ground truth, where the source has several", WHICH)
    resamples: int = option(1000, "bootstrap resamples over images; 0: no intervals", "Intervals", low=0)
    seed: int = option(0, "seed of the bootstrap", "Intervals", low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.compare) not in (0, 2):
            raise UserError(f"compare: two files of predictions are needed, found {len(self.compare)}")
        if len(self.group_bounds) not in (0, 2):
            raise UserError(f"group_bounds: two numbers are needed, found {len(self.group_bounds)}")


@dataclass(frozen=True, kw_only=True)
class MergeOptions(Options):
    """Several answers per image made into one graph by vote. Needs no torch."""

    samples: Path = option(..., "JSONL file of `predict --num_samples`, answered several times", positional=True)
    out: Path = option(..., "JSONL file to write: a row per image, with votes and scores")
    iou_threshold: float = option(
        0.5, "objects of two answers are one from this IoU on, where their labels are equal", low=0.01, high=1
    )
    min_share: float = option(
        0.25, "leave out what is in less than this share of the answers; 0: keep all of it", low=0, high=1
    )


@dataclass(frozen=True, kw_only=True)
class ReportOptions(Options):
    """One self-contained HTML file from run folders, or from files named one by one."""

    run: list[Path] = option(
        [], "run folder with a report.json, as `demo` writes it; several are compared", positional=True
    )
    out: Path | None = option(None, "HTML file to write; not given: report.html, of a single run in its folder")
    title: str | None = option(None, "title of the report")
    data: str | None = option(None, "ground truth: a data source, as `eval` takes it", "Without a run folder")
    split: str | None = option(None, "split of the data source", "Without a run folder")
    predictions: list[str] = option([], "NAME=predictions.jsonl, one per stage", "Without a run folder")
    metrics: list[str] = option([], "NAME=metrics.json, one per stage", "Without a run folder")
    logs: list[str] = option([], "NAME=log.jsonl, one per training stage", "Without a run folder")
    num_images: int = option(48, "images in the gallery", "Gallery", low=1)
    seed: int = option(0, "seed of the choice of images", "Gallery", low=0)


@dataclass(frozen=True, kw_only=True)
class AppOptions(Options):
    """A local web page: drop an image, see what one or two checkpoints answer."""

    models: list[str] = option(
        ..., "checkpoint folders, run folders or hub names; NAME=FOLDER names one", positional=True
    )
    host: str = option("127.0.0.1", "address to listen on; any but this machine's own lets others use the page")
    port: int = option(7860, "port to listen on; 0: any that is free", low=0, high=65535)
    device: str = option("auto", "auto, cpu, cuda, cuda:1, …")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = option("auto", "number type of the weights")
    max_new_tokens: int = option(1024, "most tokens of an answer that the page may ask for", "Limits", low=1)
    max_samples: int = option(8, "most answers to an image that the page may ask for", "Limits", low=1)
    max_megabytes: int = option(20, "largest file that is taken", "Limits", low=1)
    max_megapixels: int = option(40, "largest image that is taken", "Limits", low=1, high=80)
    min_pixels: int | None = option(None, PIXELS_HELP.format("least"), IMAGE, low=1)
    max_pixels: int | None = option(None, PIXELS_HELP.format("most"), IMAGE, low=1)


OPTIONS: dict[str, type] = {
    "demo": DemoOptions,
    "data": DataOptions,
    "sft": SFTOptions,
    "grpo": GRPOOptions,
    "predict": PredictOptions,
    "launch": LaunchOptions,
    "plan": PlanOptions,
    "score": ScoreOptions,
    "eval": EvalOptions,
    "merge": MergeOptions,
    "report": ReportOptions,
    "app": AppOptions,
    "export": ExportOptions,
}
"""Command name to its options."""

TRL_CONFIGS = {"sft": "SFTConfig", "grpo": "GRPOConfig"}
"""Commands that take every field of one of TRL's configuration classes besides their own options."""
