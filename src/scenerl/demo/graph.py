"""The story of scene graphs: scenes with half of their relations annotated, on which SFT learns to say little and GRPO
to say more; every stage is judged against the sparse and the complete annotations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from scenerl.demo.stages import Demo, Scale, Settings

TARGETS = {"sparse annotations": "test.jsonl", "complete annotations": "test_complete.jsonl"}
GRID = 100  # the raster that the scenes are drawn on
TEXT_WIDTH = 128  # as good as 192 after equal minutes of SFT, and a step of GRPO costs half (docs/log.md)
MOST_TOKENS = 80  # the longest answer of the training data takes about 50
HEADLINE = {
    "failure_rate": "failed",
    "Recall": "Recall",
    "R@50": "R@50",
    "mR@50": "mR@50",
    "triplet_precision": "precision",
    "triplet_f1": "F1",
    "AP50": "AP50",
    "relations_per_image": "rel/img",
}
REWARD_NAMES = {"triplet_f1": "F1", "hard_recall": "Hard Recall"}
# Hard Recall charges nothing for relations between ids that do not exist, so the format has to weigh more beside it; F1
# gets a small charge for what matches nothing. docs/log.md has what else was tried.
WEIGHTS = {
    "triplet_f1": {"format": 0.5, "node_box": 0.5, "triplet_f1": 3.0, "hallucination": -0.25},
    "hard_recall": {"format": 1.0, "node_box": 0.5, "hard_recall": 3.0},
}
REAL = Scale(10000, 384, 180, 550, 150, 60, 32, 64)
SMOKE = Scale(64, 16, 4, 6, 3, 3, 8, 16)
SFT = {"learning_rate": 2e-3, "weight_decay": 0.01}
GRPO = {
    "num_generations": 8,
    "learning_rate": 1.5e-4,
    "lr_scheduler_type": "linear",
    "temperature": 1.0,
    "top_p": 0.9,
    "beta": 0.0,
    "loss_type": "dr_grpo",
    "scale_rewards": "batch",  # in a group without a hit nothing but noise would be blown up
}


class Story(Demo):
    """Scene graphs."""

    def settings(self) -> Settings:
        return Settings(
            title="SceneRL demo",
            scale=SMOKE if self.options.smoke else REAL,
            train="train.jsonl",
            train_rl="train.jsonl",
            warmup="train.jsonl",
            targets=TARGETS,
            headline=HEADLINE,
            answer_format="json",
            task="sgdet",
            step=GRID,
            text_width=TEXT_WIDTH,
            most_tokens=MOST_TOKENS,
            sft=SFT,
            grpo=GRPO,
        )

    def make_data(self, progress: Callable[[int], None]) -> None:
        from scenerl.data import synthetic

        synthetic.make(
            self.out / "data", self.scale.num_train, self.scale.num_test, self.options.seed, progress=progress
        )

    def tell(self) -> None:
        self.once("sft", "SFT", self.sft)
        self.judge("sft", "SFT")
        for reward in list(REWARD_NAMES) if self.options.full else [self.options.reward]:
            folder = f"rl_{reward}"
            what = f"GRPO on {REWARD_NAMES[reward]}"
            self.once(folder, what, lambda r=reward, f=folder: self.grpo(f, "sft", WEIGHTS[r]))
            self.judge(folder, f"SFT + RL ({REWARD_NAMES[reward]})")
            self.judge(folder, f"SFT + RL ({REWARD_NAMES[reward]}), constrained", constrain=True)
        if self.options.full:
            weights, steps = WEIGHTS[self.options.reward], self.scale.zero_steps
            self.once("zero", "GRPO without SFT", lambda: self.grpo("zero", "base", weights, steps))
            self.judge("zero", f"RL without SFT ({REWARD_NAMES[self.options.reward]})")

    def manifest_extras(self) -> dict[str, Any]:
        relations = (
            relation.predicate for example in self.examples("train.jsonl") for relation in example.graph.relations
        )
        return {"predicate_counts": dict(Counter(relations).most_common())}
