"""Help pages, written from the options themselves so that they cannot fall behind."""

from __future__ import annotations

import dataclasses
import shutil
import textwrap
from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin

from scenerl.config.convert import choices, takes
from scenerl.config.options import OPTIONS, TRL_CONFIGS
from scenerl.config.parse import field_types

LEFT = 34
"""Width of the column of names."""

FIRST = ("Arguments", "Options")
"""Groups that come first; the others follow in the order of their fields."""

TRL_NOTE = """Every field of TRL's {cls} is an option too, with TRL's name and default unless the documentation says
otherwise: --learning_rate, --max_steps, --per_device_train_batch_size, --save_steps, --report_to and many more.
`scenerl {command} --help-all` lists them. Fields that hold mappings are given as JSON or in the recipe."""

COMMON = {
    "--config FILE.yaml": "recipe: a mapping of the names here to values; the command line wins over it",
    "--help": "this page",
    "--traceback": "show where an error came from",
}


def command_help(command: str, examples: Iterable[str], names: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """The help page of a command: purpose, usage, examples, then its options by group with choices and defaults.

    Args:
        command: a name from :data:`scenerl.config.OPTIONS`.
        examples: lines to show as they are.
        names: lists for the end of the page: title to name to meaning, such as the rewards.
    """
    cls = OPTIONS[command]
    items = dataclasses.fields(cls)
    positionals = [item for item in items if item.metadata["positional"]]
    required = [item for item in items if not item.metadata["positional"] and item.default is dataclasses.MISSING]
    required = [item for item in required if item.default_factory is dataclasses.MISSING]
    usage = " ".join(
        ["scenerl", command]
        + [_argument(item, field_types(cls)[item.name]) for item in positionals]
        + [f"--{item.name} {_metavar(item, field_types(cls)[item.name])}" for item in required]
        + ["[options]"]
    )
    lines = [_filled(cls.__doc__ or ""), "", f"usage: {usage}", "", "examples:", *(f"  {line}" for line in examples)]

    groups: dict[str, list[dataclasses.Field]] = {}
    for item in sorted(items, key=lambda item: item.name not in {other.name for other in required}):
        groups.setdefault("Arguments" if item.metadata["positional"] else item.metadata["group"], []).append(item)
    for group in sorted(groups, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST)):
        lines += ["", f"{group}:"]
        for item in groups[group]:
            lines += _entry(item, field_types(cls)[item.name])
    for title, entries in {"Always": COMMON, **(names or {})}.items():
        lines += ["", f"{title}:"]
        for left, right in entries.items():
            lines += _columns(left, right)
    if command in TRL_CONFIGS:
        lines += ["", _filled(TRL_NOTE.format(cls=TRL_CONFIGS[command], command=command))]
    return "\n".join(lines)


def fields_help(cls: type, omit: Collection[str] = ()) -> str:
    """One entry per field of any dataclass: name, type, default, help where the field's metadata has it."""
    lines = [f"Fields of {cls.__name__}:"]
    kinds = field_types(cls)
    for item in dataclasses.fields(cls):
        if item.init and item.name not in omit:
            lines += _entry(item, kinds[item.name])
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


def _entry(item: dataclasses.Field, kind: Any) -> list[str]:
    metadata = item.metadata
    allowed = choices(kind)
    is_positional = metadata.get("positional", False)
    metavar = _metavar(item, kind)
    left = f"{item.name.upper()}" if is_positional else f"--{item.name} {metavar}".rstrip()
    notes = []
    if allowed and (is_positional or "|" not in metavar):
        notes.append(f"choices: {', '.join(allowed)}")
    default = item.default
    if item.default_factory is not dataclasses.MISSING:
        default = item.default_factory()
    if default is dataclasses.MISSING:
        notes.append("required")
    elif default is True and not is_positional:
        notes.append(f"default: true; off: --no_{item.name}")
    elif default is not None and default is not False and default != []:
        notes.append(f"default: {_shown(default)}")
    text = " ".join(str(metadata.get("help", "")).split()).replace("%%", "%")
    return _columns(left, text + (f" ({'; '.join(notes)})" if notes else ""))


def _argument(item: dataclasses.Field, kind: Any) -> str:
    name = f"{item.name.upper()} …" if takes(kind, list) else item.name.upper()
    is_required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    return name if is_required else f"[{name}]"


def _metavar(item: dataclasses.Field, kind: Any) -> str:
    allowed = choices(kind)
    if takes(kind, list):
        inner = next((get_args(member) for member in (*get_args(kind), kind) if get_origin(member) is list), ())
        return "NAME …" if not inner or inner[0] is str else "N …"
    if allowed:
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
