"""What a file of predictions was made with, in the ``.yaml`` beside it: whose it is, and who may go on with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scenerl.answers import OutputFormat
from scenerl.answers.dialogue import current_keys
from scenerl.commands.predict import PredictOptions
from scenerl.config import dump_yaml, load_yaml, plain
from scenerl.errors import UserError
from scenerl.files import atomic_write_text
from scenerl.runs import default_values

Mark = Mapping[str, Any]
"""Everything that answers depend on (:func:`scenerl.inference.engines.fingerprint`)."""


def mark_path(out: Path) -> Path:
    """Where the mark of a file of predictions is."""
    return out.with_name(f"{out.name}.yaml")


def write_mark(out: Path, mark: Mark) -> None:
    """Write the mark of ``out``, whole or not at all."""
    atomic_write_text(mark_path(out), dump_yaml(mark))


def differing(out: Path, mark: Mark) -> str:
    """The names in which the mark of a file differs from ``mark``, in one text; empty where it is the same run's.

    What an earlier version did not write, an option or a field of the style, was its default.
    """
    known = {key: value for key, value in default_values(PredictOptions).items() if key in mark}
    earlier = {**known, **load_yaml(mark_path(out))}
    if isinstance(earlier.get("style"), Mapping):
        earlier["output_format"] = current_keys(earlier.pop("style"))
    if isinstance(earlier.get("output_format"), Mapping):
        earlier["output_format"] = {**plain(OutputFormat()), **earlier["output_format"]}
    return ", ".join(key for key in {**mark, **earlier} if earlier.get(key) != mark.get(key))


def check_owner(out: Path, mark: Mark, fresh: bool) -> None:
    """Refuse to touch a file that is not of predictions, and to go on with those of another run.

    Args:
        fresh: what another run predicted may be replaced.

    Raises:
        UserError: names the file, and what differs.
    """
    if not out.exists():
        return
    if not (out.is_file() and mark_path(out).is_file()):
        raise UserError(f"{out}: exists but was not written by predict; choose another --out")
    if not fresh and (keys := differing(out, mark)):
        raise UserError(
            f"{out}: belongs to another run; differing: {keys}; use --fresh to replace it, or another --out"
        )
