"""What an evaluation found: metrics with intervals and support, and every convention used."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Metric:
    """One number. ``value`` is None exactly when there is no support, and ``note`` then says what is missing.

    ``support`` is what the metric divides by: images, predictions, targets, predicates or classes.
    """

    value: float | None
    interval: tuple[float, float] | None = None
    support: int = 0
    note: str | None = None

    def to_json(self) -> dict:
        interval = None if self.interval is None else list(self.interval)
        row = {"value": self.value, "interval": interval, "support": self.support}
        return row if self.note is None else {**row, "note": self.note}


@dataclass(frozen=True)
class Report:
    """What an evaluation found; :meth:`to_json` is the content of metrics.json."""

    metrics: dict[str, Metric]
    failures: dict[str, int]
    issues: dict[str, int]
    options: dict[str, object]
    counts: dict[str, int]
    per_predicate: dict[str, dict[str, object]]
    warnings: list[str] = field(default_factory=list)
    calibration: dict[str, dict] = field(default_factory=dict)
    mapped: dict[str, object] = field(default_factory=dict)

    def to_json(self) -> dict:
        """Plain JSON values: ``metrics``, ``failures``, ``issues``, ``options``, ``counts``, ``per_predicate`` and
        ``warnings``, where there are scores ``calibration``, and with label mappings ``mapped``. No NaN: a metric
        without support has value null and a note.
        """
        extra = {"calibration": self.calibration, "mapped": self.mapped}
        return {
            "metrics": {name: metric.to_json() for name, metric in self.metrics.items()},
            "failures": self.failures,
            "issues": self.issues,
            "options": self.options,
            "counts": self.counts,
            "per_predicate": self.per_predicate,
            "warnings": self.warnings,
            **{key: value for key, value in extra.items() if value},
        }
