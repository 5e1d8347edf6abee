"""Reports and comparisons as tables for people."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scenerl.metrics import Comparison, Report

_SHOWN_IMAGES = 10
_SHOWN_MAPPINGS = 20


def print_report(report: Report, console: Console) -> None:
    """The metrics as a table, then failures, issues and what the averages leave out."""
    mapped = report.mapped.get("metrics", {})
    table = Table(title=f"{report.counts['images']} images", title_justify="left")
    columns = [("metric", "left"), ("value", "right"), ("95 % interval", "right"), ("over", "right")]
    for title, justify in columns + ([("mapped", "right")] if mapped else []):
        table.add_column(title, justify=justify)
    for name, metric in report.metrics.items():
        if metric.value is None:
            row = [Text(name), "–", Text(metric.note or "", style="dim"), ""]
        else:
            row = [Text(name), f"{metric.value:.4f}", _interval(metric.interval), str(metric.support)]
        if mapped:
            value = mapped.get(name, {}).get("value")
            row.append("–" if value is None else f"{value:.4f}")
        table.add_row(*row)
    console.print(table)
    for title, counted in (("Failures", report.failures), ("Issues", report.issues)):
        if counted:
            listed = ", ".join(f"{name} {count}" for name, count in counted.items())
            console.print(Text(f"{title}: {listed}"), soft_wrap=True)
    if "absent_predicates" in report.counts:
        treated = "count as 0 in" if report.options["absent_predicates_as_zero"] else "are left out of"
        absent = report.counts["absent_predicates"]
        console.print(Text(f"{absent} predicates have no target and {treated} mean recall."))
    if report.counts.get("skipped_images"):
        console.print(
            Text(f"{report.counts['skipped_images']} images are left out (failed: {report.options['failed']}).")
        )
    for name, curve in report.calibration.items():
        console.print(Text(f"Calibration of {name}: ECE {curve['ece']:.4f}"))
    if mapped:
        _print_mappings(report.mapped["mappings"], console)


def _print_mappings(mappings: list[Mapping], console: Console) -> None:
    console.print(Text(f"{len(mappings)} labels were mapped for the last column:"))
    for entry in mappings[:_SHOWN_MAPPINGS]:
        turned = ", turned round" if entry["swap"] else ""
        console.print(Text(f"  {entry['label']} → {entry['to']}: {entry['count']} ({entry['by']}{turned})"))
    if len(mappings) > _SHOWN_MAPPINGS:
        console.print(Text(f"  and {len(mappings) - _SHOWN_MAPPINGS} more in metrics.json"))


def print_comparison(found: Comparison, names: tuple[str, str], console: Console) -> None:
    """Both predictions side by side with the difference, then the images where they differ most."""
    title = f"{found.num_images} images; A {names[0]}, B {names[1]}"
    table = Table(title=Text(title), title_justify="left")
    for column in ("metric", "A", "B", "B − A", "95 % interval", "p"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    for name, entry in found.metrics.items():
        p = "" if entry.p_value is None else f"{entry.p_value:.3f}"
        values = (f"{entry.a:.4f}", f"{entry.b:.4f}", f"{entry.difference:+.4f}")
        table.add_row(name, *values, _interval(entry.interval), p)
    console.print(table)
    if found.images:
        console.print(Text("Images that differ most (F1 of A and of B):"))
        for image_id, a, b in found.images[:_SHOWN_IMAGES]:
            console.print(Text(f"  {image_id}: {a:.2f}, {b:.2f}"))


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4f} – {interval[1]:.4f}"
