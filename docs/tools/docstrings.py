"""Extension of griffe: docstrings as this project writes them, with doctests and Sphinx's roles, become Markdown."""

from __future__ import annotations

import re

import griffe


class Docstrings(griffe.Extension):
    """Fences doctests, and links what a role names where the API reference has it."""

    def on_object(self, *, obj: griffe.Object, **_) -> None:
        """Rewrite one docstring before it is parsed."""
        if obj.docstring is None:
            return

        def link(match: re.Match) -> str:
            name = match[1].removeprefix("~")
            try:
                full = name if name.startswith("scenerl.") else obj.resolve(name)
            except griffe.NameResolutionError:
                full = name
            shown = name.rpartition(".")[2] if match[1] != name else name
            return f'<autoref optional identifier="{full}"><code>{shown}</code></autoref>'

        text = re.sub(r"^((?:>>> .*\n?)(?:.+\n?)*)", r"```pycon\n\1\n```\n", obj.docstring.value, flags=re.MULTILINE)
        obj.docstring.value = re.sub(r":[a-z]+:`([\w.~]+)`", link, text)
