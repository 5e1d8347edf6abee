"""The commands: a module each with the options and the examples of the help page, and the function that runs it.

The modules here import no other room. So any room may use the options as types, and the demo and `launch` may make
them. Adding a command: a module with its options and ``EXAMPLES`` (and ``MOST_USED``, ten of many
options), and a line in :data:`COMMANDS`. Adding an option: a
field of the command's options. After either: ``python -m scenerl.commands.reference > docs/commands.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pkgutil import resolve_name

from scenerl.config import Extra, parse_options
from scenerl.config.options import Options

COMMANDS = {
    "demo": ("DemoOptions", "scenerl.demo.pipeline:run"),
    "study": ("StudyOptions", "scenerl.study.run:run"),
    "data": ("DataOptions", "scenerl.data.command:run"),
    "sft": ("SFTOptions", "scenerl.training.sft:run"),
    "grpo": ("GRPOOptions", "scenerl.training.grpo:run"),
    "predict": ("PredictOptions", "scenerl.inference.predict:run"),
    "launch": ("LaunchOptions", "scenerl.launch.command:run"),
    "score": ("ScoreOptions", "scenerl.score:run_score"),
    "eval": ("EvalOptions", "scenerl.evaluate:run_eval"),
    "merge": ("MergeOptions", "scenerl.predictions.merge_file:run"),
    "report": ("ReportOptions", "scenerl.report.command:run"),
    "app": ("AppOptions", "scenerl.app.command:run"),
    "export": ("ExportOptions", "scenerl.export:run"),
}
"""Command, which is also the name of its module here, to its options class and its function; in the order of the help
page. The function is imported when it is called; it takes the options (and the fields for TRL)."""

CHECKS = {
    "sft": "scenerl.early_checks:check_training",
    "grpo": "scenerl.early_checks:check_training",
    "predict": "scenerl.early_checks:check_prediction",
}
"""Command to the function that sees its options before the command's own module, with torch, is imported."""

TRAINING = ("sft", "grpo")
"""The commands that recipes are for."""


def options_of(command: str) -> type[Options]:
    """The options class of a command."""
    return resolve_name(f"scenerl.commands.{command}:{COMMANDS[command][0]}")


def examples_of(command: str) -> tuple[str, ...]:
    """The examples of a command's help page, a line each."""
    return import_module(f"scenerl.commands.{command}").EXAMPLES


def most_used_of(command: str) -> Sequence[str]:
    """The options that a command's help page shows, those used most; none: it shows all."""
    return getattr(import_module(f"scenerl.commands.{command}"), "MOST_USED", ())


def function_of(command: str) -> Callable[..., int | None]:
    """The function that runs a command; may return an exit code."""
    return resolve_name(COMMANDS[command][1])


def check_of(command: str) -> Callable[..., None] | None:
    """The function that checks a command's options and fields for TRL early; None: the command does it itself."""
    return resolve_name(CHECKS[command]) if command in CHECKS else None


def parse(command: str, argv: Sequence[str]) -> tuple[Options, Extra]:
    """The options of a command, and the fields left over for TRL (:func:`scenerl.config.parse_options`)."""
    return parse_options(options_of(command), command, argv)
