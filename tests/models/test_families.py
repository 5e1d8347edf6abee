"""Every family end to end on a small model of its architecture: saved, loaded by folder, trained, used to predict."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trl
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from trl import GRPOConfig, SFTConfig

from models.other_families import tile_of  # the module adds small models of those families
from scenerl import tiny
from scenerl.answers import OutputFormat
from scenerl.box_formats import extent_wh, from_pixels, to_pixels
from scenerl.boxes import rescale
from scenerl.data.images import open_image
from scenerl.inference.engine import Sampling
from scenerl.inference.hf import HFEngine
from scenerl.models import FAMILIES
from scenerl.models.loading import family_named, load
from scenerl.training import grpo, sft
from scenerl.training.checkpoints import fit
from training.small_run import QUICK, QUICK_GRPO, SHAPE, examples_of, write_data

TILED = ["internvl", "smolvlm"]
VISUAL = ("<|vision", "<img", "</img", "<row", "<fake", "<|begin_of", "<|end_of")


def output_format_of(model_type: str) -> OutputFormat:
    box_format = family_named(model_type).box_format
    return OutputFormat(format="compact", box_format=box_format, step=20 if box_format == "norm1000" else 2)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return examples_of(write_data(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module", params=list(FAMILIES))
def saved_family(request, examples, tmp_path_factory):
    """(model_type, folder of an untrained checkpoint)."""
    folder = tmp_path_factory.mktemp(request.param)
    tiny.save(*tiny.build(examples, output_format_of(request.param), SHAPE, model_type=request.param), folder)
    return request.param, folder


@pytest.fixture
def checkpoint(saved_family):
    return load(saved_family[1], dtype="float32")


@pytest.fixture
def conversation(saved_family, checkpoint):
    return checkpoint.conversation(output_format_of(saved_family[0]))


def inputs_of(processor, image_wh: tuple[int, int]):
    message = {"role": "user", "content": [{"type": "image", "image": Image.new("RGB", image_wh, (90, 40, 9))}]}
    message["content"].append({"type": "text", "text": "1 near 2"})
    text = processor.apply_chat_template([message], add_generation_prompt=True)
    batch = processor.apply_chat_template(
        [[message]], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    return text, batch


SIZES = [(56, 56), (61, 87), (300, 50), (113, 997), (640, 480), (3, 5)]


def test_the_folder_is_that_of_the_family_and_needs_no_torchvision(saved_family, examples):
    model_type, folder = saved_family
    assert json.loads((folder / "config.json").read_text())["model_type"] == model_type
    checkpoint = load(folder)
    assert checkpoint.family is family_named(model_type)
    assert not hasattr(checkpoint.processor, "video_processor")
    output_format = output_format_of(model_type)
    built, _ = tiny.build(examples, output_format, SHAPE, model_type=model_type)
    assert type(built) is type(checkpoint.model)
    for name, weight in built.named_parameters():
        assert torch.equal(weight, checkpoint.model.get_parameter(name)), name


def test_tokens_of_images_are_counted_without_opening_them(saved_family):
    _, folder = saved_family
    checkpoint = load(folder)
    family, processor = checkpoint.family, checkpoint.processor
    for image_wh in SIZES:
        text, batch = inputs_of(processor, image_wh)
        rest = len(processor.tokenizer(text)["input_ids"]) - 1  # less the place of the image
        if family.model_type not in TILED:
            assert text.count(processor.image_token) == 1
        assert batch["input_ids"].shape[1] == rest + family.image_tokens(processor, image_wh), image_wh
        with torch.no_grad():
            assert checkpoint.model(**batch).logits.isfinite().all()


def test_names_of_modules_are_those_of_the_model(saved_family):
    """LoRA reaches every linear layer of the language model's blocks and none of the vision tower's."""
    model_type, folder = saved_family
    model, family = load(folder).model, load(folder).family
    frozen = [name for name, _ in model.named_modules() if name in family.vision_modules]
    assert sorted(frozen) == sorted(family.vision_modules)
    adapted = [name for name, _ in model.named_modules() if re.fullmatch(family.lora_targets, name)]
    # eight in a block with linear attention, six where an MLP has one layer for two
    assert len(adapted) == 7 * SHAPE.text_layers + {"qwen3_5": 1, "glm46v": -SHAPE.text_layers}.get(model_type, 0)
    assert not any(name.startswith(family.vision_modules) for name in adapted)
    language = {
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layers." in name and not name.startswith(family.vision_modules)
    }
    assert language == set(adapted)


def test_tokens_that_stand_for_images_are_banned(saved_family):
    _, folder = saved_family
    checkpoint = load(folder)
    _, batch = inputs_of(checkpoint.processor, (300, 200))
    config = checkpoint.model.config
    visual = {config.image_token_id} | {
        token
        for token in batch["input_ids"][0].tolist()
        if checkpoint.processor.tokenizer.decode([token]).startswith(
            ("<|vision", "<img", "</img", "<row", "<fake", "<|beg", "<|end_of_i")
        )
    }
    assert len(visual) > 1 and visual <= set(checkpoint.banned_ids)
    assert checkpoint.processor.tokenizer.eos_token_id not in checkpoint.banned_ids


BUDGETS = st.sampled_from([(None, None), (56 * 56, 112 * 112), (28 * 28, 56 * 56), (4 * 56 * 56, 16 * 56 * 56)])


@given(data=st.data())
@settings(max_examples=25)
def test_boxes_survive_the_round_trip_through_the_frame(saved_family, data):
    """Original -> frame -> original stays within half a unit of the frame, for odd sizes and any pixel bounds."""
    model_type, folder = saved_family
    low, high = data.draw(BUDGETS)
    if model_type == "smolvlm":
        low = None
    processor = load_once(folder, low, high)
    family = family_named(model_type)
    width, height = data.draw(st.tuples(st.integers(7, 900), st.integers(7, 900)))
    input_wh = family.input_wh(processor, (width, height))
    x1, y1 = data.draw(st.floats(0, width)), data.draw(st.floats(0, height))
    x2, y2 = data.draw(st.floats(x1, width)), data.draw(st.floats(y1, height))
    spoken = from_pixels([x1, y1, x2, y2], family.box_format, (width, height), input_wh)
    assert np.array_equal(spoken, np.round(spoken))
    assert (spoken >= 0).all() and (spoken <= [*extent_wh(family.box_format, (width, height), input_wh)] * 2).all()
    heard = to_pixels(spoken, family.box_format, (width, height), input_wh)
    off = np.abs(
        rescale(heard - [x1, y1, x2, y2], (width, height), extent_wh(family.box_format, (width, height), input_wh))
    )
    assert (off <= 0.5 + 1e-9).all()


_PROCESSORS: dict = {}


def load_once(folder, low, high):
    key = folder, low, high
    if key not in _PROCESSORS:
        _PROCESSORS[key] = load(folder, min_pixels=low, max_pixels=high).processor
    return _PROCESSORS[key]


def test_the_resized_input_is_what_the_processor_makes(saved_family):
    model_type, folder = saved_family
    for bounds in [(None, None), (None, 56 * 56), (None, 4 * 56 * 56)]:
        processor = load_once(folder, *bounds)
        for image_wh in SIZES:
            width, height = family_named(model_type).input_wh(processor, image_wh)
            _, batch = inputs_of(processor, image_wh)
            if model_type not in TILED:
                _, rows, columns = batch["image_grid_thw"][0].tolist()
                assert (columns * SHAPE.patch, rows * SHAPE.patch) == (width, height)
            else:
                tiles = batch["pixel_values"].shape[-4]
                expected = (width // tile_of(SHAPE)) * (height // tile_of(SHAPE))
                assert tiles == expected + (expected > 1)


@pytest.mark.parametrize("model_type", TILED)
def test_bounds_that_allow_no_tile_are_refused(model_type, examples, tmp_path):
    tiny.save(*tiny.build(examples, output_format_of(model_type), SHAPE, model_type=model_type), tmp_path)
    with pytest.raises(ValueError, match="max_pixels 3000 is less than one tile of 56 x 56 = 3136 pixels"):
        load(tmp_path, max_pixels=3000)
    said = "needs 4 tiles" if model_type == "internvl" else "scales every image to one size"
    with pytest.raises(ValueError, match=said):
        load(tmp_path, min_pixels=4 * 3136, max_pixels=2 * 3136)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_two_steps_of_sft_and_of_grpo_then_predictions(
    checkpoint, conversation, examples, tmp_path, caplog, checkpointing
):
    fields = {**QUICK, "gradient_checkpointing": checkpointing, "learning_rate": 1e-2}
    if checkpointing:  # the frozen tower gives no gradient, which reentrant checkpointing would choke on
        for name in checkpoint.family.vision_modules:
            checkpoint.model.get_submodule(name).requires_grad_(False)
    before = {name: value.clone() for name, value in checkpoint.model.named_parameters()}
    trainer = fit(
        sft.build_trainer(
            checkpoint, conversation, examples, SFTConfig(output_dir=str(tmp_path / "sft"), max_length=None, **fields)
        )
    )
    assert trainer.state.global_step == 2
    model = checkpoint.model
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    visual = {name for name in before if name.startswith(checkpoint.family.vision_modules)}
    assert moved - visual and bool(moved & visual) != checkpointing
    tuned = load(tmp_path / "sft", dtype="float32")
    args = GRPOConfig(
        output_dir=str(tmp_path / "rl"),
        **{**QUICK_GRPO, "gradient_checkpointing": checkpointing, "per_device_train_batch_size": 4},
    )
    caplog.clear()
    trainer = fit(
        grpo.build_trainer(tuned, conversation, examples, args, ["format", "node_box"], rollout_check_tolerance=1e-3)
    )
    assert trainer.state.global_step == 2
    assert trainer.shares_prefix and trainer.shares_rollout
    assert "prompts are run once per completion" not in caplog.text
    if checkpointing:
        return
    final = load(tmp_path / "rl")
    for num_samples in (1, 2):
        sampling = Sampling(max_new_tokens=6, num_samples=num_samples, temperature=num_samples - 1.0, logprobs=True)
        engine = HFEngine(final, sampling)
        prompts = [conversation.prompt(example, open_image(example)) for example in examples[1:4]]
        replies = engine.answer(prompts)
        assert [len(own) for own in replies] == [num_samples] * 3
        alone = engine.answer(prompts[:1])
        if num_samples == 1:  # padding to a batch changes nothing
            assert alone[0][0].text == replies[0][0].text
        assert all(len(reply.logprobs) == reply.num_tokens for own in replies for reply in own)


@pytest.mark.parametrize("temperature", [1.5, 0.0])
def test_samples_are_those_of_transformers_loop_in_one_batch_or_in_parts(
    checkpoint, conversation, examples, monkeypatch, temperature
):
    """So that a seed gives the same samples however much memory there is."""
    with torch.no_grad():
        for parameter in checkpoint.model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    count = 2 if temperature else 1
    engine = HFEngine(checkpoint, Sampling(max_new_tokens=10, temperature=temperature, num_samples=count))
    prompts = [conversation.prompt(example, open_image(example)) for example in examples[:3]]
    inputs, generate = engine.encode(prompts), checkpoint.model.generate
    torch.manual_seed(5)
    output = generate(**inputs, **engine.generation_settings(), num_return_sequences=count)
    tokenizer, num_prompt = checkpoint.processor.tokenizer, inputs["input_ids"].shape[1]
    expected = [tokenizer.decode(row[num_prompt:], skip_special_tokens=True) for row in output]
    assert len(set(expected)) > 3 or not temperature
    monkeypatch.setattr(checkpoint.model, "generate", generate)
    assert [reply.text for replies in engine.answer(prompts, 5) for reply in replies] == expected

    def cramped(**kwargs):
        if len(kwargs["input_ids"]) > 1:
            raise torch.cuda.OutOfMemoryError("too much")
        return generate(**kwargs)

    monkeypatch.setattr(checkpoint.model, "generate", cramped)
    assert [reply.text for replies in engine.answer(prompts, 5) for reply in replies] == expected


def test_banned_tokens_are_never_sampled(checkpoint, conversation, examples):
    """Even by a model that would say nothing else."""
    with torch.no_grad():
        checkpoint.model.get_input_embeddings().weight[checkpoint.banned_ids] *= 50
    engine = HFEngine(checkpoint, Sampling(max_new_tokens=20, temperature=5.0, num_samples=4))
    prompt = conversation.prompt(examples[0], open_image(examples[0]))
    inputs = engine.encode([prompt])
    tokens = checkpoint.model.generate(**inputs, **engine.generation_settings())[:, inputs["input_ids"].shape[1] :]
    assert not set(tokens.flatten().tolist()) & set(checkpoint.banned_ids)


@pytest.mark.parametrize("default", ["think", "nothink"])
def test_prompts_of_qwen3_5_end_with_an_empty_passage_of_thinking(default, examples, tmp_path):
    """Qwen's own templates, of larger and of smaller models, as TRL keeps them."""
    tiny.save(*tiny.build(examples, output_format_of("qwen3_5"), SHAPE, model_type="qwen3_5"), tmp_path)
    template = Path(trl.__file__).with_name("chat_templates") / f"qwen3_5_{default}.jinja"
    (tmp_path / "chat_template.jinja").write_text(template.read_text())
    loader = family_named("qwen3_5").load_processor
    processor = loader(tmp_path)
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}]
    prompt = processor.apply_chat_template(asked, add_generation_prompt=True)
    assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    thinking = processor.apply_chat_template(asked, add_generation_prompt=True, enable_thinking=True)
    assert thinking.endswith("<|im_start|>assistant\n<think>\n")
    answered = processor.apply_chat_template([*asked, {"role": "assistant", "content": "apple"}])
    assert answered.startswith(f"{prompt}apple<|im_end|>")
    processor.save_pretrained(tmp_path)
    assert loader(tmp_path).chat_template == processor.chat_template


def test_small_models_of_a_family_are_the_same_for_the_same_seed(examples):
    output_format = replace(output_format_of("qwen2_5_vl"), step=1)
    one, two, three = (
        tiny.build(examples, output_format, SHAPE, seed, model_type="qwen2_5_vl")[
            0
        ].model.language_model.embed_tokens.weight
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, two) and not torch.equal(one, three)
