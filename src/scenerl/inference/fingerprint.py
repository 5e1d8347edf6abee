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
from scenerl.runs import default_values, refuse_other_run

Fingerprint = Mapping[str, Any]
"""Everything that answers depend on (:func:`scenerl.inference.engines.fingerprint_of`), as plain values."""


def path_beside(out: Path) -> Path:
    """Where the fingerprint of a file of predictions is."""
    return out.with_name(f"{out.name}.yaml")


def write_fingerprint(out: Path, fingerprint: Fingerprint) -> None:
    """Write the fingerprint of ``out``, whole or not at all."""
    atomic_write_text(path_beside(out), dump_yaml(fingerprint))


def check_same_run(out: Path, fingerprint: Fingerprint | None) -> None:
    """Refuse a file that was not written by predict, or was written by another run.

    What an earlier version did not write, an option or a field of the output format, was its default.

    Args:
        fingerprint: None: any run's file will do, as it is to be replaced.

    Raises:
        UserError: names the file, and what differs.
    """
    if not (out.is_file() and path_beside(out).is_file()):
        raise UserError(f"{out}: exists but was not written by predict; choose another --out")
    if fingerprint is None:
        return
    defaults = {key: value for key, value in default_values(PredictOptions).items() if key in fingerprint}
    earlier = {**defaults, **load_yaml(path_beside(out))}
    if isinstance(earlier.get("style"), Mapping):
        earlier["output_format"] = current_keys(earlier.pop("style"))
    if isinstance(earlier.get("output_format"), Mapping):
        earlier["output_format"] = {**plain(OutputFormat()), **earlier["output_format"]}
    refuse_other_run(out, earlier, fingerprint)
