"""The story of open-vocabulary detection: SFT learns from questions of which nearly all are about what is there, as
detection data made from boxes ask, and then finds what is not; GRPO on ``od_length`` asks about the same images, with
every second phrase absent, and pays for boxes that are right and for no more than there are. Both are tested on
questions of the second kind, which hold hard negatives as D³ and OVDEval do.
"""

from __future__ import annotations

from collections.abc import Callable

from scenerl.demo.stages import Demo, Scale, Settings

TARGETS = {"complete annotations": "test.jsonl"}
GRID = 100  # the raster that the scenes are drawn on
TEXT_WIDTH = 128
MOST_TOKENS = 64
HEADLINE = {
    "failure_rate": "failed",
    "AP": "mAP",
    "AP50": "AP50",
    "greedy_precision": "precision",
    "greedy_recall": "recall",
    "F1@0.5": "F1",
    "objects_per_image": "box/img",
    "absent_boxes_per_image": "absent/img",
    "absent_answered": "absent hit",
}
REWARD_NAMES = {"od_length": "odLength", "ap": "AP"}
WEIGHTS = {
    "od_length": {"format": 0.5, "od_length": 3.0},
    "ap": {"format": 0.5, "ap": 3.0},
}
REAL = Scale(8000, 384, 180, 300, 300, 60, 48, 64, grounding_steps=150)
SMOKE = Scale(64, 16, 4, 6, 3, 3, 8, 16, grounding_steps=3)
SFT = {"learning_rate": 2e-3, "weight_decay": 0.01}
GRPO = {
    "num_generations": 8,
    "learning_rate": 1.5e-4,
    "lr_scheduler_type": "linear",
    "temperature": 1.0,
    "top_p": 0.9,
    "beta": 0.0,
    "loss_type": "dr_grpo",
    "scale_rewards": "batch",
}


class Story(Demo):
    """Open-vocabulary detection."""

    def settings(self) -> Settings:
        return Settings(
            title="SceneRL demo: open-vocabulary detection",
            scale=SMOKE if self.options.smoke else REAL,
            train="train.jsonl",
            train_rl="train_negatives.jsonl",
            warmup="shapes.jsonl",
            targets=TARGETS,
            headline=HEADLINE,
            answer_format="detections",
            task="det",
            step=GRID,
            text_width=TEXT_WIDTH,
            most_tokens=MOST_TOKENS,
            sft=SFT,
            grpo=GRPO,
            freeze_vision=True,  # a tower that moves keeps the text half from learning to look phrases up (docs/log.md)
        )

    def num_scenes(self) -> int:
        from scenerl.data import synthetic_detection

        scenes = synthetic_detection.num_scenes(self.scale.num_train, self.scale.num_test)
        return sum(count for count, _ in scenes.values())

    def make_data(self, progress: Callable[[int], None]) -> None:
        from scenerl.data import synthetic_detection

        synthetic_detection.make(
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
        if self.options.full:
            self.once("sft_negatives", "SFT on RL's questions", lambda: self.sft("sft_negatives", self.its.train_rl))
            self.judge("sft_negatives", "SFT on RL's questions")
