"""Plain TRL: our rewards in its own GRPOTrainer. A small model learns synthetic scenes for a few steps.

python examples/trl_grpo.py [STEPS]
"""

import json
import sys

from datasets import Dataset, Image
from trl import GRPOConfig, GRPOTrainer

from scenerl import data, tiny
from scenerl.answers import OutputFormat
from scenerl.data.rows import example_to_row
from scenerl.models.loading import load
from scenerl.rewards import score_text

FORMAT = OutputFormat(step=100)
REWARDS = {"format": 0.5, "node_box": 1, "hard_recall": 3}


def scene_reward(completions, target, **_):
    """What TRL calls: a number for each completion; ``target`` is a column of the data set."""
    texts = [completion[-1]["content"] for completion in completions]
    return [score_text(text, row, REWARDS, FORMAT)["score"] for text, row in zip(texts, target, strict=True)]


def main(steps: int = 2, folder: str = "runs/example_trl") -> GRPOTrainer:
    examples = list(data.load("synthetic:count=8,seed=0"))
    tiny.create(f"{folder}/base", examples, FORMAT)  # in place of Qwen/Qwen2-VL-2B-Instruct
    checkpoint = load(f"{folder}/base")
    conversation = checkpoint.conversation(FORMAT)
    rows = [
        {"prompt": conversation.prompt(example, None), "image": {"bytes": example.image, "path": None},
         "target": json.dumps(example_to_row(example))}
        for example in examples
    ]  # fmt: skip
    trainer = GRPOTrainer(
        model=checkpoint.model,
        reward_funcs=scene_reward,
        args=GRPOConfig(
            output_dir=folder, max_steps=steps, num_generations=4, per_device_train_batch_size=4,
            max_completion_length=32, use_cpu=True, bf16=False, report_to="none", logging_steps=1,
        ),
        train_dataset=Dataset.from_list(rows).cast_column("image", Image()),
        processing_class=checkpoint.processor,
    )  # fmt: skip
    trainer.train()
    return trainer


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
