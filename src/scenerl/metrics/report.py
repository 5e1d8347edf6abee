"""What an evaluation found: metrics with intervals and support, and every convention used."""

from __future__ import annotations

from dataclasses import dataclass, field

NO_SUPPORT = (
    ("zR@", "no target relation whose triplet is unseen in training"),
    ("triplet_recall", "no target relations"),
    ("triplet_precision", "no predicted relations"),
    ("triplet_f1", "neither target nor predicted relations"),
    ("relation_hallucination", "no predicted relations"),
    ("object_precision", "no predicted objects"),
    ("object_hallucination", "no predicted objects"),
    ("greedy_precision", "no predicted objects"),
    ("object_f1", "neither target nor predicted objects"),
    ("F1", "neither target nor predicted objects"),
    ("object_recall", "no target objects"),
    ("greedy_recall", "no target objects"),
    ("InstR", "no target objects"),
    ("NMS-AP", "no target objects"),
    ("AP", "no target objects"),
    ("AR", "no target objects"),
    ("R@", "no target relations"),
    ("ng-", "no target relations"),
    ("mR", "no target relations"),
    ("PhrR@", "no target relations"),
    ("PairR@", "no target relations"),
    ("Recall", "no target relations"),
)
"""Start of a metric's name to why it may not exist."""


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


def why_missing(name: str) -> str:
    """The note of a metric without support."""
    return next((why for start, why in NO_SUPPORT if name.startswith(start)), "no images")


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
