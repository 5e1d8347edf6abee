"""Training, rollout and prediction put the same tokens before an answer."""

from __future__ import annotations

from trl import GRPOConfig, SFTConfig

from scenerl.data.images import open_image
from scenerl.inference.engine import Sampling
from scenerl.inference.hf import HFEngine
from scenerl.training import grpo, sft
from training.small_run import QUICK_GRPO, STYLE


def predicted_ids(checkpoint, examples) -> list[list[int]]:
    engine, conversation = HFEngine(checkpoint, Sampling()), checkpoint.conversation(STYLE)
    encoded = engine.encode([conversation.prompt(example, open_image(example)) for example in examples])
    return [
        row[mask.bool()].tolist() for row, mask in zip(encoded["input_ids"], encoded["attention_mask"], strict=True)
    ]


def test_training_and_prediction_see_the_same_prompt(checkpoint, conversation, examples, tmp_path):
    args = SFTConfig(output_dir=str(tmp_path), report_to="none", bf16=False, gradient_checkpointing=False)
    trainer = sft.build_trainer(checkpoint, conversation, examples, args)
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(len(examples))])
    tokenizer = checkpoint.processor.tokenizer
    prompts = predicted_ids(checkpoint, examples)
    for index, example in enumerate(examples):
        ids, mask, labels = (batch[key][index] for key in ("input_ids", "attention_mask", "labels"))
        learnt = labels != -100
        assert ids[mask.bool() & ~learnt].tolist() == prompts[index]
        # what is learnt is the ideal answer, the end of the turn included, and nothing of the prompt
        answer = tokenizer.decode(ids[learnt])
        assert answer == conversation.completion(example)[0]["content"][0]["text"] + "<|im_end|>\n"
        assert not {*ids[learnt].tolist()} & {*checkpoint.banned_ids}


def test_rollout_and_prediction_see_the_same_prompt(checkpoint, conversation, examples, tmp_path):
    """What ``generate`` is given, and what the update is computed on, in a real training step."""
    prompts = predicted_ids(checkpoint, examples)
    args = GRPOConfig(output_dir=str(tmp_path), **{**QUICK_GRPO, "max_steps": 1, "per_device_train_batch_size": 4})
    trainer = grpo.build_trainer(checkpoint, conversation, examples, args, ["format"])
    rolled_out, updated = [], []
    generate, logps = trainer.model.generate, trainer._get_per_token_logps_and_entropies

    def watched_generate(*args, **kwargs):
        rolled_out.extend(unpadded(kwargs["input_ids"], kwargs["attention_mask"]))
        assert {*checkpoint.banned_ids} <= {*kwargs["generation_config"].suppress_tokens}
        return generate(*args, **kwargs)

    def watched_logps(model, input_ids, attention_mask, logits_to_keep, *args, **kwargs):
        updated.extend(unpadded(input_ids[:, :-logits_to_keep], attention_mask[:, :-logits_to_keep]))
        return logps(model, input_ids, attention_mask, logits_to_keep, *args, **kwargs)

    trainer.model.generate, trainer._get_per_token_logps_and_entropies = watched_generate, watched_logps
    trainer.train()
    # a rollout may read the prompt of a group once, and the update may be checked on a group besides
    assert len(rolled_out) >= 2 and len(updated) >= 4
    assert all(ids in prompts for ids in rolled_out + updated)
    assert {*map(tuple, rolled_out)} == {*map(tuple, updated)}


def unpadded(ids, mask) -> list[list[int]]:
    return [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]


def test_the_prompt_is_the_image_and_the_question(checkpoint, conversation, examples):
    [ids] = predicted_ids(checkpoint, examples[:1])
    text = checkpoint.processor.tokenizer.decode(ids)
    start, image, rest = text.partition("<|vision_start|>" + "<|image_pad|>" * 4 + "<|vision_end|>")
    assert start == "<|im_start|>user\n" and image
    question = conversation.prompt(examples[0], None)[0]["content"][1]["text"]
    assert rest == f"{question}<|im_end|>\n<|im_start|>assistant\n"
