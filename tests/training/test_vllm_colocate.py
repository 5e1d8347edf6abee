"""GRPO with a real vLLM in the trainer's process, on the CPU: ``make test-vllm``."""

from __future__ import annotations

import gc
import logging
from functools import partial

import pytest
import torch
from peft import LoraConfig
from trl.generation import vllm_generation
from trl.generation.vllm_generation import VLLMGeneration

from inference.lively import save_lively
from inference.real_server import VLLM_ON_CPU
from scenerl import cli
from scenerl.errors import UserError
from scenerl.training import vllm_engine
from scenerl.training.mixture import Part
from scenerl.training.validation import Validation
from scenerl.training.vllm_engine import VLLMEngine
from training.small_run import STYLE, load_checkpoint
from training.vllm_run import EXACT, build, difference, fine_tuned, grpo_run, grpo_words, shake

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

COLOCATED = {"vllm_mode": "colocate", "vllm_max_model_length": 256}


@pytest.fixture(scope="module")
def lively(tmp_path_factory, examples):
    return save_lively(tmp_path_factory.mktemp("lively") / "checkpoint", examples)


@pytest.fixture(scope="module")
def trained(base, rows, tmp_path_factory):
    return fine_tuned(base, rows, tmp_path_factory.mktemp("sft") / "trained", 80)


@pytest.fixture(autouse=True)
def vllm_for_tests(monkeypatch):
    """Linear layers that read the weights which a sync writes: oneDNN's have packed copies. Nothing is compiled."""
    from vllm import _custom_ops
    from vllm.distributed import cleanup_dist_env_and_memory

    monkeypatch.setattr(_custom_ops, "_supports_onednn", False)
    monkeypatch.setattr(vllm_generation, "LLM", partial(vllm_generation.LLM, enforce_eager=True))
    for name, value in VLLM_ON_CPU.items():
        monkeypatch.setenv(name, value)
    yield
    gc.collect()
    cleanup_dist_env_and_memory()


def test_log_probabilities_are_the_trainers_whatever_changes(lively, tmp_path, examples, monkeypatch):
    trainer = build(lively, tmp_path, examples, **COLOCATED)
    assert trainer.vllm_generation.llm.llm_engine.model_config.dtype == torch.float32
    assert difference(trainer) < EXACT
    assert difference(trainer, sync=True) < EXACT
    shake(trainer.model, "language_model")
    assert difference(trainer) > 0.5
    assert difference(trainer, sync=True) < EXACT
    shake(trainer.model, "visual")
    with monkeypatch.context() as patch:
        patch.setattr(VLLMEngine, "sync_weights", VLLMGeneration.sync_weights)  # TRL's alone
        assert difference(trainer, sync=True) > 0.1
    assert difference(trainer, sync=True) < EXACT
    with monkeypatch.context() as patch:
        patch.setattr(vllm_engine, "collapse_runs", lambda ids, token: list(ids))
        with pytest.raises(UserError, match=r"vLLM read a prompt of \d+ tokens as \d+"):
            difference(trainer)


def test_an_adapter_is_synchronised_and_its_base_left_as_it_was(lively, tmp_path, examples):
    adapter = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=r".*language_model.*_proj")
    trainer = build(lively, tmp_path, examples, adapter, top_p=0.9, top_k=20, **COLOCATED)
    before = trainer.model.state_dict()["base_model.model.lm_head.weight"].clone()
    shake(trainer.model, "lora", 0.2)
    assert difference(trainer) > 0.5
    assert difference(trainer, sync=True) < EXACT
    assert torch.equal(trainer.model.state_dict()["base_model.model.lm_head.weight"], before)


def test_training_follows_its_rewards(trained, rows, tmp_path, caplog):
    """Eight steps over six images, all weights trained: every image is seen again after it has changed its features."""
    caplog.set_level(logging.INFO, "scenerl")
    log = grpo_run(trained, rows, tmp_path / "run", **COLOCATED, top_p=0.9, top_k=50)
    assert len(log) == 8
    assert max(row["reward_std"] for row in log) > 0.02 and len({row["reward"] for row in log}) > 4
    assert all(row["grad_norm"] > 0 for row in log if row["reward_std"])
    ratios = [row["sampling/importance_sampling_ratio/mean"] for row in log]
    assert ratios == pytest.approx([1.0] * 8, abs=1e-3)
    assert sum("rollout and trainer agree" in record.message for record in caplog.records) == 8
    old, new = (load_checkpoint(folder).model.state_dict() for folder in (trained, tmp_path / "run"))
    assert any("visual" in name and not torch.equal(old[name], new[name]) for name in old)


def test_stale_features_end_the_run(trained, rows, tmp_path, monkeypatch, capsys):
    """TRL's sync alone: the check of a later step notices that vLLM remembers an image as older weights saw it."""
    monkeypatch.setattr(VLLMEngine, "sync_weights", VLLMGeneration.sync_weights)
    fields = {**COLOCATED, "rollout_check_every": 2, "learning_rate": 1e-2}
    assert cli.main(grpo_words(trained, rows, tmp_path / "run", **fields)) == 2
    assert "rollout and trainer disagree" in capsys.readouterr().err


def test_shared_prompts_change_nothing(trained, rows, tmp_path):
    logs = [
        grpo_run(trained, rows, tmp_path / value, **COLOCATED, shared_prefix=value, max_steps=2)
        for value in ("on", "off")
    ]
    for shared, single in zip(*logs, strict=True):
        for key in ("reward", "reward_std", "loss", "grad_norm", "completions/mean_length"):
            assert shared[key] == pytest.approx(single[key], abs=1e-4), key


def test_constrained_rollouts_keep_to_the_grammar_and_are_learnt_from(base, rows, tmp_path):
    """A beginner knows which tokens answers have, but seldom puts them in order."""
    beginner = fine_tuned(base, rows, tmp_path / "beginner", 30)
    fields = {**COLOCATED, "max_steps": 3, "max_completion_length": 140}
    free = grpo_run(beginner, rows, tmp_path / "free", **fields)
    held = grpo_run(beginner, rows, tmp_path / "held", constrain=True, **fields)
    assert max(row["scene/failures/wrong_schema"] for row in free) > 0
    assert {row["scene/failures/wrong_schema"] for row in held} == {0}
    assert max(row["reward_std"] for row in held) > 0.02
    assert all(row["grad_norm"] > 1e-3 for row in held if row["reward_std"])
    assert not any("sampling/importance_sampling_ratio/mean" in row for row in held)


def test_validation_by_vllm_finds_what_it_finds_in_process(trained, tmp_path, examples):
    """Greedy answers of the same weights, with rollouts at another temperature in between."""
    trainer = build(trained, tmp_path, examples, temperature=2.0, max_completion_length=60, **COLOCATED)
    held_out = Validation([Part("", examples, trainer.checkpoint.conversation(STYLE))], trainer.checkpoint, 60)
    by_vllm = held_out.metrics(trainer)
    trainer.use_vllm = False
    assert by_vllm == held_out.metrics(trainer) and by_vllm["failure_rate"] < 1
    assert trainer.vllm_generation.temperature == 2.0
