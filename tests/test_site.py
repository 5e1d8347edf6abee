"""The documentation site: it builds without a warning, loads nothing from elsewhere, and has every page."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).parents[1]


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder of the built site."""
    if any(importlib.util.find_spec(name) is None for name in ("material", "mkdocstrings_handlers")):
        pytest.skip("the extra docs is not installed: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr[-2000:]
    return folder


def test_nothing_is_loaded_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 35
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for tag in re.findall(r"<(?:script|link|img|iframe|source|object|embed)\b[^>]*>", text):
            address = re.search(r"""\b(?:src|href|data|srcset)=["']?([^"'\s>]+)""", tag)
            assert not address or urlsplit(address[1]).scheme in ("", "data"), f"{page.name}: {tag}"
            assert not address or not address[1].startswith("//"), f"{page.name}: {tag}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", style.read_text(encoding="utf-8")), style


def test_pages_of_every_kind_have_their_content(site):
    def text(name: str) -> str:
        return (site / name).read_text(encoding="utf-8")

    assert 'href="guide.html"' in text("index.html") and 'src="images/report.png"' in text("index.html")
    assert "github.com/scenerl/scenerl/blob/main/examples/trl_grpo.py" in text("other_trainers.html")
    assert 'href="../own_code.html"' in text("notebooks/own_reward.html")
    assert r"\begin{tabular}" in text("notebooks/evaluate.html")
    assert 'id="scenerl.metrics.evaluate"' in text("api/metrics.html")
    # A docstring's role is a link, its example a block of code; a bar in a table's code has no backslash.
    assert ":func:" not in text("api/metrics.html") and "<blockquote>" not in text("api/metrics.html")
    assert "sgdet|sgcls|predcls|det" in text("commands.html")


def test_it_is_read_and_searched_in_a_browser_without_other_requests(site, visit):
    handler = partial(QuietHandler, directory=site)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            page = visit(f"http://127.0.0.1:{server.server_port}/api/rewards.html", hosts=["127.0.0.1"])
            assert page.locator("article h1").count() == 1
            page.keyboard.press("s")
            page.keyboard.type("word vectors glove")
            page.locator(".md-search-result__link[href*='sources.html']").first.wait_for()
        finally:
            server.shutdown()


def test_pictures_are_small():
    for path in (ROOT / "docs" / "images").iterdir():
        assert path.stat().st_size < 300_000, path
