"""Head, body and tail: predicates by how often training shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from scenerl.metrics.columns import Array

GROUPS = ("head", "body", "tail")


def predicate_groups(
    predicates: Sequence[str], counts: Mapping[str, int] | None, bounds: tuple[int, int] | None = None
) -> dict[str, Array]:
    """Suffix of a metric's name (``_head``, ``_body``, ``_tail``) to the predicates of the group.

    Args:
        predicates: names; the groups hold indices into them.
        counts: number of training relations of each predicate; a missing one counts as 0. Without counts there are no
            groups.
        bounds: fewest training relations of a predicate of the body and of the head; None cuts the ranking of
            ``counts`` into thirds, the larger ones first where it does not divide.

    Returns:
        Three entries, or none without counts.

    Source: BGNN (Li et al. 2021, arXiv 2104.00308) names the groups; on VG150 head is above 10,000 and tail below 500.

    >>> groups = predicate_groups(["on", "near", "riding"], {"on": 90, "near": 9, "riding": 1})
    >>> {name: members.tolist() for name, members in groups.items()}
    {'_head': [0], '_body': [1], '_tail': [2]}
    """
    if not counts:
        return {}
    if bounds is None:
        ranked = sorted(set(counts) | set(predicates), key=lambda name: (-counts.get(name, 0), name))
        place = {name: n for n, name in enumerate(ranked)}
        third = [(len(ranked) + 2) // 3, (2 * len(ranked) + 2) // 3]
        group_of = [sum(place[name] >= cut for cut in third) for name in predicates]
    else:
        group_of = [sum(counts.get(name, 0) < bound for bound in bounds) for name in predicates]
    return {f"_{name}": np.flatnonzero(np.array(group_of) == n) for n, name in enumerate(GROUPS)}
