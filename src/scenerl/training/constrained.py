"""Constrained rollouts (``constrain: true``).

Completions are sampled from the masked distribution. The update is as without constraints: TRL scores all their tokens
under the policy's whole distribution. A forced token has the probability that the policy gives it, so that the policy
learns to write it without being forced.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from transformers import LogitsProcessorList
from trl import GRPOConfig

from scenerl.answers import build_grammar
from scenerl.answers.dialogue import Conversation
from scenerl.constrain import ConstraintMask, RunSampler, Vocabulary, constraint_of
from scenerl.errors import UserError
from scenerl.models.loading import Checkpoint
from scenerl.types import Example

_SHARDED = "processes would run sharded weights a different number of times each"


class ConstrainedRollouts:
    """The constraints of a run's answers.

    Args:
        checkpoint: of the model that is trained.
        conversation: how it is prompted.
        examples: what the data set's ``row`` column counts.
        stop_ids: tokens that end a completion.
        limit: tokens of a completion.

    Raises:
        UserError: an example has no answer that the tokenizer can write within the limit.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        conversation: Conversation,
        examples: Sequence[Example],
        stop_ids: Sequence[int],
        limit: int,
    ):
        self._vocabulary = Vocabulary.of(checkpoint, stop_ids)
        self._specs = [conversation.grammar_spec(example) for example in examples]
        for spec in dict.fromkeys(self._specs):
            constraint_of(spec, self._vocabulary).require(limit)

    def sampling(
        self, rows: Sequence[int], limit: int, counts: Sequence[int] | None = None
    ) -> tuple[LogitsProcessorList, RunSampler]:
        """The arguments ``logits_processor`` and ``custom_generate`` of one call of ``generate``.

        Args:
            rows: which examples the prompts are of.
            limit: tokens of a completion.
            counts: completions of each prompt; None: one.
        """
        mask = ConstraintMask([self._specs[row] for row in rows], self._vocabulary, limit)
        return LogitsProcessorList([mask]), RunSampler(mask, counts or [1] * len(rows))


def unsupported_reason(args: GRPOConfig) -> str | None:
    """Why rollouts with these settings cannot be constrained in this process, or None."""
    kwargs = args.generation_kwargs or {}
    found = {
        "use_transformers_continuous_batching: it takes no constraints": args.use_transformers_continuous_batching,
        "num_beams: beams are no samples": kwargs.get("num_beams", 1) != 1,
        f"FSDP: {_SHARDED}": args.fsdp or os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true"),
        f"DeepSpeed ZeRO-3: {_SHARDED}": getattr(args.deepspeed_plugin, "zero_stage", 0) == 3,
    }
    return next((why for why, is_so in found.items() if is_so), None)


def send_grammar(args: GRPOConfig, conversation: Conversation, examples: Sequence[Example]) -> None:
    """Have vLLM hold rollouts to a grammar. It has no memory, so that a reference may still dangle, and no limit.

    Raises:
        UserError: the answers to the examples are not all of one form.
    """
    specs = {conversation.grammar_spec(example) for example in examples}
    if len(specs) > 1:
        raise UserError(
            f"constrain: vLLM takes one grammar for the whole run, but the examples need {len(specs)} (labels to find, "
            "or image sizes); leave out use_vllm, or constrain"
        )
    (spec,) = specs
    grammar = build_grammar(spec.output_format, spec.bounds_wh)
    args.generation_kwargs = {**(args.generation_kwargs or {}), "structured_outputs": {"grammar": grammar}}
