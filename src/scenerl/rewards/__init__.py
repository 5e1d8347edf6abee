"""Rewards: pure functions of one :class:`Comparison` (an answer beside its target), without weights.

Adding one: write ``def my_reward(comparison: Comparison) -> float`` in the module where it belongs (`format`,
`objects`, `edges`, `density`), saying its range, its empty case and what a failed parse gets; add its line to
:data:`REWARDS`; test it on a graph that can be worked out by hand.

All values are in [0, 1] and higher is better, with three exceptions: `repetition` is in [-1, 0], `cosine_length` in
[-0.5, 1], and lower is better for `hallucination`, so its weight is negative. A failed parse gets 0 from every reward,
the worst value; `hallucination` is then 1, and `repetition` and `cosine_length` still look at the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from scenerl.errors import UserError
from scenerl.rewards.comparison import Comparison
from scenerl.rewards.density import box_count, hallucination, repetition, triplet_f1, triplet_f_beta, triplet_precision
from scenerl.rewards.edges import hard_recall, predicate_weighted_recall, relaxed_recall, soft_recall
from scenerl.rewards.format import answer_format, cosine_length
from scenerl.rewards.objects import ap, ap50, node_box, node_label, od_length, weighted_sum
from scenerl.rewards.options import RewardOptions, inverse_frequency_weights, reward_options_of

__all__ = [
    "RELATION_REWARDS",
    "REWARDS",
    "Comparison",
    "Reward",
    "RewardOptions",
    "inverse_frequency_weights",
    "reward_options_of",
    "select_rewards",
]

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
