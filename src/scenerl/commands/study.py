"""The command `study`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import PositiveInt

from scenerl.config.options import Options, option

EXAMPLES = ("scenerl study", "scenerl study --smoke --out runs/try", "scenerl study --seeds 8 --page claims.md")


@dataclass(frozen=True, kw_only=True)
class StudyOptions(Options):
    """The claims of the papers, tested on small models with several seeds: a page with tables and figures."""

    out: Path = option(Path("runs/study"), "folder of the study")
    fresh: bool = option(False, "start over. Without it finished models are kept and an interrupted one continues")
    smoke: bool = option(False, "the same with tiny numbers of everything, to try the command")
    seeds: PositiveInt = option(5, "number of seeds; more may be asked for later")
    only: list[str] = option([], "names of experiments to run; default: all")
    workers: PositiveInt | None = option(None, "processes, of one thread each. Default: one for each core")
    page: Path | None = option(
        None, "the page to write; its figures go beside it. Default: claims.md in the folder of the study"
    )
