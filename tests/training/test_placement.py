"""No tensor of ours is left on the CPU when the model is on another device, which on a GPU would end the run."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from accelerate.state import PartialState
from torch.utils._python_dispatch import _disable_current_modes
from trl import GRPOConfig, SFTConfig

from scenerl.training import grpo, sft
from scenerl.training.shared_prefix import attention
from training.other_device import OTHER, Placed, other_device
from training.small_run import QUICK, QUICK_GRPO

ONE_STEP = {"max_steps": 1, "optim": "sgd"}


def make_mask(make, *sizes: int):
    """torch's causal mask: a tensor of a class of its own, which cannot be made of what an operation gave."""
    with _disable_current_modes():
        return make(*sizes)


def train_elsewhere(trainer) -> None:
    """Train with model and batches on the other device."""
    with pytest.MonkeyPatch.context() as patch, other_device():
        patch.setattr(attention, "causal_lower_right", partial(make_mask, attention.causal_lower_right))
        for state in (trainer.accelerator.state, PartialState()):
            patch.setitem(state.__dict__, "device", OTHER)
        patch.setitem(trainer.args.__dict__, "_setup_devices", OTHER)
        trainer.model.to(OTHER)
        if getattr(trainer, "ref_model", None) is not None:
            trainer.ref_model.to(OTHER)
        trainer.train()
    assert all(isinstance(parameter, Placed) for parameter in trainer.model.parameters())
    assert trainer.state.global_step == 1


def test_the_other_device_refuses_what_a_gpu_refuses():
    with other_device():
        there, here = torch.ones(2, 3, device=OTHER), torch.ones(2, 3)
        assert isinstance(there, Placed) and not isinstance(here, Placed)
        assert (there + here.to(OTHER)).sum().item() == 12
        assert (there[torch.tensor([0])] * torch.tensor(2.0)).cpu().tolist() == [[2, 2, 2]]
        assert not isinstance(there.cpu(), Placed)
        for mix in (lambda: there + here, lambda: torch.cat([here, there]), lambda: there @ here.T):
            with pytest.raises(RuntimeError, match="same device"):
                mix()


def test_sft(checkpoint, conversation, examples, tmp_path):
    args = SFTConfig(output_dir=str(tmp_path), max_length=None, **{**QUICK, **ONE_STEP})
    train_elsewhere(sft.build_trainer(checkpoint, conversation, examples, args))


@pytest.mark.parametrize("settings", [{}, {"shared_prefix": "off"}, {"constrain": True}], ids=str)
def test_grpo(checkpoint, conversation, examples, tmp_path, settings):
    """Rollouts in process, their check, the update, and the reference model."""
    fields = {**QUICK_GRPO, **ONE_STEP, "beta": 0.1, "max_completion_length": 24 if settings.get("constrain") else 4}
    args = GRPOConfig(output_dir=str(tmp_path), **fields)
    train_elsewhere(
        grpo.build_trainer(checkpoint, conversation, examples, args, ["cosine_length"], sample_log_every=0, **settings)
    )
