"""Help pages, written from the options themselves so that they cannot fall behind."""

from __future__ import annotations

import dataclasses
import shutil
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin

from scenerl.config.convert import choices, takes
from scenerl.config.options import Options, default_of, field_types

LEFT = 34
"""Width of the column of names."""

TRL_NOTE = """Every field of TRL's {cls} is an option too, with TRL's name and, unless the documentation says otherwise,
its default: --learning_rate, --max_steps, --per_device_train_batch_size, --save_steps, --report_to and many more.
`scenerl {command} --help-all` lists them. Fields that hold mappings are written as JSON or in the recipe."""

COMMON = {
    "--config FILE.yaml": "recipe: a mapping of option names to values. May be repeated: the later file wins, and the "
    "command line wins over all",
    "--help": "this page",
    "--traceback": "show where an error came from",
}
"""Options of every command."""


def command_help(
    cls: type[Options],
    command: str,
    examples: Iterable[str],
    names: Mapping[str, Mapping[str, str]] | None = None,
    only: Sequence[str] = (),
) -> str:
    """The help page of a command: purpose, usage, examples, then its options by group with choices and defaults.

    Args:
        cls: the command's options.
        command: its name.
        examples: lines to show as they are.
        names: lists for the end of the page: title to name to meaning, such as the rewards.
        only: the options to show, in this order; empty: all.
    """
    lines = [_filled(cls.__doc__ or ""), "", f"usage: {usage(cls, command)}"]
    lines += ["", "examples:", *(f"  {line}" for line in examples)]
    always = dict(COMMON)
    if only:
        always["--help-all"] = f"this page with the other {len(field_types(cls)) - len(only)} options"
    for title, entries in {**option_groups(cls, only), "Always": always, **(names or {})}.items():
        lines += ["", f"{title}:"]
        for left, right in entries.items():
            lines += _columns(left, right)
    if cls.trl_config:
        lines += ["", _filled(TRL_NOTE.format(cls=cls.trl_config, command=command))]
    return "\n".join(lines)


def usage(cls: type[Options], command: str) -> str:
    """The command line of a command: arguments, required options."""
    words, kinds = ["scenerl", command], field_types(cls)
    for item in sorted(dataclasses.fields(cls), key=lambda item: not item.metadata["positional"]):
        kind, is_required = kinds[item.name], default_of(item) is dataclasses.MISSING
        if item.metadata["positional"]:
            name = f"{item.name.upper()} …" if takes(kind, list) else item.name.upper()
            words.append(name if is_required else f"[{name}]")
        elif is_required:
            words.append(f"--{item.name} {_metavar(item, kind)}")
    return " ".join([*words, "[options]"])


def option_groups(cls: type[Options], only: Sequence[str] = ()) -> dict[str, dict[str, str]]:
    """Title to entries, option to help text: arguments, required options and options without a group first.

    Args:
        only: the options to show, in this order and under one title; empty: all.
    """
    groups: dict[str, dict[str, str]] = {"Arguments": {}, "Options": {}}
    kinds = field_types(cls)
    if only:
        found = {item.name: item for item in dataclasses.fields(cls)}
        for name in only:
            title = "Arguments" if found[name].metadata["positional"] else "Most used options"
            groups.setdefault(title, {}).update([entry(found[name], kinds[name])])
        return {title: entries for title, entries in groups.items() if entries}
    for item in sorted(dataclasses.fields(cls), key=lambda item: default_of(item) is not dataclasses.MISSING):
        left, text = entry(item, kinds[item.name])
        groups.setdefault("Arguments" if item.metadata["positional"] else item.metadata["group"], {})[left] = text
    return {title: entries for title, entries in groups.items() if entries}


def fields_help(cls: type, omit: Collection[str] = ()) -> str:
    """One entry per field of any dataclass: name, type, default, help where the field's metadata has it."""
    lines = [f"Fields of {cls.__name__}:"]
    kinds = field_types(cls)
    for item in dataclasses.fields(cls):
        if item.init and item.name not in omit:
            lines += _columns(*entry(item, kinds[item.name]))
    return "\n".join(lines)


def overview(purposes: Mapping[str, str]) -> str:
    """The page of `scenerl --help`: commands with their one-line purposes."""
    lines = [
        "Images to structured scenes with vision-language models, and reinforcement learning that improves them.",
        "",
        "usage: scenerl COMMAND [arguments] [options]",
        "",
        "Commands:",
    ]
    for command, purpose in purposes.items():
        lines += _columns(command, purpose, 12)
    lines += [
        "",
        "Start with `scenerl demo`. `scenerl COMMAND --help` explains a command. Version: `scenerl --version`.",
    ]
    return "\n".join(lines)


def entry(item: dataclasses.Field, kind: Any) -> tuple[str, str]:
    """An option as it is written, and its help text with choices and default."""
    is_positional = item.metadata.get("positional", False)
    metavar = _metavar(item, kind)
    notes = []
    if choices(kind) and (is_positional or "|" not in metavar):
        notes.append(f"choices: {', '.join(choices(kind))}")
    default = default_of(item)
    if default is dataclasses.MISSING:
        notes.append("required")
    elif default is True and not is_positional:
        notes.append(f"default: true; off: --no_{item.name}")
    elif default is not None and default is not False and default != []:
        notes.append(f"default: {_shown(default)}")
    text = " ".join(str(item.metadata.get("help", "")).split()).replace("%%", "%")
    left = item.name.upper() if is_positional else f"--{item.name} {metavar}".rstrip()
    return left, text + (f" ({'; '.join(notes)})" if notes else "")


def _metavar(item: dataclasses.Field, kind: Any) -> str:
    if takes(kind, list):
        inner = next((get_args(member) for member in (*get_args(kind), kind) if get_origin(member) is list), ())
        is_number = inner and any(takes(inner[0], number) for number in (int, float))
        return "N …" if is_number else "NAME …"
    if allowed := choices(kind):
        joined = "|".join(allowed)
        return joined if len(joined) <= LEFT else item.name.upper()
    if takes(kind, bool):
        return ""
    for base, word in ((Path, "PATH"), (dict, "JSON"), (int, "N"), (float, "X"), (str, "TEXT")):
        if takes(kind, base):
            return word
    return "VALUE"


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(_shown(item) for item in value)
    return str(value.value if isinstance(value, Enum) else value)


def _columns(left: str, right: str, width: int = LEFT) -> list[str]:
    body = textwrap.wrap(right, max(_terminal_width() - width - 2, 40)) or [""]
    head = f"  {left}"
    if len(head) >= width + 1:
        return [head, *(" " * (width + 2) + line for line in body)]
    return [f"{head:<{width + 2}}{body[0]}".rstrip(), *(" " * (width + 2) + line for line in body[1:])]


def _filled(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), _terminal_width())


def _terminal_width() -> int:
    return min(shutil.get_terminal_size((110, 24)).columns, 120)
