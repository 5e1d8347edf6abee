"""Every reward by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from scenerl.config.convert import near_misses
from scenerl.errors import UserError, counted
from scenerl.plugins import finite_number, is_own, load_function
from scenerl.rewards.comparison import Comparison
from scenerl.rewards.density import box_count, hallucination, repetition, triplet_f1, triplet_f_beta, triplet_precision
from scenerl.rewards.edges import hard_recall, predicate_weighted_recall, relaxed_recall, soft_recall
from scenerl.rewards.format import answer_format, cosine_length
from scenerl.rewards.objects import ap, ap50, iou, node_box, node_label, od_length, weighted_sum

Reward = Callable[[Comparison], float]

REWARDS: dict[str, Reward] = {
    "format": answer_format,
    "node_label": node_label,
    "node_box": node_box,
    "hard_recall": hard_recall,
    "relaxed_recall": relaxed_recall,
    "soft_recall": soft_recall,
    "iou": iou,
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
    """The rewards of these names, in this order; a function of one's own, ``FILE.py:NAME``, goes by its ``NAME``.

    Raises:
        UserError: an unknown name, one given twice, or a file that cannot be used.
    """
    chosen: dict[str, Reward] = {}
    for name in names:
        if is_own(name):
            own = name.rpartition(":")[2]
            if own in REWARDS:
                raise UserError(f"{name}: {own!r} is a reward of scenerl already; give the function another name")
            name, reward = own, _checked(name, load_function(name))
        elif name in REWARDS:
            reward = REWARDS[name]
        else:
            raise UserError(f"unknown reward {name!r}{near_misses(name, [*REWARDS, 'FILE.py:FUNCTION'])}")
        if name in chosen:
            raise UserError(f"reward {name!r} is given twice")
        chosen[name] = reward
    return chosen


def check_rewards(names: Sequence[str], weights: Sequence[float] | None) -> None:
    """See that rewards are known, and that there is a weight for each where weights are given.

    Raises:
        UserError: they are not.
    """
    if not select_rewards(names):
        raise UserError(f"rewards: none given; allowed: {', '.join(REWARDS)}")
    if weights is not None and len(weights) != len(names):
        raise UserError(
            f"reward_weights: {counted(len(weights), 'weight')} for {counted(len(names), 'reward')} "
            f"({', '.join(names)}); give one each"
        )


def _checked(name: str, own: Callable) -> Reward:
    """A user's function as a reward: a value that is no finite number ends the run."""

    def reward(comparison: Comparison) -> float:
        value = own(comparison)
        if (number := finite_number(value)) is None:
            raise UserError(f"{name}: returned {value!r:.80} for one answer; a reward is one finite number")
        return number

    return reward
