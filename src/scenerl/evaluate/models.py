"""The predictions to evaluate: ``NAME=FILE:format=…,frame=…,input=…,envelope=…,names=…``, each with its own options."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scenerl.commands.eval import EvalOptions
from scenerl.config.convert import convert, near_misses
from scenerl.config.options import field_types
from scenerl.errors import UserError

KEYS = ("format", "frame", "input", "envelope")
"""Options of `eval` that each file may have for itself."""

_SPEC = re.compile(r"(?P<file>.+?)(?::(?P<settings>[a-z_]+=[^:]*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Model:
    """One file of predictions.

    Attributes:
        name: in tables.
        path: of the file, or a folder where the format is one.
        options: of the command, with those of this file.
        names: a file that names its category ids; None: the ground truth does.
    """

    name: str
    path: Path
    options: EvalOptions
    names: Path | None = None


def read_model(text: str, options: EvalOptions) -> Model:
    """A model from ``[NAME=]FILE[:key=value,…]``; a file of that very name is taken as it is.

    Raises:
        UserError: an unknown key or a value that is not allowed.
    """
    if Path(text).exists():
        return Model(Path(text).stem, Path(text), options)
    found = _SPEC.fullmatch(text)
    name, equals, file = found["file"].partition("=")
    if not equals or "/" in name:
        name, file = Path(found["file"]).stem, found["file"]
    kinds, own, names = field_types(EvalOptions), {}, None
    for setting in (found["settings"] or "").split(","):
        key, equals, value = setting.partition("=")
        if not setting:
            continue
        if not equals or key not in (*KEYS, "names"):
            raise UserError(f"{text}: unknown setting {setting!r}{near_misses(key, (*KEYS, 'names'))}")
        if key == "names":
            names = Path(value)
            continue
        try:
            own[key] = convert(value, kinds[key], text=True)
        except UserError as error:
            raise UserError(f"{text}: {key}: {error}") from error
    return Model(name, Path(file), replace(options, **own), names)


def read_models(texts: Sequence[Path | str], options: EvalOptions) -> list[Model]:
    """All models.

    Raises:
        UserError: as :func:`read_model`; two models of one name.
    """
    models = [read_model(str(text), options) for text in texts]
    names = [model.name for model in models]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two files are called {twice[0]!r}; give each a name of its own, as NAME=FILE")
    return models
