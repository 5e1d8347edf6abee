"""Reading whole JSON files, with errors that name the file and what it should hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scenerl.file_kinds import foreign_kind
from scenerl.types import DataError


def read_json(path: Path | str, expected: str) -> Any:
    """The value in a JSON file.

    Args:
        path: the file, in UTF-8.
        expected: what it should hold, for the message.

    Raises:
        DataError: it cannot be read, or is not JSON.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected {expected}") from error
    if kind := foreign_kind(content):
        raise DataError(f"{path} {kind}; expected {expected}")
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); expected {expected}") from error
