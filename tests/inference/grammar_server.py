"""Servers that say any text which the grammar of a request allows: what a model without any sense makes of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache

import xgrammar

from inference.loopback import said

_TOKENS = [bytes((byte,)) for byte in range(256)] + [b"</s>"]
_END = 256


@lru_cache
def _compiler() -> xgrammar.GrammarCompiler:
    return xgrammar.GrammarCompiler(xgrammar.TokenizerInfo(_TOKENS, stop_token_ids=[_END]), max_threads=1)


def speak(grammar: str, most: int, seed: int) -> tuple[str, list[int], str]:
    """A text with its tokens, a byte each, and how it ended: drawn from the grammar, cut off after ``most`` tokens.

    Raises:
        RuntimeError: it is no grammar.
    """
    matcher = xgrammar.GrammarMatcher(_compiler().compile_grammar(grammar))
    mask = xgrammar.allocate_token_bitmask(1, len(_TOKENS))
    draws = random.Random(seed)
    ids: list[int] = []
    while not matcher.is_terminated() and len(ids) < most:
        matcher.fill_next_token_bitmask(mask)
        words = [int(word) & 0xFFFFFFFF for word in mask[0]]
        allowed = [token for token in range(len(_TOKENS)) if words[token // 32] >> token % 32 & 1]
        ids.append(_END if _END in allowed and draws.random() < 0.5 else draws.choice(allowed))
        assert matcher.accept_token(ids[-1])
    ended = bool(ids) and ids[-1] == _END
    text = bytes(ids[:-1] if ended else ids).decode("utf-8", "replace")
    return text, ids, "stop" if ended else "length"


def sglang(backend: str = "xgrammar") -> Callable[[int, dict], object]:
    """As SGLang 0.5: the grammar stands in ``ebnf``; fields that it does not know, vLLM's for one, it ignores. What a
    grammar backend cannot do is a refusal, never a free answer."""

    def do(number: int, body: dict):
        def refuse(reason: str) -> tuple[int, dict]:
            return 400, {"object": "error", "message": reason, "type": "BadRequestError", "param": None, "code": 400}

        if "ebnf" in body and backend == "none":
            return refuse("Grammar-based generation is not supported when the server is launched without a backend")
        if "ebnf" in body and backend == "outlines":
            return refuse("Failed to compile ebnf grammar: not supported")
        most = body["max_completion_tokens"]
        texts, total, ended = [], 0, "stop"
        for sample in range(body.get("n", 1)):
            try:
                text, ids, ended = speak(
                    body.get("ebnf", 'root ::= "I see a dog."'), most, 1000 * body["seed"] + sample
                )
            except RuntimeError as error:
                return refuse(f"Failed to compile ebnf grammar: {error}")
            texts.append(text)
            total += len(ids)
        return said(*texts, finish=ended, usage={"prompt_tokens": 9, "completion_tokens": total}, logprobs=None)

    return do
