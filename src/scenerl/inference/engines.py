"""Which engine answers: what its answers depend on, and how it is started. Nothing large is loaded before that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from scenerl.answers import AnswerStyle
from scenerl.config import PredictOptions, plain
from scenerl.conversation import Conversation, style_for
from scenerl.inference.engine import Engine, Sampling
from scenerl.models.loading import family_of, load, weights_digest

DEFAULT_BATCH = 16
_NEVER = {"fresh", "out", "device", "batch_size", "dtype", "server", "checkpoint", "family", "timeout", "tries"}
_NEVER |= {"shard", "gather"}
"""Options that no engine's answers depend on, unless it says so."""


@dataclass(frozen=True, slots=True)
class Started:
    """A running engine, with the conversation that it is asked in.

    Attributes:
        batch_size: images that one call of ``answer`` gets.
        ahead: calls of ``answer`` at a time; 0: one, in this thread.
    """

    conversation: Conversation
    engine: Engine
    batch_size: int
    ahead: int = 0


class Choice(Protocol):
    """An engine that has been chosen and not started yet.

    Attributes:
        style: how the model is asked and answers.
        own: what its answers depend on besides the options that all engines share.
    """

    style: AnswerStyle
    own: dict[str, Any]

    def start(self, sampling: Sampling):
        """A context manager that gives :class:`Started`.

        Raises:
            ValueError: the checkpoint cannot be loaded; the server is not there or cannot do what is asked.
        """
        ...


class InProcess:
    """``hf``: transformers in this process."""

    def __init__(self, options: PredictOptions):
        self._options = options
        self.style = style_for(options, family_of(options.model))
        self._device = device_named(options.device)
        weights = weights_digest(options.model)
        self.own = {"batch_size": options.batch_size, "dtype": options.dtype, "weights": weights}

    @contextmanager
    def start(self, sampling: Sampling) -> Iterator[Started]:
        from scenerl.inference.hf import HFEngine

        options = self._options
        checkpoint = load(options.model, options.dtype, self._device, options.min_pixels, options.max_pixels)
        conversation = Conversation(self.style, checkpoint)
        yield Started(conversation, HFEngine(checkpoint, sampling), options.batch_size or DEFAULT_BATCH)


ENGINES: dict[str, type[Choice]] = {"hf": InProcess}
"""Name of an engine to what is done when it is chosen."""


def fingerprint(options: PredictOptions, choice: Choice) -> dict[str, Any]:
    """Everything the answers depend on: the options, how the model is asked, and what the engine adds."""
    shared = {key: value for key, value in plain(options).items() if key not in _NEVER}
    return {**shared, "style": plain(choice.style), **choice.own}


def device_named(name: str) -> str:
    """``auto`` or a device of torch's to one that can be used.

    Raises:
        ValueError: it cannot be used; says why.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # an unknown name, a device that is not there, a torch without it
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used ({reason}); allowed: auto, cpu, cuda, cuda:1, …") from error
    return name
