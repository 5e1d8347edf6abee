"""Which engine answers: what its answers depend on, and how it is started. Nothing large is loaded before that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from scenerl.answers.dialogue import Conversation
from scenerl.config import plain
from scenerl.errors import UserError
from scenerl.inference.engine import Engine, Sampling
from scenerl.inference.fingerprint import Fingerprint
from scenerl.models import FAMILIES
from scenerl.models.family import Family
from scenerl.models.folders import located, weight_files
from scenerl.models.loading import (
    Checkpoint,
    family_named,
    family_of,
    is_hub_name,
    load,
    processor_source,
    weights_digest,
)
from scenerl.models.output_formats import output_format_for
from scenerl.runs import default_values

if TYPE_CHECKING:
    from scenerl.commands.predict import PredictOptions

DEFAULT_BATCH = 16
DEFAULT_REQUESTS = 16
_WITHOUT_EFFECT = frozenset(
    ("fresh", "images", "out", "draw", "shard", "gather", "device", "batch_size", "dtype")
    + ("server", "server_kind", "checkpoint", "family", "timeout", "tries")
)
"""Options that no engine's answers depend on, unless it says so."""


@dataclass(frozen=True, slots=True)
class Started:
    """A running engine, with the conversation that makes its prompts.

    Attributes:
        batch_size: images that one call of ``answer`` gets.
        concurrency: calls of ``answer`` at a time, each in a thread; 0: one, in this thread.
    """

    conversation: Conversation
    engine: Engine
    batch_size: int
    concurrency: int = 0


class InProcess:
    """``hf``: transformers in this process."""

    enforces_conditions = True

    def __init__(self, options: PredictOptions):
        for name in ("checkpoint", "family"):
            if getattr(options, name) is not None:
                raise UserError(f"{name}: names what a server runs; it goes with --engine openai")
        self._options = options
        self.output_format = output_format_for(options, family_of(options.model))
        weights = weights_digest(options.model, options.allow_pickle)
        self.own = {"batch_size": options.batch_size, "dtype": options.dtype, "weights": weights}

    @contextmanager
    def start(self, sampling: Sampling) -> Iterator[Started]:
        from scenerl.inference.hf import HFEngine

        options = self._options
        checkpoint = load(
            options.model,
            options.dtype,
            device_named(options.device),
            options.min_pixels,
            options.max_pixels,
            trust_remote_code=options.trust_remote_code,
            allow_pickle=options.allow_pickle,
        )
        conversation = checkpoint.conversation(self.output_format)
        yield Started(conversation, HFEngine(checkpoint, sampling), options.batch_size or DEFAULT_BATCH)


class Server:
    """``openai``: a server with OpenAI's API. No weights are loaded here."""

    enforces_conditions = False

    def __init__(self, options: PredictOptions):
        self._options = options
        self._source = _checkpoint_of(options)
        if self._source is None:
            self._family = _family_option(options)
            self.output_format = output_format_for(options, self._family, is_new=True)
        else:
            self._family = family_of(self._source)
            self.output_format = output_format_for(replace(options, model=self._source), self._family)
        has_weights = self._source and any(path.is_file() for path in weight_files(Path(self._source)))
        weights = weights_digest(self._source) if has_weights else None
        self.own = {"checkpoint": options.checkpoint, "family": options.family, "weights": weights}

    @contextmanager
    def start(self, sampling: Sampling) -> Iterator[Started]:
        from scenerl.inference.server import ServerEngine

        options, processor = self._options, None
        if self._source is not None:
            try:
                processor = self._family.load_processor(
                    processor_source(self._source), options.min_pixels, options.max_pixels, options.trust_remote_code
                )
            except UserError:
                raise
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise UserError(f"{self._source}: its processor cannot be loaded ({error})") from error
        checkpoint = Checkpoint(self._source or options.model, self._family, None, processor)
        requests = options.batch_size or DEFAULT_REQUESTS
        engine = ServerEngine(
            options.server,
            options.model,
            sampling,
            checkpoint,
            options.constrain,
            options.server_kind,
            os.environ.get("OPENAI_API_KEY"),
            options.timeout,
            options.tries,
            requests,
        )
        with closing(engine):
            yield Started(checkpoint.conversation(self.output_format), engine, batch_size=1, concurrency=requests)


def _checkpoint_of(options: PredictOptions) -> str | None:
    """Folder or hub name of what the server runs; None where only its family is known."""
    if options.family is not None:
        if options.checkpoint is not None:
            raise UserError("family: it is in the checkpoint's configuration; give --checkpoint or --family, not both")
        return None
    source = str(located(options.checkpoint or options.model))
    if not Path(source).exists() and not is_hub_name(source):
        raise UserError(
            f"{source!r} is no folder and no hub name (owner/name), so its prompt format is not known; give what "
            "the server runs as --checkpoint FOLDER, or its model_type as --family"
        )
    return source


def _family_option(options: PredictOptions) -> Family:
    if options.family not in FAMILIES:
        raise UserError(f"family: unknown model_type {options.family!r}; allowed: {', '.join(FAMILIES)}")
    family = family_named(options.family)
    if family.box_format == "resized":
        raise UserError(
            f"family {options.family}: its boxes are in pixels of the resized input, which the processor sets; "
            "give the folder or hub name with --checkpoint"
        )
    for name in ("min_pixels", "max_pixels"):
        if getattr(options, name) is not None:
            raise UserError(f"{name}: without the processor (--checkpoint) the server alone resizes images")
    return family


ENGINES: dict[str, type[InProcess | Server]] = {"hf": InProcess, "openai": Server}
"""Option ``engine`` to the class that starts it. An instance is an engine that was chosen and not started yet.

``output_format`` is that of the model's answers; ``own``, what its answers depend on besides the options that all
engines share; ``enforces_conditions`` says that constrained answers also obey what no grammar can express.
``start(sampling)`` is a context manager that gives :class:`Started`; it raises UserError where the checkpoint cannot be
loaded, or the server is not there or cannot do what is requested.
"""


def fingerprint_of(options: PredictOptions, choice: InProcess | Server) -> Fingerprint:
    """Of a run: its options, the output format, and what the engine adds."""
    shared = {key: value for key, value in plain(options).items() if key not in _WITHOUT_EFFECT}
    values = {**shared, "output_format": plain(choice.output_format), **choice.own}
    return Fingerprint(values, default_values(type(options)))


def device_named(name: str) -> str:
    """``auto`` or a device of torch's to one that can be used; of several GPUs, ``auto`` gives each process of
    torchrun, accelerate or srun its own.

    Raises:
        UserError: it cannot be used; says why.
    """
    import torch

    if name == "auto":
        return f"cuda:{_local_rank() % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # an unknown name, a device that is not there, a torch without it
        reason = str(error).splitlines()[0]
        raise UserError(f"device {name!r} cannot be used ({reason}); allowed: auto, cpu, cuda, cuda:1, …") from error
    return name


def _local_rank() -> int:
    """The number of this process among those that torchrun, accelerate or srun started on this machine, from 0."""
    found = (os.environ.get(name, "") for name in ("LOCAL_RANK", "SLURM_LOCALID"))
    return next((int(number) for number in found if number.isdecimal()), 0)
