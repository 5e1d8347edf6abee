"""A whole GRPO step, rollout, rewards and update, against TRL's own trainer without vLLM.

    OMP_NUM_THREADS=1 python bench/step.py [--group 8] [--completion 240] [--rounds 1] [--smoke]

Needs the package with its extra `train`; no checkpoint, no data. Model and shape are those of bench/update.py: one
prompt of 1,131 tokens and an image of 512, G answers of half to one and a half times the mean. Both trainers run the
steps of their own `train()`, optimiser included, in turns, with the same settings and seeds; answers and the norm of
the gradient are compared. An untrained model's answers are noise, so the rewards are those of other answers: the six
scene-graph rewards of 12 objects and 8 relations as JSON, the same functions on both sides. Times are CPU time, the
best round counts; *rollout* includes images and prompts.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections import defaultdict

import numpy as np
from common import GRAPH_REWARDS, IMAGE_WH, pairs, print_conditions, print_head, print_row
from datasets import Dataset
from PIL import Image
from transformers import TrainerCallback, set_seed
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from update import CLASSES, PACKAGES, SMALL, SMOKE, Setting, build, small_tokenizer, use_one_thread

from scenerl.answers import OutputFormat, parse_answer, write_answer
from scenerl.rewards import REWARDS, Comparison

PARTS = ("rollout", "rewards", "update", "whole step")
STYLE = OutputFormat(box_format="pixels")


class Stopwatch(TrainerCallback):
    """CPU seconds of each part of the last step, and its answers."""

    def __init__(self):
        self.seconds: dict[str, float] = defaultdict(float)
        self.completion_ids: list[list[int]] = []
        self._started = 0.0

    def on_step_begin(self, args, state, control, **kwargs):
        self.seconds.clear()
        set_seed(args.seed)  # both sides draw the same answers
        self._started = time.process_time()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds["whole step"] = time.process_time() - self._started
        self.seconds["rollout"] -= self.seconds["rewards"]
        self.seconds["update"] = self.seconds["whole step"] - self.seconds["rollout"] - self.seconds["rewards"]

    def timed(self, part: str, function):
        def run(*args, **kwargs):
            started = time.process_time()
            result = function(*args, **kwargs)
            self.seconds[part] += time.process_time() - started
            return result

        return run


def reward_of(watch: Stopwatch, group: int):
    answers = [(write_answer(predicted, STYLE, IMAGE_WH), target) for predicted, target in pairs(group, 12, 8)]

    def reward(completions, completion_ids, **_) -> list[float]:
        watch.completion_ids = completion_ids
        values = []
        for text, target in answers:
            comparison = Comparison(parse_answer(text, STYLE, IMAGE_WH), target, IMAGE_WH, None, text)
            values.append(sum(REWARDS[name](comparison) for name in GRAPH_REWARDS))
        return values

    return watch.timed("rewards", reward)


def data_of(setting: Setting, num_words: int) -> Dataset:
    """One prompt and its image; a number below 100 is one token."""
    _, height, width = setting.grid
    pixels = np.random.default_rng(0).integers(0, 256, (height * 14, width * 14, 3), dtype=np.uint8)
    image, words = Image.fromarray(pixels), " ".join(str(index % 100) for index in range(num_words))
    prompt = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": words}]}]
    data = Dataset.from_dict({"row": [0]})
    data.set_transform(
        lambda batch: {"prompt": [prompt] * len(batch["row"]), "images": [[image]] * len(batch["row"])}
    )  # fmt: skip
    return data


def build_step(kind: str, folder: str, setting: Setting):
    """A trainer and the stopwatch on it."""
    tokenizer = small_tokenizer()
    message = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "0"}]}]
    around = len(
        tokenizer(tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)).input_ids
    )
    # From half the mean on, an answer ends with such a chance per token that with the limit the mean is the mean.
    end = math.log(1.594 / setting.mean * len(tokenizer))
    watch = Stopwatch()
    trainer = build(
        kind,
        folder,
        rewards=[reward_of(watch, setting.group)],
        dataset=data_of(setting, max(setting.text - around + 2, 1)),
        per_device_train_batch_size=setting.group,
        num_generations=setting.group,
        max_completion_length=round(1.5 * setting.mean),
        generation_kwargs={
            "suppress_tokens": tokenizer.convert_tokens_to_ids([t for t in SMALL.special_tokens if t != "<|im_end|>"]),
            "min_new_tokens": setting.mean // 2,
            "sequence_bias": [[[tokenizer.eos_token_id], end]],
        },
        max_steps=1,
        logging_steps=1,
        save_strategy="no",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )
    for printer in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printer)
    trainer.add_callback(watch)
    trainer._prepare_inputs = watch.timed("rollout", trainer._prepare_inputs)
    return trainer, watch


def step(trainer, watch: Stopwatch) -> tuple[dict[str, float], float, list[list[int]]]:
    """Seconds by part, norm of the gradient and answers of one step of a run."""
    trainer.train()
    norm = next(row["grad_norm"] for row in trainer.state.log_history if "grad_norm" in row)
    return dict(watch.seconds), norm, watch.completion_ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--group", type=int, default=8, help="answers per prompt")
    parser.add_argument("--completion", type=int, default=240, help="their mean length in tokens")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--smoke", action="store_true", help="a few tokens: that it runs, no figures worth keeping")
    options = parser.parse_args()
    setting = Setting(2, 4, **SMOKE) if options.smoke else Setting(options.group, options.completion)
    print_conditions(use_one_thread(), PACKAGES)
    with tempfile.TemporaryDirectory() as folder:
        trainers = {kind: build_step(kind, folder, setting) for kind in CLASSES}
        rounds = [{kind: step(*trainer) for kind, trainer in trainers.items()} for _ in range(options.rounds)]
    (_, norm, answers), (_, our_norm, our_answers) = rounds[0]["TRL"], rounds[0]["SceneRL"]
    if our_answers != answers or not abs(our_norm - norm) <= 1e-4 * norm:
        sys.exit(f"not the same step: gradient of norm {our_norm} against {norm}, answers {our_answers == answers}")
    lengths = [len(answer) for answer in answers]
    print(
        f"\nprompt of {setting.prompt} tokens, {setting.group} answers of {min(lengths)} to {max(lengths)} tokens, ",
        end="",
    )
    print(f"{sum(lengths) / len(lengths):.0f} on average")
    print_head("part", "TRL", "SceneRL", "faster", left=1)
    for part in PARTS:
        trl, own = (min(found[kind][0][part] for found in rounds) for kind in CLASSES)
        print_row(part, f"{trl:.3f} s", f"{own:.3f} s", f"{trl / own:.1f}")


if __name__ == "__main__":
    main()
