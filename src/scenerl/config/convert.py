"""From what a YAML file or a command line says to the type of a dataclass field, or a clear refusal.

One function serves our own options and TRL's configuration classes, whose fields are unions such as
``dict | str | None``.
"""

from __future__ import annotations

import difflib
import json
import math
import types
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from scenerl.errors import UserError

TRUE = ("true", "yes", "on", "1")
FALSE = ("false", "no", "off", "0")


def convert(value: Any, kind: Any, text: bool = False) -> Any:
    """Make ``value`` an instance of the annotation ``kind``.

    Args:
        value: a YAML value, or the words of a command line: one as a string, several as a list of strings.
        kind: a resolved annotation of bool, int, float, str, Path, list, dict, Literal, an Enum, None, Any and unions.
        text: the value came as words, so that ``5`` may become a number and ``none`` may become None.

    Returns:
        The value; a member of an Enum is returned as its plain value, so that it can be written back to YAML.

    Raises:
        UserError: the value does not fit, with what is allowed.

    >>> convert("1e-5", float, text=True), convert(["20", "50"], list[int], text=True)
    (1e-05, [20, 50])
    >>> convert("yes", int | None, text=True)
    Traceback (most recent call last):
    ...
    UserError: 'yes' is not a whole number or none
    """
    for member in _in_order(_members(kind), value, text):
        try:
            return _convert_one(value, member, text)
        except _Unfit:
            continue
    unquoted = not text and takes(kind, str) and isinstance(value, bool | int | float)
    raise UserError(f"{_shown(value)} is not {describe(kind)}{'; put it in quotes' if unquoted else ''}")


def describe(kind: Any) -> str:
    """The annotation in words: ``a whole number or none``, ``json | compact``."""
    return " or ".join(dict.fromkeys(_describe_one(member) for member in _members(kind)))


def choices(kind: Any) -> list[str]:
    """The values that a Literal or an Enum allows, those of a list's items too; empty for other types."""
    for member in _members(kind):
        if get_origin(member) is list:
            return choices(get_args(member)[0])
        if get_origin(member) is Literal:
            return [str(value) for value in get_args(member)]
        if isinstance(member, type) and issubclass(member, Enum):
            return [str(value.value) for value in member]
    return []


def takes(kind: Any, base: type) -> bool:
    """Whether ``base`` (bool, list, ...) is ``kind`` or a member of its union."""
    return any(member is base or get_origin(member) is base for member in _members(kind))


def near_misses(name: str, allowed: Iterable[str]) -> str:
    """`` (did you mean a, b?)``, or what is allowed when it is short, or nothing: the tail of an error line."""
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if not close:
        close = [other for other in names if len(name) > 2 and name in other][:3]
    if close:
        return f" (did you mean {', '.join(close)}?)"
    return f" (allowed: {', '.join(names)})" if len(names) <= 30 else ""


class _Unfit(Exception):
    """This member of a union does not take the value; another may."""


def _members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _in_order(members: tuple[Any, ...], value: Any, text: bool) -> list[Any]:
    """Members to try, the most specific first. Beside choices, plain text is not tried, so that typos are found."""
    has_choices = any(_is_enum(member) or get_origin(member) is Literal for member in members)
    if text and isinstance(value, str) and str in members and not has_choices:
        # Where text is allowed a word stays text; only JSON and the words of a boolean mean something else.
        container = {"{": dict, "[": list}.get(value[:1], bool)
        return [*(member for member in members if (get_origin(member) or member) in (container, bool)), str]
    rank = {type(None): 0, bool: 1, int: 2, float: 3, Path: 7, str: 8, Any: 10}
    ordered = sorted(members, key=lambda member: rank.get(member, 9 if (get_origin(member) or member) is list else 5))
    return [member for member in ordered if not (has_choices and member is str)]


def _convert_one(value: Any, kind: Any, text: bool) -> Any:
    origin = get_origin(kind) or kind
    if kind is Any:
        return value
    if kind is type(None):
        if value is None or (text and value in ("none", "None", "null")):
            return None
    elif kind is bool:
        if isinstance(value, bool):
            return value
        if text and isinstance(value, str) and value.lower() in TRUE + FALSE:
            return value.lower() in TRUE
    elif kind in (int, float):
        return _convert_number(value, kind, text)
    elif kind in (str, Path):
        if isinstance(value, str | Path) and (value != "" or kind is str):
            return kind(value)
    elif origin is Literal or _is_enum(kind):
        for allowed in get_args(kind) if origin is Literal else [member.value for member in kind]:
            if value == allowed or (text and isinstance(value, str) and value == str(allowed)):
                return allowed
    elif origin in (list, tuple):
        items = _parse_json(value, list) if text and isinstance(value, str) and value.startswith("[") else value
        if items is not None and not isinstance(items, Mapping):
            plain = items if isinstance(items, list | tuple) else [items]
            inner = (get_args(kind) or (Any,))[0]
            return origin(convert(item, inner, text and items is value) for item in plain)
    elif origin is dict:
        mapping = _parse_json(value, dict) if text and isinstance(value, str) and value.startswith("{") else value
        if isinstance(mapping, Mapping):
            return dict(mapping)
    raise _Unfit


def _convert_number(value: Any, kind: type, text: bool) -> Any:
    if isinstance(value, str) and (text or kind is float):
        # YAML 1.1 reads 1e-5 as text; a float given as text is meant as one.
        try:
            number = kind(value)
        except ValueError:
            raise _Unfit from None
    elif (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or (kind is int and isinstance(value, float) and not value.is_integer())
    ):
        raise _Unfit
    else:
        number = kind(value)
    if isinstance(number, float) and math.isnan(number):
        raise _Unfit
    return number


def _parse_json(value: str, kind: type) -> Any:
    try:
        parsed = json.loads(value)
    except ValueError as error:
        raise UserError(f"{_shown(value)} is not JSON: {error}") from error
    if not isinstance(parsed, kind):
        raise _Unfit
    return parsed


def _shown(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return repr(" ".join(value))
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _describe_one(kind: Any) -> str:
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        Path: "a path",
        type(None): "none",
        Any: "a value",
    }
    if kind in words:
        return words[kind]
    origin = get_origin(kind) or kind
    if origin is Literal or _is_enum(kind):
        return " | ".join(choices(kind))
    if origin in (list, tuple):
        inner = (get_args(kind) or (Any,))[0]
        return f"a list (each {describe(inner)})"
    return "a mapping (JSON on the command line)" if origin is dict else str(kind)
