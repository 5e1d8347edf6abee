"""What an evaluation found: metrics with intervals and support, failures, and every convention used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from scenerl.types import INVALID_ISSUES, ParseResult


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


def is_failed(result: ParseResult) -> bool:
    """Whether R1-SGG's failure rate counts this answer.

    True when it could not be parsed, or when an object or relation in it is invalid
    (:data:`~scenerl.types.INVALID_ISSUES`).

    Source: R1-SGG (arXiv 2504.13617): not JSON, a key missing, or an invalid object or relation.
    """
    return not result.ok or any(issue.kind in INVALID_ISSUES for issue in result.issues)


def count_failures(results: Iterable[ParseResult]) -> dict[str, int]:
    """Failed answers by type, the commonest first; answers that parsed are left out."""
    return dict(Counter(result.status for result in results if not result.ok).most_common())


def count_issues(results: Iterable[ParseResult]) -> dict[str, int]:
    """Element issues by kind over all answers, the commonest first."""
    return dict(Counter(issue.kind for result in results for issue in result.issues).most_common())
