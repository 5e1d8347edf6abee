"""Rewards: pure functions of one :class:`Comparison` (an answer beside its target), without weights.

Adding one: write ``def my_reward(comparison: Comparison) -> float`` in the module where it belongs (`format`,
`objects`, `edges`, `density`), saying its range, its empty case and what a failed parse gets; add its line to
:data:`REWARDS` in `registry`; test it on a graph that can be worked out by hand.

All values are in [0, 1] and higher is better, with three exceptions: `repetition` is in [-1, 0], `cosine_length` in
[-0.5, 1], and lower is better for `hallucination`, so its weight is negative. A failed parse gets 0 from every reward,
the worst value; `hallucination` is then 1, and `repetition` and `cosine_length` still look at the text.
"""

from __future__ import annotations

from scenerl.rewards.comparison import Comparison
from scenerl.rewards.options import RewardOptions, inverse_frequency_weights, reward_options_of
from scenerl.rewards.registry import RELATION_REWARDS, REWARDS, Reward, check_rewards, select_rewards
from scenerl.rewards.text import score_text

__all__ = [
    "RELATION_REWARDS",
    "REWARDS",
    "Comparison",
    "Reward",
    "RewardOptions",
    "check_rewards",
    "inverse_frequency_weights",
    "reward_options_of",
    "score_text",
    "select_rewards",
]
