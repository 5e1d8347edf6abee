"""GRPO with a real vLLM in the trainer's process, on the CPU: ``make test-vllm``."""

from __future__ import annotations

import gc
import logging
from functools import partial

import pytest
import torch
from peft import LoraConfig
from trl import GRPOConfig
from trl.data_utils import prepare_multimodal_messages
from trl.generation import vllm_generation
from trl.generation.vllm_generation import VLLMGeneration

from inference.lively import save_lively
from inference.real_server import VLLM_ON_CPU
from scenerl import cli
from scenerl.errors import UserError
from scenerl.training import grpo, rollout_check, vllm_engine
from scenerl.training.vllm_engine import VLLMEngine
from training.small_run import QUICK, QUICK_GRPO, STYLE, load_checkpoint, read_rows, words

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

EXACT = 1e-4
"""Nats by which the log-probability of any token may differ."""
COLOCATED = {"use_vllm": True, "vllm_mode": "colocate", "vllm_max_model_length": 256}


@pytest.fixture(scope="module")
def lively(tmp_path_factory, examples):
    return save_lively(tmp_path_factory.mktemp("lively") / "checkpoint", examples)


def fine_tuned(base, rows, out, steps: int):
    fields = {**QUICK, "max_steps": steps, "logging_steps": 20, "learning_rate": 5e-3, "per_device_train_batch_size": 6}
    command = ["sft", "--model", str(base), "--data", str(rows), "--out", str(out), "--format", "compact"]
    assert cli.main([*command, "--grid", "20", *words(fields)]) == 0
    return out


@pytest.fixture(scope="module")
def trained(base, rows, tmp_path_factory):
    """A model that has learnt the format, so that sampled answers are parsed and rewards vary."""
    return fine_tuned(base, rows, tmp_path_factory.mktemp("sft") / "trained", 80)


@pytest.fixture(scope="module")
def beginner(base, rows, tmp_path_factory):
    """A model that knows which tokens answers have, but seldom puts them in order."""
    return fine_tuned(base, rows, tmp_path_factory.mktemp("sft") / "beginner", 30)


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


def build(folder, out, examples, peft_config=None, **fields):
    checkpoint = load_checkpoint(folder)
    args = GRPOConfig(output_dir=str(out), **{**QUICK_GRPO, **COLOCATED, "max_completion_length": 24, **fields})
    conversation = checkpoint.conversation(STYLE)
    trainer = grpo.build_trainer(checkpoint, conversation, examples, args, ["format"], peft_config=peft_config)
    trainer.model.eval()
    return trainer


def difference(trainer, sync: bool = False) -> float:
    """The largest difference, in nats, between vLLM's and the trainer's log-probabilities of sampled tokens."""
    if sync:
        trainer.vllm_generation.sync_weights()
    trainer._last_loaded_step = trainer.state.global_step  # the trainer makes no sync of its own
    rows = [trainer.train_dataset[index] for index in range(4)]
    prompts = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in rows]
    ids, images, fields = trainer._tokenize_prompts(prompts)
    answers, rollout = rollout_check._sample_vllm(trainer, ids, images, fields)
    assert sum(map(len, answers)) >= 40
    assert not set(trainer.checkpoint.banned_ids) & {token for answer in answers for token in answer}
    scored = rollout_check._score(trainer, ids, answers, fields)
    pairs = [pair for ours, theirs in zip(rollout, scored, strict=True) for pair in zip(ours, theirs, strict=True)]
    return max(abs(a - b) for a, b in pairs)


@torch.no_grad()
def shake(model, part: str, size: float = 0.05) -> None:
    generator = torch.Generator().manual_seed(5)
    for name, weights in model.named_parameters():
        if part in name and weights.ndim >= 2:
            weights += torch.randn(weights.shape, generator=generator) * size


@torch.no_grad()
def test_log_probabilities_are_the_trainers_whatever_changes(lively, tmp_path, examples, monkeypatch):
    trainer = build(lively, tmp_path, examples)
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


@torch.no_grad()
def test_an_adapter_is_synchronised_and_its_base_left_as_it_was(lively, tmp_path, examples):
    adapter = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=r".*language_model.*_proj")
    trainer = build(lively, tmp_path, examples, adapter, top_p=0.9, top_k=20)
    before = trainer.model.state_dict()["base_model.model.lm_head.weight"].clone()
    shake(trainer.model, "lora", 0.2)
    assert difference(trainer) > 0.5
    assert difference(trainer, sync=True) < EXACT
    assert torch.equal(trainer.model.state_dict()["base_model.model.lm_head.weight"], before)


def grpo_run(model, rows, out, **fields) -> list[dict]:
    """The rows of the log of a run of the real command."""
    ours = {"max_completion_length": 96, "max_steps": 8, "num_generations": 4, "per_device_train_batch_size": 8}
    fields = {**QUICK_GRPO, **COLOCATED, **ours, "learning_rate": 1e-3, "rollout_check_every": 1, **fields}
    command = ["grpo", "--model", str(model), "--data", str(rows), "--out", str(out), "--rollout_check_tolerance"]
    rewards = ["--rewards", "node_label", "node_box", "hard_recall"]
    assert cli.main([*command, "1e-4", *rewards, *words(fields)]) == 0
    return [row for row in read_rows(out / "log.jsonl") if "reward" in row]


def test_training_follows_its_rewards(trained, rows, tmp_path, caplog):
    """Eight steps over six images, all weights trained: every image is seen again after it has changed its features."""
    caplog.set_level(logging.INFO)
    log = grpo_run(trained, rows, tmp_path / "run", top_p=0.9, top_k=50)
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
    with pytest.raises(AssertionError):
        grpo_run(trained, rows, tmp_path / "run", rollout_check_every=2, learning_rate=1e-2)
    assert "rollout and trainer disagree" in capsys.readouterr().err


def test_shared_prompts_change_nothing(trained, rows, tmp_path):
    logs = [grpo_run(trained, rows, tmp_path / value, shared_prefix=value, max_steps=2) for value in ("on", "off")]
    for shared, single in zip(*logs, strict=True):
        for key in ("reward", "reward_std", "loss", "grad_norm", "completions/mean_length"):
            assert shared[key] == pytest.approx(single[key], abs=1e-4), key


def test_constrained_rollouts_keep_to_the_grammar_and_are_learnt_from(beginner, rows, tmp_path):
    fields = {"max_steps": 3, "max_completion_length": 140}
    free = grpo_run(beginner, rows, tmp_path / "free", **fields)
    held = grpo_run(beginner, rows, tmp_path / "held", constrain=True, **fields)
    assert max(row["scene/failures/wrong_schema"] for row in free) > 0
    assert {row["scene/failures/wrong_schema"] for row in held} == {0}
    assert max(row["reward_std"] for row in held) > 0.02
    assert all(row["grad_norm"] > 1e-3 for row in held if row["reward_std"])
    assert not any("sampling/importance_sampling_ratio/mean" in row for row in held)
