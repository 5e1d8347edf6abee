"""verl: point its configuration at this file.

    reward.custom_reward_function.path=examples/verl_reward.py reward.custom_reward_function.name=compute_score

(in older versions without ``reward.``).

The data set's ``reward_model.ground_truth`` is a row of our JSONL as JSON text. Each reward is logged by its name.
"""

from scenerl.rewards import score_text

REWARDS = {"format": 0.5, "node_box": 1, "hard_recall": 3}


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):
    return score_text(solution_str, ground_truth, REWARDS)
