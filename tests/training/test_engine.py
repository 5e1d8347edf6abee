"""Engines: which one trains, whose checkpoints it reads, and processes that cannot train together."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType

from scenerl.training.engine import check_checkpoint, check_processes, engine_of

FILES = {
    "DDP or one process": ["optimizer.pt"],
    "FSDP2": ["optimizer.bin", "pytorch_model_fsdp.bin"],
    "DeepSpeed ZeRO-2": [
        f"global_step2/bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in range(2)
    ] + ["global_step2/mp_rank_00_model_states.pt"],
    "DeepSpeed ZeRO-3": [
        f"global_step2/bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt" for rank in range(2)
    ] + [f"global_step2/zero_pp_rank_{rank}_mp_rank_00_model_states.pt" for rank in range(2)],
}  # fmt: skip
"""What each writes with two processes beside the model (tests/engines)."""


def accelerator(engine: str, count: int = 2):
    kind = next((kind for name, kind in KINDS.items() if engine.startswith(name)), DistributedType.NO)
    state = SimpleNamespace(
        deepspeed_plugin=SimpleNamespace(zero_stage=int(engine[-1])) if "ZeRO" in engine else None,
        fsdp_plugin=SimpleNamespace(fsdp_version=int(engine[-1])) if "FSDP" in engine else None,
    )
    return SimpleNamespace(distributed_type=kind, num_processes=count, state=state)


KINDS = {"DeepSpeed": DistributedType.DEEPSPEED, "FSDP": DistributedType.FSDP, "DDP": DistributedType.MULTI_GPU}


@pytest.mark.parametrize("engine", ["DDP", "FSDP2", "DeepSpeed ZeRO-2", "DeepSpeed ZeRO-3"])
@pytest.mark.parametrize("wrote", FILES)
def test_an_engine_reads_its_own_checkpoints(tmp_path, engine, wrote):
    for name in FILES[wrote]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    trains = accelerator(engine)
    assert engine_of(trains) == engine
    if wrote.startswith(engine):
        check_checkpoint(tmp_path, trains)
        return
    with pytest.raises(ValueError, match=f"written with {wrote}, and this run uses {engine}, which cannot read"):
        check_checkpoint(tmp_path, trains)


def test_numbers_of_processes(tmp_path):
    """One process reads DDP's; FSDP's state is whole; DeepSpeed's is in as many parts as there were processes."""
    check_checkpoint(tmp_path, accelerator("FSDP2"))  # without an optimiser
    (tmp_path / "optimizer.pt").touch()
    assert engine_of(accelerator("one process", 1)) == "one process"
    check_checkpoint(tmp_path, accelerator("one process", 1))
    (tmp_path / "optimizer.pt").rename(tmp_path / "optimizer.bin")
    check_checkpoint(tmp_path, accelerator("FSDP2", 4))
    (tmp_path / "optimizer.bin").unlink()
    for name in FILES["DeepSpeed ZeRO-2"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="written by 2 processes with DeepSpeed, and this run has 4"):
        check_checkpoint(tmp_path, accelerator("DeepSpeed ZeRO-2", 4))


def test_processes_and_devices(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    check_processes(SimpleNamespace(world_size=1))
    monkeypatch.setenv("WORLD_SIZE", "4")
    check_processes(SimpleNamespace(world_size=4))
    with pytest.raises(ValueError, match="4 processes were started, but there is no accelerator here"):
        check_processes(SimpleNamespace(world_size=1))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="4 processes were started on a machine with 2 GPUs; use a profile of 2"):
        check_processes(SimpleNamespace(world_size=4))
