"""The fields of TRL's configuration classes, read from their source: to import TRL takes too long for that."""

from __future__ import annotations

import ast
import dataclasses
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

_FILES = ("transformers/training_args.py", "trl/trainer/base_config.py", "trl/trainer/{}_config.py")
_CLASSES = ("TrainingArguments", "_BaseConfig", "SFTConfig", "GRPOConfig")
_NAMES = {"Any": Any, "Literal": Literal}


@cache
def fields_in_source(name: str) -> type | None:
    """A dataclass with the name, and the fields, of ``SFTConfig`` or ``GRPOConfig``.

    Types that the source imports from elsewhere, such as transformers' enums, are ``Any`` here, and defaults are None.

    Returns:
        None where TRL is not installed or keeps its classes elsewhere.
    """
    found: dict[str, Any] = {}
    for file in _FILES:
        package, _, inside = file.format(name.removesuffix("Config").lower()).partition("/")
        spec = find_spec(package)
        path = Path(spec.origin).parent / inside if spec and spec.origin else None
        if path is None or not path.is_file():
            return None
        found |= _fields(path)
    return dataclasses.make_dataclass(name, [(key, kind, None) for key, kind in found.items()])


def _fields(path: Path) -> dict[str, Any]:
    return {
        line.target.id: _kind(line.annotation)
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name in _CLASSES
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
        if "init=False" not in ast.unparse(line)
    }


def _kind(annotation: ast.expr) -> Any:
    try:
        return eval(ast.unparse(annotation), dict(_NAMES))  # of the installed package, which is run later anyway
    except NameError:
        return Any
