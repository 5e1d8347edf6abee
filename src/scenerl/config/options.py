"""What options are made of: a field with help text and group, and the types that several commands share."""

from __future__ import annotations

import typing
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field as Range

FormatName = Literal[
    "json",
    "compact",
    "detections",
    "toon",
    "gemini",
    "qwen2-vl",
    "internvl",
    "glm-4v",
    "deepseek-vl2",
    "rex-omni",
    "kosmos-2",
    "florence-2",
    "paligemma",
]
"""Formats of answers (:data:`scenerl.answers.FORMATS`); from ``gemini`` on they are only read."""
TemplateName = Literal["plain", "think"]
BoxFormatName = Literal["pixels", "norm1000", "norm1", "resized"]
TaskName = Literal["sgdet", "sgcls", "predcls", "det"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Share = Annotated[float, Range(ge=0, le=1)]
"""A number from 0 to 1. Whole numbers and sizes are pydantic's ``PositiveInt``, ``NonNegativeInt`` and so on."""


def option(default: Any, text: str, group: str = "Options", positional: bool = False) -> Any:
    """A dataclass field with its help text; ``default`` is ``...`` for a required option, a list is copied."""
    metadata = {"help": text, "group": group, "positional": positional}
    if default is ...:
        return field(metadata=metadata)
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Base of every command's options.

    Values from recipes and command lines are checked by their annotations (:mod:`scenerl.config.convert`). Options made
    in Python are taken as they are. A subclass checks in ``__post_init__`` what depends on several of them.
    """

    trl_config: ClassVar[str | None] = None
    """TRL's configuration class whose fields the command takes besides its own options."""


def field_types(cls: type) -> dict[str, Any]:
    """Names and resolved annotations of the fields that a dataclass can be constructed with, in order."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {item.name: hints[item.name] for item in fields(cls) if item.init}


def default_of(item: Field) -> Any:
    """The default of a dataclass field; :data:`dataclasses.MISSING` for a required one."""
    return item.default if item.default_factory is MISSING else item.default_factory()
