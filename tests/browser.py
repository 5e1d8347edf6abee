"""A headless Chromium for tests of pages: it fails a test whose page has a script error or asks the network for
anything. Without a browser those tests are skipped.

Chromium itself is in no Python package: `make browser` installs Debian's, elsewhere `playwright install chromium`
fetches one, and any `chromium` or `google-chrome` on the path will do. Playwright drives it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "google-chrome-stable", "chrome")
QUIET = (
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """Playwright's Browser, one for all tests of a process."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as driver:
        own = driver.chromium.executable_path
        path = next(filter(None, map(shutil.which, NAMES)), own if os.path.exists(own) else None)
        if path is None:
            pytest.skip("no Chromium: `make browser` installs Debian's, or run `playwright install chromium`")
        # Chromium refuses its sandbox to root.
        sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        chromium = driver.chromium.launch(executable_path=path, args=[*QUIET, *sandbox])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser) -> Iterator[Callable]:
    """``visit(url, width=1280, height=800, dark=False, touch=False, hosts=())`` opens a page and gives Playwright's
    Page. When the test ends, every page must have had no script error and no request to anything but itself and
    ``hosts`` (``"127.0.0.1:7860"`` or ``"127.0.0.1"``)."""
    contexts, errors, strangers = [], [], []

    def open_page(url: str, *, width: int = 1280, height: int = 800, dark: bool = False, touch: bool = False, hosts=()):
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            has_touch=touch,
            service_workers="block",
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)

        def check(asked: str) -> None:
            parts = urlsplit(asked)
            itself = asked.partition("#")[0] == url.partition("#")[0]
            if not (itself or parts.scheme in ("data", "blob") or {parts.netloc, parts.hostname} & set(hosts)):
                strangers.append(asked[:200])

        page.on("request", lambda request: check(request.url))
        page.on("websocket", lambda socket: check(socket.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not errors, f"the page's script failed: {errors}"
    assert not strangers, f"the page asked for {strangers}"
