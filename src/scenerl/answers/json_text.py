"""Finding JSON in model text, in time linear in its length and at any nesting.

The usual answer is one JSON value and goes through the C decoder at once. Only when that fails does a scanner look for
the complete values between other text. It checks the grammar token by token with its own stack, so that brackets and
quotes in prose do not mislead it, nesting cannot exhaust the interpreter's stack, and a value that breaks off at the
end of the text is distinguished from a broken one.

Lists of boxes are read as Python literals, too (single quotes, ``True``, tuples, comments, a comma before a closing
bracket), where they are broken as JSON: models write them, and Qwen's own examples read answers with
``ast.literal_eval``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scenerl.answers.elements import Reading, Span

MAX_DEPTH = 64
"""A value nested deeper is complete JSON but no answer."""
MAX_TOKENS = 150_000
"""Tokens that the scanner reads, half as many again as the largest graph has; the rest counts as cut off."""


def _integer(digits: str) -> int | float:
    # int() refuses more than 4300 digits with an error of its own, and no coordinate is that long
    return int(digits) if len(digits) < 20 else float(digits)


# A key that comes twice keeps its last value, as json.loads has it.
_DECODER = json.JSONDecoder(parse_int=_integer)
_FAST_DECODER = json.JSONDecoder()  # fails on endless integers, and calls nothing of ours for the usual ones

_STRING = r'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+'
_SCALAR = r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?|true|false|null|NaN|-?Infinity"
_TOKEN = re.compile(rf'[ \t\n\r]*+(?:({_STRING}")|({_SCALAR})|([\[\]{{}},:]))')
_PYTHON_STRING = r"'[^'\\\x00-\x1f]*+(?:\\(?:['\"\\/bfnrt]|u[0-9a-fA-F]{4})[^'\\\x00-\x1f]*+)*+"
_PYTHON_TOKEN = re.compile(
    rf"""(?:[ \t\n\r]++|(?://|\#)[^\n]*+)*+(?:({_STRING}"|{_PYTHON_STRING}')|({_SCALAR}|True|False|None)|"""
    r"([\[\](){},:]))"
)
_OPENER = re.compile(r"[\[{]")
_NO_PROSE = re.compile(r"'|\(\s?(?:-?[0-9.]{1,30}\s?,|[\"'][^\"'\n]{1,300}[\"']\s?,)")  # how Python's lists begin


def _breaks_off(strings: str, *literals: str) -> re.Pattern:
    """What a text may end in that breaks off inside a token."""
    heads = "|".join(sorted({word[:n] for word in literals for n in range(1, len(word))}))
    return re.compile(rf"[ \t\n\r]*+(?:(?:{strings})(?:\\(?:u[0-9a-fA-F]{{0,3}})?)?|[-+.eE0-9]*+|{heads})")


_LITERALS = {"True": True, "False": False, "None": None}
_JSON_LITERALS = ("true", "false", "null", "NaN", "-Infinity")
_BREAKS_OFF = _breaks_off(_STRING, *_JSON_LITERALS)
_PYTHON_BREAKS_OFF = _breaks_off(f"{_STRING}|{_PYTHON_STRING}", *_JSON_LITERALS, *_LITERALS)

_VALUE, _FIRST_VALUE, _KEY, _FIRST_KEY, _COLON, _AFTER, _WRONG = range(7)
_CLOSER = {"[": "]", "{": "}", "(": ")"}


@dataclass(slots=True)
class Scan:
    """``values``: (start, depth) of complete outermost objects and lists, in order. ``broken``: some
    value began like JSON and went wrong. ``breaks_off``: the text ends inside a value."""

    values: list[tuple[int, int]]
    broken: bool = False
    breaks_off: bool = False


def _is_prose(text: str, start: int, position: int) -> bool:
    """Whether an error at ``position`` in a value begun at ``start`` shows a bracket in prose, like ``[see below]``"""
    return position == start + 1 and text[start] == "[" and not _NO_PROSE.match(text, position)


def scan_values(text: str, python: bool = False) -> Scan:
    """Every outermost complete object or list in ``text``, in JSON or as a Python literal; after an error it starts
    afresh at the faulty token."""
    tokens, breaks_off = (_PYTHON_TOKEN, _PYTHON_BREAKS_OFF) if python else (_TOKEN, _BREAKS_OFF)
    scan = Scan([])
    stack: list[str] = []
    start = position = depth = 0
    expect = _VALUE
    for _ in range(MAX_TOKENS):
        if not stack:
            opener = _OPENER.search(text, position)
            if opener is None:
                return scan
            start, position, depth = opener.start(), opener.end(), 1
            stack.append(_CLOSER[opener[0]])
            expect = _FIRST_VALUE if opener[0] == "[" else _FIRST_KEY
            continue
        token = tokens.match(text, position)
        if token is None:
            if breaks_off.fullmatch(text, position):
                scan.breaks_off = True
                return scan
            scan.broken |= not _is_prose(text, start, position)
            stack.clear()
            continue
        string, _, mark = token.groups()
        if mark is None:
            if expect <= _FIRST_VALUE:
                expect = _AFTER
            elif string is not None and expect <= _FIRST_KEY:
                expect = _COLON
            else:
                expect = _WRONG
        elif mark in _CLOSER and expect <= _FIRST_VALUE:
            stack.append(_CLOSER[mark])
            depth = max(depth, len(stack))
            expect = _FIRST_KEY if mark == "{" else _FIRST_VALUE
        elif mark == stack[-1] and expect in (_AFTER, _FIRST_KEY if mark == "}" else _FIRST_VALUE):
            stack.pop()
            expect = _AFTER
            if not stack:
                scan.values.append((start, depth))
        elif mark == "," and expect == _AFTER:
            expect = _KEY if stack[-1] == "}" else _VALUE
            expect += python  # the first of a list, or none, may follow
        elif mark == ":" and expect == _COLON:
            expect = _VALUE
        else:
            expect = _WRONG
        if expect == _WRONG:
            scan.broken |= not _is_prose(text, start, position)
            stack.clear()
            position = token.start(token.lastindex)
        else:
            position = token.end()
    scan.breaks_off = True
    return scan


@dataclass(slots=True)
class Found:
    """The complete JSON values in a text.

    Attributes:
        values: (value, start, end) in their order; the value is None where it is nested too deep.
        alone: there is one, and nothing else in the text.
        broken, breaks_off: as in :class:`Scan`.
        python: they are Python literals rather than JSON.
    """

    values: list[tuple[Any, int, int]]
    alone: bool = False
    broken: bool = False
    breaks_off: bool = False
    python: bool = False

    @property
    def failure(self) -> str:
        """Why there is no answer, where none of the values is one."""
        if self.breaks_off:
            return "truncated"
        return "wrong_schema" if self.values and not self.broken else "invalid_json"


def find_values(text: str, inner: str, or_python: bool = False) -> Found:
    """All outermost JSON objects and lists in ``text``; a single value of any kind where there is nothing else.

    Args:
        text: where to look.
        inner: ``text`` without the one code fence around it, if there is one; tried first, as a whole.
        or_python: values that are broken as JSON are read as Python literals, if all of them are such.
    """
    for decoder in (_FAST_DECODER, _DECODER):
        try:
            value = decoder.decode(inner)
        except (ValueError, RecursionError):
            continue
        start = text.find(inner)
        return Found([(value, start, start + len(inner))], alone=True)
    scan, python = scan_values(text), False
    if scan.broken and or_python and not (again := scan_values(text, python=True)).broken:
        scan, python = again, True
    found = Found([], False, scan.broken, scan.breaks_off, python)
    for start, depth in scan.values:
        if depth > MAX_DEPTH:
            value, end = None, start
        elif python:
            spans, end = _spans(text, start, _PYTHON_TOKEN)
            value = _value_of(text, spans)
        else:
            value, end = _DECODER.raw_decode(text, start)
        found.values.append((value, start, end))
    return found


def _value_of(text: str, spans: object) -> Any:
    """The value of which :func:`leaf_spans` gives the places."""
    if isinstance(spans, dict):
        return {key: _value_of(text, inner) for key, inner in spans.items()}
    if isinstance(spans, list):
        return [_value_of(text, inner) for inner in spans]
    leaf = text[slice(*spans)]
    if leaf[0] in "\"'":
        return _string(leaf)
    return _LITERALS[leaf] if leaf in _LITERALS else _DECODER.decode(leaf)


def _string(quoted: str) -> str:
    """What a string holds, in whichever quotes it is written."""
    inner = quoted[1:-1]
    if quoted[0] == "'":
        inner = re.sub(r"\\.|\"", lambda found: {"\\'": "'", '"': '\\"'}.get(found[0], found[0]), inner)
    return json.loads(f'"{inner}"') if "\\" in inner else inner


def find_answer(text: str, inner: str, is_answer: Callable[[object], bool]) -> tuple[Any, Reading]:
    """The last complete value in ``text`` that is an answer.

    Args:
        text, inner: as for :func:`find_values`.
        is_answer: whether a decoded value has the form of an answer.

    Returns:
        The value and how it was found. Without one: ``truncated`` where the text ends inside a value, ``wrong_schema``
        where it holds JSON but no answer, else ``invalid_json``.
    """
    found = find_values(text, inner)
    for value, start, _ in reversed(found.values):
        if is_answer(value):
            return value, Reading(None, found.alone, None if found.alone else start)
    return None, Reading(found.failure, found.alone)


def leaf_spans(text: str, start: int, python: bool = False) -> object:
    """The complete JSON value, or Python literal, that begins at ``start``, with places for its strings and scalars.

    Of a key that comes twice the last value counts, as for ``json.loads``.

    Returns:
        Dicts and lists as in the text, and a tuple for each leaf, its characters [start, end), quotes included. What
        is behind the first :data:`MAX_TOKENS` tokens is missing.
    """
    return _spans(text, start, _PYTHON_TOKEN if python else _TOKEN)[0]


def _spans(text: str, start: int, tokens: re.Pattern) -> tuple[object, int]:
    """As :func:`leaf_spans`, and where the value ends."""
    root: list = []
    stack: list = [root]
    key: str | None = None
    position = start
    for _ in range(MAX_TOKENS):
        token = tokens.match(text, position)
        position = token.end()
        string, _, mark = token.groups()
        container = stack[-1]
        if string is not None and key is None and type(container) is dict:
            key = _string(string)
        elif mark is None or mark in _CLOSER:
            node = token.span(token.lastindex) if mark is None else {} if mark == "{" else []
            if type(container) is dict:
                container[key], key = node, None
            else:
                container.append(node)
            if mark is not None:
                stack.append(node)
        elif mark in "]})":
            stack.pop()
        if len(stack) == 1:
            break
    return root[0], position


def leaf(spans: object, *path: str | int) -> Span | None:
    """The leaf of :func:`leaf_spans` to which keys and indices lead; None where there is none."""
    for key in path:
        try:
            spans = spans[key]
        except (KeyError, IndexError, TypeError):
            return None
    return spans if isinstance(spans, tuple) else None


def inside(text: str, spans: object, *path: str | int) -> Span | None:
    """What a JSON string holds, without quotes and white space."""
    span = leaf(spans, *path)
    if span is None:
        return None
    raw = text[span[0] + 1 : span[1] - 1]
    start = span[0] + 1 + len(raw) - len(raw.lstrip())
    return start, start + len(raw.strip())
