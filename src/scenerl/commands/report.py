"""The command `report`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from scenerl.config.options import Options, option

EXAMPLES = (
    "scenerl report runs/demo",
    "scenerl report runs/demo runs/hard_recall --out both.html",
    "scenerl report runs/demo --charts figures --chart_formats svg pdf",
    "scenerl report --data test.jsonl --predictions SFT=sft.jsonl RL=rl.jsonl --out report.html",
)
FILES, GALLERY, CHARTS = "Without a run folder", "Gallery", "Charts as files"


@dataclass(frozen=True, kw_only=True)
class ReportOptions(Options):
    """One self-contained HTML file from run folders, or from single files."""

    run: list[Path] = option(
        [], "run folders with a report.json, as `demo` writes it; several are compared", positional=True
    )
    out: Path | None = option(None, "HTML file to write. Default: report.html, of a single run in its folder")
    charts: Path | None = option(None, "folder for the charts as files of their own, for a paper", CHARTS)
    chart_formats: list[Literal["svg", "pdf"]] = option(["svg"], "their formats; pdf needs the extra pdf", CHARTS)
    title: str | None = option(None, "title of the report")
    data: str | None = option(None, "ground truth, as for `eval`", FILES)
    split: str | None = option(None, "split of the ground truth", FILES)
    predictions: list[str] = option(
        [],
        "NAME=predictions, one per stage: everything that `eval` reads, written alike (NAME=FILE:format=gemini)",
        FILES,
    )
    metrics: list[str] = option(
        [], "NAME=metrics.json, one per stage; that of `eval` of several models alone, for all of them", FILES
    )
    logs: list[str] = option([], "NAME=log.jsonl, one per training stage", FILES)
    num_images: PositiveInt = option(48, "number of images", GALLERY)
    seed: NonNegativeInt = option(0, "seed of the choice of images", GALLERY)
