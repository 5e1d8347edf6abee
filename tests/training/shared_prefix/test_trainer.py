"""Sharing the prompt changes what an update costs and nothing else: TRL's own path is the reference."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from trl import GRPOConfig, GRPOTrainer
from trl.data_utils import prepare_multimodal_messages
from trl.trainer.utils import split_tensor_dict

from models.other_families import tile_of  # the module adds small models of those families
from scenerl import tiny
from scenerl.errors import UserError
from scenerl.models.loading import Checkpoint, family_named
from scenerl.training import grpo
from scenerl.training.checkpoints import fit
from scenerl.training.datasets import grpo_dataset
from scenerl.training.shared_prefix import attention, caching, self_check, support
from scenerl.training.shared_prefix import trainer as trainer_module
from scenerl.training.shared_prefix.padded_rows import IMAGE_FIELDS, join_images, share_images, split_images
from scenerl.training.shared_prefix.trainer import SharedPrefixGRPOTrainer
from training.processes import run
from training.small_run import QUICK_GRPO, SHAPE, STYLE, load_checkpoint, read_rows

VISION_25 = {
    "depth": 2, "hidden_size": 32, "out_hidden_size": 64, "num_heads": 2, "intermediate_size": 48, "patch_size": 14,
    "window_size": 56, "fullatt_block_indexes": [1], "spatial_merge_size": 2, "temporal_patch_size": 2,
}  # fmt: skip
VISION_3 = {
    "depth": 3, "hidden_size": 32, "out_hidden_size": 64, "num_heads": 2, "intermediate_size": 48, "patch_size": 14,
    "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1], "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}  # fmt: skip


def sharpened(model):
    """An untrained model gives everything the same probability, whatever it sees; larger weights make it care."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter *= 6
    return model


def another_model(checkpoint: Checkpoint, config_class, model_class, vision: dict, **rope):
    """A small model of another architecture with the tokens of ``checkpoint``'s own."""
    old = checkpoint.model.config
    text = old.text_config.to_dict()
    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "max_position_embeddings", "rope_parameters", "bos_token_id", "eos_token_id",
            "pad_token_id", "tie_word_embeddings")  # fmt: skip
    tokens = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    text_config = {key: text[key] for key in kept} | {"rope_parameters": {**text["rope_parameters"], **rope}}
    if model_class is Qwen3VLForConditionalGeneration:
        text_config["head_dim"] = 32
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(
            config_class(
                text_config=text_config, vision_config=vision, tie_word_embeddings=True,
                **{key: getattr(old, key) for key in tokens},
            )
        )  # fmt: skip
    model.generation_config = checkpoint.model.generation_config
    return replace(checkpoint, model=model)


def folder_of(kind: str, base: Path, examples) -> Path:
    if kind not in support.CACHED:
        return base
    folder = base.parent / kind
    if not folder.is_dir():
        tiny.create(folder, examples, STYLE, SHAPE, model_type=kind)
    return folder


def of_kind(kind: str, base, examples=()) -> Checkpoint:
    """A small model of a family that cares about what it sees; of those that share by cache one made for examples."""
    checkpoint = load_checkpoint(folder_of(kind, base, examples))
    if kind == "qwen2_5_vl":
        checkpoint = another_model(checkpoint, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, VISION_25)
    elif kind == "qwen3_vl":
        checkpoint = another_model(
            checkpoint, Qwen3VLConfig, Qwen3VLForConditionalGeneration, VISION_3, mrope_interleaved=True
        )
    sharpened(checkpoint.model)
    return checkpoint


def build(checkpoint: Checkpoint, examples, folder, shared="on", peft_config=None, limit=None, **fields):
    """A trainer that rewards tokens by number, so that advantages differ within every group."""

    def reward(completion_ids, **_):
        return [float(sum(ids) % 7) for ids in completion_ids]

    args = GRPOConfig(output_dir=str(folder), remove_unused_columns=False, **{**QUICK_GRPO, **fields})
    if args.gradient_checkpointing:  # as ``train`` does before its first step
        checkpoint.model.gradient_checkpointing_enable(args.gradient_checkpointing_kwargs)
    return SharedPrefixGRPOTrainer(
        model=checkpoint.model,
        reward_funcs=[reward],
        args=args,
        train_dataset=grpo_dataset(examples, checkpoint.conversation(STYLE)),
        processing_class=checkpoint.processor,
        peft_config=peft_config,
        shared_prefix=shared,
        max_tokens_per_row=limit,
    )


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5"])
def any_qwen(request, base, examples, tmp_path_factory):
    return build(of_kind(request.param, base, examples), examples, tmp_path_factory.mktemp("any"))


@pytest.fixture(scope="module", params=support.PACKED + support.CACHED)
def any_model(request, base, examples, tmp_path_factory):
    return build(of_kind(request.param, base, examples), examples, tmp_path_factory.mktemp("any"))


def padded(rows: list[list[int]], pad: int, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = [[pad] * (width - len(row)) + row if left else row + [pad] * (width - len(row)) for row in rows]
    mask = [[0] * (width - len(r)) + [1] * len(r) if left else [1] * len(r) + [0] * (width - len(r)) for r in rows]
    return torch.tensor(ids), torch.tensor(mask)


def random_image(config, height: int, width: int, generator) -> tuple[torch.Tensor, int]:
    """Patches or tiles, and how many tokens stand for them."""
    if hasattr(config.vision_config, "spatial_merge_size"):
        return torch.randn(height * width, 3 * 2 * 14 * 14, generator=generator), height * width // 4
    side = tile_of(SHAPE)
    return torch.randn(height // 2, 3, side, side, generator=generator), 4 * (height // 2)


def image_fields(config, ids: torch.Tensor, rows: list[list[torch.Tensor]], grids: list) -> dict:
    """The images of all rows as TRL hands them to the model."""
    fields = {"num_images": [len(own) for own in rows]}
    pixels = torch.cat([image for own in rows for image in own])
    if hasattr(config.vision_config, "spatial_merge_size"):
        types = (ids == config.image_token_id).int()
        return {**fields, "pixel_values": pixels, "image_grid_thw": torch.tensor(grids), "mm_token_type_ids": types}
    num_tiles = [sum(map(len, own)) for own in rows]
    if config.model_type == "internvl":
        return {**fields, "pixel_values": pixels, "num_tiles": num_tiles}
    padded = pixels.new_zeros(len(rows), max(num_tiles), *pixels.shape[1:])
    seen = torch.arange(max(num_tiles)) < torch.tensor(num_tiles)[:, None]
    padded[seen] = pixels
    masks = seen[..., None, None].expand(-1, -1, *pixels.shape[2:]).long()
    return {**fields, "pixel_values": padded, "pixel_attention_mask": masks}


def random_batch(draw, config) -> tuple[dict, dict]:
    """Groups of any sizes with no, one or two images, as TRL hands them to the model; and with any padding."""
    seed = draw(st.integers(0, 10_000))
    generator = torch.Generator().manual_seed(seed)
    vocabulary = config.text_config.vocab_size

    def text(length: int) -> list[int]:
        return torch.randint(10, vocabulary, (length,), generator=generator).tolist()

    prompts, completions, pixels, grids = [], [], [], []
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    with_images = draw(st.booleans())
    for size in sizes:
        shapes = draw(st.lists(st.tuples(st.sampled_from([2, 4, 6]), st.sampled_from([2, 4])), max_size=2))
        shapes = shapes if with_images else []
        prompt = text(draw(st.integers(1, 4)))
        images = []
        for height, width in shapes:
            image, num_tokens = random_image(config, height, width, generator)
            images.append(image)
            prompt += text(1) + [config.image_token_id] * num_tokens + text(1)
        prompt += text(draw(st.integers(1, 5)))
        for _ in range(size):
            prompts.append(prompt)
            completions.append(text(draw(st.integers(0, 6))))
            pixels.append(images)
            grids += [[1, height, width] for height, width in shapes]
    answer_ids, answer_mask = padded([row or [0] for row in completions], 0, left=False)
    answer_mask *= torch.tensor([[bool(row)] for row in completions])  # an empty one: masked as truncated ones may be
    batches = []
    for left in (True, draw(st.booleans())):  # TRL takes prompts padded on the left only
        ids, mask = padded(prompts, 0, left)
        batch = {
            "input_ids": torch.cat([ids, answer_ids], 1),
            "attention_mask": torch.cat([mask, answer_mask], 1),
            "logits_to_keep": answer_ids.shape[1],
        }
        if grids:
            batch |= image_fields(config, batch["input_ids"], pixels, grids)
        batches.append(batch)
    return batches[0], batches[1]


def gradients(loss, model) -> torch.Tensor:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    return torch.cat([(torch.zeros_like(w) if g is None else g).flatten() for w, g in zip(weights, found, strict=True)])


def close(got: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Within 1e-5, relative to the whole."""
    return bool((got - wanted).norm() <= 1e-5 * wanted.norm() + 1e-9)


def both_ways(trainer, compute):
    """What ``compute`` gives with the shared prefix and on TRL's own path."""
    results = []
    for shares in (True, False):
        trainer.shares_prefix = shares
        try:
            results.append(compute())
        finally:
            trainer.shares_prefix = True
    return results


@given(data=st.data())
@settings(deadline=None, max_examples=8)
def test_log_probabilities_entropies_and_gradients_are_trls(any_model, data):
    trainer = any_model
    batch, any_batch = random_batch(data.draw, trainer.model.config)
    seen = batch["attention_mask"][:, -batch["logits_to_keep"] :]
    weight = torch.randn(seen.shape, generator=torch.Generator().manual_seed(0))

    def compute():
        rows = any_batch if trainer.shares_prefix else batch
        logps, entropies, _ = trainer._get_per_token_logps_and_entropies(trainer.model, compute_entropy=True, **rows)
        loss = ((logps + 0.1 * entropies) * weight * seen).sum()
        return logps.detach() * seen, entropies.detach() * seen, gradients(loss, trainer.model)

    ours, trls = both_ways(trainer, compute)
    torch.testing.assert_close(ours[0], trls[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(ours[1], trls[1], rtol=0, atol=1e-5)
    assert close(ours[2], trls[2])
    if seen.sum() > 2:
        assert trls[0].std() > 0.1  # a model that says the same of everything would prove nothing
    chunks, *_ = trainer._get_per_token_logps_and_entropies(trainer.model, batch_size=2, **batch)
    torch.testing.assert_close(chunks * seen, trls[0], rtol=0, atol=1e-5)
    trainer.max_tokens_per_row = data.draw(st.integers(1, 40))
    try:
        split = compute()
    finally:
        trainer.max_tokens_per_row = None
    torch.testing.assert_close(split[0], trls[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(split[1], trls[1], rtol=0, atol=1e-5)
    assert close(split[2], trls[2])


@pytest.mark.parametrize("kind", ["qwen3_5", "internvl"])
@pytest.mark.parametrize("checkpoints", [False, True])
def test_completions_of_unlike_lengths_run_in_batches(base, examples, tmp_path, kind, checkpoints):
    trainer = build(of_kind(kind, base, examples), examples, tmp_path, gradient_checkpointing=checkpoints)
    trainer.model.train()
    groups = [([11, 12, 13, 14], [9, 1, 0, 20]), ([15, 16], [2, 19])]
    prompts, prompt_mask = padded([prompt for prompt, lengths in groups for _ in lengths], 0, left=True)
    completions, mask = padded([[*range(30, 30 + n)] for _, lengths in groups for n in lengths], 0, left=False)
    fields = {
        "input_ids": torch.cat([prompts, completions], 1),
        "attention_mask": torch.cat([prompt_mask, mask], 1),
        "logits_to_keep": 20,
    }
    weight = torch.randn(mask.shape, generator=torch.Generator().manual_seed(0))
    ran = []
    backbone = support.backbone_of(trainer.model)
    backbone.register_forward_pre_hook(lambda _, args, kwargs: ran.append(kwargs["input_ids"].shape), with_kwargs=True)

    def compute():
        logps, entropies, _ = trainer._get_per_token_logps_and_entropies(trainer.model, compute_entropy=True, **fields)
        loss = ((logps + 0.1 * entropies) * weight * mask).sum()
        return logps.detach() * mask, entropies.detach() * mask, gradients(loss, trainer.model)

    ours, trls = both_ways(trainer, compute)
    assert ran[:4] == [(2, 3), (2, 2), (1, 9), (2, 20)]
    torch.testing.assert_close(ours[0], trls[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(ours[1], trls[1], rtol=0, atol=1e-5)
    assert close(ours[2], trls[2])


@pytest.mark.parametrize(
    "lengths, most, batches",
    [
        ([5], None, [[0]]),
        ([4, 4, 4], None, [[0, 1, 2]]),
        ([10, 9, 10], None, [[1, 0, 2]]),  # a cut would save 1 of 30 tokens
        ([9, 1, 20, 2, 19], None, [[1, 3], [0], [4, 2]]),  # 2 times 18 of 100 are saved, then 11 of 64
        ([9, 1, 20, 2, 19], 2, [[1, 3], [0, 4, 2]]),
        ([9, 1, 20, 2, 19], 1, [[1, 3, 0, 4, 2]]),
    ],
)
def test_batches_of_like_lengths(lengths, most, batches):
    assert caching.batches_of(lengths, most) == batches


LOSSES = [
    {"loss_type": "grpo"},
    {"loss_type": "bnpo"},
    {"loss_type": "dr_grpo"},
    {"loss_type": "dapo"},
    {"loss_type": "cispo", "epsilon_high": 5.0},
    {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    {"loss_type": "sapo"},
    {"loss_type": "dapo", "mask_truncated_completions": True, "entropy_coef": 0.1, "top_entropy_quantile": 0.5},
    {"loss_type": "dapo", "gradient_checkpointing": True},
    {"loss_type": "dapo", "beta": 0.2},
    {"loss_type": "dapo", "num_iterations": 2},
    {"loss_type": "dr_grpo", "steps_per_generation": 2, "per_device_train_batch_size": 2},
]


OF_CACHED = [
    ("qwen3_5", {"beta": 0.2, "gradient_checkpointing": True}),
    ("qwen3_5", {"steps_per_generation": 2, "per_device_train_batch_size": 2}),
    ("internvl", {"beta": 0.2, "gradient_checkpointing": True, "num_iterations": 2}),
    ("smolvlm", {"gradient_checkpointing": True, "steps_per_generation": 2, "per_device_train_batch_size": 2}),
]


@pytest.mark.parametrize(
    "kind, fields",
    [("qwen2_vl", fields) for fields in LOSSES] + OF_CACHED,
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_the_loss_of_a_rollout_and_its_gradient_are_trls(base, examples, tmp_path, kind, fields):
    fields = {"per_device_train_batch_size": 6, "num_generations": 3, "temperature": 1.5, **fields}
    fields["num_generations"] = min(fields["num_generations"], fields["per_device_train_batch_size"])
    trainer = build(of_kind(kind, base, examples), examples, tmp_path, **fields)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    rows = [trainer.train_dataset[index] for index in (0, 2, 3) for _ in range(trainer.num_generations)]
    rows = rows[: trainer.args.generation_batch_size]

    def roll_out():
        torch.manual_seed(3)
        return trainer._generate_and_score_completions([dict(row) for row in rows])

    ours, trls = both_ways(trainer, roll_out)
    assert ours.keys() == trls.keys()
    tracked = {"old_per_token_logps", "ref_per_token_logps"} & ours.keys()
    assert bool(tracked) == any(key in fields for key in ("beta", "num_iterations", "steps_per_generation"))
    for key in ("completion_ids", "completion_mask", "advantages", *tracked):
        torch.testing.assert_close(ours[key], trls[key], rtol=0, atol=1e-5)
    with torch.no_grad():  # so that old and reference log-probabilities are no longer the model's
        for parameter in trainer.model.parameters():
            parameter += 0.02 * parameter.abs().mean() * torch.randn(parameter.shape)
    batches = split_tensor_dict(share_images(split_images(ours)), trainer.args.steps_per_generation)
    for batch in batches:

        def loss_and_gradient(batch=batch):
            inputs = batch if trainer.shares_prefix else {**batch, **join_images(images_of(batch))}
            loss = trainer._compute_loss(trainer.model, inputs)
            return loss.detach(), gradients(loss, trainer.model)

        (our_loss, our_gradient), (trl_loss, trl_gradient) = both_ways(trainer, loss_and_gradient)
        torch.testing.assert_close(our_loss, trl_loss, rtol=1e-5, atol=1e-6)
        assert trl_gradient.norm() > 0 or fields.get("mask_truncated_completions")
        assert close(our_gradient, trl_gradient)


def images_of(batch: dict) -> dict:
    return {key: batch[key] for key in IMAGE_FIELDS if key in batch}


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen3_5"])
def test_an_adapter_and_its_reference(base, examples, tmp_path, kind):
    from peft import LoraConfig

    config = LoraConfig(r=4, target_modules=family_named(kind).lora_targets, task_type="CAUSAL_LM")
    trainer = build(
        of_kind(kind, base, examples), examples, tmp_path, peft_config=config, beta=0.1, gradient_checkpointing=True,
        per_device_train_batch_size=4,
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                parameter += 0.3 * torch.randn(parameter.shape)
    trainer.current_gradient_accumulation_steps = 1
    rows = [trainer.train_dataset[index] for index in (0, 0, 2, 2)]

    def compute():
        torch.manual_seed(3)
        batch = trainer._generate_and_score_completions([dict(row) for row in rows])
        loss = trainer._compute_loss(trainer.model, batch)
        return batch["ref_per_token_logps"], loss.detach(), gradients(loss, trainer.model)

    ours, trls = both_ways(trainer, compute)
    torch.testing.assert_close(ours[0], trls[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(ours[1], trls[1], rtol=1e-5, atol=1e-6)
    assert trls[2].norm() > 0 and close(ours[2], trls[2])


class Pictures:
    """Counts the patches, or tiles, that go through the vision tower."""

    def __init__(self, model):
        self.count = 0
        embedding = next(module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Conv3d)))
        embedding.register_forward_pre_hook(self.see)

    def see(self, module, args):
        self.count += len(args[0])


def test_training_with_and_without_gives_the_same_losses(base, examples, tmp_path):
    """Twenty steps of two micro-batches, each of two groups of three: TRL mixes sequences, the totals are the same."""
    fields = {
        "per_device_train_batch_size": 6, "gradient_accumulation_steps": 2, "num_generations": 3, "max_steps": 20,
        "learning_rate": 1e-4, "lr_scheduler_type": "constant", "max_completion_length": 6,
    }  # fmt: skip
    logs = {}
    for shared in ("on", "off"):
        checkpoint = of_kind("qwen2_vl", base)
        trainer = build(checkpoint, examples, tmp_path / shared, shared, **fields)
        trainer.train()
        logs[shared] = trainer.state.log_history[:-1]
    assert len(logs["on"]) == 20
    for ours, trls in zip(logs["on"], logs["off"], strict=True):
        assert ours["reward"] == pytest.approx(trls["reward"], abs=1e-6)  # the same completions
        assert ours["loss"] == pytest.approx(trls["loss"], abs=2e-4)
        assert ours["grad_norm"] == pytest.approx(trls["grad_norm"], rel=2e-3)
        assert ours["entropy"] == pytest.approx(trls["entropy"], abs=1e-3)


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen3_5"])
def two_processes(request, base, examples, rows, tmp_path_factory) -> list[dict]:
    """What each of two processes found, see the script."""
    script, out = Path(__file__).with_name("two_processes.py"), tmp_path_factory.mktemp("run")
    codes, errors = run(2, script, rows, folder_of(request.param, base, examples), out)
    assert codes == [0, 0], [error[-2000:] for error in errors]
    return [json.loads((out / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
def test_what_one_process_finds_ends_all(two_processes):
    """One that went on alone would wait for the others forever."""
    first, second = (found["raised"] for found in two_processes)
    assert first == second and len(first) == 2
    assert first[0].startswith("rollout and trainer disagree: log-probabilities differ by ")
    assert "trainer -99.0000" in first[0]
    assert first[1].startswith("shared_prefix: log-probabilities differ by 1 per token on average from those without")


@pytest.mark.slow
def test_two_processes_with_a_group_between_them(two_processes):
    """Six completions in groups of two, three a process: the middle group is half here, half there."""
    found = two_processes
    assert found[0]["on"]["weights"] == found[1]["on"]["weights"]  # the processes agree
    ours, trls = found[0]["on"], found[0]["off"]
    assert ours["processes"] == 2 and len(ours["log"]) == 3
    for row, wanted in zip(ours["log"], trls["log"], strict=True):
        assert row["grad_norm"] > 0
        assert row == pytest.approx(wanted, rel=1e-3, abs=1e-5)
    assert ours["weights"] == pytest.approx(trls["weights"], rel=1e-4)


def test_each_image_once_and_groups_together(base, examples, tmp_path, monkeypatch):
    trainer = build(
        of_kind("qwen2_vl", base), examples, tmp_path, per_device_train_batch_size=6, num_generations=3,
        steps_per_generation=2, gradient_accumulation_steps=2,
    )  # fmt: skip
    processed = []
    process = trainer.processing_class.image_processor.preprocess
    monkeypatch.setattr(
        trainer.processing_class.image_processor,
        "preprocess",
        lambda images, **kwargs: (processed.append(len(images)), process(images, **kwargs))[1],
    )
    trainer.model.train()
    rows = trainer.train_dataset.__getitems__([index for index in (0, 1, 2, 3) for _ in range(3)])
    first = trainer._prepare_inputs(rows)
    assert sum(processed) == 4  # images of 12 completions, asked for twice
    trainer._step = 1
    second = trainer._prepare_inputs(rows)
    prompts = []
    for batch in (first, second):
        assert len(batch["prompt_ids"]) == 6 and len(batch["advantages"]) == 6
        pixels = batch["pixel_values"]
        assert len({id(pixel) for pixel in pixels}) == 2
        assert [a is b for a, b in zip(pixels, pixels[1:], strict=False)] == [True, True, False, True, True]
        pictures = Pictures(trainer.model)
        trainer.current_gradient_accumulation_steps = 2
        trainer._is_checked = True
        trainer._compute_loss(trainer.model, batch)
        assert pictures.count == len(pixels[0]) + len(pixels[3])
        prompts += [pixels[0], pixels[3]]
    for index in range(4):  # every group is in one of the batches
        wanted = trainer.processing_class.image_processor([rows[3 * index]["images"][0]], return_tensors="pt")
        assert sum(torch.equal(pixel, wanted["pixel_values"]) for pixel in prompts) == 1


@pytest.mark.parametrize(
    "kind, limits",
    [("qwen2_vl", {"top_p": 0.9, "repetition_penalty": 1.2, "min_p": 0.01})]
    + [(kind, {}) for kind in ("qwen2_vl", "qwen3_5", "internvl", "smolvlm")],
)
def test_a_rollout_reads_each_prompt_once_and_samples_what_trl_samples(base, examples, tmp_path, kind, limits):
    trainer = build(
        of_kind(kind, base, examples), examples, tmp_path, per_device_train_batch_size=9, num_generations=3,
        max_completion_length=20, temperature=1.5, **limits,
    )  # fmt: skip
    assert trainer.shares_rollout
    rows = trainer.train_dataset.__getitems__([index for index in (0, 2, 4) for _ in range(3)])
    prompts = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in rows]
    sampled, patches = {}, {}
    for shares in (True, False):
        trainer.shares_rollout = shares
        torch.manual_seed(3)
        pictures = Pictures(trainer.model)
        prompt_ids, images, fields = trainer._tokenize_prompts(prompts)
        sampled[shares], _ = trainer._generate_single_turn(prompt_ids, images, fields, 3)
        patches[shares] = pictures.count
    assert sampled[True] == sampled[False]
    assert len({tuple(ids) for ids in sampled[True]}) > 6
    assert 3 * patches[True] == patches[False]


def test_no_row_is_longer_than_allowed(base, examples, tmp_path, monkeypatch):
    lengths = []
    pack = trainer_module.pack
    monkeypatch.setattr(
        trainer_module, "pack", lambda *args: (row := pack(*args), lengths.append(row.input_ids.shape[1]))[0]
    )
    fields = {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 6}
    losses = {}
    for limit in (None, 30):
        lengths.clear()
        trainer = build(of_kind("qwen2_vl", base), examples, tmp_path / str(limit), limit=limit, **fields)
        trainer.train()
        losses[limit] = [row["loss"] for row in trainer.state.log_history[:-1]], max(lengths)
    assert losses[None][0] == pytest.approx(losses[30][0], abs=1e-5)
    assert losses[30][1] <= 30 < losses[None][1]


def test_an_empty_completion_of_an_engine_consists_of_its_end(checkpoint, examples, tmp_path, monkeypatch):
    """TRL reads the last token of every completion."""
    trainer = build(checkpoint, examples, tmp_path, per_device_train_batch_size=4)
    trainer.shares_rollout = False
    answers = [[21, 22], [], [23], []]
    logps = [[-1.0, -2.0], [], [-3.0], []]
    monkeypatch.setattr(GRPOTrainer, "_generate_single_turn", lambda self, *args, **kwargs: (answers, logps))
    end = trainer._tokenizer.eos_token_id
    found = trainer._generate_single_turn(None, None, None, 2)
    assert found == ([[21, 22], [end], [23], [end]], [[-1.0, -2.0], [0.0], [-3.0], [0.0]])
    logps = None
    trainer.current_gradient_accumulation_steps = 1
    rows = [trainer.train_dataset[index] for index in (0, 0, 2, 2)]
    batch = trainer._generate_and_score_completions(rows)
    assert batch["completion_mask"].sum(dim=1).tolist() == [2, 1, 1, 1]
    assert trainer._compute_loss(trainer.model, batch).isfinite()
    with pytest.raises(IndexError):  # what happens without; when TRL minds it, ours can go
        monkeypatch.setattr(trainer_module, "ensure_eos", lambda completions, logps, eos: (completions, logps))
        trainer._generate_and_score_completions(rows)


def test_a_group_whose_members_differ_is_taken_apart(any_qwen):
    """The third row's prompt differs in a token, the fourth's in a pixel: each is scored by what it is."""
    config = any_qwen.model.config
    prompt = [11, config.vision_start_token_id, config.image_token_id, config.vision_end_token_id, 12, 13]
    prompts = [prompt, prompt, [*prompt[:-1], 14], prompt]
    ids = torch.tensor([[*p, 20, 21 + k] for k, p in enumerate(prompts)])
    pixels = torch.randn(4, 4, 1176, generator=torch.Generator().manual_seed(0))
    pixels[1] = pixels[2] = pixels[0]
    pixels[3] = pixels[0]
    pixels[3, 2, 1100] += 3
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "logits_to_keep": 2,
        "pixel_values": pixels.flatten(0, 1),
        "image_grid_thw": torch.tensor([[1, 2, 2]] * 4),
        "num_images": [1] * 4,
        "mm_token_type_ids": (ids == config.image_token_id).int(),
    }
    ours, trls = both_ways(
        any_qwen, lambda: any_qwen._get_per_token_logps_and_entropies(any_qwen.model, **batch)[0].detach()
    )
    torch.testing.assert_close(ours, trls, rtol=0, atol=1e-5)
    first = trls[:, 0]
    assert abs(first[0] - first[1]) < 1e-5 < abs(first[0] - first[2]) and abs(first[0] - first[3]) > 1e-5


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda b: b["attention_mask"].__setitem__((0, -2), 0), "without gaps"),
        (lambda b: b["attention_mask"][0, :6].fill_(0), "must end with text"),
        (lambda b: b["mm_token_type_ids"].__setitem__((0, -1), 1), "must be text"),
        (
            lambda b: b["image_grid_thw"][0].copy_(torch.tensor([1, 2, 4])),
            r"holds 1 image tokens, but its images make \[2\]",
        ),
        (lambda b: b["image_grid_thw"][0].copy_(torch.tensor([1, 1, 2])), r"images make \[0\]"),
    ],
)
def test_rows_that_cannot_be_packed_are_refused(any_qwen, change, said):
    config = any_qwen.model.config
    ids = torch.tensor(
        [[11, config.vision_start_token_id, config.image_token_id, config.vision_end_token_id, 12, 13, 20, 21, 22]]
    )
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == config.image_token_id).int(),
        "image_grid_thw": torch.tensor([[1, 2, 2]]),
    }
    change(batch)
    count = int(batch["image_grid_thw"].prod())
    with pytest.raises(ValueError, match=said):
        any_qwen._get_per_token_logps_and_entropies(
            any_qwen.model, logits_to_keep=3, num_images=[1], pixel_values=torch.randn(count, 1176), **batch
        )


def test_a_wrong_number_at_the_first_step_stops_the_run(checkpoint, examples, tmp_path, monkeypatch):
    sharpened(checkpoint.model)
    right = attention.packed_attention

    def blind(query, key, value, groups, scale):
        """The second completion also sees the first."""
        group = groups[0]
        wrong = (type(group)(group.start, group.prefix, (sum(group.suffixes),)), *groups[1:])
        return right(query, key, value, wrong, scale)

    monkeypatch.setattr(attention, "packed_attention", blind)
    with pytest.raises(UserError, match="shared_prefix: log-probabilities differ") as caught:
        build(checkpoint, examples, tmp_path, learning_rate=0.1).train()
    found = re.search(r"Worst token '.*': (\S+) with, (\S+) without; train with --shared_prefix off", str(caught.value))
    assert abs(float(found[1]) - float(found[2])) > 1e-3
    assert not (tmp_path / "model.safetensors").exists()


def test_healthy_runs_pass_the_check_once(checkpoint, examples, tmp_path, monkeypatch):
    calls = []
    check = self_check.check_first_group
    monkeypatch.setattr(trainer_module, "check_first_group", lambda *args: (calls.append(1), check(*args))[1])
    trainer = fit(
        grpo.build_trainer(
            checkpoint,
            checkpoint.conversation(STYLE),
            examples,
            GRPOConfig(output_dir=str(tmp_path), **QUICK_GRPO),
            ["format"],
            shared_prefix="on",
        )
    )
    assert calls == [1] and trainer.shares_prefix
    assert [row["step"] for row in read_rows(tmp_path / "log.jsonl")] == [1, 2, 2]
    build(checkpoint, examples, tmp_path / "again").train()  # the same model in a second trainer


def test_every_process_checks_as_many_completions(checkpoint, examples, tmp_path, monkeypatch):
    """Forward passes of sharded weights wait for all processes; another one's first group may be smaller."""
    trainer = build(checkpoint, examples, tmp_path, per_device_train_batch_size=6, num_generations=3)
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    rows = [trainer.train_dataset[index] for index in (0, 0, 0, 2, 2, 2)]
    batch = trainer._generate_and_score_completions(rows)
    passes = []
    trainer.model.register_forward_hook(lambda *args: passes.append(1))
    for smallest in (3, 2, 1):
        passes.clear()
        others = torch.tensor([3, smallest])
        monkeypatch.setattr(trainer.accelerator, "gather", lambda value, others=others: others)
        self_check.check_first_group(trainer, trainer.model, batch)
        assert len(passes) == smallest + 1  # TRL's, one by one, and the packed row


def test_auto_falls_back_and_says_so(checkpoint, examples, tmp_path, caplog):
    checkpoint.model.config.text_config.attention_dropout = 0.1
    trainer = build(checkpoint, examples, tmp_path, shared="auto")
    assert not trainer.shares_prefix
    assert "prompts are run once per completion: the model drops out attention weights" in caplog.text
    with pytest.raises(ValueError, match="shared_prefix: on is not possible: the model drops out"):
        build(checkpoint, examples, tmp_path, shared="on")


def test_what_does_not_sample_token_by_token_is_left_to_transformers(checkpoint, examples, tmp_path):
    for number, fields in enumerate([{"num_beams": 2}, {"cache_implementation": "static"}]):
        trainer = build(checkpoint, examples, tmp_path / str(number), shared="auto", generation_kwargs=fields)
        assert not trainer.shares_rollout
        assert trainer.shares_prefix


@pytest.mark.parametrize("name", ["use_vllm", "is_fsdp_enabled", "zero_stage"])
def test_engines_and_sharded_weights_sample_by_themselves(checkpoint, examples, tmp_path, monkeypatch, name):
    trainer = build(checkpoint, examples, tmp_path, shared="auto")
    assert trainer.shares_rollout and support.can_share_rollout(trainer)
    if name == "zero_stage":
        monkeypatch.setattr(trainer._dist, name, 2)  # which leaves the weights whole
        assert support.can_share_rollout(trainer)
        monkeypatch.setattr(trainer._dist, name, 3)
    else:
        monkeypatch.setattr(trainer, name, True)
    assert not support.can_share_rollout(trainer)


def test_every_reason_is_named(checkpoint, examples, tmp_path, monkeypatch):
    trainer = build(checkpoint, examples, tmp_path, shared="auto")
    model = trainer.accelerator.unwrap_model(trainer.model)
    text = model.config.get_text_config()
    assert support.unsupported_reason(trainer) is None
    for owner, name, value, said in (
        (
            model.config,
            "model_type",
            "llava",
            "'llava' is not one of qwen2_vl, qwen2_5_vl, qwen3_vl, qwen3_5, internvl",
        ),
        (text, "_attn_implementation", "eager", "the attention is 'eager', not 'sdpa'"),
        (text, "layer_types", ["full_attention", "sliding_attention"], "the model has sliding windows"),
        (text, "attention_dropout", 0.1, "the model drops out attention weights"),
        (trainer, "aux_loss_enabled", True, "mixture of experts"),
        (trainer, "tools", [print], "tools are in use"),
        (trainer.args, "torch_compile", True, "torch_compile is on"),
        (trainer.args, "parallelism_config", object(), "sequences are split over devices"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            assert said in (support.unsupported_reason(trainer) or ""), name


def test_reasons_against_a_cache(base, examples, tmp_path, monkeypatch):
    trainer = build(of_kind("qwen3_5", base, examples), examples, tmp_path, shared="auto", gradient_checkpointing=True)
    assert support.unsupported_reason(trainer) is None
    for owner, name, value, said in (
        (trainer.model.config.text_config, "layer_types", ["linear_attention", "sliding_attention"], "sliding windows"),
        (trainer, "is_fsdp_enabled", True, "weights are sharded"),
        (trainer.args, "gradient_checkpointing_kwargs", {"use_reentrant": True}, "checkpointing is reentrant"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, value)
            assert said in (support.unsupported_reason(trainer) or ""), name


@pytest.mark.parametrize("kind", ["qwen3_5", "smolvlm"])
def test_checkpointing_runs_a_prompt_twice_and_not_once_more_per_completion(base, examples, tmp_path, kind):
    trainer = build(
        of_kind(kind, base, examples), examples, tmp_path, per_device_train_batch_size=4, num_generations=4,
        gradient_checkpointing=True,
    )  # fmt: skip
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    batch = trainer._generate_and_score_completions([trainer.train_dataset[0] for _ in range(4)])
    trainer._is_checked = True
    seen = []
    layer = support.backbone_of(trainer.model).get_submodule(
        "text_model.layers.0.mlp" if kind == "smolvlm" else "language_model.layers.0.mlp"
    )
    layer.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape[:2])))
    trainer._compute_loss(trainer.model, batch).backward()
    prompt, completions = (1, int(batch["prompt_mask"][0].sum()) - 1), (4, int(batch["completion_mask"].sum(1).max()))
    assert sorted(seen) == sorted([prompt, completions] * 2)


def test_off_is_trls_path(checkpoint, examples, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "pack", lambda *args: pytest.fail("packed all the same"))
    trainer = build(checkpoint, examples, tmp_path, shared="off", max_steps=1)
    trainer.train()
    assert trainer.state.global_step == 1
    assert checkpoint.model.config.text_config._attn_implementation == "sdpa"
    assert isinstance(trainer, GRPOTrainer)
