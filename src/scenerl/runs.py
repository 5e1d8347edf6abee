"""Run folders: whose they are, and files in them that are either whole or not there."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from scenerl import __version__
from scenerl.config import dump_yaml, load_yaml, plain
from scenerl.config.options import Options, default_of
from scenerl.errors import UserError
from scenerl.files import atomic_write_text

CONFIG_NAME = "config.yaml"
HEADER = "# Written by scenerl"


def save_resolved(options: Options, path: Path, extra: Mapping[str, Any] | None = None) -> None:
    """Write all options of a command, defaults included, as a recipe that repeats it with ``--config``.

    Args:
        options: the command's options.
        path: the YAML file.
        extra: further keys, such as the fields given for TRL's configuration class.
    """
    _write_config(Path(path), {**plain(options), **plain(extra or {})})


def default_values(options: type[Options]) -> dict[str, Any]:
    """What a command's options are where nobody gives them, as plain values; required ones are not among them.

    An option that an earlier version did not know, so that its files do not name it, was as its default is.
    """
    defaults = {item.name: default_of(item) for item in fields(options)}
    return {name: plain(value) for name, value in defaults.items() if value is not MISSING}


def claim_folder(
    path: Path,
    fingerprint: Mapping[str, Any],
    fresh: bool = False,
    free: Collection[str] = (),
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> bool:
    """Make ``path`` the folder of this run, or refuse when it is another's.

    A folder belongs to the run whose ``config.yaml`` it holds. The same run goes on in it.

    Args:
        path: the folder; made with its parents when it is not there.
        fingerprint: what the run is: names to plain values, written to ``config.yaml``.
        fresh: empty the folder first. Only a folder with a ``config.yaml`` of ours is ever emptied.
        free: keys of the fingerprint that may differ, because they do not change the outcome (logging, say).
        defaults: what keys were that an earlier version did not write (:func:`default_values`).

    Returns:
        Whether an earlier attempt at the same run was found, so that there may be something to go on from.

    Raises:
        UserError: the folder holds another run, with the keys that differ, or files that are no run's.
    """
    path = Path(path)
    config = path / CONFIG_NAME
    is_ours = check_folder(path)
    if is_ours and fresh:
        _refuse_to_empty(path)
        shutil.rmtree(path)
        is_ours = False
    wanted = plain(fingerprint)
    if is_ours:
        refuse_other_run(path, {**defaults, **load_yaml(config)}, wanted, free)
    path.mkdir(parents=True, exist_ok=True)
    _write_config(config, wanted)
    return is_ours


def check_folder(path: Path) -> bool:
    """Whether a folder is that of a run; one that is empty or not there may become one.

    Raises:
        UserError: it is a file, or holds files that are no run's.
    """
    config = path / CONFIG_NAME
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file; the output must be a folder")
    is_ours = config.is_file() and config.read_text(encoding="utf-8", errors="replace").startswith(HEADER)
    if path.is_dir() and any(path.iterdir()) and not is_ours:
        raise UserError(f"{path}: holds files but no {CONFIG_NAME} of an earlier run; choose another --out")
    return is_ours


def refuse_other_run(
    path: Path,
    earlier: Mapping[str, Any],
    fingerprint: Mapping[str, Any],
    free: Collection[str] = (),
    advice: str = "; use --fresh to replace it, or another --out",
) -> None:
    """Raise UserError where two fingerprints differ: ``path`` holds the output of another run.

    Args:
        earlier: of the run that wrote ``path``. fingerprint: of this one. A mapping inside counts key by key.
        free: keys that may differ.
        advice: end of the message.
    """
    earlier, now = _flat(earlier), _flat(fingerprint)
    differing = [
        f"{key} ({earlier.get(key)!r:.60} there, {now.get(key)!r:.60} now)"
        for key in sorted({*earlier, *now})
        if key.partition(".")[0] not in free and earlier.get(key) != now.get(key)
    ]
    if differing:
        raise UserError(
            f"{path}: belongs to another run; differing: {', '.join(differing[:5])}"
            f"{' …' if len(differing) > 5 else ''}{advice}"
        )


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= {f"{key}.{name}": part for name, part in value.items()} if isinstance(value, Mapping) else {key: value}
    return flat


def _write_config(path: Path, mapping: Mapping[str, Any]) -> None:
    atomic_write_text(path, f"{HEADER} {__version__}\n{dump_yaml(mapping)}")


def _refuse_to_empty(path: Path) -> None:
    """A folder that we stand in, or that is above us, is surely not meant."""
    if Path.cwd().resolve().is_relative_to(path.resolve()):
        raise UserError(f"{path}: is or holds the working directory; it is not emptied; choose another --out")
