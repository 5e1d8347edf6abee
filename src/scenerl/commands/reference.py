"""The command reference, docs/commands.md: ``python -m scenerl.commands.reference > docs/commands.md``."""

from __future__ import annotations

from scenerl.commands import COMMANDS, examples_of, options_of
from scenerl.config.help import COMMON, option_groups, usage

_HEAD = """\
# Commands

Every option of every command. `scenerl COMMAND --help` shows the examples and the options used most, `--help-all` all
of them; for `sft` and `grpo` also the fields of TRL's configuration, which are options too.
This page is generated: `python -m scenerl.commands.reference > docs/commands.md`.

Options are written `--key value` or `--key=value`; `-` and `_` are the same in a key. Flags need no value, and
`--no-key` switches one off. Lists are several words, or the option repeated. Any option may stand in a recipe, a YAML
file that `--config` names ([recipes.md](recipes.md)).
"""


def reference() -> str:
    """The page as Markdown: a section for each command, a table for each group of its options."""
    parts = [_HEAD]
    for command in COMMANDS:
        cls = options_of(command)
        examples = "\n".join(examples_of(command))
        parts.append(f"## {command}\n\n{' '.join((cls.__doc__ or '').split())}\n")
        parts.append(f"Usage: `{usage(cls, command)}`\n\n```bash\n{examples}\n```\n")
        if cls.trl_config:
            parts.append(f"Takes every field of TRL's `{cls.trl_config}` as well.\n")
        parts += [_table(title, entries) for title, entries in option_groups(cls).items()]
    parts.append(_table("Every command", COMMON))
    return "\n".join(parts)


def _table(title: str, entries: dict[str, str]) -> str:
    rows = "\n".join(f"| `{_cell(left)}` | {_cell(right)} |" for left, right in entries.items())
    return f"| {title} | |\n| --- | --- |\n{rows}\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    print(reference(), end="")
