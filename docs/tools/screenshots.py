"""The pictures of docs/gallery.md, of a finished demo: ``python docs/tools/screenshots.py runs/demo``.

Needs the extras ``app`` and ``test`` and Chromium (``make browser``). Writes docs/images/*.png with 256 colours.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parents[1] / "images"


REST = """
#calibration, #predicates, #failures, #filters, details, .note:not(header *), .key, .card ~ .card,
.metrics:has(~ .metrics), #training h3 ~ h3, #training .charts ~ .charts
"""
"""What the picture of the whole report leaves out: all but the last table, the first charts and the first image."""


def shoot(page: Page, name: str, height: int) -> None:
    """Write what the page shows from its current place on."""
    page.set_viewport_size({"width": page.viewport_size["width"], "height": height})
    page.wait_for_timeout(1000)  # pictures are drawn, and scrolling has come to rest
    path = IMAGES / name
    page.screenshot(path=path)
    with Image.open(path) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(path, path.stat().st_size)


def shoot_report(browser, report: Path) -> None:
    """The whole in short; an image with its graphs; a phone in the dark."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.goto(report.as_uri())
    page.locator("#card-0").focus()
    page.keyboard.press("g")
    page.locator("#card-0 .graph").first.wait_for()
    page.evaluate("document.activeElement.blur()")
    page.locator("#card-0").evaluate("card => scrollTo(0, card.getBoundingClientRect().top + scrollY - 20)")
    shoot(page, "report_gallery.png", 930)
    page.keyboard.press("g")
    page.evaluate("rest => document.querySelectorAll(rest).forEach(part => { part.style.display = 'none' })", REST)
    page.evaluate("scrollTo(0, 0)")
    shoot(page, "report.png", 1760)
    phone = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    phone.goto(report.as_uri())
    shoot(phone, "report_phone.png", 844)


@contextmanager
def app(*models: str):
    """The address of the page with these checkpoints."""
    command = [sys.executable, "-m", "scenerl", "app", *models, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield re.search(r"http://\S+", server.stdout.readline())[0]
        finally:
            server.terminate()


def shoot_app(browser, run: Path) -> None:
    """SFT and RL side by side, on an image of the test set."""
    (rl,) = run.glob("rl_*")
    with app(f"SFT={run / 'sft'}", f"RL={rl}") as address:
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(address)
        page.locator("input[type=file]").first.set_input_files(run / "data" / "images" / "test_00000.png")
        page.locator(".image-frame img").wait_for()
        page.get_by_label("Compare with").click()
        page.get_by_role("option", name="RL").click()
        page.get_by_role("button", name="Run").click()
        page.locator("#panel-1 .scene .over").first.wait_for(timeout=120_000)
        page.evaluate("scrollTo(0, 0)")
        shoot(page, "app.png", 1200)
        page.close()  # while it is open, the server waits for it


def main(run: Path) -> None:
    """All of them, with the report as this version writes it."""
    with sync_playwright() as driver, tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.html"
        subprocess.run([sys.executable, "-m", "scenerl", "report", str(run), "--out", str(report)], check=True)
        sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        path = shutil.which("chromium") or driver.chromium.executable_path
        browser = driver.chromium.launch(executable_path=path, args=["--disable-gpu", *sandbox])
        shoot_report(browser, report)
        shoot_app(browser, run)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
