"""Every reward by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from scenerl.errors import UserError
from scenerl.rewards.comparison import Comparison
from scenerl.rewards.density import box_count, hallucination, repetition, triplet_f1, triplet_f_beta, triplet_precision
from scenerl.rewards.edges import hard_recall, predicate_weighted_recall, relaxed_recall, soft_recall
from scenerl.rewards.format import answer_format, cosine_length
from scenerl.rewards.objects import ap, ap50, node_box, node_label, od_length, weighted_sum

Reward = Callable[[Comparison], float]

REWARDS: dict[str, Reward] = {
    "format": answer_format,
    "node_label": node_label,
    "node_box": node_box,
    "hard_recall": hard_recall,
    "relaxed_recall": relaxed_recall,
    "soft_recall": soft_recall,
    "ap": ap,
    "ap50": ap50,
    "od_length": od_length,
    "weighted_sum": weighted_sum,
    "repetition": repetition,
    "cosine_length": cosine_length,
    "triplet_f_beta": triplet_f_beta,
    "triplet_f1": triplet_f1,
    "triplet_precision": triplet_precision,
    "hallucination": hallucination,
    "predicate_weighted_recall": predicate_weighted_recall,
    "box_count": box_count,
}
"""Name to reward, as recipes and the command line know them."""

RELATION_REWARDS = frozenset(
    {
        "hard_recall",
        "relaxed_recall",
        "soft_recall",
        "triplet_f_beta",
        "triplet_f1",
        "triplet_precision",
        "predicate_weighted_recall",
    }
)
"""The rewards that do not apply to answers without relations, such as detections."""


def select_rewards(names: Iterable[str]) -> dict[str, Reward]:
    """The rewards of these names, in this order.

    Raises:
        UserError: an unknown name, or one given twice.
    """
    chosen: dict[str, Reward] = {}
    for name in names:
        if name not in REWARDS:
            raise UserError(f"unknown reward {name!r}; allowed: {', '.join(REWARDS)}")
        if name in chosen:
            raise UserError(f"reward {name!r} is given twice")
        chosen[name] = REWARDS[name]
    return chosen
