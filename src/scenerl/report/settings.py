"""How a file of predictions was made, from the options that `scenerl predict` leaves beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenerl.config import load_yaml
from scenerl.report.text import short

SHOWN = {
    "model": "Model",
    "engine": "Engine",
    "output_format": "Output format",
    "constrain": "Constrained decoding",
    "num_samples": "Samples per image",
    "temperature": "Temperature",
    "seed": "Seed",
    "logprobs": "Scores from log-probabilities",
    "max_new_tokens": "Token limit of an answer",
}
"""Option of `predict` to its name in the report."""

_EARLIER = {"engine": "hf", "constrain": False}
"""Values of options that files of earlier versions do not name."""


@dataclass(frozen=True, slots=True)
class SettingsTable:
    """Settings side by side. Rows are (title, a text per stage). ``constrained``: names of the stages whose decoding
    was."""

    stages: tuple[tuple[str, int], ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    constrained: tuple[str, ...]


def read_settings(predictions: Path) -> Mapping[str, Any] | None:
    """The options that a file of predictions was made with; None where no file beside it says so.

    Raises:
        UserError: the file beside it is not YAML.
    """
    path = predictions.with_name(f"{predictions.name}.yaml")
    return {**_EARLIER, **load_yaml(path)} if path.is_file() else None


def settings_table(stages: Sequence[tuple[str, int, Mapping[str, Any] | None, int]]) -> SettingsTable | None:
    """The table, or None where nothing is known of any stage.

    Args:
        stages: (name, palette index, options, number of answers that were merged into one or 0).
    """
    rows = []
    if any(options for _, _, options, _ in stages):
        rows = [(title, tuple(_text(options, key) for _, _, options, _ in stages)) for key, title in SHOWN.items()]
    if any(merged for *_, merged in stages):
        rows.append(("Merged by vote", tuple(f"{merged} answers" if merged else "no" for *_, merged in stages)))
    if not rows:
        return None
    constrained = tuple(name for name, _, options, _ in stages if options and options["constrain"])
    return SettingsTable(tuple((name, index) for name, index, _, _ in stages), tuple(rows), constrained)


def _text(options: Mapping[str, Any] | None, key: str) -> str:
    if options is None:
        return "unknown"
    value, served = options.get(key), options["engine"] != "hf"
    if value is None:
        return "\u2013"
    if key == "engine":
        return "server" if served else "transformers"
    if key == "constrain" and value and served:
        return "by grammar only"
    if key == "output_format" and isinstance(value, Mapping):
        parts = (value.get("format"), value.get("template", value.get("envelope")))
        return short(", ".join(str(part) for part in parts))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return short(Path(value).name if key == "model" and isinstance(value, str) else value)
