"""How a file of predictions was made, from the options that `scenerl predict` leaves beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scenerl.config import load_yaml
from scenerl.report.text import short

SHOWN = {
    "model": "Model",
    "engine": "Answered by",
    "output_format": "Output format",
    "constrain": "Constrained decoding",
    "num_samples": "Answers per image",
    "temperature": "Temperature",
    "logprobs": "Scores from log-probabilities",
    "max_new_tokens": "Most tokens of an answer",
}
"""Option of `predict` to what it is called in the report."""

_SINCE = {"engine": "hf", "constrain": False}
"""What options meant that files of earlier versions do not name."""


@dataclass(frozen=True, slots=True)
class AnswerSettings:
    """``options`` is None where no file tells; ``merged_from`` is the number of answers that made one graph, else 0."""

    options: Mapping[str, Any] | None = None
    merged_from: int = 0

    @property
    def constrained(self) -> bool | None:
        """Whether decoding was held to readable answers; None where that is unknown."""
        return None if self.options is None else bool({**_SINCE, **self.options}["constrain"])


@dataclass(frozen=True, slots=True)
class SettingsTable:
    """Settings side by side. Rows are (title, a text per stage). ``constrained``: stages whose decoding was."""

    stages: tuple[tuple[str, int], ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    constrained: tuple[str, ...] = field(default=())


def read_settings(predictions: Path, merged_from: int = 0) -> AnswerSettings:
    """The settings of a file of predictions.

    Raises:
        UserError: the file beside it is not YAML.
    """
    path = predictions.with_name(f"{predictions.name}.yaml")
    return AnswerSettings(load_yaml(path) if path.is_file() else None, merged_from)


def settings_table(stages: Sequence[tuple[str, int, AnswerSettings]]) -> SettingsTable | None:
    """The table, or None where nothing is known of any stage."""
    rows = [
        (title, tuple(_text(settings.options, key) for _, _, settings in stages))
        for key, title in SHOWN.items()
        if any(settings.options for _, _, settings in stages)
    ]
    if any(settings.merged_from for _, _, settings in stages):
        merged = (f"{settings.merged_from} answers" if settings.merged_from else "no" for _, _, settings in stages)
        rows.append(("Merged by vote", tuple(merged)))
    if not rows:
        return None
    constrained = tuple(name for name, _, settings in stages if settings.constrained)
    return SettingsTable(tuple((name, index) for name, index, _ in stages), tuple(rows), constrained)


def _text(options: Mapping[str, Any] | None, key: str) -> str:
    if options is None:
        return "unknown"
    options = {**_SINCE, **options}
    value, served = options.get(key), options["engine"] != "hf"
    if value is None:
        return "\u2013"
    if key == "engine":
        return "a server" if served else "transformers"
    if key == "constrain" and value and served:
        return "by grammar alone"  # what it cannot say is left open
    if key == "output_format" and isinstance(value, Mapping):
        return short(", ".join(str(value.get(part)) for part in ("format", "envelope")))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return short(Path(value).name if key == "model" and isinstance(value, str) else value)
