"""How many answers in a file of predictions failed or lost elements, in one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


class AnswerCounts:
    """Counts rows as ``predict`` writes them.

    Attributes:
        answers: rows with an answer. unanswered: rows with an error in its place.
        failed: answers that cannot be read, by ``status``.
        with_issues: answers that lost an element. issues: how many of them have each kind.
    """

    def __init__(self) -> None:
        self.answers = self.unanswered = self.with_issues = 0
        self.failed: Counter[str] = Counter()
        self.issues: Counter[str] = Counter()

    def add(self, row: Mapping) -> None:
        """Count a row.

        Raises:
            KeyError, TypeError, AttributeError: it is none that ``predict`` writes; it may be counted in part.
        """
        if "error" in row:
            self.unanswered += 1
            return
        self.answers += 1
        if row.get("status", "ok") != "ok":
            self.failed[row["status"]] += 1
        kinds = {issue["kind"] for issue in row.get("issues", ())}
        self.with_issues += bool(kinds)
        self.issues.update(kinds)

    @property
    def is_clean(self) -> bool:
        """Whether every answer was read whole."""
        return not (self.failed or self.issues)

    def __str__(self) -> str:
        """``384 answers: 9 failed (truncated 6, empty 3), 14 with issues (duplicate_relation 12, no_area 3)``"""
        noun = "answer" if self.answers == 1 else "answers"
        failed = f"{self.failed.total()} failed{_listed(self.failed)}"
        return f"{self.answers} {noun}: {failed}, {self.with_issues} with issues{_listed(self.issues)}"


def _listed(counts: Counter[str]) -> str:
    return f" ({', '.join(f'{name} {count}' for name, count in counts.most_common())})" if counts else ""
