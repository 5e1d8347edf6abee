"""Head, body and tail: predicates by how often the training data has them."""

from __future__ import annotations

from collections.abc import Mapping

GROUPS = ("head", "body", "tail")


def predicate_groups(counts: Mapping[str, int], bounds: tuple[int, int] | None = None) -> dict[str, tuple[str, ...]]:
    """The predicates of each group, the commonest first; of equally common ones in alphabetical order.

    Args:
        counts: number of training relations of every predicate.
        bounds: fewest training relations of a predicate of the body and of the head; None cuts the ranking into
            thirds. Where the number of predicates does not divide by three, head is larger first, then body: 50 make
            17, 17 and 16.

    Source: BGNN (Li et al. 2021, arXiv 2104.00308) names the groups; on VG150, predicates of its head have more than
    10,000 relations, those of its tail fewer than 500.

    >>> predicate_groups({"on": 9, "has": 5, "in": 3, "under": 1})
    {'head': ('on', 'has'), 'body': ('in',), 'tail': ('under',)}
    >>> predicate_groups({"on": 9, "has": 5, "in": 3}, bounds=(4, 9))
    {'head': ('on',), 'body': ('has',), 'tail': ('in',)}
    """
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    if bounds is None:
        ends = [(len(ranked) + 2) // 3, (2 * len(ranked) + 2) // 3]
    else:
        body, head = bounds
        ends = [sum(counts[name] >= least for name in ranked) for least in (head, body)]
    return {
        "head": tuple(ranked[: ends[0]]),
        "body": tuple(ranked[ends[0] : ends[1]]),
        "tail": tuple(ranked[ends[1] :]),
    }
