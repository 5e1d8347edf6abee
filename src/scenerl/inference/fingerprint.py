"""What a file of predictions was made with, in the ``.yaml`` beside it: only the same run may go on with the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scenerl.answers import OutputFormat
from scenerl.answers.dialogue import current_keys
from scenerl.config import dump_yaml, load_yaml, plain
from scenerl.errors import UserError
from scenerl.files import atomic_write_text
from scenerl.runs import refuse_other_run


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Everything that a run's answers depend on.

    Attributes:
        values: names to plain values.
        defaults: of all options. What an earlier version did not write, an option or a field of the output format, was
            its default.
    """

    values: Mapping[str, Any]
    defaults: Mapping[str, Any]

    def of_shard(self, shard: object) -> Fingerprint:
        """That of a part of the run."""
        return replace(self, values={**self.values, "shard": str(shard)})

    def write(self, out: Path) -> None:
        """Write the ``.yaml`` beside ``out``, whole or not at all."""
        atomic_write_text(_path_beside(out), dump_yaml(self.values))

    def check(self, out: Path, **more: Any) -> None:
        """Refuse a file of predictions that another run wrote.

        Args:
            more: see :func:`scenerl.runs.refuse_other_run`.

        Raises:
            UserError: names the file, and what differs.
        """
        check_is_ours(out)
        earlier = {key: value for key, value in self.defaults.items() if key in self.values}
        earlier |= load_yaml(_path_beside(out))
        if isinstance(earlier.get("style"), Mapping):
            earlier["output_format"] = current_keys(earlier.pop("style"))
        if isinstance(earlier.get("output_format"), Mapping):
            earlier["output_format"] = {**plain(OutputFormat()), **earlier["output_format"]}
        refuse_other_run(out, earlier, self.values, **more)


def check_is_ours(out: Path) -> None:
    """Raise UserError where a file was not written by predict."""
    if not (out.is_file() and _path_beside(out).is_file()):
        raise UserError(f"{out}: exists but was not written by predict; choose another --out")


def _path_beside(out: Path) -> Path:
    return out.with_name(f"{out.name}.yaml")
