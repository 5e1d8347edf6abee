"""Runs commands in processes of their own and ends them at given moments. See test_preemption.py.

A training process is killed when it touches its n-th file after training began: in the middle of a checkpoint, of a log
line's append, between one rename and the next, or before an image of the next batch is read. So every kill happens,
however fast the machine is. Each process is forked from one that has imported everything.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback

import torch
from transformers import TrainerCallback

from scenerl import cli
from scenerl.training import grpo, sft

TOUCHES = ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove")


class KillAtTouch(TrainerCallback):
    """Counts the run's files and the images that are touched once training has begun; SIGKILL at the n-th."""

    def __init__(self, number: int):
        self.left = number
        self.folder = ""

    def on_train_begin(self, args, state, control, **kwargs):
        self.folder = args.output_dir
        sys.addaudithook(self._touched)

    def _touched(self, event: str, arguments) -> None:
        if event in TOUCHES and str(arguments[0]).startswith(self.folder) or str(arguments[:1]).endswith(".png',)"):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def kill_at_image(number: int) -> None:
    """SIGKILL to this process when it opens its n-th image."""
    left = iter(range(number - 1, -1, -1))

    def opened(event: str, arguments) -> None:
        if event == "open" and str(arguments[0]).endswith(".png") and next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(opened)


class TermAtStep(TrainerCallback):
    """SIGTERM to this process in the middle of the n-th step."""

    def __init__(self, number: int):
        self.number = number

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.number - 1:
            os.kill(os.getpid(), signal.SIGTERM)


END = {"kill_at_touch": KillAtTouch, "term_at_step": TermAtStep}


def in_a_process(argv: list[str], end: dict[str, int]) -> int:
    """Run a command in a forked process; returns its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        for name, number in end.items():
            if name == "kill_at_image":
                kill_at_image(number)
                continue
            for module in (sft, grpo):
                module.build_trainer = with_callback(module.build_trainer, END[name](number))
        code = cli.main(argv)
    except SystemExit as leaving:
        code = leaving.code
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def with_callback(build, callback):
    """A ``build_trainer`` whose trainers have one more callback."""

    def build_doomed(*args, **settings):
        trainer = build(*args, **settings)
        trainer.add_callback(callback)
        return trainer

    return build_doomed


if __name__ == "__main__":
    torch.set_num_threads(1)
    for line in sys.stdin:
        codes = [[in_a_process(run["argv"], end) for end in run["ends"]] for run in json.loads(line)]
        print(json.dumps(codes), flush=True)
