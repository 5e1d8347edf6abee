"""ms-swift: a reward plugin.

    swift rlhf --rlhf_type grpo --external_plugins examples/ms_swift_plugin.py --reward_funcs scenerl ...

The data set's column ``solution`` is a row of our JSONL as JSON text.
"""

try:
    from swift.rewards import ORM, orms  # from version 4 on
except ImportError:
    from swift.plugin import ORM, orms

from scenerl.rewards import score_text

REWARDS = {"format": 0.5, "node_box": 1, "hard_recall": 3}


class SceneReward(ORM):
    """The weighted sum of the rewards."""

    def __call__(self, completions, solution, **kwargs):
        return [score_text(text, row, REWARDS)["score"] for text, row in zip(completions, solution, strict=True)]


orms["scenerl"] = SceneReward
