"""How long a report with 500 images takes to be usable in a browser, and its size.

    OMP_NUM_THREADS=1 python bench/report.py
    OMP_NUM_THREADS=1 python bench/report.py --smoke    # 6 images: that it runs, no figures worth keeping

Data are random, of the shape of large scene graphs: 12 objects and 20 relations an image, three stages with scores and
raw answers; pictures of grain on colours, no fewer bytes than photos take. A page is usable when its first card is
drawn and a key moves to it. The peer is a page of the same pictures in plain `<img loading=lazy>` elements, painted.
Both are opened in turn in headless Chromium, each time in a new context; the browser's own start is not counted. CPU
time is that of the page's main thread. Needs the package playwright, and Chromium (`make browser`).
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from common import noisy, print_conditions, print_head, print_row, random_graph
from PIL import Image

from scenerl.data.rows import example_to_row
from scenerl.report.build import write_report
from scenerl.report.inputs import named_files
from scenerl.types import Example

NUM_OBJECTS, NUM_RELATIONS, STAGES = 12, 20, ("A", "B", "C")
NUM_PICTURES = 20
NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome")


def write_pictures(folder: Path) -> None:
    generator = np.random.default_rng(0)
    for n in range(NUM_PICTURES):
        colours = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((800, 600))
        grain = generator.normal(0, 22, (600, 800, 1))
        pixels = np.clip(np.asarray(colours) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{n}.jpg", quality=90)


def write_inputs(folder: Path, num_images: int) -> list[str]:
    """Data rows with images, and a file of predictions per stage; gives the latter as NAME=PATH."""
    rng = random.Random(0)
    (folder / "images").mkdir()
    write_pictures(folder / "images")
    graphs = [random_graph(rng, NUM_OBJECTS, NUM_RELATIONS) for _ in range(num_images)]
    rows = [
        example_to_row(Example(str(n), 800, 600, graph), f"{n % NUM_PICTURES}.jpg") for n, graph in enumerate(graphs)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for stage in STAGES:
        with open(folder / f"{stage}.jsonl", "w") as file:
            for n, graph in enumerate(graphs):
                row = example_to_row(Example(str(n), 800, 600, noisy(rng, graph)))
                answer = {key: row[key] for key in ("objects", "relationships")}
                row |= {"answer": json.dumps(answer), "graph": answer, "status": "ok", "issues": [], "num_tokens": 900}
                for element in (*answer["objects"], *answer["relationships"]):
                    element["score"] = rng.random()
                file.write(json.dumps(row) + "\n")
    return [f"{stage}={folder}/{stage}.jsonl" for stage in STAGES]


def opened(chromium, path: Path, use: str) -> tuple[float, float]:
    """Seconds until a page can be used: wall time, and CPU time of its main thread."""
    context = chromium.new_context()
    page = context.new_page()
    meter = context.new_cdp_session(page)
    meter.send("Performance.enable", {"timeDomain": "threadTicks"})
    start = time.perf_counter()
    page.goto(path.as_uri())
    page.evaluate(use)
    wall = time.perf_counter() - start
    measured = {entry["name"]: entry["value"] for entry in meter.send("Performance.getMetrics")["metrics"]}
    context.close()
    return wall, measured["ThreadTime"]


PAINTED = "new Promise((done) => requestAnimationFrame(() => setTimeout(done)))"
USED = f"""(async () => {{
  document.body.dispatchEvent(new KeyboardEvent("keydown", {{ key: "j", bubbles: true }}));
  if (document.activeElement.querySelectorAll(".panel").length !== {1 + len(STAGES)}) throw Error("no card is drawn");
  await {PAINTED};
}})()"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    provided = parser.parse_args()
    if provided.smoke:
        provided.images, provided.rounds = 6, 1
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        raise SystemExit("bench/report.py opens the report in Chromium, which is not here: make browser")
    from playwright.sync_api import sync_playwright

    print_conditions("wall time, one thread", ["playwright", "pillow", "jinja2"])
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        folder = Path(name)
        predictions = write_inputs(folder, provided.images)
        report, plain = folder / "report.html", folder / "plain.html"
        start = time.perf_counter()
        size = write_report(named_files(folder / "data.jsonl", predictions), report, provided.images)
        written = time.perf_counter() - start
        pictures = re.findall(r'<script type="text/plain" id="picture-\d+">(.*?)</script>', report.read_text())
        plain.write_text(
            "<!doctype html><meta charset=utf-8>"
            + "".join(f'<img loading=lazy width=400 src="data:image/webp;base64,{picture}">' for picture in pictures)
        )
        chromium = driver.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        rounds = [(opened(chromium, report, USED), opened(chromium, plain, PAINTED)) for _ in range(provided.rounds)]
        print(f"Chromium {chromium.version}")
        chromium.close()
    ours, peer = (tuple(min(found) for found in zip(*side, strict=True)) for side in zip(*rounds, strict=True))
    mean = sum(map(len, pictures)) * 3 / 4 / len(pictures)
    print(f"{provided.images} images, {mean / 1000:.0f} kB a picture; written in {written:.1f} s")
    print_head("page", "size", "usable after", "CPU time", "of the plain page's", left=1)
    print_row("report", f"{size / 1e6:.1f} MB", f"{ours[0]:.2f} s", f"{ours[1]:.2f} s", f"{ours[0] / peer[0]:.2f}")
    plain_size = sum(map(len, pictures)) / 1e6
    print_row("plain pictures", f"{plain_size:.1f} MB", f"{peer[0]:.2f} s", f"{peer[1]:.2f} s", "")


if __name__ == "__main__":
    main()
