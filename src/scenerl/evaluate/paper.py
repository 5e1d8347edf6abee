"""Reports as a table for a paper: CSV, LaTeX (booktabs) or Markdown, a row per model.

Values are shares of 1 in CSV and percentages elsewhere, with their 95 % intervals. Bold is a value that is better than
that of every other model at a corrected p-value below 0.05.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from scenerl.metrics import Metric, ModelComparison
from scenerl.metrics.registry import MetricSpec, spec_or_plain

SUFFIXES = (".csv", ".tex", ".md")


def paper_table(found: ModelComparison, names: Sequence[str], suffix: str) -> str:
    """The table of some metrics as text.

    Args:
        found: reports by name of the model; one will do.
        names: of the metrics, the columns.
        suffix: of :data:`SUFFIXES`.
    """
    return {".csv": _csv, ".tex": _latex, ".md": _markdown}[suffix](found, [spec_or_plain(name) for name in names])


def _csv(found: ModelComparison, columns: Sequence[MetricSpec]) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["model", "images", *(f"{about.name}{end}" for about in columns for end in ("", "_low", "_high"))])
    for name, report in found.reports.items():
        row: list[object] = [name, report.counts["images"]]
        for about in columns:
            metric = report.metrics.get(about.name, Metric(None))
            low, high = metric.interval or ("", "")
            row += ["" if metric.value is None else metric.value, low, high]
        writer.writerow(row)
    return file.getvalue()


def _latex(found: ModelComparison, columns: Sequence[MetricSpec]) -> str:
    rows = _rows(found, columns, _escaped, lambda text: rf"\textbf{{{text}}}", "{} {{\\scriptsize [{}, {}]}}", "--")
    lines = [
        "% \\usepackage{booktabs}; brackets: 95 % bootstrap intervals over images;",
        "% bold: better than every other model, p < 0.05 (paired bootstrap, Holm)",
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        " & ".join(["Model", *(_escaped(_title(about)) for about in columns)]) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _markdown(found: ModelComparison, columns: Sequence[MetricSpec]) -> str:
    def plain(text: str) -> str:
        return text.replace("|", "\\|").replace("\n", " ")

    rows = _rows(found, columns, plain, lambda text: f"**{text}**", "{} [{}, {}]", "–")
    head = ["Model", *(_title(about) for about in columns)]
    lines = [head, ["---", *("---:" for _ in columns)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _title(about: MetricSpec) -> str:
    return f"{about.title} (%)" if about.unit == "%" else about.title


def _rows(
    found: ModelComparison,
    columns: Sequence[MetricSpec],
    written: Callable[[str], str],
    bold: Callable[[str], str],
    with_interval: str,
    missing: str,
) -> list[list[str]]:
    rows = []
    for name, report in found.reports.items():
        row = [written(name)]
        for about in columns:
            metric = report.metrics.get(about.name, Metric(None))
            factor = 100 if about.unit == "%" else 1
            if metric.value is None:
                row.append(missing)
                continue
            value = f"{factor * metric.value:.1f}"
            value = bold(value) if found.is_best(name, about.name, about.better) else value
            ends = None if metric.interval is None else [f"{factor * end:.1f}" for end in metric.interval]
            row.append(value if ends is None else with_interval.format(value, *ends))
        rows.append(row)
    return rows


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text.replace("\n", " "))
