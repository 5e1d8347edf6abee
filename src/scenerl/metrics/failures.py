"""Answers that failed, and elements that the parser dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from scenerl.types import INVALID_ISSUES, ParseResult


def is_failed(result: ParseResult) -> bool:
    """Whether R1-SGG's failure rate counts this answer.

    True when nothing could be read, or when an object or relation in it is invalid (:data:`~scenerl.types.INVALID_ISSUES`).

    Source: R1-SGG (arXiv 2504.13617): not JSON, a key missing, or an invalid object or relation.
    """
    return not result.ok or any(issue.kind in INVALID_ISSUES for issue in result.issues)


def count_failures(results: Iterable[ParseResult]) -> dict[str, int]:
    """Failed answers by type, the commonest first; answers that could be read are left out."""
    return dict(Counter(result.status for result in results if not result.ok).most_common())


def count_issues(results: Iterable[ParseResult]) -> dict[str, int]:
    """Element issues by kind over all answers, the commonest first."""
    return dict(Counter(issue.kind for result in results for issue in result.issues).most_common())
