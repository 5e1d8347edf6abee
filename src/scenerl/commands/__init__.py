"""The commands, a module each: its options, the examples of its help page, and ``run``, which starts it.

Importing a module here imports no other room: ``run`` does that when it is called. So any room may use the options as
types, and the demo and `launch` may make them. Adding a command: a module with its options, ``EXAMPLES`` and ``run``,
and a line in :data:`COMMANDS`. Adding an option: a field of the command's options. After either: ``python -m
scenerl.commands.reference > docs/commands.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from scenerl.config import Extra, parse_options
from scenerl.config.options import Options

COMMANDS = {
    "demo": "DemoOptions",
    "data": "DataOptions",
    "sft": "SFTOptions",
    "grpo": "GRPOOptions",
    "predict": "PredictOptions",
    "launch": "LaunchOptions",
    "score": "ScoreOptions",
    "eval": "EvalOptions",
    "merge": "MergeOptions",
    "report": "ReportOptions",
    "app": "AppOptions",
    "export": "ExportOptions",
}
"""Command, which is also the name of its module here, to its options class; in the order of the help page."""

TRAINING = ("sft", "grpo")
"""The commands that recipes are for."""


def command_module(command: str) -> ModuleType:
    """The module of a command."""
    return import_module(f"scenerl.commands.{command}")


def options_of(command: str) -> type[Options]:
    """The options class of a command."""
    return getattr(command_module(command), COMMANDS[command])


def parse(command: str, argv: Sequence[str]) -> tuple[Options, Extra]:
    """The options of a command, and the fields left over for TRL (:func:`scenerl.config.parse_options`)."""
    return parse_options(options_of(command), command, argv)
