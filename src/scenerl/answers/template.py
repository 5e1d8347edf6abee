"""Response templates: the answer alone (``plain``), or reasoning and then the answer, in tags (``think``)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from scenerl.errors import UserError

THINK, END_THINK, ANSWER, END_ANSWER = TAGS = "<think>", "</think>", "<answer>", "</answer>"

_FENCE = re.compile(r"```(?:json|text|toon)?[ \t]*\r?\n(.*?)```", re.DOTALL | re.IGNORECASE)


def unfence(body: str) -> str:
    """``body`` without white space around it and without the one code fence around all of it, if there is one.

    The fence may name ``json``, ``text``, ``toon`` or nothing.
    """
    body = body.strip()
    if not body.startswith("```"):
        return body
    fence = _FENCE.fullmatch(body)
    return fence[1].strip() if fence else body


@dataclass(frozen=True, slots=True)
class Opened:
    """What a template holds. ``exact``: the text followed the requested template. ``unfinished``: the reasoning was
    never closed, so that the body may be a draft."""

    body: str
    exact: bool
    unfinished: bool = False


def _open_leniently(text: str) -> Opened:
    """The part of ``text`` where the answer is, whatever tags there are.

    Behind the first reasoning that is closed; from the first ``<answer>`` to the last ``</answer>`` that closes one.
    The closing tag stays in the body: JSON that is cut off by it is broken, not truncated.
    """
    head, tag, body = text.partition(END_THINK)
    unfinished = False
    if not tag:
        before, tag, body = head.partition(THINK)
        unfinished = bool(tag) and ANSWER not in body
        body = body if tag else before
    start = body.find(ANSWER)
    if start >= 0:
        body = body[start + len(ANSWER) :]
        if body.rfind(ANSWER) < (end := body.rfind(END_ANSWER)):
            # a second answer that breaks off behind the last complete one is left out with everything else there
            body = body[: end + len(END_ANSWER)]
        if body.strip() == END_ANSWER:
            body = ""
    return Opened(body, False, unfinished)


def _open_plain(text: str) -> Opened:
    if "<" in text and any(tag in text for tag in TAGS):
        return _open_leniently(text)
    return Opened(text, True)


def _open_think(text: str) -> Opened:
    text = text.strip()
    if text.startswith(THINK) and text.endswith(END_ANSWER) and all(text.count(tag) == 1 for tag in TAGS):
        end_think, answer = text.index(END_THINK), text.index(ANSWER)
        if end_think < answer and not text[end_think + len(END_THINK) : answer].strip():
            return Opened(text[answer + len(ANSWER) : -len(END_ANSWER)], True)
    return _open_leniently(text)


def _wrap_plain(body: str, reasoning: str | None) -> str:
    if reasoning is not None:
        raise UserError("the response template 'plain' has no place for reasoning; use 'think'")
    return body


def _wrap_think(body: str, reasoning: str | None) -> str:
    reasoning = (reasoning or "").strip()
    if any(tag in reasoning for tag in TAGS):
        raise UserError(f"reasoning must not hold {', '.join(TAGS)}: {reasoning[:80]!r}")
    return f"{THINK}{reasoning}{END_THINK}\n{ANSWER}\n{body}\n{END_ANSWER}"


@dataclass(frozen=True, slots=True)
class ResponseTemplate:
    """``wrap(body, reasoning)`` writes it, ``open(text)`` removes it, ``instruction`` requests it in a prompt."""

    meaning: str
    wrap: Callable[[str, str | None], str]
    open: Callable[[str], Opened]
    instruction: str


TEMPLATES: dict[str, ResponseTemplate] = {
    "plain": ResponseTemplate(
        "the format alone, or in one code fence",
        _wrap_plain,
        _open_plain,
        "Write nothing else.",
    ),
    "think": ResponseTemplate(
        "reasoning in <think></think>, then the format in <answer></answer>",
        _wrap_think,
        _open_think,
        "First think, inside <think></think>. Then give the answer inside <answer></answer>, and nothing else.",
    ),
}
"""Name to template."""
