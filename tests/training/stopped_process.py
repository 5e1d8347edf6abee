"""A command as one of several processes, of which the second gets SIGTERM in a step. See test_surviving.py."""

from __future__ import annotations

import os
import sys

import torch

from scenerl import cli
from scenerl.training import grpo, sft
from training.killed_runs import TermAtStep, with_callback

if __name__ == "__main__":
    torch.set_num_threads(1)
    step, *argv = sys.argv[1:]
    if int(step) and os.environ["RANK"] == "1":
        for module in (sft, grpo):
            module.build_trainer = with_callback(module.build_trainer, TermAtStep(int(step)))
    try:
        sys.exit(cli.main(argv))
    finally:
        assert not torch.distributed.is_initialized()  # or gloo may abort the process while Python ends
