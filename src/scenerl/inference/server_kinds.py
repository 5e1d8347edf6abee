"""What the kinds of servers with OpenAI's API can do, and in which fields."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from scenerl.errors import UserError
from scenerl.inference.engine import Sampling

_NEVER = -100
"""Added to the logit of a token that must not be sampled: the lowest value that the API takes."""


@dataclass(frozen=True, slots=True)
class ServerCapabilities:
    """What one kind of server can do beyond OpenAI's own fields, and in which fields.

    Attributes:
        name: of the program, for messages.
        grammar: the field that takes a grammar; None: there is none.
        logprobs: it gives the log-probability of each token.
        top_k: it can sample from the likeliest tokens only.
        multiple: it gives several answers to one request and counts the tokens of each.
        generation_config: it takes transformers' generation settings as JSON; its other fields do not make it sample.
    """

    name: str
    grammar: str | None = None
    logprobs: bool = True
    top_k: bool = True
    multiple: bool = False
    generation_config: bool = False

    def check(self, sampling: Sampling, constrain: bool) -> None:
        """Raise UserError where these settings are beyond the server."""
        for is_missing, problem in (
            (constrain and not self.grammar, "takes no grammars; leave out --constrain"),
            (sampling.logprobs and not self.logprobs, "gives no log-probabilities; leave out --logprobs"),
            (sampling.top_k and not self.top_k, "takes no top_k; allowed with it: top_k 0"),
        ):
            if is_missing:
                raise UserError(f"{self.name} {problem} (or name the program with --server_kind)")

    def fields(self, sampling: Sampling, banned: Sequence[int], grammar: str | None) -> dict:
        """The settings of a request. A server takes what is missing from ``generation_config.json``."""
        fields: dict = {"max_completion_tokens": sampling.max_new_tokens}
        limits = {"temperature": sampling.temperature, "top_p": sampling.top_p}
        if self.generation_config:
            is_sampled = sampling.temperature > 0
            settings = {"do_sample": is_sampled, "repetition_penalty": 1.0, "suppress_tokens": list(banned) or None}
            settings |= {**limits, "top_k": sampling.top_k} if is_sampled else {}
            return fields | {"generation_config": json.dumps(settings | {"max_new_tokens": sampling.max_new_tokens})}
        fields |= limits
        if self.top_k:
            fields |= {"top_k": sampling.top_k or -1, "repetition_penalty": 1.0, "return_token_ids": True}
        if banned:
            fields["logit_bias"] = {str(token): _NEVER for token in banned}
        if sampling.logprobs:
            fields["logprobs"] = True
        if grammar is not None:
            fields[self.grammar] = {"grammar": grammar} if self.grammar == "structured_outputs" else grammar
        return fields


KINDS = {
    "vllm": ServerCapabilities("vLLM", grammar="structured_outputs", multiple=True),
    "sglang": ServerCapabilities("SGLang", grammar="ebnf"),
    "transformers": ServerCapabilities("transformers serve", logprobs=False, generation_config=True),
    "openai": ServerCapabilities("a server with OpenAI's own fields", top_k=False),
}
"""Option ``server_kind`` to what such a server can do."""
