"""GRPO: rewards and their weights, what is logged, and what can never be sampled."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from transformers import TrainerState
from trl import GRPOConfig

from scenerl import cli
from scenerl.answers import write_answer
from scenerl.answers.dialogue import Conversation
from scenerl.commands.grpo import GRPOOptions
from scenerl.config import dump_yaml
from scenerl.rewards import REWARDS, Comparison, RewardOptions, inverse_frequency_weights
from scenerl.score import score_row
from scenerl.training import grpo, setup
from scenerl.training.checkpoints import fit
from scenerl.training.checks import check_prompts
from scenerl.training.rewards import RewardBatch, scene_metrics
from training.small_run import QUICK_GRPO, examples_of, load_checkpoint, read_rows, words

NAMES = ["format", "node_box", "triplet_f1"]


def config(folder, **changes) -> GRPOConfig:
    return GRPOConfig(output_dir=str(folder), **{**QUICK_GRPO, **changes})


def ideal(example, output_format) -> str:
    return write_answer(example.graph, output_format, example.image_wh)


@pytest.fixture
def parsed(monkeypatch) -> list[str]:
    """The answers that were parsed, in order."""
    texts = []
    parse = Conversation.parse

    def counting(self, answer, *args, **kwargs):
        texts.append(answer)
        return parse(self, answer, *args, **kwargs)

    monkeypatch.setattr(Conversation, "parse", counting)
    return texts


class Batch:
    """A batch of completions as TRL hands it to reward functions, each ended by token 2 unless it is cut off."""

    def __init__(self, texts, rows, cut_off=()):
        self.completions = [[{"role": "assistant", "content": text}] for text in texts]
        self.ids = [[5, 6] if index in cut_off else [5, 6, 2] for index in range(len(texts))]
        self.rows = list(rows)
        self.metrics: dict[str, float] = {}

    def score(self, rewards: RewardBatch, step: int = 0, main: bool = True) -> dict[str, list[float]]:
        state = TrainerState(global_step=step, is_world_process_zero=main)
        return {
            reward.__name__: reward(
                prompts=None,
                completions=self.completions,
                completion_ids=self.ids,
                row=self.rows,
                log_metric=self.metrics.__setitem__,
                log_extra=None,
                trainer_state=state,
            )
            for reward in rewards.functions()
        }


def scored(text, example, conversation, options, strict=False) -> dict:
    """The row that the command `score` writes of an answer."""
    row = {"answer": text, "num_tokens": 3}
    parser = Conversation(conversation.output_format)
    return score_row(row, "row 1", parser, options, strict=strict, example=example).output


@pytest.fixture
def answers(conversation, examples) -> list[str]:
    """A whole answer, one that lacks its relation, one that is no answer, and nothing."""
    whole = ideal(examples[0], conversation.output_format)
    first, second = whole.splitlines()[:2]
    return [whole, f"{first}\n{second}\nend", "I see an apple.", ""]


def test_rewards_are_those_of_the_same_texts_and_each_text_is_parsed_once(conversation, examples, answers, parsed):
    options = RewardOptions(iou_threshold=0.7)
    batch = RewardBatch(list(REWARDS), examples, conversation, options, stop_ids=[2])
    found = Batch(answers, [0, 0, 0, 0]).score(batch)
    assert parsed == answers
    assert list(found) == list(REWARDS)
    for index, text in enumerate(answers):
        direct = scored(text, examples[0], conversation, options)
        assert {name: values[index] for name, values in found.items()} == direct["rewards"]
    assert found["format"] == [1, 1, 0, 0]
    assert found["triplet_f1"] == [1, 0, 0, 0]


@pytest.mark.parametrize("strict", [False, True])
def test_strict_means_the_same_to_grpo_and_score(conversation, examples, answers, strict):
    """An output with an issue, here a relation that stands twice, is a whole failure to both, or to neither."""
    options = RewardOptions(strict_format=strict, cosine_max_tokens=7, cosine_correct=0.9)
    *objects, relation, end = answers[0].splitlines()
    text = "\n".join([*objects, relation, relation, end])
    batch = RewardBatch(list(REWARDS), examples, conversation, options, stop_ids=[2])
    found = {name: values[0] for name, values in Batch([text], [0]).score(batch).items()}
    direct = scored(text, examples[0], conversation, options, strict)
    assert found == direct["rewards"]
    assert found["triplet_f1"] == (0.0 if strict else pytest.approx(1.0, abs=0.5)) and direct["issues"]


def test_each_completion_meets_the_target_of_its_row(conversation, examples):
    batch = RewardBatch(["triplet_f1"], examples, conversation, RewardOptions(), stop_ids=[2])
    texts = [ideal(example, conversation.output_format) for example in examples[:2]]
    assert Batch(texts, [0, 1]).score(batch) == {"triplet_f1": [1.0, 1.0]}
    assert Batch(texts, [1, 0]).score(batch) == {"triplet_f1": [0.0, 0.0]}  # another predicate


def test_a_batch_is_not_taken_for_the_one_before(conversation, examples, answers, parsed):
    batch = RewardBatch(NAMES, examples, conversation, RewardOptions(), stop_ids=[2])
    assert Batch(answers[:1], [0]).score(batch)["format"] == [1.0]
    assert Batch(answers[2:3], [0]).score(batch)["format"] == [0.0]
    assert parsed == [answers[0], answers[2]]


def test_completions_without_an_end_are_truncated(conversation, examples, answers):
    batch = RewardBatch(["format"], examples, conversation, RewardOptions(), stop_ids=[2, 3])
    half = answers[0][: len(answers[0]) // 2]
    scored = Batch([half, half], [0, 0], cut_off=[1])
    scored.score(batch)
    # Cut off by the limit or not, half an answer in this format is truncated; an answer of prose is told apart.
    assert scored.metrics["scene/failures/truncated"] == 1
    prose = Batch(["I see", "I see"], [0, 0], cut_off=[1])
    prose.score(batch)
    assert prose.metrics["scene/failures/truncated"] == 0.5


def test_metrics_of_a_batch(conversation, examples, answers):
    batch = RewardBatch(["format"], examples, conversation, RewardOptions(), stop_ids=[2])
    scored = Batch(answers, [0, 0, 0, 0])
    scored.score(batch)
    # Two of four answers can be read; they hold 2 + 2 objects and 1 + 0 relations.
    assert scored.metrics["scene/failure_rate"] == 0.5
    assert scored.metrics["scene/failures/empty"] == 0.25
    assert scored.metrics["scene/objects_per_image"] == 1.0
    assert scored.metrics["scene/relations_per_image"] == 0.25
    kinds = [value for name, value in scored.metrics.items() if name.startswith("scene/failures/")]
    assert sum(kinds) == scored.metrics["scene/failure_rate"]
    assert scored.metrics == scene_metrics([conversation.parse(text, examples[0]) for text in answers])


def test_samples_hold_a_group_with_its_rewards(conversation, examples, answers, tmp_path):
    path = tmp_path / "samples.jsonl"
    path.write_text('{"step": 1, "kept": true}\n{"step": 3, "written": "again"}\n{"step": 4, "cut')
    batch = RewardBatch(
        NAMES, examples, conversation, RewardOptions(), stop_ids=[2], samples_path=path, sample_every=2
    )  # fmt: skip
    hostile = "<script>\u2028\x1b[31m\ud800"
    for step in (2, 3, 4):  # a run that goes on after two steps
        Batch([answers[0], hostile, answers[0]], [0, 0, 1]).score(batch, step)
    Batch(answers, [0] * 4).score(batch, step=6, main=False)  # another process leaves the file alone
    kept, *rows = read_rows(path)
    assert kept == {"step": 1, "kept": True}
    assert [(row["step"], row["image_id"]) for row in rows] == [(step, "image-0") for step in (3, 3, 5, 5)]
    rewards = rows[0].pop("rewards")
    assert rows[0] == {"step": 3, "image_id": "image-0", "answer": answers[0], "status": "ok", "issues": []}
    assert list(rewards) == NAMES and rewards["triplet_f1"] == 1
    assert rows[1]["answer"] == hostile and rows[1]["status"] != "ok"


def test_sampling_never_meets_a_vision_token(checkpoint, conversation, examples, tmp_path):
    """An untrained model at temperature 5 samples nearly evenly: 2 x 128 x 4 tokens of about 300 kinds."""
    args = config(tmp_path, temperature=5.0, max_completion_length=128, per_device_train_batch_size=8)
    trainer = grpo.build_trainer(checkpoint, conversation, examples, args, ["format"])
    banned = set(checkpoint.banned_ids)
    assert len(banned) == 4 and banned <= set(trainer.generation_config.suppress_tokens)
    with torch.no_grad():  # a model that would say nothing else
        trainer.model.model.language_model.embed_tokens.weight[sorted(banned)] *= 50
    batch = trainer._prepare_inputs(list(map(trainer.train_dataset.__getitem__, [0, 0, 1, 1, 2, 2, 3, 3])))
    sampled = set(batch["completion_ids"].flatten().tolist())
    assert not sampled & banned and len(sampled) > 20


def test_vllm_gets_a_bias_against_vision_tokens(tmp_path, checkpoint, conversation):
    args = config(tmp_path, use_vllm=True, generation_kwargs={"logit_bias": {7: 1.0}, "seed": 1})
    banned = checkpoint.banned_ids
    grpo.ban_vision_tokens(args, banned)
    assert args.generation_kwargs == {"logit_bias": {7: 1.0} | dict.fromkeys(banned, -100.0), "seed": 1}
    own = config(tmp_path, generation_kwargs={"suppress_tokens": [7]})
    grpo.ban_vision_tokens(own, banned)
    assert own.generation_kwargs == {"suppress_tokens": sorted({7, *banned})}


@pytest.mark.parametrize("mode", ["colocate", "server"])
def test_rollouts_of_vllm_are_said_to_be_its_own(mode):
    trainer = SimpleNamespace(use_vllm=True, vllm_mode=mode, args=SimpleNamespace(generation_kwargs=None))
    assert grpo.describe_rollout(trainer).startswith(f"free completions, vLLM ({mode}); its prefix cache")


@pytest.mark.parametrize("shared, often", [("on", "once per group"), ("off", "once per completion")])
def test_the_log_says_how_often_a_rollout_reads_prompts(
    checkpoint, conversation, examples, tmp_path, caplog, shared, often
):
    caplog.set_level("INFO", logger=grpo.__name__)
    args = config(tmp_path, max_steps=1, max_completion_length=2)
    grpo.build_trainer(checkpoint, conversation, examples, args, ["format"], shared_prefix=shared)
    (said,) = [record.message for record in caplog.records if record.message.startswith("rollouts: ")]
    assert "in process" in said and said.endswith(often)


def test_weights_and_breakdown_reach_the_log(checkpoint, conversation, examples, tmp_path):
    args = config(tmp_path, reward_weights=[0.5, 1.0, 3.0], max_completion_length=12)
    trainer = fit(grpo.build_trainer(checkpoint, conversation, examples, args, NAMES, sample_log_every=1))
    assert trainer.reward_weights.tolist() == [0.5, 1.0, 3.0]
    log = read_rows(tmp_path / "log.jsonl")
    assert [row["step"] for row in log] == [1, 2, 2]
    for row in log[:-1]:
        weighted = sum(
            weight * row[f"rewards/{name}/mean"] for weight, name in zip([0.5, 1.0, 3.0], NAMES, strict=True)
        )
        assert row["reward"] == pytest.approx(weighted, abs=1e-6)
        assert {"entropy", "completions/mean_length", "scene/failure_rate", "scene/relations_per_image"} <= row.keys()
    samples = read_rows(tmp_path / "samples.jsonl")
    assert [row["step"] for row in samples] == [1, 1, 2, 2]  # groups of two
    for row in samples:
        example = next(example for example in examples if example.image_id == row["image_id"])
        result = conversation.parse(row["answer"], example, truncated=row["status"] == "truncated")
        pair = Comparison(result, example.graph, example.image_wh, RewardOptions(), text=row["answer"])
        assert row["rewards"] == {name: pytest.approx(REWARDS[name](pair), abs=1e-6) for name in NAMES}


def test_a_recipe_trains_a_model_and_warns_of_a_constant_reward(base, rows, tmp_path, caplog, capsys):
    out, recipe = tmp_path / "run", tmp_path / "recipe.yaml"
    fields = {**QUICK_GRPO, "scale_rewards": "none", "generation_kwargs": {"no_repeat_ngram_size": 3}}
    mine = {"model": str(base), "data": str(rows), "rewards": NAMES, "reward_weights": [1, 1, 2]}
    recipe.write_text(dump_yaml({**mine, **fields, "constant_reward_window": 2, "rollout_check_tolerance": 0.001}))
    assert cli.main(["grpo", "--config", str(recipe), "--out", str(out), "--learning_rate", "1e-3"]) == 0
    assert [row["step"] for row in read_rows(out / "log.jsonl")] == [1, 2, 2]
    # Eight tokens make no answer, so every reward is 0 in both steps.
    warned = [record.message for record in caplog.records if "teaches nothing" in record.message]
    assert [name for name in NAMES for message in warned if f"'{name}'" in message] == NAMES
    assert all("truncated" in message and "max_completion_length" in message for message in warned)
    assert "reward_weights:" in (out / "config.yaml").read_text()
    assert "triplet_f1" in capsys.readouterr().err
    assert load_checkpoint(out).model.config.model_type == "qwen2_vl"


@pytest.mark.parametrize(
    "provided, said",
    [
        ({"rewards": "hard_recal"}, "unknown reward 'hard_recal'"),
        ({"rewards": "format", "reward_weights": "1 2"}, "reward_weights: 2 weights for 1 reward (format)"),
        ({"similarity": "fuzzy"}, "similarity"),
        ({"predicate_counts": "nowhere.json"}, "nowhere.json"),
        ({"use_vllm": "true"}, "vllm is not installed"),
        ({"num_generations": "3"}, "num_generations"),
    ],
)
def test_mistakes_are_found_before_the_model_is_loaded(base, rows, tmp_path, capsys, monkeypatch, provided, said):
    monkeypatch.setattr(setup, "load", lambda *args, **kwargs: pytest.fail("the model was loaded"))
    command = ["grpo", "--model", str(base), "--data", str(rows), "--out", str(tmp_path / "run")]
    given_words = [word for key, value in provided.items() for word in (f"--{key}", *value.split())]
    assert cli.main([*command, *words(QUICK_GRPO), *given_words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("shared_prefix", ["on", "off"])
def test_images_of_two_sizes_keep_their_places(checkpoint, conversation, examples, tmp_path, shared_prefix):
    """In one batch, where the shorter prompt is padded: its log-probabilities are those that it has alone."""
    args = config(tmp_path, per_device_train_batch_size=4)
    trainer = grpo.build_trainer(checkpoint, conversation, examples, args, ["format"], shared_prefix=shared_prefix)
    with torch.no_grad():  # small weights give every token the same probability, wherever the image is
        for weights in checkpoint.model.parameters():
            weights *= 8 if weights.ndim > 1 else 1
    rows = [trainer.train_dataset[index] for index in (1, 1, 2, 2)]
    assert rows[0]["images"][0].size != rows[2]["images"][0].size
    batch = trainer._generate_and_score_completions(rows)
    places = batch["prompt_ids"] == checkpoint.processor.image_token_id
    assert torch.equal(batch["mm_token_type_ids"][:, : places.shape[1]].bool(), places)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    images = {key: batch[key] for key in ("pixel_values", "image_grid_thw", "mm_token_type_ids", "num_images")}
    together, *_ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, mask, 8, **images)
    only = mask[0].bool()
    assert not only.all()
    patches = int(batch["image_grid_thw"][0].prod())
    alone = trainer.model(
        input_ids=ids[:1, only],
        pixel_values=batch["pixel_values"][:patches],
        image_grid_thw=batch["image_grid_thw"][:1],
        mm_token_type_ids=batch["mm_token_type_ids"][:1, only],
    ).logits.log_softmax(-1)
    count = int(batch["completion_mask"][0].sum())
    expected = alone[0, -count - 1 : -1].gather(-1, ids[0, only][-count:, None])[:, 0]
    assert torch.allclose(together[0, :count], expected, atol=1e-5)


def test_too_few_examples_for_a_batch_of_prompts(base, rows, tmp_path, capsys):
    command = ["grpo", "--model", str(base), "--data", str(rows), "--out", str(tmp_path / "run"), "--limit", "1"]
    assert cli.main([*command, *words({**QUICK_GRPO, "per_device_train_batch_size": 4})]) == 2
    assert "1 example, but a rollout takes 2 different prompts" in capsys.readouterr().err


def test_a_prompt_that_does_not_fit_is_found_before_training(checkpoint, conversation, examples, tmp_path, monkeypatch):
    model, processor = checkpoint.model, checkpoint.processor
    text = conversation.prompt(examples[0], Image.new("RGB", (56, 56)))
    encoded = processor.apply_chat_template(
        [text], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    fits = encoded["input_ids"].shape[1] + 8  # images of 56 x 56 make four tokens, the third is wider and makes six
    monkeypatch.setattr(model.config.text_config, "max_position_embeddings", fits)
    check_prompts(checkpoint, conversation, examples[:2], 8)
    with pytest.raises(ValueError, match=rf"'image-2': \d+ tokens of text, 6 of .* are {fits + 2}, but .* {fits}"):
        grpo.build_trainer(checkpoint, conversation, examples, config(tmp_path), ["format"])
    blind = replace(checkpoint.family, image_tokens=lambda processor, image_wh: 0)
    blind = replace(checkpoint, family=blind)
    with pytest.raises(ValueError, match="'image-0': 56 x 56 pixels make no token"):
        check_prompts(blind, conversation, examples, 8)


def test_options_of_the_rewards_reach_them(base, rows, tmp_path, monkeypatch):
    counts = tmp_path / "counts.json"
    counts.write_text('{"left of": 100, "near": 25, "above": 4}')
    seen = {}
    monkeypatch.setattr(grpo, "build_trainer", lambda *args, **settings: seen.update(settings))
    monkeypatch.setattr(grpo, "fit", lambda trainer: None)
    options = GRPOOptions(
        model=str(base), data=str(rows), out=tmp_path / "run", iou_threshold=0.6, one_to_one=True, f_beta=2.0,
        predicate_counts=counts, strict=True, cosine_max_tokens=9, cosine_correct=0.5,
        constant_reward_window=5, sample_log_every=3, rollout_check_tolerance=0.1,
    )  # fmt: skip
    grpo.run(options, {})
    assert seen["reward_options"] == RewardOptions(
        iou_threshold=0.6, one_to_one=True, beta=2.0, strict_format=True, cosine_max_tokens=9, cosine_correct=0.5,
        predicate_weights=inverse_frequency_weights({"left of": 100, "near": 25, "above": 4}),
    )  # fmt: skip
    # 4 ** -0.5 against 100 ** -0.5: 5 times the weight
    assert seen["reward_options"].predicate_weights["above"] == pytest.approx(5.0)
    assert (seen["constant_reward_window"], seen["sample_log_every"], seen["rollout_check_tolerance"]) == (5, 3, 0.1)


def test_the_data_set_is_made_without_reading_model_or_images(conversation, rows, monkeypatch):
    """Its rows are made on access, and nothing of the model is pickled to hash them."""
    from datasets.fingerprint import Hasher

    from scenerl.training.datasets import grpo_dataset, sft_dataset

    monkeypatch.setattr("scenerl.training.datasets.open_image", lambda example: pytest.fail("an image was opened"))
    seen = []
    update = Hasher.update
    monkeypatch.setattr(Hasher, "update", lambda self, value: (seen.append(value), update(self, value))[1])
    examples = examples_of(rows)
    assert len(sft_dataset(examples, conversation)) == len(grpo_dataset(examples, conversation)) == 6
    assert not any(callable(value) for value in seen)
