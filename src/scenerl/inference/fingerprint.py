"""What a file of predictions was made with, in the ``.yaml`` beside it: only the same run may go on with the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scenerl.answers import OutputFormat
from scenerl.answers.dialogue import current_keys
from scenerl.config import PredictOptions, dump_yaml, load_yaml, plain
from scenerl.errors import UserError
from scenerl.files import atomic_write_text
from scenerl.runs import default_values, describe_difference

Fingerprint = Mapping[str, Any]
"""Everything that answers depend on (:func:`scenerl.inference.engines.fingerprint`), as plain values."""


def path_beside(out: Path) -> Path:
    """Where the fingerprint of a file of predictions is."""
    return out.with_name(f"{out.name}.yaml")


def write_fingerprint(out: Path, fingerprint: Fingerprint) -> None:
    """Write the fingerprint of ``out``, whole or not at all."""
    atomic_write_text(path_beside(out), dump_yaml(fingerprint))


def check_same_run(out: Path, fingerprint: Fingerprint, hint: str = "") -> None:
    """Refuse a file of predictions that is another run's.

    What an earlier version did not write, an option or a field of the output format, was its default.

    Args:
        hint: added to the message: what to do about it.

    Raises:
        UserError: it was not written by predict, or by another run; names the file, and what differs.
    """
    if not (out.is_file() and path_beside(out).is_file()):
        raise UserError(f"{out}: exists but was not written by predict; choose another --out")
    defaults = {key: value for key, value in default_values(PredictOptions).items() if key in fingerprint}
    earlier = {**defaults, **load_yaml(path_beside(out))}
    if isinstance(earlier.get("style"), Mapping):
        earlier["output_format"] = current_keys(earlier.pop("style"))
    if isinstance(earlier.get("output_format"), Mapping):
        earlier["output_format"] = {**plain(OutputFormat()), **earlier["output_format"]}
    if difference := describe_difference(earlier, fingerprint):
        raise UserError(f"{out}: belongs to another run; differing: {difference}{hint}")
