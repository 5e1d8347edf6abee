"""How servers with OpenAI's API are told what its own fields do not say, each in another way."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from scenerl.inference.engine import Sampling

_NEVER = -100
"""Added to the logit of a token that must not be sampled: the lowest value that the API takes."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """The fields of a request that one kind of server takes.

    Attributes:
        servers: which these are, for messages.
        fields: sampling and the tokens that must not be sampled, to fields.
        top_k: whether that is among them.
        grammars: name of a field that may take a grammar, to what is put there; none: it takes no grammar.
    """

    servers: str
    fields: Callable[[Sampling, Sequence[int]], dict]
    top_k: bool
    grammars: Mapping[str, Callable[[str], object]] = field(default_factory=dict)


def _plain(sampling: Sampling, banned: Sequence[int]) -> dict:
    fields = {
        "max_completion_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    if banned:
        fields["logit_bias"] = {str(token): _NEVER for token in banned}
    return fields | ({"logprobs": True} if sampling.logprobs else {})


def _extended(sampling: Sampling, banned: Sequence[int]) -> dict:
    """Whatever is not said here, these servers take from the checkpoint's ``generation_config.json``."""
    return {
        **_plain(sampling, banned),
        "top_k": sampling.top_k or -1,
        "repetition_penalty": 1.0,
        "return_token_ids": True,
    }


def _transformers(sampling: Sampling, banned: Sequence[int]) -> dict:
    """``temperature`` alone would not make it sample; a whole generation configuration does."""
    settings = {
        "do_sample": sampling.temperature > 0,
        "repetition_penalty": 1.0,
        "suppress_tokens": list(banned) or None,
    }
    if sampling.temperature > 0:
        settings |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
    fields = {
        "max_completion_tokens": sampling.max_new_tokens,
        "generation_config": json.dumps({**settings, "max_new_tokens": sampling.max_new_tokens}),
    }
    return fields | ({"logprobs": True} if sampling.logprobs else {})


DIALECTS = (
    Dialect(
        "vLLM or SGLang",
        _extended,
        True,
        {"structured_outputs": lambda grammar: {"grammar": grammar}, "ebnf": lambda grammar: grammar},
    ),
    Dialect("transformers serve", _transformers, True),
    Dialect("OpenAI's own fields", _plain, False),
)
"""In the order in which they are tried: a server refuses fields that it does not know, or ignores them."""
