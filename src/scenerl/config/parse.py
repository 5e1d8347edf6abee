"""Recipes (YAML) and command lines to options. The command line wins over the recipe, the recipe over defaults."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from scenerl.config.convert import FALSE, TRUE, convert, near_misses, takes
from scenerl.config.options import OPTIONS, TRL_CONFIGS, Options
from scenerl.errors import UserError

COMMAND_LINE = "command line"


class Extra(dict):
    """Keys that are not the command's own, by name, as they were written; ``where`` says which came from where."""

    def __init__(self, values: Mapping[str, Any] = (), where: Mapping[str, str] = ()) -> None:
        super().__init__(values)
        self.where = dict(where)


def parse(command: str, argv: Sequence[str]) -> tuple[Options, Extra]:
    """The options of a command.

    Args:
        command: a name from :data:`scenerl.config.OPTIONS`.
        argv: the words after the command: positionals first, then ``--key value``, ``--key=value``, ``--flag``,
            ``--no-flag``, lists as several words or given again; ``-`` and ``_`` are the same in a key.
            ``--config FILE.yaml`` reads a recipe whose keys are the same names.

    Returns:
        The options, and the keys left over, which only ``sft`` and ``grpo`` may have: fields of TRL's configuration
        class, to be checked by :func:`resolve_extra`.

    Raises:
        UserError: an unknown key, a value of the wrong type or out of range, a missing option, a broken recipe; the
            message names the place, the key and what is allowed.
    """
    cls = OPTIONS[command]
    words, recipe = _read_words(cls, argv)
    given: dict[str, tuple[Any, str]] = {}
    if recipe is not None:
        given.update(load_recipe(recipe))
    given.update((key, (value, COMMAND_LINE)) for key, value in words.items())

    kinds = field_types(cls)
    own: dict[str, Any] = {}
    extra = Extra()
    for key, (value, where) in given.items():
        if key in kinds:
            own[key] = convert_key(key, value, kinds[key], where)
        elif key == "output_dir" and "out" in kinds:
            raise UserError(f"{where}: unknown option 'output_dir'; the output folder is called 'out' here")
        elif command in TRL_CONFIGS:
            extra[key] = value
            extra.where[key] = where
        else:
            raise UserError(f"{where}: unknown option {key!r} of {command}{near_misses(key, kinds)}")
    missing = [item for item in dataclasses.fields(cls) if _is_required(item) and item.name not in own]
    if missing:
        shown = ", ".join(item.name if item.metadata["positional"] else f"--{item.name}" for item in missing)
        raise UserError(f"{command} needs {shown}; see `scenerl {command} --help`")
    return cls(**own), extra


def resolve_extra(
    cls: type, mapping: Mapping[str, Any], where: str = COMMAND_LINE, own: type[Options] | None = None
) -> dict[str, Any]:
    """Check and convert the fields given for one of TRL's configuration classes (any dataclass will do).

    Args:
        cls: the dataclass.
        mapping: field name to value: what :func:`parse` left over, or plain values.
        where: the place to name in errors, for a mapping that does not know it.
        own: the command's own options, so that a typo in one of them is recognised too.

    Returns:
        Keyword arguments for ``cls``. Fields that hold mappings or lists may be given as JSON.

    Raises:
        UserError: a name that is no field, with near misses, or a value of the wrong type.
    """
    kinds = field_types(cls)
    places = mapping.where if isinstance(mapping, Extra) else {}
    resolved = {}
    for key, value in mapping.items():
        place = places.get(key, where)
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
    """:func:`convert` with the place and the key in front of what went wrong."""
    try:
        return convert(value, kind, text=where == COMMAND_LINE)
    except ValueError as error:
        raise UserError(f"{where}: {key}: {error}") from error


@cache
def field_types(cls: type) -> dict[str, Any]:
    """Names and resolved annotations of the fields that a dataclass can be constructed with, in order."""
    hints = typing.get_type_hints(cls)
    return {item.name: hints[item.name] for item in dataclasses.fields(cls) if item.init}


def _is_required(item: dataclasses.Field) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def _read_words(cls: type, argv: Sequence[str]) -> tuple[dict[str, Any], Path | None]:
    """Words to raw values by key, and the recipe's path. An option's type says how many words it takes."""
    kinds = field_types(cls)
    positionals = [item.name for item in dataclasses.fields(cls) if item.metadata["positional"]]
    values: dict[str, Any] = {}
    recipe = None
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
            recipe = Path(taken[0])
        else:
            if key in values and key in kinds and takes(kinds[key], list):
                taken = _extended(values[key], taken)
            values[key] = taken[0] if len(taken) == 1 else taken or "true"
    return values, recipe


def _extended(before: Any, taken: list[str]) -> list[str]:
    """A list may be given in parts: ``--run A --run B``."""
    return [*(before if isinstance(before, list) else [before]), *taken]


def _num_words(kind: Any, key: str, ahead: list[str]) -> float:
    """How many words an option takes at most: a flag one if it is a boolean word, a list and a foreign key many."""
    if key == "config":
        return 1
    if kind is None or takes(kind, list):
        return float("inf")
    if takes(kind, bool):
        return 1 if ahead and ahead[0].lower() in TRUE + FALSE else 0
    return 1


class _Loader(yaml.SafeLoader):
    """YAML as people read it: a key given twice is an error, ``no`` and ``off`` are words, ``1e-5`` is a number."""

    yaml_implicit_resolvers = {
        first: [(tag, regex) for tag, regex in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
            seen.add(key if isinstance(key, str) else None)
        return super().construct_mapping(node, deep)


def _add_resolver(tag: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))


_add_resolver("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF")
_add_resolver("float", r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$", "-+0123456789")


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        UserError: the file cannot be read, is not YAML, gives a key twice, or is no mapping of names to values; the
            message names the file and, where known, the line.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(f"{path}: line {line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{path}: is not a mapping of option names to values (key: value, one per line)")
    return content


def load_recipe(path: Path, inside: tuple[Path, ...] = ()) -> dict[str, tuple[Any, str]]:
    """The keys of a recipe and of those it builds on, each with the file that it stands in.

    ``extends: part.yaml``, or a list of such paths relative to the recipe, takes over the keys of other recipes; of two
    that give one key the later wins, and the recipe itself over both.

    Raises:
        UserError: as :func:`load_yaml`; ``extends`` is neither a path nor a list of paths, or leads back to itself.
    """
    path = Path(path)
    if path.resolve() in inside:
        raise UserError(f"{path}: extends itself")
    content = load_yaml(path)
    parts = content.pop("extends", [])
    parts = [parts] if isinstance(parts, str) else parts
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise UserError(f"{path}: extends: {parts!r} is not a path or a list of paths")
    found: dict[str, tuple[Any, str]] = {}
    for part in parts:
        found.update(load_recipe(path.parent / part, (*inside, path.resolve())))
    found.update((key, (value, str(path))) for key, value in content.items())
    return found


def dump_yaml(mapping: Mapping[str, Any]) -> str:
    """YAML text of a mapping, keys in their order, readable by :func:`load_yaml` with equal values."""
    return yaml.safe_dump(plain(mapping), sort_keys=False, allow_unicode=True, width=120)


def plain(value: Any) -> Any:
    """Options, paths, tuples and mappings as what YAML and JSON hold: dict, list, str, numbers, booleans and None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
