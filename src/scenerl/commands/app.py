"""The command `app`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import PositiveInt

from scenerl.commands.groups import LOADING, PixelOptions
from scenerl.config.options import Dtype, Range, option

EXAMPLES = ("scenerl app runs/demo", "scenerl app before=runs/sft after=runs/grpo --port 8000")
LIMITS = "Limits"


@dataclass(frozen=True, kw_only=True)
class AppOptions(PixelOptions):
    """A local web page: drop an image and see the output of one or two checkpoints."""

    models: list[str] = option(
        ..., "checkpoint folders, run folders or hub names; NAME=FOLDER names one", positional=True
    )
    host: str = option("127.0.0.1", "address to listen on; any other address opens the page to others")
    port: Annotated[int, Range(ge=0, le=65535)] = option(7860, "port to listen on; 0: any free port")
    device: str = option("auto", "auto, cpu, cuda, cuda:1, …", LOADING)
    dtype: Dtype = option("auto", "number type of the weights", LOADING)
    max_new_tokens: PositiveInt = option(1024, "largest token limit that the page may request", LIMITS)
    max_samples: PositiveInt = option(8, "most outputs per image that the page may request", LIMITS)
    max_megabytes: PositiveInt = option(20, "largest file", LIMITS)
    max_megapixels: Annotated[int, Range(ge=1, le=80)] = option(40, "largest image", LIMITS)
