"""The command `scenerl`: finds the command, parses its options, runs it, and turns errors into exit codes."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module

from scenerl import __version__
from scenerl.commands import COMMANDS, check_of, examples_of, function_of, most_used_of, options_of, parse
from scenerl.config.convert import near_misses
from scenerl.config.help import command_help, fields_help, overview
from scenerl.config.options import field_types
from scenerl.errors import UserError
from scenerl.extras import EXTRA_OF_PACKAGE, package_of

USER_ERROR = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code: 0, or the command's own; 2 for the user's mistakes and errors of the operating system, each in
        one line; 130 when interrupted.

    Raises:
        Exception: everything else is a bug and keeps its traceback; Python then exits with 1.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    show_traceback = "--traceback" in words
    words = [word for word in words if word != "--traceback"]
    try:
        try:
            return _dispatch(words)
        finally:
            _close_displays()
    except KeyboardInterrupt:
        print("scenerl: interrupted; what is written stays, and the same command continues", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe has seen enough (`scenerl score … | head`); nothing is left to flush to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UserError, OSError, ModuleNotFoundError) as error:
        if show_traceback or (isinstance(error, ModuleNotFoundError) and package_of(error) not in EXTRA_OF_PACKAGE):
            raise
        print(f"scenerl: error: {_one_line(error)}", file=sys.stderr)
        return USER_ERROR


def _dispatch(words: list[str]) -> int:
    if words[:1] == ["help"] and len(words) > 1:
        words = [words[1], "--help"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview({command: _first_line(options_of(command)) for command in COMMANDS}))
        return 0
    if words[0] in ("-V", "--version"):
        print(f"scenerl {__version__}")
        return 0
    command, rest = words[0], words[1:]
    if command not in COMMANDS:
        raise UserError(f"unknown command {command!r}{near_misses(command, COMMANDS)}")
    trl_config = options_of(command).trl_config
    if {"-h", "--help", "--help-all"} & set(rest):
        print(_help_page(command, () if "--help-all" in rest else most_used_of(command)))
        if trl_config and "--help-all" in rest:
            print(f"\n{fields_help(getattr(import_module('trl'), trl_config), omit=['output_dir'])}")
        return 0
    options, extra = parse(command, rest)
    if check := check_of(command):
        check(options, extra)
    run = function_of(command)
    return (run(options, extra) if trl_config else run(options)) or 0


def _help_page(command: str, only: Sequence[str]) -> str:
    names = {}
    if "rewards" in field_types(options_of(command)):
        rewards = import_module("scenerl.rewards").REWARDS
        names["Names of rewards"] = {name: _first_line(reward) for name, reward in rewards.items()}
    return command_help(options_of(command), command, examples_of(command), names, only)


def _close_displays() -> None:
    """Remove progress bars from the terminal, however the command ended. One that showed none has not loaded rich."""
    if progress := sys.modules.get("scenerl.progress"):
        progress.close_displays()


def _first_line(documented: object) -> str:
    """The first line of a docstring without its markup."""
    return re.sub(r":\w+:(?=`)|`", "", (documented.__doc__ or "").strip().split("\n")[0])


def _one_line(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        package = package_of(error)
        return f"the package {package!r} is missing; install it: pip install 'scenerl[{EXTRA_OF_PACKAGE[package]}]'"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())
