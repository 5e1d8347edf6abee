"""What every engine does: prompts in, answers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from scenerl.answers import GrammarSpec
from scenerl.errors import UserError


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are sampled. Temperature 0 is greedy; ``top_k`` 0 and ``top_p`` 1 are no limits.

    ``logprobs``: replies come with the log-probabilities of their tokens.
    """

    max_new_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    num_samples: int = 1
    logprobs: bool = False

    def __post_init__(self) -> None:
        if self.num_samples > 1 and self.temperature == 0:
            raise UserError(f"num_samples {self.num_samples} with temperature 0 gives equal answers; set a temperature")


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. ``finish_reason`` is ``stop``, or ``length`` where the token limit cut it off.

    ``logprobs``, where they were requested, holds the natural logarithm of each token's probability under the whole
    distribution of the model: temperature 1, no ``top_k`` or ``top_p``, no token left out. The token that ends the
    answer is not among them. ``spans`` holds the characters [start, end) of ``text`` that each of these tokens wrote;
    None where that cannot be known.
    """

    text: str
    num_tokens: int
    finish_reason: str
    logprobs: tuple[float, ...] | None = None
    spans: tuple[tuple[int, int], ...] | None = None


class GenerationError(Exception):
    """An engine could not answer these prompts and may well answer the next: predict notes it and goes on."""


class Engine(Protocol):
    """Anything that answers prompts with images."""

    def answer(
        self, prompts: Sequence[list[dict]], seed: int, shapes: Sequence[GrammarSpec] | None = None
    ) -> list[list[Reply]]:
        """``num_samples`` replies for each prompt, in order.

        Args:
            prompts: user messages, the images in them (:meth:`scenerl.answers.dialogue.Conversation.prompt`).
            seed: of the sampling; the same prompts and seed give the same replies.
            shapes: what the answers to each prompt are held to; None leaves the model free.

        Raises:
            GenerationError: there is no answer to one of them; the message gives the reason.
        """
        ...

    def check(self, shape: GrammarSpec) -> None:
        """Raise UserError where answers cannot be held to this specification."""
        ...
