"""Values of recipes and command lines to the types of options: pydantic does it, errors become one line.

One function serves our options and TRL's configuration classes, whose fields are unions such as ``dict | str | None``.
"""

from __future__ import annotations

import difflib
import json
import types
from collections.abc import Iterable
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from scenerl.errors import UserError

TRUE = ("true", "yes", "on", "1")
FALSE = ("false", "no", "off", "0")


def convert(value: Any, kind: Any, text: bool = False) -> Any:
    """``value`` as an instance of the annotation ``kind``.

    Args:
        value: a YAML value, or the words of a command line: one as a string, several as a list of strings.
        kind: a resolved annotation, ranges as pydantic takes them.
        text: the value came as words, so that ``5`` may become a number and ``none`` may become None.

    Returns:
        The value; a member of an Enum as its plain value, so that it can be written back to YAML.

    Raises:
        UserError: the value does not fit; says what is allowed.

    >>> convert("1e-5", float, text=True), convert(["20", "50"], list[int], text=True)
    (1e-05, [20, 50])
    >>> convert("yes", int | None, text=True)
    Traceback (most recent call last):
    ...
    scenerl.errors.UserError: 'yes': should be a valid integer, unable to parse string as an integer
    """
    if value == "" and takes(kind, Path):
        raise UserError("'': should be a path")
    if isinstance(value, dict) and takes(kind, dict):
        return dict(value)  # as it is: JSON would make text of keys that are numbers
    try:
        if text:
            found = _adapter(kind).validate_python(_from_words(value, kind))
        else:  # YAML's types are JSON's: numbers are not taken for text, nor text for numbers
            found = _adapter(kind).validate_json(json.dumps(_from_yaml(value, kind), default=str), strict=True)
    except ValidationError as error:
        raise UserError(_reason(error, kind, text)) from None
    if any(number != number for number in (found if isinstance(found, list) else [found])):
        raise UserError(f"{value!r}: should be a number")
    return found.value if isinstance(found, Enum) else found


def choices(kind: Any) -> list[str]:
    """The values that a Literal or an Enum allows, those of a list's items too; empty for other types."""
    found: list[str] = []
    for member in _members(kind):
        if get_origin(member) is list:
            found += choices(get_args(member)[0])
        if get_origin(member) is Literal:
            found += map(str, get_args(member))
        if _is_enum(member):
            found += [str(value.value) for value in member]
    return found


def takes(kind: Any, base: type) -> bool:
    """Whether ``base`` (bool, list, ...) is ``kind`` or a member of its union."""
    return any(member is base or get_origin(member) is base for member in _members(kind))


def near_misses(name: str, allowed: Iterable[str]) -> str:
    """The tail of an error line: `` (did you mean a, b?)``, or what is allowed when that is short, or nothing."""
    names = sorted(allowed)
    close = [other for other in names if other.lower() == name.lower()]
    begun = sorted((other for other in names if len(name) > 3 and other.startswith(name)), key=len)
    close = close or list(dict.fromkeys([*begun, *difflib.get_close_matches(name, names, n=3, cutoff=0.6)]))[:3]
    if not close and len(name) > 1:
        initials = {other: "".join(word[:1] for word in other.split("_")) for other in names}
        ends = [other for other in names if initials[other].endswith(name)]  # lr, bs
        close = sorted(ends, key=lambda other: len(initials[other]))
        close = (close or [other for other in names if len(name) > 2 and name in other])[:3]
    if close:
        return f" (did you mean {', '.join(close)}?)"
    return f" (allowed: {', '.join(names)})" if len(names) <= 30 else ""


def _members(kind: Any) -> tuple[Any, ...]:
    """The members of a union, without their ranges."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(inner for member in get_args(kind) for inner in _members(member))
    return (kind,)


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


@cache
def _adapter(kind: Any) -> TypeAdapter:
    """A validator. Plain text beside choices is left out, so that a mistyped choice is found."""
    members = _members(kind)
    if str in members and any(_is_enum(member) or get_origin(member) is Literal for member in members):
        kind = Union[tuple(member for member in members if member is not str)]  # noqa: UP007
    return TypeAdapter(kind)


def _from_words(value: Any, kind: Any) -> Any:
    """What words mean before they are converted: JSON, none, a list of one."""
    if not isinstance(value, str):
        return value
    if takes(kind, type(None)) and not takes(kind, str) and value in ("none", "None", "null"):
        return None
    if takes(kind, bool) and takes(kind, str) and value.lower() in TRUE + FALSE:
        return value.lower() in TRUE
    if takes(kind, {"{": dict, "[": list}.get(value[:1], Enum)):
        try:
            return json.loads(value)
        except ValueError as error:
            raise UserError(f"{value!r} is not JSON: {error}") from error
    return [value] if takes(kind, list) and not takes(kind, str) else value


def _from_yaml(value: Any, kind: Any) -> Any:
    """A single value for a list is a list of one, and 1e4 is a whole number too."""
    if takes(kind, list) and not takes(kind, str) and not isinstance(value, list | tuple | dict | None):
        value = [value]
    if isinstance(value, list | tuple):
        return [_from_yaml(item, Any) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _reason(error: ValidationError, kind: Any, text: bool) -> str:
    problems = error.errors(include_url=False)
    first, *others = dict.fromkeys(problem["msg"].removeprefix("Input ") for problem in problems)
    reasons = [first, *(reason.removeprefix("should be ") for reason in others)]
    value = problems[0]["input"]
    shown = repr(value) if len(repr(value)) <= 80 else f"{value!r:.77}..."
    quotes = "; put it in quotes" if not text and takes(kind, str) and isinstance(value, bool | int | float) else ""
    near = near_misses(value, choices(kind)) if isinstance(value, str) and len(choices(kind)) > 1 else ""
    near = near if "did you mean" in near else ""  # all that is allowed stands there already
    return f"{shown}: {' or '.join(reasons)}{quotes}{near}"
