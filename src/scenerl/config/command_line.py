"""Command lines and recipes to options. The command line wins over recipes, recipes over defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from scenerl.config.convert import FALSE, TRUE, convert, near_misses, takes
from scenerl.config.options import Options, default_of, field_types
from scenerl.config.recipes import load_recipe
from scenerl.errors import UserError

COMMAND_LINE = "command line"
AnyOptions = TypeVar("AnyOptions", bound=Options)


class Extra(dict):
    """Keys that are not the command's own, as they were written; ``where`` says which came from which place."""

    def __init__(self, values: Mapping[str, Any] | None = None, where: Mapping[str, str] | None = None) -> None:
        super().__init__(values or {})
        self.where = dict(where or {})


def parse_options(cls: type[AnyOptions], command: str, argv: Sequence[str]) -> tuple[AnyOptions, Extra]:
    """The options of a command.

    Args:
        cls: the command's options.
        command: its name, for messages.
        argv: the words after the command: positionals, ``--key value``, ``--key=value``, ``--flag``, ``--no-flag``,
            lists as several words or repeated; ``-`` and ``_`` are the same in a key. ``--config FILE.yaml`` reads a
            recipe whose keys are the same names; of several recipes the later wins.

    Returns:
        The options, and the keys left over: fields of ``cls.trl_config``, to be checked by :func:`resolve_extra`.

    Raises:
        UserError: an unknown key, a value of the wrong type or out of range, a missing option, a broken recipe. The
            message names the place, the key and what is allowed.
    """
    words, recipes = _read_words(cls, argv)
    provided = {key: item for recipe in recipes for key, item in load_recipe(recipe).items()}
    provided.update((key, (value, COMMAND_LINE)) for key, value in words.items())
    kinds, own, extra = field_types(cls), {}, Extra()
    for key, (value, where) in provided.items():
        if key in kinds:
            own[key] = convert_key(key, value, kinds[key], where)
        elif key == "output_dir" and "out" in kinds:
            raise UserError(f"{where}: unknown option 'output_dir'; the output folder is called 'out' here")
        elif cls.trl_config:
            extra[key] = value
            extra.where[key] = where
        else:
            raise UserError(f"{where}: unknown option {key!r} of {command}{near_misses(key, kinds)}")
    missing = [
        item.name if item.metadata["positional"] else f"--{item.name}"
        for item in dataclasses.fields(cls)
        if default_of(item) is dataclasses.MISSING and item.name not in own
    ]
    if missing:
        required = [name.removeprefix("--") for name in missing]
        for key in extra:
            near = near_misses(key, required)
            if "did you mean" in near:
                raise UserError(f"{extra.where[key]}: unknown option {key!r} of {command}{near}")
        raise UserError(f"{command} needs {', '.join(missing)}; see `scenerl {command} --help`")
    return cls(**own), extra


def resolve_extra(cls: type, mapping: Mapping[str, Any], own: type[Options] | None = None) -> dict[str, Any]:
    """Keyword arguments for one of TRL's configuration classes (any dataclass will do), checked and converted.

    Args:
        cls: the dataclass.
        mapping: field name to value: the leftover keys of :func:`parse_options`, or values as of a command line.
        own: the command's own options, so that a typo in one of them is recognised too.

    Raises:
        UserError: an unknown field, with near misses, or a value of the wrong type.
    """
    kinds, places = field_types(cls), getattr(mapping, "where", {})
    resolved = {}
    for key, value in mapping.items():
        place = places.get(key, COMMAND_LINE)
        flag = key.removeprefix("no_")
        if key not in kinds and flag in kinds and takes(kinds[flag], bool) and value in (True, "true"):
            key, value = flag, False
        if key not in kinds:
            names = set(kinds) | set(field_types(own) if own else ())
            raise UserError(
                f"{place}: unknown option {key!r}, no field of {cls.__name__} either{near_misses(key, names)}"
            )
        resolved[key] = convert_key(key, value, kinds[key], place)
    return resolved


def convert_key(key: str, value: Any, kind: Any, where: str) -> Any:
    """:func:`convert`, with the place and the key in front of an error."""
    try:
        return convert(value, kind, text=where == COMMAND_LINE)
    except UserError as error:
        raise UserError(f"{where}: {key}: {error}") from error


def _read_words(cls: type[Options], argv: Sequence[str]) -> tuple[dict[str, Any], list[Path]]:
    """Words to raw values by key, and the recipes. An option's type says how many words it takes."""
    kinds = field_types(cls)
    positionals = [item.name for item in dataclasses.fields(cls) if item.metadata["positional"]]
    values: dict[str, Any] = {}
    recipes: list[Path] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("--") or word == "--":
            if not positionals:
                raise UserError(f"{COMMAND_LINE}: {word!r} belongs to no option; options are written --key value")
            if takes(kinds[positionals[0]], list):
                values[positionals[0]] = _extended(values.get(positionals[0], []), [word])
            else:
                values[positionals.pop(0)] = word
            continue
        name, equals, value = word[2:].partition("=")
        key = name.replace("-", "_")
        flag = key.removeprefix("no_")
        if not equals and key not in kinds and flag in kinds and takes(kinds[flag], bool):
            values[flag] = "false"
            continue
        follow = next((i for i, other in enumerate(words) if other.startswith("--")), len(words))
        most = _num_words(kinds.get(key), key, words[:1])
        taken = [value] if equals else words[: min(follow, most)]
        del words[: 0 if equals else len(taken)]
        if not taken and most > 0 and key in (*kinds, "config"):
            raise UserError(f"{COMMAND_LINE}: --{name} needs a value")
        if key == "config":
            recipes.append(Path(taken[0]))
        elif key in values and key in kinds and takes(kinds[key], list):
            values[key] = _extended(values[key], taken)
        else:
            values[key] = taken[0] if len(taken) == 1 else taken or "true"
    return values, recipes


def _extended(before: Any, taken: list[str]) -> list[str]:
    """A list may be given in parts: ``--run A --run B``."""
    return [*(before if isinstance(before, list) else [before]), *taken]


def _num_words(kind: Any, key: str, ahead: list[str]) -> int:
    """How many words an option takes at most: a flag one if it is a boolean word, lists and TRL's fields many."""
    if key == "config":
        return 1
    if kind is None or takes(kind, list):
        return 10**6
    if takes(kind, bool):
        return 1 if ahead and ahead[0].lower() in TRUE + FALSE else 0
    return 1
