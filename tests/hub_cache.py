"""A stand-in for the hub: its local cache, filled from a folder, as if the files had been downloaded."""

from __future__ import annotations

import shutil
from pathlib import Path

COMMIT = "0" * 40


def fill_cache(cache: Path, folder: Path, name: str) -> str:
    """Put a checkpoint folder into a cache under a hub name; gives the name."""
    repository = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return name
