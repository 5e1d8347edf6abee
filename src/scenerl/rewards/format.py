"""Rewards for how an answer is written: its format, its length."""

from __future__ import annotations

from math import cos, pi
from string import punctuation

from scenerl.rewards.comparison import Comparison
from scenerl.rewards.objects import weighted_sum

_SIGNS = punctuation.encode()
_SIGNS_TO_SPACES = str.maketrans(dict.fromkeys(punctuation, " "))
_MAX_CHARACTERS = 100_000  # of an answer of any length; the cosine has long reached its end there


def answer_format(comparison: Comparison) -> float:
    """1 for a graph without any issue in the requested response template, 0.5 without the template, else 0.

    ``strict_format`` pays nothing without the template. An empty graph is a graph.

    Returns:
        0, 0.5 or 1; 0 for a failed parse.

    Source: R1-SGG (arXiv 2504.13617), format reward; without its strict format it pays 0.5 there too.
    """
    if comparison.failed or comparison.result.issues:
        return 0.0
    if comparison.result.in_template:
        return 1.0
    return 0.0 if comparison.options.strict_format else 0.5


def cosine_length(comparison: Comparison) -> float:
    """A half cosine over the answer's length: right answers should be short, wrong ones longer.

    An answer is right when `weighted_sum` is at least ``cosine_correct`` (0.7). With t the length in tokens over
    ``cosine_max_tokens``, at most 1: a right answer gets 0.75 + 0.25 cos(πt), from 1 down to 0.5; a wrong one
    -0.25 - 0.25 cos(πt), from -0.5 up to 0.

    Returns:
        [-0.5, 1]; a failed parse is a wrong answer, no text at all has length 0.

    Source: Demystifying Long CoT (arXiv 2502.03373), appendix C.1, with VLM-R1's values. VLM-R1's released code takes
    every answer as right, and does not stop at 1,024 tokens.
    """
    num_tokens = comparison.num_tokens
    if num_tokens is None:
        num_tokens = _words_and_signs((comparison.text or "")[:_MAX_CHARACTERS])
    most = comparison.options.cosine_max_tokens
    swing = 0.25 * cos(pi * min(num_tokens, most) / most)
    return 0.75 + swing if weighted_sum(comparison) >= comparison.options.cosine_correct else -0.25 - swing


def _words_and_signs(text: str) -> int:
    ascii_text = text.encode("ascii", "ignore")  # all signs are ASCII
    num_signs = len(ascii_text) - len(ascii_text.translate(None, _SIGNS))
    return len(text.translate(_SIGNS_TO_SPACES).split()) + num_signs
