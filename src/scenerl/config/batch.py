"""One optimiser step over any number of processes: what a recipe fixes, and what follows from it."""

from __future__ import annotations

from scenerl.errors import UserError, counted


def accumulation_steps(global_batch_size: int, per_device_batch_size: int, num_processes: int) -> int:
    """How many batches each process has to add up so that a step sees the global batch.

    Args:
        global_batch_size: examples (SFT) or completions (GRPO) per optimiser step.

    Raises:
        UserError: the processes cannot share the batch evenly; names batch sizes per process that can.
    """
    at_once = per_device_batch_size * num_processes
    if per_device_batch_size < 1 or global_batch_size % at_once:
        per_process = global_batch_size / num_processes
        fitting = [size for size in range(1, int(per_process) + 1) if per_process % size == 0]
        allowed = (
            ", ".join(map(str, fitting)) if fitting else f"none: use another number of processes than {num_processes}"
        )
        raise UserError(
            f"global_batch_size: {global_batch_size} is no multiple of per_device_train_batch_size "
            f"{per_device_batch_size} times {counted(num_processes, 'process')}; per_device_train_batch_size allowed: "
            f"{allowed}"
        )
    return global_batch_size // at_once
