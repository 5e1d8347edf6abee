"""Reports and comparisons as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from scenerl.errors import counted
from scenerl.metrics import ModelComparison, PairedComparison, Report
from scenerl.metrics.registry import spec_or_plain

_SHOWN_IMAGES = 10
_SHOWN_MAPPINGS = 20
_SHOWN_TESTS = 40


def print_report(report: Report, names: Sequence[str], console: Console) -> None:
    """Some metrics as a table, then failures, issues and what the averages leave out."""
    mapped = report.mapped.get("metrics", {})
    table = Table(title=counted(report.counts["images"], "image"), title_justify="left")
    columns = [("metric", "left"), ("value", "right"), ("95 % interval", "right"), ("over", "right")]
    for title, justify in columns + ([("mapped", "right")] if mapped else []):
        table.add_column(title, justify=justify)
    for name in names:
        metric = report.metrics[name]
        if metric.value is None:
            row = [Text(name), "–", Text(metric.note or "", style="dim"), ""]
        else:
            row = [Text(name), f"{metric.value:.4f}", _interval(metric.interval), str(metric.support)]
        if mapped:
            value = mapped.get(name, {}).get("value")
            row.append("–" if value is None else f"{value:.4f}")
        table.add_row(*row)
    _print_whole(table, console)
    _print_rest(len(report.metrics) - len(names), console)
    for title, counts in (("Failures", report.failures), ("Issues", report.issues)):
        if counts:
            listed = ", ".join(f"{name} {count}" for name, count in counts.items())
            console.print(Text(f"{title}: {listed}"), soft_wrap=True)
    if absent := report.counts.get("absent_predicates"):
        treated = "counted as 0 in" if report.options["absent_predicates_as_zero"] else "left out of"
        console.print(Text(f"Predicates without a target, {treated} mean recall: {absent}"))
    if report.counts.get("skipped_images"):
        console.print(
            Text(f"{report.counts['skipped_images']} images are left out (failed: {report.options['failed']}).")
        )
    for name, curve in report.calibration.items():
        console.print(Text(f"Calibration of {name}: ECE {curve['ece']:.4f}"))
    if mapped:
        _print_mappings(report.mapped["mappings"], console)


def _print_whole(table: Table, console: Console) -> None:
    """A table; in a file or pipe, which are as wide as need be, nothing of it is cut or wrapped."""
    if not console.is_terminal:
        wanted = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
        console = Console(width=max(console.width, wanted), file=console.file, quiet=console.quiet)
    console.print(table)


def _print_rest(count: int, console: Console) -> None:
    if count > 0:
        console.print(Text(f"{count} more metrics: --metrics all, or --out metrics.json", style="dim"))


def print_models(found: ModelComparison, names: Sequence[str], console: Console) -> None:
    """Some metrics of several models, a column each, and the tests of every pair."""
    images = next(iter(found.reports.values())).counts["images"]
    intervals = any(metric.interval for report in found.reports.values() for metric in report.metrics.values())
    title = f"{counted(images, 'image')}{'; 95 % intervals in brackets' if intervals else ''}"
    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    for model in found.reports:
        table.add_column(Text(model), justify="right")
    for name in names:
        cells = [_cell(found, model, name) for model in found.reports]
        table.add_row(name, *cells)
    _print_whole(table, console)
    rest = {name for report in found.reports.values() for name in report.metrics} - set(names)
    _print_rest(len(rest), console)
    _print_tests(found, names, console)
    for model, report in found.reports.items():
        if report.failures:
            listed = ", ".join(f"{name} {count}" for name, count in report.failures.items())
            console.print(Text(f"Failures of {model}: {listed}"), soft_wrap=True)


def _cell(found: ModelComparison, model: str, name: str) -> Text:
    metric = found.reports[model].metrics.get(name)
    if metric is None or metric.value is None:
        return Text("–")
    bold = "bold" if found.is_best(model, name, spec_or_plain(name).better) else ""
    interval = "" if metric.interval is None else f"\n[{metric.interval[0]:.4f}, {metric.interval[1]:.4f}]"
    return Text(f"{metric.value:.4f}", style=bold).append(interval, style="dim not bold")


def _print_tests(found: ModelComparison, names: Sequence[str], console: Console) -> None:
    """The tests of metrics that say which is better and in which some models differ."""
    title = "Differences; paired bootstrap, p corrected for the number of pairs (Holm)"
    table = Table(title=title, title_justify="left")
    for column in ("metric", "A", "B", "B − A", "95 % interval", "p", "p (Holm)"):
        table.add_column(column, justify="left" if column in ("metric", "A", "B") else "right")
    rows = [
        (name, pair, differences[name])
        for name in names
        if spec_or_plain(name).better
        and any(name in other and other[name].difference for other in found.pairs.values())
        for pair, differences in found.pairs.items()
        if name in differences
    ]
    for name, (a, b), entry in rows[:_SHOWN_TESTS]:
        ps = ["" if p is None else f"{p:.3f}" for p in (entry.p_value, entry.p_holm)]
        table.add_row(name, Text(a), Text(b), f"{entry.difference:+.4f}", _interval(entry.interval), *ps)
    if rows:
        _print_whole(table, console)
    if len(rows) > _SHOWN_TESTS:
        console.print(Text(f"{len(rows) - _SHOWN_TESTS} more tests: --out metrics.json", style="dim"))


def _print_mappings(mappings: list[Mapping], console: Console) -> None:
    console.print(Text(f"{len(mappings)} labels were mapped for the last column:"))
    for entry in mappings[:_SHOWN_MAPPINGS]:
        turned = ", turned round" if entry["swap"] else ""
        console.print(Text(f"  {entry['label']} → {entry['to']}: {entry['count']} ({entry['by']}{turned})"))
    if len(mappings) > _SHOWN_MAPPINGS:
        console.print(Text(f"  and {len(mappings) - _SHOWN_MAPPINGS} more in metrics.json"))


def print_comparison(found: PairedComparison, names: tuple[str, str], console: Console) -> None:
    """Both predictions side by side with the difference, then the images where they differ most."""
    title = f"{counted(found.num_images, 'image')}; A {names[0]}, B {names[1]}"
    table = Table(title=Text(title), title_justify="left")
    for column in ("metric", "A", "B", "B − A", "95 % interval", "p"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for name, entry in found.metrics.items():
        p = "" if entry.p_value is None else f"{entry.p_value:.3f}"
        values = (f"{entry.a:.4f}", f"{entry.b:.4f}", f"{entry.difference:+.4f}")
        table.add_row(name, *values, _interval(entry.interval), p)
    _print_whole(table, console)
    if found.images:
        console.print(Text("Images that differ most (F1 of A and of B):"))
        for image_id, a, b in found.images[:_SHOWN_IMAGES]:
            console.print(Text(f"  {image_id}: {a:.2f}, {b:.2f}"))


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4f} – {interval[1]:.4f}"
