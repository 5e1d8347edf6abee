"""The command `predict`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from scenerl.commands.groups import (
    CONSTRAIN_HELP,
    LOADING,
    SAMPLING,
    SOURCE_HELP,
    LoadOptions,
    OutputFormatOptions,
    PixelOptions,
    RowOptions,
)
from scenerl.config.options import Dtype, Share, option
from scenerl.errors import UserError

EXAMPLES = (
    "scenerl predict photo.jpg --model runs/grpo --draw drawings",
    "scenerl predict --model runs/sft --data data/shapes/test.jsonl --out predictions.jsonl",
    "scenerl predict --model runs/grpo --data mine.jsonl --out sampled.jsonl --num_samples 4 --temperature 1",
    "scenerl predict --engine openai --model runs/sft --data mine.jsonl --out served.jsonl --batch_size 64",
)
MOST_USED = ("images", "model", "data", "out", "draw", "query", "batch_size", "max_new_tokens", "engine", "server")
SERVER = "With --engine openai"
SHARDS = "Several processes"


@dataclass(frozen=True, kw_only=True)
class PredictOptions(LoadOptions, PixelOptions, RowOptions, OutputFormatOptions):
    """Predict for images or a data set: one JSONL row per image, appended at once; a repeated command continues."""

    images: list[str] = option([], "images, folders of images or patterns, in place of --data", positional=True)
    model: str = option(
        ..., "model folder or hub name; base: the small model in this package; with a server: its name there"
    )
    data: str | None = option(None, SOURCE_HELP)
    out: Path | None = option(
        None,
        "JSONL file to append to; images that it holds are not predicted again. Default for images: the name of the "
        "first with .predictions.jsonl",
    )
    query: list[str] = option([], "detection: the labels to look for, in images without any of their own")
    draw: Path | None = option(None, "folder for pictures of the images with what was predicted")
    fresh: bool = option(False, "overwrite the file instead of continuing it")
    shard: str | None = option(
        None, "i/n: the i-th of n shards, into a file of its own; auto: as torchrun or srun number the process", SHARDS
    )
    gather: PositiveInt | None = option(None, "write OUT from the files of N shards; predicts nothing", SHARDS)
    batch_size: PositiveInt | None = option(None, "images per batch; with a server: concurrent requests")
    dtype: Dtype = option("auto", "number type of the weights", LOADING)
    device: str = option("auto", "auto, cpu, cuda, cuda:1, …", LOADING)
    engine: Literal["hf", "openai"] = option(
        "hf", "hf: transformers, in this process; openai: a server with OpenAI's API (vLLM, SGLang, transformers serve)"
    )
    server: str = option("http://127.0.0.1:8000/v1", "its address; $OPENAI_API_KEY is its key", SERVER)
    checkpoint: str | None = option(
        None,
        "folder or hub name of the served checkpoint, for its scenerl.json, configuration and processor. Default: "
        "--model",
        SERVER,
    )
    family: str | None = option(None, "model_type of the served model, where the checkpoint is not at hand", SERVER)
    server_kind: Literal["auto", "vllm", "sglang", "transformers", "openai"] = option(
        "auto", "program that serves; auto: as it reports itself; openai: any other, OpenAI's fields only", SERVER
    )
    timeout: PositiveFloat = option(300.0, "seconds that the server may be silent", SERVER)
    tries: PositiveInt = option(5, "attempts per request", SERVER)
    max_new_tokens: PositiveInt = option(1024, "token limit of an output", SAMPLING)
    num_samples: PositiveInt = option(1, "outputs per image; several need a temperature", SAMPLING)
    temperature: NonNegativeFloat = option(0.0, "0 is greedy", SAMPLING)
    top_p: Share = option(1.0, "sample from the most likely tokens of this total probability", SAMPLING)
    top_k: NonNegativeInt = option(0, "sample from the K most likely tokens; 0: no limit", SAMPLING)
    seed: NonNegativeInt = option(0, "seed of the sampling", SAMPLING)
    logprobs: bool = option(False, "score objects and relations by the log-probabilities of their tokens", SAMPLING)
    constrain: bool = option(False, CONSTRAIN_HELP, SAMPLING)
    merge: bool = option(
        False,
        "merge the outputs for an image by vote into one graph, as `merge` does; the row keeps all",
        SAMPLING,
    )

    def __post_init__(self) -> None:
        for name in self.images:
            if Path(name).suffix.lower() in (".jsonl", ".json", ".parquet"):
                raise UserError(f"{name}: is no image; a data set is given as --data {name}")
        if bool(self.images) == (self.data is not None):
            raise UserError("predict needs images or --data, one of them; see `scenerl predict --help`")
        if self.out is None and self.data is not None:
            raise UserError("predict needs --out; see `scenerl predict --help`")
        if self.num_samples > 1 and self.temperature == 0:
            raise UserError(f"num_samples: {self.num_samples} greedy outputs would be equal; set a temperature above 0")
        if self.shard and self.gather:
            raise UserError("gather: shards are gathered when all of them are done; use --shard or --gather")
        if self.merge and self.num_samples == 1:
            raise UserError("merge: one output cannot be merged; set --num_samples and --temperature")
