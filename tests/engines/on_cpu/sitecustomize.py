"""Lets processes on CPUs train as if each had an accelerator. Python reads this file at start where its folder is on
``PYTHONPATH``; ``tests/engines/launched.py`` puts it there.

accelerate 1.15 shards (FSDP2, DeepSpeed) over accelerators alone. With ``ACCELERATE_TORCH_DEVICE=cpu`` each process
that torchrun started passes for one with an accelerator of its own, connected by gloo, and bfloat16 is permitted.
bitsandbytes leaves weights as they are on a GPU: for CPUs with AVX512-BF16 it packs them, and cannot train after that.
Two variables do what a test needs besides:

``END_AT=SIGNAL:STEP``     in this step the last process sends the signal: SIGTERM to torchrun, others to itself.
``SAME_COMPLETIONS=1``     rollouts give completions that depend on nothing but their number and row.
"""

import importlib.abc
import importlib.util
import os
import sys


def _processes(module):
    shards = any(os.environ.get(f"ACCELERATE_USE_{name}") == "true" for name in ("FSDP", "DEEPSPEED"))
    kind = module.DistributedType.MULTI_GPU if shards else module.DistributedType.MULTI_CPU
    module.PartialState._prepare_backend = lambda self, cpu=False, sagemaker_dp=False, backend=None: ("gloo", kind)


def _bfloat16(module):
    module.is_torch_bf16_gpu_available = lambda: True


def _quantised(module):
    module.has_avx512bf16 = lambda: False


def _fit(module):
    fit = module.fit

    def fit_repeatably(trainer):
        from engines import repeatable

        repeatable.prepare(trainer)
        return fit(trainer)

    module.fit = fit_repeatably


PATCHES = {
    "transformers.utils.import_utils": _bfloat16,
    "bitsandbytes.functional": _quantised,
    "scenerl.training.checkpoints": _fit,
}
if "LOCAL_RANK" in os.environ:
    PATCHES["accelerate.state"] = _processes


class _Patcher(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name not in PATCHES:
            return None
        patch = PATCHES.pop(name)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_patch(module):
            execute(module)
            patch(module)

        spec.loader.exec_module = execute_and_patch
        return spec


if os.environ.get("ACCELERATE_TORCH_DEVICE") == "cpu":
    sys.meta_path.insert(0, _Patcher())
