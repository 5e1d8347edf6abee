"""What every engine does: prompts in, answers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are sampled. Temperature 0 is greedy; ``top_k`` 0 and ``top_p`` 1 are no limits."""

    max_new_tokens: int = 1024
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    num_samples: int = 1

    def __post_init__(self) -> None:
        if self.num_samples > 1 and self.temperature == 0:
            raise ValueError(
                f"num_samples {self.num_samples} with temperature 0 gives equal answers; set a temperature"
            )


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. ``finish_reason`` is ``stop``, or ``length`` where the token limit cut it off."""

    text: str
    num_tokens: int
    finish_reason: str


class Engine(Protocol):
    """Anything that answers prompts with images."""

    def answer(self, prompts: Sequence[list[dict]], seed: int) -> list[list[Reply]]:
        """``num_samples`` replies for each prompt, in order.

        Args:
            prompts: user messages, the images in them (see :class:`scenerl.conversation.Conversation`).
            seed: of the sampling; the same prompts and seed give the same replies.
        """
        ...
