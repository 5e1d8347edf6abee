"""Recipes: YAML files of options that may build on each other. The only module that knows YAML."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from scenerl.errors import UserError, near_files

_PACKAGE = Path(__file__).parents[1]
RECIPES = next((folder for folder in (_PACKAGE / "recipes", _PACKAGE.parents[1] / "recipes") if folder.is_dir()), None)
"""The recipes that come with SceneRL: in the package where it was installed, beside ``src`` in a checkout."""


def find_recipe(path: Path) -> Path:
    """``path`` where there is such a file; else, for ``recipes/…``, the file of this name that comes with SceneRL."""
    path = Path(path)
    if RECIPES and path.parts[:1] == ("recipes",) and not path.exists():
        shipped = RECIPES.joinpath(*path.parts[1:])
        return shipped if shipped.is_file() else path
    return path


def load_recipe(path: Path, inside: tuple[Path, ...] = ()) -> dict[str, tuple[Any, str]]:
    """The keys of a recipe and of those that it extends, each with the file that it stands in.

    ``extends: part.yaml``, or a list of such paths relative to the recipe, takes over the keys of other recipes. The
    later of two wins, and the recipe itself over both.

    Raises:
        UserError: as :func:`load_yaml`; ``extends`` is neither a path nor a list of paths, or leads back to itself.
    """
    path = find_recipe(path)
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


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        UserError: the file cannot be read, is not YAML, gives a key twice, or is no mapping of names to values; the
            message names the file and, where known, the line.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        near = near_files(path) if isinstance(error, FileNotFoundError) else ""
        raise UserError(f"{path}: cannot be read: {error.strerror}{near}") from error
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


def dump_yaml(mapping: Mapping[str, Any]) -> str:
    """YAML text of a mapping, keys in their order, readable by :func:`load_yaml` with equal values."""
    return yaml.dump(plain(mapping), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def plain(value: Any) -> Any:
    """Options, paths, tuples and mappings as what YAML and JSON hold: dict, list, str, numbers, booleans and None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


class _Loader(yaml.SafeLoader):
    """YAML as people read it: a repeated key is an error, ``no`` and ``off`` are words, ``1e-5`` is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
            seen.add(key if isinstance(key, str) else None)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Puts texts in quotes that the loader would take for numbers."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regex) for tag, regex in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _add_resolver(tag: str, pattern: str, first: str) -> None:
    for side in (_Loader, _Dumper):
        side.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))


_add_resolver("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF")
_add_resolver("float", r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$", "-+0123456789")
