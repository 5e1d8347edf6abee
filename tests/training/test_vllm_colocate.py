"""GRPO with a real vLLM in the trainer's process, on the CPU: ``make test-vllm``."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from trl import GRPOConfig
from trl.data_utils import prepare_multimodal_messages
from trl.generation import vllm_generation

from inference.lively import save_lively
from scenerl.training import grpo, rollout_check
from training.small_run import QUICK_GRPO, load_checkpoint, STYLE

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def lively(tmp_path_factory, examples):
    return save_lively(tmp_path_factory.mktemp("lively") / "checkpoint", examples)


@pytest.fixture(autouse=True)
def vllm_for_tests(monkeypatch):
    """Linear layers that read the weights which a sync writes: oneDNN's have packed copies. Nothing is compiled."""
    from vllm import _custom_ops

    monkeypatch.setattr(_custom_ops, "_supports_onednn", False)
    monkeypatch.setattr(vllm_generation, "LLM", partial(vllm_generation.LLM, enforce_eager=True))
    for name, value in {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}.items():
        monkeypatch.setenv(name, value)


def build(folder, out, examples, **fields):
    checkpoint = load_checkpoint(folder)
    fields = {"use_vllm": True, "vllm_mode": "colocate", "vllm_max_model_length": 512, "max_completion_length": 24, **fields}
    args = GRPOConfig(output_dir=str(out), **{**QUICK_GRPO, **fields})
    return grpo.build_trainer(checkpoint, checkpoint.conversation(STYLE), examples, args, ["format"])


def differences(trainer, count=4) -> tuple[float, float]:
    rows = [trainer.train_dataset[index] for index in range(count)]
    prompts = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in rows]
    ids, images, fields = trainer._tokenize_prompts(prompts)
    trainer._last_loaded_step = trainer.state.global_step  # a sync is made here, or not
    answers, rollout = rollout_check._sample_vllm(trainer, ids, images, fields)
    scored = rollout_check._score(trainer, ids, answers, fields)
    found = [abs(a - b) for one, other in zip(rollout, scored, strict=True) for a, b in zip(one, other, strict=True)]
    assert len(found) > 40
    return sum(found) / len(found), max(found)


def shake(model, part: str) -> None:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if part in name and weights.ndim >= 2:
                weights += torch.randn(weights.shape, generator=generator) * 0.05


@torch.no_grad()
def test_log_probabilities_are_the_trainers_whatever_changes(lively, tmp_path, examples):
    trainer = build(lively, tmp_path, examples)
    trainer.model.eval()
    engine, model = trainer.vllm_generation, trainer.model
    print("loaded", differences(trainer))
    engine.sync_weights()
    print("synced", differences(trainer))
    shake(model, "language_model")
    print("text changed, not synced", differences(trainer))
    engine.sync_weights()
    print("text changed, synced", differences(trainer))
    shake(model, "visual")
    engine.sync_weights()
    print("vision changed, synced", differences(trainer))
