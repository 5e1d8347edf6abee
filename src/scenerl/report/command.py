"""``scenerl report``: from a run folder, or from files named one by one, to one HTML file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from scenerl.commands.report import ReportOptions
from scenerl.errors import UserError
from scenerl.files import check_out, check_out_folder
from scenerl.report.build import write_chart_files, write_report
from scenerl.report.foreign import as_rows
from scenerl.report.inputs import combine_runs, named_files


def run(options: ReportOptions) -> None:
    """Write the report and print where it is.

    Raises:
        UserError: options that do not go together, or an input that cannot be used; the message names it.
    """
    loose = options.predictions or options.metrics or options.logs
    if options.run and (options.data or loose):
        raise UserError("give run folders, or --data with --predictions; not both")
    if not options.run and not (options.data and loose):
        raise UserError("give a run folder, or --data SOURCE with --predictions NAME=PRED.jsonl")
    if options.run:
        inputs = combine_runs(options.run)
    else:
        inputs = named_files(options.data, options.predictions, options.metrics, options.logs, options.split)
    out = options.out or (options.run[0] / "report.html" if len(options.run) == 1 else Path("report.html"))
    check_out(out, inputs.files())
    if options.charts is not None:
        check_out_folder(options.charts, "charts")
        files = write_chart_files(inputs, options.charts, options.chart_formats)
    with TemporaryDirectory() as folder:
        inputs = as_rows(replace(inputs, title=options.title or inputs.title), Path(folder))
        size = write_report(inputs, out, options.num_images, options.seed)
    if options.charts is not None:
        print(f"{options.charts}: {len(files)} files of charts")
    print(f"{out} ({size / 1e6:.1f} MB): open it in a browser")
