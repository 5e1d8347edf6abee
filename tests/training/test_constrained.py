"""Rollouts under constraints: every completion is an answer, and the update sees the model's own probabilities."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from trl import GRPOConfig

from scenerl.answers import GrammarSpec, OutputFormat, build_grammar
from scenerl.constrain import Vocabulary, constraint_of
from scenerl.data.images import open_image
from scenerl.errors import UserError
from scenerl.training import grpo
from scenerl.training.checkpoints import fit
from scenerl.training.constrained import send_grammar, unsupported_reason
from training.small_run import PREDICATES, QUICK_GRPO

CLOSED = {"objects": ("apple", "book"), "predicates": PREDICATES}


def config(folder, **changes) -> GRPOConfig:
    return GRPOConfig(output_dir=str(folder), **{**QUICK_GRPO, **changes})


def least(checkpoint, conversation) -> int:
    """Tokens of the smallest answer."""
    vocabulary = Vocabulary.of(checkpoint, checkpoint.stop_ids)
    return constraint_of(GrammarSpec(conversation.output_format, (1000, 1000)), vocabulary).least


def rolled_out(trainer, examples) -> list[tuple]:
    """One rollout of two completions for each of three examples: (example, token ids, log-probabilities) of each."""
    numbers = [0, 0, 2, 2, 3, 3]
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    batch = trainer._generate_and_score_completions([dict(trainer.train_dataset[number]) for number in numbers])
    found = zip(batch["completion_ids"], batch["completion_mask"].bool(), batch["old_per_token_logps"], strict=True)
    return [
        (examples[number], ids[mask], logps[mask]) for number, (ids, mask, logps) in zip(numbers, found, strict=True)
    ]


@pytest.mark.parametrize("shared", ["on", "off"])
@pytest.mark.parametrize(
    "output_format",
    [
        OutputFormat("compact", step=20, **CLOSED),
        OutputFormat("json", "think", step=20, **CLOSED),
        OutputFormat("json", box_format="pixels"),
    ],
    ids=["compact-closed", "json-think-closed", "json-open"],
)
def test_rollouts_are_answers_with_the_models_own_probabilities(
    shared, output_format, checkpoint, conversation, examples, tmp_path
):
    conversation = replace(conversation, output_format=output_format)
    size = {"per_device_train_batch_size": 6, "num_iterations": 2}  # the second asks for old log-probabilities
    limit = least(checkpoint, conversation) + 12
    trainer = grpo.build_trainer(
        checkpoint, conversation, examples, config(tmp_path, max_completion_length=limit, **size), ["format"],
        constrain=True, shared_prefix=shared,
    )  # fmt: skip
    assert trainer.shares_prefix == (shared == "on") and grpo.describe_rollout(trainer).startswith("constrained")
    tokenizer = checkpoint.processor.tokenizer
    for example, ids, logps in rolled_out(trainer, examples):
        assert len(ids) <= limit and int(ids[-1]) == tokenizer.eos_token_id
        result = conversation.parse(tokenizer.decode(ids, skip_special_tokens=True), example)
        assert result.ok and not result.issues and result.in_template
        with torch.no_grad():
            alone = whole_distribution(checkpoint, conversation, example, ids)
        torch.testing.assert_close(logps, alone, rtol=0, atol=1e-4)
        # many of these tokens were the only one allowed: of an untrained model's distribution each is a small part
        assert logps.max() < -1


def whole_distribution(checkpoint, conversation, example, ids: torch.Tensor) -> torch.Tensor:
    """(T) log-probabilities of an answer's tokens by one pass of the model alone."""
    prompt = [conversation.prompt(example, open_image(example))]
    inputs = checkpoint.processor.apply_chat_template(
        prompt, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    count = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], ids[None]], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    kinds = inputs["mm_token_type_ids"]
    inputs["mm_token_type_ids"] = torch.cat([kinds, kinds.new_zeros(1, len(ids))], dim=1)
    logits = checkpoint.model(**inputs).logits[0, count - 1 : -1].float()
    return logits.log_softmax(dim=-1).gather(-1, ids[:, None])[:, 0]


def test_free_rollouts_of_the_same_model_are_no_answers(checkpoint, conversation, examples, tmp_path):
    """So that the test above tests the constraint."""
    fields = {"max_completion_length": 30, "per_device_train_batch_size": 6, "num_iterations": 2}
    trainer = grpo.build_trainer(checkpoint, conversation, examples, config(tmp_path, **fields), ["format"])
    tokenizer = checkpoint.processor.tokenizer
    texts = [(example, tokenizer.decode(ids)) for example, ids, _ in rolled_out(trainer, examples)]
    assert not any(conversation.parse(text, example).ok for example, text in texts)


def test_settings_that_bar_the_end_do_not_prevent_it(checkpoint, conversation, examples, tmp_path):
    """Where the form leaves one token, a shortest length or a ban of repetition cannot take it away."""
    limit = least(checkpoint, conversation) + 8
    barring = {"generation_kwargs": {"min_new_tokens": limit, "no_repeat_ngram_size": 1}}
    fields = {"max_completion_length": limit, "per_device_train_batch_size": 6, "num_iterations": 2, **barring}
    trainer = grpo.build_trainer(
        checkpoint, conversation, examples, config(tmp_path, **fields), ["format"], constrain=True
    )
    tokenizer = checkpoint.processor.tokenizer
    for example, ids, _ in rolled_out(trainer, examples):
        result = conversation.parse(tokenizer.decode(ids, skip_special_tokens=True), example)
        assert result.ok and not result.issues


def test_a_step_of_training(checkpoint, conversation, examples, tmp_path):
    limit = least(checkpoint, conversation) + 12
    fields = {"max_completion_length": limit, "max_steps": 1}
    trainer = fit(
        grpo.build_trainer(checkpoint, conversation, examples, config(tmp_path, **fields), ["format"], constrain=True)
    )
    (row,) = [row for row in trainer.state.log_history if "rewards/format/mean" in row]
    assert row["rewards/format/mean"] == 1 and row["completions/clipped_ratio"] == 0


def test_errors_before_training(checkpoint, conversation, examples, tmp_path):
    def build(output_format=conversation.output_format, **fields):
        args = config(tmp_path, **fields)
        return grpo.build_trainer(
            checkpoint, replace(conversation, output_format=output_format), examples, args, ["format"], constrain=True
        )

    with pytest.raises(
        ValueError,
        match=rf"^constrain: the smallest answer takes {least(checkpoint, conversation)} tokens, but the limit is 1;",
    ):
        build(max_completion_length=1)
    with pytest.raises(ValueError, match="^constrain: no answer can hold the predicate ' on'"):
        build(replace(conversation.output_format, predicates=(" on",)))
    with pytest.raises(ValueError, match="^constrain: not possible: num_beams"):
        build(generation_kwargs={"num_beams": 2})


def test_settings_that_cannot_be_constrained(tmp_path, monkeypatch):
    assert unsupported_reason(config(tmp_path)) is None
    assert unsupported_reason(config(tmp_path, generation_kwargs={"num_beams": 2})).startswith("num_beams")
    for stage in (2, 3):
        args = config(tmp_path)
        args.deepspeed_plugin = SimpleNamespace(zero_stage=stage)
        assert (unsupported_reason(args) or "").startswith("DeepSpeed ZeRO-3") == (stage == 3)
    args = config(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")  # as accelerate launch does
    assert unsupported_reason(args).startswith("FSDP")


def test_sharded_weights_are_refused_in_one_line(checkpoint, conversation, examples, tmp_path, monkeypatch):
    monkeypatch.setattr("scenerl.training.constrained.os.environ", {"ACCELERATE_USE_FSDP": "true"})
    with pytest.raises(UserError, match="^constrain: not possible: FSDP: "):
        grpo.build_trainer(checkpoint, conversation, examples, config(tmp_path), ["format"], constrain=True)


def test_vllm_gets_the_grammar(conversation, examples, tmp_path):
    args = config(tmp_path, use_vllm=True, vllm_mode="colocate", generation_kwargs={"seed": 3})
    send_grammar(args, conversation, examples)
    grammar = build_grammar(conversation.output_format, (1000, 1000))
    assert args.generation_kwargs == {"seed": 3, "structured_outputs": {"grammar": grammar}}
    several = replace(conversation, output_format=OutputFormat("compact", box_format="pixels"))
    with pytest.raises(
        ValueError, match="^constrain: vLLM takes one grammar for the whole run, but the examples need 2"
    ):
        send_grammar(args, several, examples)
