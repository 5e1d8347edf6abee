"""The command `scenerl`. It knows names and options; a command's module is imported when that command runs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module

from scenerl import __version__
from scenerl.config import OPTIONS, TRL_CONFIGS, parse
from scenerl.config.convert import near_misses
from scenerl.config.help import command_help, fields_help, overview
from scenerl.config.parse import field_types
from scenerl.errors import UserError

COMMANDS: dict[str, str] = {
    "demo": "scenerl.demo:run",
    "data": "scenerl.data.command:run",
    "sft": "scenerl.training.sft:run",
    "grpo": "scenerl.training.grpo:run",
    "predict": "scenerl.inference.predict:run",
    "launch": "scenerl.launch.command:run",
    "plan": "scenerl.launch.plan:run",
    "score": "scenerl.score:run_score",
    "eval": "scenerl.evaluate:run_eval",
    "merge": "scenerl.predictions.merge_file:run",
    "report": "scenerl.report.command:run",
    "app": "scenerl.app.command:run",
    "export": "scenerl.export:run",
}
"""Command to the function that runs it: it takes the options (and the leftover keys, where TRL's fields are allowed)
and returns None or an exit code."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": ("scenerl demo", "scenerl demo --smoke --out runs/try", "scenerl demo --reward hard_recall --fresh"),
    "data": (
        "scenerl data make --out data/shapes --num_train 4096",
        "scenerl data stats data/shapes/train.jsonl",
        "scenerl data check mine.jsonl --vocabulary vg150.json",
        "scenerl data draw mine.jsonl --num_images 4 --out drawn",
        "scenerl data convert vg150:data/vg --split train --out vg150_train.jsonl",
    ),
    "sft": (
        "scenerl sft --model Qwen/Qwen2-VL-2B-Instruct --data mine.jsonl --out runs/sft --num_train_epochs 3",
        "scenerl sft --model tiny --data mine.jsonl --out runs/tiny --format compact --grid 5 --muon --max_steps 300",
        "scenerl sft --config my_sft.yaml --learning_rate 2e-5",
    ),
    "grpo": (
        "scenerl grpo --model runs/sft --data data/shapes/train.jsonl --out runs/grpo \\",
        "    --rewards format triplet_f1 --reward_weights 0.5 3 --num_generations 8 --learning_rate 1e-6",
        "scenerl grpo --config my_grpo.yaml --max_steps 200",
    ),
    "predict": (
        "scenerl predict --model runs/sft --data data/shapes/test.jsonl --out predictions.jsonl",
        "scenerl predict --model runs/grpo --data mine.jsonl --out sampled.jsonl --num_samples 4 --temperature 1",
        "scenerl predict --engine openai --model runs/sft --data mine.jsonl --out served.jsonl --batch_size 64",
    ),
    "launch": (
        "scenerl launch recipes/r1_sgg/grpo_qwen2vl7b_vg150.yaml --profile 16xgh200 --slurm --sbatch account=me",
        "scenerl launch recipes/r1_sgg/sft_qwen2vl2b_psg.yaml --profile 1x24gb --set max_steps=10 --print",
    ),
    "plan": (
        "scenerl plan recipes/r1_sgg/grpo_qwen2vl7b_vg150.yaml",
        "scenerl plan recipes/r1_sgg/sft_qwen2vl2b_psg.yaml --profile 1x24gb --set per_device_train_batch_size=2",
    ),
    "score": (
        "scenerl score answers.jsonl --format json --frame norm1000 --out scores.jsonl",
        "scenerl score answers.jsonl --format compact --rewards hard_recall triplet_f1 --one_to_one",
        "scenerl score answers.jsonl --format detections --envelope think --frame pixels",
    ),
    "eval": (
        "scenerl eval predictions.jsonl --data data/shapes/test.jsonl --out metrics.json",
        "scenerl eval answers.jsonl --data mine.jsonl --format json --frame norm1000 --train mine_train.jsonl",
        "scenerl eval --compare sft.jsonl grpo.jsonl --data data/shapes/test.jsonl",
    ),
    "merge": (
        "scenerl merge sampled.jsonl --out merged.jsonl",
        "scenerl merge sampled.jsonl --out merged.jsonl --min_share 0.5",
    ),
    "report": (
        "scenerl report runs/demo",
        "scenerl report runs/demo runs/hard_recall --out both.html",
        "scenerl report --data test.jsonl --predictions SFT=sft.jsonl RL=rl.jsonl --out report.html",
    ),
    "app": (
        "scenerl app runs/demo",
        "scenerl app before=runs/sft after=runs/grpo --port 8000",
    ),
    "export": (
        "scenerl export runs/sft_lora --out models/sft --metrics metrics/sft.json",
        "scenerl export runs/grpo --out models/grpo --push_to_hub me/my-model --private",
    ),
}

EXTRA_OF_PACKAGE = {
    **dict.fromkeys(
        ["accelerate", "datasets", "peft", "safetensors", "tokenizers", "torch", "transformers", "trl"], "train"
    ),
    "gradio": "app",
    "pyarrow": "hub",
    "bitsandbytes": "qlora",
}
"""Package to the extra that installs it."""

USER_ERROR = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 2 for an error of the user's, 130 when interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    show_traceback = "--traceback" in words
    words = [word for word in words if word != "--traceback"]
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        print("scenerl: interrupted; what is written stays, the same command goes on", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe has seen enough (`scenerl score … | head`); nothing is left to flush to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UserError, OSError, ModuleNotFoundError) as error:
        if show_traceback or (isinstance(error, ModuleNotFoundError) and _package(error) not in EXTRA_OF_PACKAGE):
            raise
        print(f"scenerl: error: {_one_line(error)}", file=sys.stderr)
        return USER_ERROR


def _dispatch(words: list[str]) -> int:
    if words[:1] == ["help"] and len(words) > 1:
        words = [words[1], "--help"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview({command: _purpose(command) for command in COMMANDS}))
        return 0
    if words[0] in ("-V", "--version"):
        print(f"scenerl {__version__}")
        return 0
    command, rest = words[0], words[1:]
    if command not in COMMANDS:
        raise UserError(f"unknown command {command!r}{near_misses(command, COMMANDS)}")
    if "--help-all" in rest and command in TRL_CONFIGS:
        print(_help_page(command))
        print()
        print(
            fields_help(
                getattr(import_module(COMMANDS[command].partition(":")[0]), TRL_CONFIGS[command]), omit=["output_dir"]
            )
        )
        return 0
    if {"-h", "--help", "--help-all"} & set(rest):
        print(_help_page(command))
        return 0
    options, extra = parse(command, rest)
    module, _, function = COMMANDS[command].partition(":")
    run = getattr(import_module(module), function)
    return (run(options, extra) if command in TRL_CONFIGS else run(options)) or 0


def _help_page(command: str) -> str:
    names = {}
    if "rewards" in field_types(OPTIONS[command]):
        rewards = import_module("scenerl.rewards").REWARDS
        names["Names of rewards"] = {name: _first_line(reward) for name, reward in rewards.items()}
    return command_help(command, EXAMPLES[command], names)


def _purpose(command: str) -> str:
    return _first_line(OPTIONS[command])


def _first_line(documented: object) -> str:
    """The first line of a docstring without its markup."""
    return re.sub(r":\w+:(?=`)|`", "", (documented.__doc__ or "").strip().split("\n")[0])


def _one_line(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        package = _package(error)
        return f"the package {package!r} is missing; install it: pip install 'scenerl[{EXTRA_OF_PACKAGE[package]}]'"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())


def _package(error: ModuleNotFoundError) -> str:
    return (error.name or "").partition(".")[0]
