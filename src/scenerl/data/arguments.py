"""The argument of a data source: a path, then settings as ``key=value``, separated by commas."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scenerl.errors import DataError


def path_and_settings(
    argument: str, name: str, defaults: Mapping[str, str | int], choices: Mapping[str, tuple[str, ...]] | None = None
) -> tuple[Path, dict[str, Any]]:
    """Path and settings of ``name:PATH,key=value,…``; the path itself may hold commas.

    Args:
        argument: what stands after the name.
        name: of the data set, for messages.
        defaults: the settings that it knows; a number as default wants a whole number of at least 0.
        choices: for some settings, the values allowed.

    Raises:
        DataError: no path, an unknown setting or a value that it does not take.

    >>> path_and_settings("a,b.json,seed=3", "coco", {"seed": 0, "query": "all"})
    (PosixPath('a,b.json'), {'seed': 3, 'query': 'all'})
    """
    settings = dict(defaults)
    rest, comma, part = argument.rpartition(",")
    while comma and part.partition("=")[0] in defaults:
        key, _, value = part.partition("=")
        allowed = (choices or {}).get(key)
        if allowed is not None and value not in allowed:
            raise DataError(f"{name}: {part!r} is not understood; allowed for {key}: {', '.join(allowed)}")
        if isinstance(defaults[key], int) and not (value.isascii() and value.isdecimal()):
            raise DataError(f"{name}: {part!r} is not understood; {key} takes a whole number")
        settings[key] = int(value) if isinstance(defaults[key], int) else value
        argument = rest
        rest, comma, part = argument.rpartition(",")
    key, equals, _ = part.partition("=")
    if comma and equals and key.isidentifier() and not Path(argument).exists():
        raise DataError(f"{name}: unknown setting {key!r}; allowed: {', '.join(defaults)}")
    if not argument:
        raise DataError(f"{name}: needs a path: {name}:PATH, then settings if any: {', '.join(defaults)}")
    return Path(argument), settings
