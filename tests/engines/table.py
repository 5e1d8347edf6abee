"""The table of what was tested with which engine: results as JSON, and the rows in docs/cluster.md made of them.

``python tests/engines/table.py`` renews the table.
"""

from __future__ import annotations

import datetime
import json
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("results.json")
PAGE = ROOT / "docs" / "cluster.md"
MARKS = ("<!-- engines: begin -->", "<!-- engines: end -->")

ENGINES = {
    "ddp": "DDP",
    "fsdp2": "FSDP2",
    "zero2": "DeepSpeed ZeRO-2",
    "zero3": "DeepSpeed ZeRO-3, offload",
    "qlora": "QLoRA, 4 bits, one process",
}
COLUMNS = (
    "starts", "trains_to_the_same_loss", "saves", "resumes", "finishes_twice", "predicts", "validates", "lora",
    "shared_prompts", "constrained",
)  # fmt: skip
"""A column is what the test of this name shows."""
PACKAGES = ("torch", "transformers", "trl", "accelerate", "peft", "deepspeed", "bitsandbytes")


def write_results(path: Path, outcomes: dict[tuple[str, str], dict[str, str | None]], device: str = "CPU") -> None:
    """Note in a JSON file what passed. Cells that did not run, or not with all their cases, stay as they are.

    Args:
        outcomes: engine and name of a test to the outcome of each of its cases, None for those that did not run.
    """
    found = json.loads(path.read_text()) if path.is_file() else {}
    for engine in ENGINES:
        row = found.setdefault(engine, {"cells": {}})
        for column in COLUMNS:
            cases = set(outcomes.get((engine, f"test_{column}"), {}).values())
            if "failed" in cases:
                row["cells"].pop(column, None)
            elif cases and None not in cases:
                row["cells"][column] = f"{cases.pop()} on {device}"
                row["date"] = datetime.date.today().isoformat()
                row["versions"] = {name: version(name).partition("+")[0] for name in PACKAGES}
    path.write_text(json.dumps(found, indent=1) + "\n")


def render(results: dict) -> str:
    """The table, and below it when and with which versions its rows were made."""
    names = [column.replace("_", " ").replace("lora", "LoRA") for column in COLUMNS]
    lines = [f"| engine | {' | '.join(names)} |", "|" + " --- |" * (len(names) + 1)]
    made: dict[str, list[str]] = {}
    for engine, title in ENGINES.items():
        row = results.get(engine, {"cells": {}})
        lines.append(f"| {title} | {' | '.join(row['cells'].get(column, 'not tested') for column in COLUMNS)} |")
        if "date" in row:
            versions = ", ".join(f"{name} {number}" for name, number in row["versions"].items())
            made.setdefault(f"{row['date']} with {versions}", []).append(title)
    lines += ["", *(f"{'; '.join(titles)}: {when}." for when, titles in made.items())]
    return "\n".join(lines)


def update(page: str, results: dict) -> str:
    """The page with its table made anew."""
    before, _, rest = page.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return f"{before}{MARKS[0]}\n{render(results)}\n{MARKS[1]}{after}"


if __name__ == "__main__":
    results = json.loads((Path(sys.argv[1]) if sys.argv[1:] else RESULTS).read_text())
    PAGE.write_text(update(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")
