"""What the options against groups without signal buy per generated token: GRPO on drawn scenes, with and without each.

    OMP_NUM_THREADS=1 python bench/group_sampling.py [--starts base sft] [--modes dynamic_sampling skip_solved ...]
        [--seeds 0 1 2] [--steps 32] [--prompts 32] [--sft_steps 30] [--out FOLDER] [--smoke]

Needs the package with its extra `train`; no checkpoint, no data. One reward, `triplet_f1`, on scenes whose relations
are all annotated; a step learns from four groups of eight completions. The start *base* is the base model of the
package, for which most prompts are too hard; *sft* is the same after SFT on the prompts themselves, of which it knows
many, with a lower temperature. A seed is that of prompts, SFT and sampling, which all modes of a start share. Prompts
are few, so that each comes up several times and can be skipped.

*reward* is the mean of all completions that were sampled, learnt from or not, in the first and in the last ten steps.
The modes sample different prompts, so the gain is measured otherwise: *F1* is that of greedy answers to all prompts,
before and after, and *gain* its difference per million generated tokens; *beside plain's* is the difference of two
gains, seed by seed. *with signal* is the share of the groups that were learnt from whose rewards differ, *skipped* the
share of the prompts that were left out as solved. Means over the seeds with half the width of their 95 % interval
(Student's t). CPU seconds are those of a run with both evaluations. Runs that are in the folder `--out` are not run
again, whatever the other options say.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from statistics import fmean

from common import print_conditions, print_head, print_row
from update import PACKAGES, use_one_thread

from scenerl.commands.grpo import GRPOOptions
from scenerl.commands.sft import SFTOptions
from scenerl.files import atomic_write_text
from scenerl.study import worlds
from scenerl.study.measures import mean
from scenerl.training import grpo, sft

SOLVED = 0.99
MODES = {
    "plain": {},
    "dynamic_sampling": {"dynamic_sampling": 4},
    "keep_top_group_ratio": {"keep_top_group_ratio": 0.5},
    "skip_solved": {"skip_solved": SOLVED},
}
STARTS = {
    "base": {"temperature": 1.0, "learning_rate": 2e-4},
    "sft": {"temperature": 0.5, "learning_rate": 1e-4},  # at 1.0 hardly any prompt has eight right answers of eight
}
GROUPS, GROUP = 4, 8
PLAIN = {"gradient_checkpointing": False, "report_to": "none", "save_strategy": "no"}
GAIN = "gain per million tokens"
COLUMNS = (
    "start", "mode", "reward, first steps", "last steps", "F1, before", "after", "tokens", "of plain's",
    GAIN, "beside plain's", "with signal", "skipped", "CPU s",
)  # fmt: skip


def make_prompts(folder: Path, seed: int, count: int) -> str:
    """A file of scenes with all of their relations, drawn once."""
    out = folder / f"prompts_{seed}"
    if not (out / "train.jsonl").is_file():
        worlds.make_graphs(out, count, 2, seed, keep=1.0)
    return str(out / "train.jsonl")


def make_start(name: str, folder: Path, seed: int, data: str, steps: int) -> str:
    """What ``--model`` names a start by; SFT is done once."""
    if name == "base":
        return name
    out = folder / f"sft_{seed}"
    if not (out / "config.json").is_file():
        options = SFTOptions(model="base", data=data, out=out, muon=True, muon_learning_rate=0.005, freeze_vision=True)
        batch = {"per_device_train_batch_size": 32, "learning_rate": 5e-4}
        sft.run(options, PLAIN | batch | {"max_steps": steps, "seed": seed})
    return str(out)


def train(model: str, start: str, mode: str, seed: int, data: str, out: Path, steps: int) -> None:
    options = GRPOOptions(
        model=model, data=data, eval_data=data, out=out, rewards=["triplet_f1"], freeze_vision=True,
        rollout_check_tolerance=0, **MODES[mode],
    )  # fmt: skip
    grpo.run(
        options,
        PLAIN
        | STARTS[start]
        | {
            "num_generations": GROUP,
            "per_device_train_batch_size": GROUPS * GROUP,
            "per_device_eval_batch_size": 64,
            "max_completion_length": 80,
            "lr_scheduler_type": "constant",
            "max_steps": steps,
            "logging_steps": 1,
            "eval_strategy": "steps",
            "eval_steps": steps,
            "eval_on_start": True,
            "seed": seed,
        },
    )


def numbers_of(rows: Sequence[dict]) -> dict[str, float]:
    """The figures of a run from its log."""
    steps = [row for row in rows if "reward" in row]
    before, after = (row["eval_triplet_f1"] for row in rows if "eval_triplet_f1" in row)
    rewards = [row.get("groups/reward", row["reward"]) for row in steps]
    size = GROUPS * GROUP
    tokens = sum(row.get("groups/generated_tokens", row["completions/mean_length"] * size) for row in steps)
    return {
        "reward, first steps": fmean(rewards[:10]),
        "last steps": fmean(rewards[-10:]),
        "F1, before": before,
        "after": after,
        "tokens": tokens,
        GAIN: (after - before) / tokens * 1e6,
        "with signal": 1 - fmean(row["frac_reward_zero_std"] for row in steps),
        "skipped": fmean(row.get("groups/skipped", 0) for row in steps),
    }


def measure(start: str, mode: str, seed: int, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """The figures of one run, which is there or is run."""
    out = folder / f"{start}_{mode}_{seed}"
    found = out / "figures.json"
    if not found.is_file():
        data = make_prompts(folder, seed, options.prompts)
        model = make_start(start, folder, seed, data, options.sft_steps)
        started = time.process_time()
        train(model, start, mode, seed, data, out, options.steps)
        seconds = time.process_time() - started
        figures = numbers_of([json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()])
        atomic_write_text(found, json.dumps(figures | {"CPU s": seconds}))
    return json.loads(found.read_text())


def shown(values: Sequence[float], digits: int) -> str:
    found = mean(values)
    return f"{found.value:,.{digits}f}" + (f" ± {found.half:,.{digits}f}" if found.half is not None else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", nargs="+", choices=list(STARTS), default=list(STARTS))
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES), help="plain is always run")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--sft_steps", type=int, default=30)
    parser.add_argument("--out", type=Path, help="folder of the runs; not given: they are not kept")
    parser.add_argument("--smoke", action="store_true", help="a few steps: that it runs, no figures worth keeping")
    options = parser.parse_args()
    if options.smoke:
        options.starts, options.seeds, options.modes = ["base"], [0], ["keep_top_group_ratio"]
        options.steps, options.prompts = 2, 8
    print_conditions(use_one_thread(), PACKAGES)
    print(
        f"{options.steps} steps, {options.prompts} prompts, seeds {options.seeds}; solved: at least {SOLVED}; SFT of "
        f"{options.sft_steps} steps"
    )
    print_head(*COLUMNS, left=2)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        for start in options.starts:
            modes = dict.fromkeys(["plain", *options.modes])
            with redirect_stdout(sys.stderr):
                found = {
                    (seed, mode): measure(start, mode, seed, folder, options)
                    for seed in options.seeds
                    for mode in modes
                }
            plain = [found[seed, "plain"] for seed in options.seeds]
            for mode in modes:
                runs = [found[seed, mode] for seed in options.seeds]
                figures = {name: [run[name] for run in runs] for name in runs[0]}
                figures["of plain's"] = [
                    run["tokens"] / other["tokens"] for run, other in zip(runs, plain, strict=True)
                ]
                figures["beside plain's"] = [run[GAIN] - other[GAIN] for run, other in zip(runs, plain, strict=True)]
                digits = {"tokens": 0, "CPU s": 0} | dict.fromkeys(
                    ("of plain's", GAIN, "beside plain's", "with signal"), 2
                )
                print_row(start, mode, *(shown(figures[name], digits.get(name, 3)) for name in COLUMNS[2:]))


if __name__ == "__main__":
    main()
