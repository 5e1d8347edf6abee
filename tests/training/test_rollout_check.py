"""The check of rollouts: both sides must give the same tokens the same probability."""

from __future__ import annotations

import copy
import re
from contextlib import nullcontext

import pytest
import torch
from transformers import TrainerCallback
from trl import GRPOConfig

from scenerl.errors import UserError
from scenerl.models.qwen2_vl import set_pixel_bounds
from scenerl.training import grpo, rollout_check
from scenerl.training.rollout_check import check_rollout
from scenerl.training.shared_prefix import trainer as trainer_module
from training.small_run import QUICK_GRPO


def build(checkpoint, conversation, examples, folder, **fields):
    args = GRPOConfig(output_dir=str(folder), **{**QUICK_GRPO, "max_completion_length": 6, "top_p": 0.9, **fields})
    # An untrained model gives everything the same probability, whatever it sees; larger weights make it care.
    with torch.no_grad():
        for parameter in checkpoint.model.parameters():
            if parameter.ndim > 1:
                parameter *= 8
    return grpo.build_trainer(checkpoint, conversation, examples[1:], args, ["format"])  # images of two sizes


@pytest.fixture
def trainer(checkpoint, conversation, examples, tmp_path):
    return build(checkpoint, conversation, examples, tmp_path)


def check(trainer) -> float:
    """With the first two prompts, whose images differ in size."""
    return check_rollout(trainer, [trainer.train_dataset[index] for index in range(2)])


def mismatch(trainer) -> tuple[str, float, float]:
    """The message, and the two log-probabilities of the worst token that it names."""
    with pytest.raises(UserError, match="rollout and trainer disagree") as caught:
        check(trainer)
    message = str(caught.value)
    found = re.search(r"rollout (\S+), trainer (\S+)\. ", message)
    return message, float(found[1]), float(found[2])


@pytest.mark.parametrize("fields", [{}, {"temperature": 0.5}, {"repetition_penalty": 1.3}, {"top_k": 3}])
def test_passes_on_a_healthy_trainer_and_leaves_no_trace(checkpoint, conversation, examples, tmp_path, fields):
    trainer = build(checkpoint, conversation, examples, tmp_path, **fields)
    trainer.model.train()
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    state = torch.random.get_rng_state()
    assert 0 <= check(trainer) < 1e-4
    assert trainer.model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in trainer.model.state_dict().items())


def test_other_weights_on_one_side(trainer, monkeypatch):
    score = trainer._get_per_token_logps_and_entropies

    def perturbed(model, *args, **kwargs):
        saved = model.lm_head.weight.clone()
        model.lm_head.weight.data[5:] *= 0.5
        try:
            return score(model, *args, **kwargs)
        finally:
            model.lm_head.weight.data.copy_(saved)

    monkeypatch.setattr(trainer, "_get_per_token_logps_and_entropies", perturbed)
    message, rollout, scored = mismatch(trainer)
    assert abs(rollout - scored) > 0.05
    assert "allowed 0.05 (--rollout_check_tolerance)" in message
    assert "chat template, image size or weights" in message


def test_another_template_on_one_side(trainer, monkeypatch):
    score = rollout_check._score

    def without_last_token(trainer, prompt_ids, completion_ids, fields):
        shorter = [[*ids[:-2], ids[-1]] for ids in prompt_ids]
        fields = {**fields, "mm_token_type_ids": [[*v[:-2], v[-1]] for v in fields["mm_token_type_ids"]]}
        return score(trainer, shorter, completion_ids, fields)

    monkeypatch.setattr(rollout_check, "_score", without_last_token)
    _, rollout, scored = mismatch(trainer)
    assert abs(rollout - scored) > 0.05


def test_another_image_size_on_one_side(trainer, checkpoint, monkeypatch):
    score = rollout_check._score
    tokenize = trainer._tokenize_prompts
    seen = []
    monkeypatch.setattr(trainer, "_tokenize_prompts", lambda prompts: (seen.append(prompts), tokenize(prompts))[1])

    def larger(trainer, prompt_ids, completion_ids, fields):
        set_pixel_bounds(checkpoint.processor.image_processor, 112 * 112, None)
        prompt_ids, _, fields = tokenize(seen[0])
        return score(trainer, prompt_ids, completion_ids, fields)

    monkeypatch.setattr(rollout_check, "_score", larger)
    _, rollout, scored = mismatch(trainer)
    assert abs(rollout - scored) > 0.05


def test_nan_is_a_mismatch_and_is_named(trainer, monkeypatch):
    score = trainer._get_per_token_logps_and_entropies

    def broken(*args, **kwargs):
        logps, *rest = score(*args, **kwargs)
        logps[0, 1] = float("nan")
        return logps, *rest

    monkeypatch.setattr(trainer, "_get_per_token_logps_and_entropies", broken)
    message, rollout, scored = mismatch(trainer)
    assert "differ by nan" in message
    assert rollout < 0 and scored != scored


def test_vllm_is_asked_for_its_whole_distribution_and_keeps_its_settings(trainer, monkeypatch):
    class Engine:
        top_p, top_k, min_p, repetition_penalty = 0.9, 50, None, 1.1
        generation_kwargs = {"structured_outputs": {"grammar": "root ::= end"}, "logit_bias": {5: -100.0}}

    seen = {}

    def generate(prompt_ids, images, fields, num_generations):
        seen.update(vars(trainer.vllm_generation))
        completion_ids = [[50, 60], [70]]
        logps = rollout_check._score(trainer, prompt_ids, completion_ids, fields)
        return completion_ids, logps if seen["healthy"] else [[None, None], [None]]

    trainer.use_vllm, trainer.vllm_generation = True, Engine()
    monkeypatch.setattr(trainer, "_generate_single_turn", generate)
    seen["healthy"] = True
    assert check(trainer) < 1e-4
    assert (seen["top_p"], seen["top_k"], seen["min_p"], seen["repetition_penalty"]) == (1.0, 0, 0.0, 1.0)
    assert seen["generation_kwargs"] == {"logit_bias": {5: -100.0}}
    kept = trainer.vllm_generation
    assert kept.generation_kwargs == Engine.generation_kwargs
    assert (kept.top_p, kept.top_k, kept.min_p, kept.repetition_penalty) == (0.9, 50, None, 1.1)
    seen["healthy"] = False  # vLLM says None where it has no number
    message, rollout, _ = mismatch(trainer)
    assert rollout != rollout and "differ by nan" in message


def test_a_mismatch_ends_the_run_at_its_first_rollout(trainer, tmp_path, monkeypatch):
    trainer.rollout_check_tolerance = 0.05
    monkeypatch.setattr(rollout_check, "_score", lambda trainer, p, ids, fields: [[-99.0] * len(row) for row in ids])
    with pytest.raises(UserError, match="trainer -99.0000"):
        trainer.train()
    assert trainer.state.global_step == 0 and not (tmp_path / "model.safetensors").exists()


def test_the_check_comes_after_the_model_is_placed(trainer, monkeypatch):
    """Under DeepSpeed or FSDP the model is sharded, or on its device, only when training has begun."""
    placed, checked = [], []
    prepare = trainer.accelerator.prepare
    monkeypatch.setattr(trainer.accelerator, "prepare", lambda *args, **kw: (placed.append(1), prepare(*args, **kw))[1])
    monkeypatch.setattr(grpo, "check_rollout", lambda *args: checked.append(len(placed)) or check_rollout(*args))
    trainer.train()
    assert len(checked) == 1 and checked[0] > 0


@pytest.mark.parametrize("every, steps", [(0, [0]), (1, [0, 2, 4]), (3, [0, 4]), (100, [0])])
def test_the_check_comes_again_with_an_image_of_the_rollout_before(
    checkpoint, conversation, examples, tmp_path, monkeypatch, every, steps
):
    """A rollout serves two steps here; the check waits for the next rollout."""
    trainer = build(checkpoint, conversation, examples, tmp_path, max_steps=6, num_iterations=2)
    trainer.rollout_check_every = every
    checked, rollouts = [], {}
    monkeypatch.setattr(
        grpo, "check_rollout", lambda trainer, rows, _: checked.append((trainer.state.global_step, rows)) or 0.0
    )
    prepare = type(trainer)._generate_and_score_completions

    def recording(self, inputs):
        rollouts[self.state.global_step] = [row["row"] for row in inputs]
        return prepare(self, inputs)

    monkeypatch.setattr(type(trainer), "_generate_and_score_completions", recording)
    trainer.train()
    assert sorted(rollouts) == [0, 2, 4] and [step for step, _ in checked] == steps
    for step, (before, first) in checked:
        assert first["row"] == rollouts[step][0]
        assert before["row"] == rollouts[max(0, step - 2)][-1]


def test_what_goes_stale_in_the_middle_ends_the_run(trainer, monkeypatch):
    """The sampler keeps the first weights, as an engine would whose weights are not synchronised."""
    trainer.rollout_check_every = 1
    sample, first = rollout_check._sample, copy.deepcopy(trainer.model.state_dict())

    def stale(trainer, *args):
        current = copy.deepcopy(trainer.model.state_dict())
        trainer.model.load_state_dict(first)
        try:
            return sample(trainer, *args)
        finally:
            trainer.model.load_state_dict(current)

    class Learns(TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            model.lm_head.weight.data[5:] *= 0.5

    trainer.add_callback(Learns())
    monkeypatch.setattr(rollout_check, "_sample", stale)
    with pytest.raises(UserError, match="rollout and trainer disagree"):
        trainer.train()
    assert trainer.state.global_step == 1


@pytest.mark.parametrize("shared", [True, False])
def test_weights_are_gathered_as_trl_gathers_them(trainer, monkeypatch, shared):
    """FSDP's and ZeRO-3's weights are whole while completions are sampled, in the check and in the rollout."""
    trainer.shares_rollout = shared
    trainer.args.ds3_gather_for_generation = False
    settings, gathered = [], []
    unwrap = trainer_module.unwrap_model_for_generation
    monkeypatch.setattr(
        trainer_module,
        "unwrap_model_for_generation",
        lambda *args, **kw: (settings.append(kw), unwrap(*args, **kw))[1],
    )
    monkeypatch.setattr(
        trainer._dist, "summon_full_params", lambda *args, **kw: (gathered.append(kw), nullcontext())[1]
    )
    check(trainer)
    assert gathered == [{"recurse": False}]
    (found,) = settings
    assert not found["gather_deepspeed3_params"] and "gradient_checkpointing_kwargs" in found
    if shared:
        trainer.train()
        assert len(gathered) == len(settings) > 1
