"""Several sources: what the options `data` and `eval_data` may say of each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import PositiveFloat, PositiveInt

from scenerl.config.command_line import convert_key
from scenerl.config.convert import near_misses
from scenerl.config.options import FormatName, TaskName, field_types
from scenerl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Source:
    """One of several sources. What is None or empty is as the command's own options say.

    Attributes:
        source: as a single source of ``data``.
        weight: share of the examples, relative to the weights of the others; None in all sources: each example once.
        name: in logs; None: the last part of the source's path.
        task, format, vocabulary: of its prompts and answers. With a task or format of its own a source takes no
            vocabulary from the command's options.
        rewards, reward_weights: of its completions.
    """

    source: str
    weight: PositiveFloat | None = None
    name: str | None = None
    split: str | None = None
    limit: PositiveInt | None = None
    task: TaskName | None = None
    format: FormatName | None = None
    vocabulary: Path | None = None
    rewards: list[str] = field(default_factory=list)
    reward_weights: list[float] = field(default_factory=list)

    @property
    def label(self) -> str:
        """Its name in logs."""
        if self.name is not None:
            return self.name
        name, _, argument = self.source.removeprefix("own:").partition(":")
        path = argument.partition(",")[0]
        is_path = path and "=" not in path and not name.endswith(".py")
        return Path(path if is_path else name).stem


def sources_of(data: str | list[str | dict[str, Any]] | None, option: str = "data") -> list[Source]:
    """The sources that an option names, one or several; none where it is not given.

    Raises:
        UserError: a key or value that is not allowed, weights for some sources only, or two sources of one name.
    """
    if data is None:
        return []
    entries = data if isinstance(data, list) else [data]
    if not entries:
        raise UserError(f"{option}: no source")
    sources = [_source(entry, f"{option}, source {number}") for number, entry in enumerate(entries, start=1)]
    if len({source.weight is None for source in sources}) > 1:
        raise UserError(f"{option}: give every source a weight, or none")
    labels = [source.label for source in sources]
    for label in labels:
        if labels.count(label) > 1:
            raise UserError(f"{option}: two sources are called {label!r}; give each a name of its own (name: …)")
        if len(labels) > 1 and not re.fullmatch(r"[\w.-]+", label):
            raise UserError(
                f"{option}: the name {label!r} may hold letters, digits, _, - and . only; give another (name: …)"
            )
    return sources


def eval_sources_of(data: str | list[str | dict[str, Any]] | None) -> list[Source]:
    """The sources of the validation images; their metrics are logged for each, so that there is nothing to weigh.

    Raises:
        UserError: as :func:`sources_of`, or a key that is of training only.
    """
    for number, entry in enumerate(data if isinstance(data, list) else [], start=1):
        for key in ("weight", "rewards", "reward_weights"):
            if isinstance(entry, dict) and key in entry:
                raise UserError(f"eval_data, source {number}: {key} is of training data only")
    return sources_of(data, "eval_data")


def _source(entry: str | Mapping[str, Any], where: str) -> Source:
    if isinstance(entry, str):
        return Source(source=entry)
    kinds = field_types(Source)
    for key in entry:
        if key not in kinds:
            raise UserError(f"{where}: unknown key {key!r}{near_misses(str(key), kinds)}")
    if "source" not in entry:
        raise UserError(f"{where}: has no key 'source'")
    source = Source(**{key: convert_key(key, value, kinds[key], where) for key, value in entry.items()})
    if source.reward_weights and len(source.reward_weights) != len(source.rewards):
        raise UserError(
            f"{where}: {len(source.reward_weights)} reward_weights for {len(source.rewards)} rewards of its own"
        )
    return source
