"""The engine that divides training over processes, DDP, FSDP or DeepSpeed, as accelerate sets it up."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from scenerl.errors import UserError, counted

_WHOLE = "DDP or one process"


def check_processes(args) -> None:
    """See that the processes that were started know each other, and that each has a device.

    accelerate lets every process train alone where it finds no accelerator, and all would write into one folder.

    Raises:
        UserError: they do not, or this machine has fewer GPUs than processes.
    """
    count, started = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if count and started > count:
        raise UserError(
            f"{started} processes were started on a machine with {counted(count, 'GPU')}; use a profile of {count}"
        )
    if args.world_size != (num_processes := int(os.environ.get("WORLD_SIZE", "1"))):
        raise UserError(
            f"{num_processes} processes were started, but there is no accelerator here; use a profile of one "
            "process, or set ACCELERATE_USE_CPU=true to train on CPUs"
        )


def engine_of(accelerator) -> str:
    """What divides the training: ``DeepSpeed ZeRO-3``, ``FSDP2``, ``DDP`` or ``one process``."""
    kind, state = accelerator.distributed_type, accelerator.state
    if kind == DistributedType.DEEPSPEED:
        return f"DeepSpeed ZeRO-{state.deepspeed_plugin.zero_stage}"
    if kind == DistributedType.FSDP:
        return "FSDP" if state.fsdp_plugin.fsdp_version == 1 else f"FSDP{state.fsdp_plugin.fsdp_version}"
    return "DDP" if accelerator.num_processes > 1 else "one process"


def leave_processes() -> None:
    """Part from the other processes, as the last thing that a process does with them.

    A thread of gloo that still holds Python's tensors of a collective when Python ends aborts the process
    (https://github.com/pytorch/pytorch/pull/179291). A barrier, which has none, gives it the time to finish; destroying
    the group alone does not end its threads, as a model wrapped in DDP keeps it. Not for an end by an error: the others
    may not come to the barrier.
    """
    state = PartialState()
    if state.num_processes > 1:
        state.wait_for_everyone()
        state.destroy_process_group()


def check_checkpoint(checkpoint: Path, accelerator) -> None:
    """See that this run's engine can read a checkpoint's optimiser state.

    DDP and a single process write the same files. FSDP gathers its state, so that any number of processes can read it.
    DeepSpeed writes a part for each process.

    Raises:
        UserError: another engine wrote it, or DeepSpeed with another number of processes.
    """
    parts = len(list(checkpoint.glob("global_step*/*zero_pp_rank_*optim_states.pt")))
    if parts:
        is_stage_3 = any(checkpoint.glob("global_step*/zero_pp_rank_*model_states.pt"))
        wrote = "DeepSpeed ZeRO-3" if is_stage_3 else "DeepSpeed ZeRO-2"
    elif (checkpoint / "optimizer.bin").is_file() or (checkpoint / "optimizer_0").is_dir():  # whole, or in shards
        wrote = "FSDP2"
    elif (checkpoint / "optimizer.pt").is_file():
        wrote = _WHOLE
    else:  # weights alone, which each can read
        return
    engine = engine_of(accelerator)
    reads = {"DDP": _WHOLE, "one process": _WHOLE, "FSDP": "FSDP2", "DeepSpeed ZeRO-1": "DeepSpeed ZeRO-2"}
    if wrote != reads.get(engine, engine):
        reason = f"written with {wrote}, and this run uses {engine}"
    elif parts not in (0, accelerator.num_processes):
        reason = f"written by {parts} processes with DeepSpeed, and this run has {accelerator.num_processes}"
    else:
        return
    raise UserError(
        f"{checkpoint}: {reason}, which cannot read its optimiser state; use the profile that it was trained with, or "
        f"give it to a new run: --model {checkpoint}"
    )
