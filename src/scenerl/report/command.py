"""``scenerl report``: from a run folder, or from files named one by one, to one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scenerl.errors import UserError
from scenerl.files import check_out
from scenerl.report.build import write_report
from scenerl.report.combine import combine_runs
from scenerl.report.manifest import Manifest, manifest_from_files

if TYPE_CHECKING:
    from scenerl.commands.report import ReportOptions


def run(options: ReportOptions) -> None:
    """Write the report that the options ask for and print where it is.

    Raises:
        UserError: options that do not go together, or an input that cannot be used; the message names it.
    """
    manifest, out = _inputs(options)
    check_out(out, manifest.files())
    if options.title:
        manifest = Manifest(options.title, manifest.targets, manifest.stages, manifest.predicate_counts)
    size = write_report(manifest, out, options.num_images, options.seed)
    print(f"{out} ({size / 1e6:.1f} MB): open it in a browser")


def _inputs(options: ReportOptions) -> tuple[Manifest, Path]:
    if options.run:
        if options.data or options.predictions or options.metrics or options.logs:
            raise UserError("give run folders, or --data with --predictions; not both")
        beside = options.run[0] / "report.html" if len(options.run) == 1 else "report.html"
        return combine_runs(options.run), Path(options.out or beside)
    if options.data is None or not (options.predictions or options.metrics or options.logs):
        raise UserError("give a run folder, or --data ROWS.jsonl with --predictions NAME=PRED.jsonl")
    manifest = manifest_from_files(Path(options.data), options.predictions, options.metrics, options.logs)
    return manifest, Path(options.out or "report.html")
