"""Hooks of MkDocs: pages of the site that are not in docs/, and links that lead somewhere on GitHub and on the site.

README.md, CONTRIBUTING.md and CHANGELOG.md become pages, as do the notebooks and the modules that mkdocs.yml names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
REPOSITORY = "https://github.com/scenerl/scenerl/blob/main"
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files of the repository to the pages that show them; notebooks join them."""


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages that the navigation names and docs/ does not hold."""
    for notebook in sorted((ROOT / "examples").glob("*.ipynb")):
        PAGES[f"examples/{notebook.name}"] = f"notebooks/{notebook.stem}.md"
    for source, name in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=notebook_page(text) if "notebooks/" in name else text))
    for name in page_names(config.nav):
        if name.startswith("api/"):
            files.append(File.generated(config, name, content=f"::: scenerl.{Path(name).stem}\n"))


def page_names(nav: list | dict | str) -> Iterator[str]:
    """The pages of a navigation, as mkdocs.yml nests it."""
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from page_names(part)


def notebook_page(text: str) -> str:
    """A notebook with what its cells printed, as Markdown."""
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += [f"```text\n{''.join(output['text']).rstrip()}\n```" for output in cell.get("outputs", ())]
    return "\n\n".join(parts) + "\n"


def on_page_markdown(markdown: str, page: Page, **_) -> str:
    """Links to files of the repository become links to their pages, or to GitHub where they have none."""
    name = page.file.src_uri
    source = {page: source for source, page in PAGES.items()}.get(name, f"docs/{name}")

    def leads_to(match: re.Match) -> str:
        target, mark, anchor = (match[1] or "#").partition("#")
        if not target or re.match(r"\w+:", target):  # code, a place on this page, or elsewhere
            return match[0]
        path = normpath(join(dirname(source), target))
        inside = PAGES.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        return f"]({relpath(inside, dirname(name) or '.') if inside else f'{REPOSITORY}/{path}'}{mark}{anchor})"

    return re.sub(r"```.*?```|`[^`\n]+`|\]\(([^)\s]+)\)", leads_to, markdown, flags=re.DOTALL)


def on_page_content(html: str, **_) -> str:
    """In tables `\\|` stands for a bar in code too, as on GitHub."""
    return re.sub(r"<td>.*?</td>", lambda match: match[0].replace("\\|", "|"), html, flags=re.DOTALL)
