"""The processor without torchvision is transformers' own in every id, and its files are the standard ones."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
from transformers.processing_utils import ProcessorMixin

from scenerl.models.loading import load
from scenerl.models.qwen2_vl import FAMILY, input_wh, load_processor
from scenerl.tiny.architectures import ARCHITECTURES
from scenerl.tiny.tokenizer import chat_template
from training.small_run import SHAPE

TEMPLATE = chat_template(ARCHITECTURES["qwen2_vl"])

SIZES = [(56, 56), (57, 55), (1, 1), (3, 200), (199, 1), (331, 97), (500, 333), (1001, 667), (28, 28 * 40)]
TEXT = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>1 near 2<|im_end|>\n"


def picture(size, seed=0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def processor(saved):
    return load_processor(saved)


def transformers_own(processor) -> Qwen2VLProcessor:
    """transformers' class around the same parts. Its __init__ alone asks for the video half and so for torchvision."""
    own = object.__new__(Qwen2VLProcessor)
    own.image_processor, own.tokenizer = processor.image_processor, processor.tokenizer
    own.chat_template = processor.chat_template
    own.image_token, own.video_token = "<|image_pad|>", "<|video_pad|>"
    own.image_token_id, own.video_token_id = processor.tokenizer.convert_tokens_to_ids(
        ["<|image_pad|>", "<|video_pad|>"]
    )
    return own


@pytest.mark.parametrize("size", SIZES)
def test_image_tokens_are_a_quarter_of_the_patches(processor, size):
    encoded = processor(text=[TEXT], images=[[picture(size)]], return_tensors="pt")
    count = int(encoded["image_grid_thw"].prod()) // 4
    assert encoded["pixel_values"].shape[0] == count * 4
    by_hand = TEXT.replace("<|image_pad|>", "<|image_pad|>" * count)
    assert encoded["input_ids"][0].tolist() == processor.tokenizer(by_hand)["input_ids"]
    assert int(encoded["mm_token_type_ids"].sum()) == count


def test_a_batch_is_encoded_as_transformers_does(processor):
    own = transformers_own(processor)
    images = [[picture(size, seed)] for seed, size in enumerate(SIZES)]
    texts = [TEXT + "3 above 4\n" * seed for seed in range(len(SIZES))]
    kwargs = {"text": texts, "images": images, "padding": True, "padding_side": "left", "return_tensors": "pt"}
    ours, theirs = processor(**kwargs), own(**kwargs)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    message = [{"role": "user", "content": [{"type": "image", "image": images[0][0]}, {"type": "text", "text": "a"}]}]
    settings = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt"}
    ours, theirs = (each.apply_chat_template([message], **settings) for each in (processor, own))
    assert torch.equal(ours["input_ids"], theirs["input_ids"])


@pytest.mark.parametrize("size", SIZES)
def test_input_wh_is_the_size_the_model_sees(processor, size):
    width, height = input_wh(processor, size)
    step = processor.image_processor(images=[picture(size)], return_tensors="pt")["image_grid_thw"][0].tolist()
    assert (width, height) == (step[2] * 14, step[1] * 14)
    assert width % 28 == height % 28 == 0
    assert SHAPE.min_pixels <= width * height <= SHAPE.max_pixels


@pytest.mark.parametrize(("low", "high"), [(None, 100 * 100), (300 * 300, None), (90 * 90, 120 * 120), (784, 784)])
def test_pixel_bounds_given_replace_the_checkpoints(saved, low, high):
    checkpoint = load(saved, min_pixels=low, max_pixels=high)
    low, high = low or SHAPE.min_pixels, high or SHAPE.max_pixels
    for size in [(56, 56), (333, 217), (900, 700)]:
        width, height = input_wh(checkpoint.processor, size)
        # rounding up to whole tokens may pass the upper bound by less than a token on each side
        assert low <= width * height <= (math.sqrt(high) + 28) ** 2
        step = checkpoint.processor.image_processor(images=[picture(size)], return_tensors="pt")["image_grid_thw"][0]
        assert (width, height) == (int(step[2]) * 14, int(step[1]) * 14)


def test_pixel_bounds_are_saved_with_the_checkpoint(saved, tmp_path):
    load(saved, min_pixels=5000, max_pixels=60000).processor.save_pretrained(tmp_path)
    size = load_processor(tmp_path).image_processor.size
    assert (size["shortest_edge"], size["longest_edge"]) == (5000, 60000)


def test_pixel_bounds_the_wrong_way_round_are_refused(saved):
    with pytest.raises(ValueError, match="min_pixels 9000 is larger than max_pixels 8000"):
        load(saved, min_pixels=9000, max_pixels=8000)
    with pytest.raises(ValueError, match=f"min_pixels {SHAPE.min_pixels} is larger than max_pixels 100"):
        load(saved, max_pixels=100)


def test_pixel_bounds_as_older_checkpoints_write_them(folder):
    """The files of the released Qwen2-VL models name them min_pixels and max_pixels."""
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "min_pixels": 3136,
                "max_pixels": 12845056,
                "patch_size": 14,
                "temporal_patch_size": 2,
                "merge_size": 2,
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.25, 0.25, 0.25],
                "image_processor_type": "Qwen2VLImageProcessor",
                "processor_class": "Qwen2VLProcessor",
            }
        )
    )
    assert input_wh(load_processor(folder), (1000, 700)) == (1008, 700)
    assert input_wh(load_processor(folder, max_pixels=512 * 28 * 28), (1000, 700)) == (756, 504)


def test_an_image_too_long_and_thin_is_refused(processor):
    with pytest.raises(ValueError, match="200"):
        input_wh(processor, (2010, 10))


def test_the_chat_template_survives(processor, tmp_path):
    assert processor.chat_template == TEMPLATE
    processor.save_pretrained(tmp_path)
    again = load_processor(tmp_path)
    assert again.chat_template == TEMPLATE == again.tokenizer.chat_template
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "1 near 2"}]},
        {"role": "user", "content": "and now?"},
    ]
    expected = (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>what?<|im_end|>\n"
        "<|im_start|>assistant\n1 near 2<|im_end|>\n<|im_start|>user\nand now?<|im_end|>\n<|im_start|>assistant\n"
    )
    for each in (processor, again):
        assert each.apply_chat_template(messages, add_generation_prompt=True) == expected


def test_a_chat_template_in_the_file_of_older_checkpoints(folder):
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="no chat template"):
        load(folder)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    assert load(folder).processor.chat_template == TEMPLATE


def test_a_processor_saved_by_transformers_itself(folder, processor):
    """It writes processor_config.json with the image processor inside."""
    for name in ("preprocessor_config.json", "chat_template.jinja"):
        (folder / name).unlink()
    processor.image_processor.size["longest_edge"] = 123456
    ProcessorMixin.save_pretrained(processor, folder)
    assert not (folder / "preprocessor_config.json").exists()
    assert load(folder).processor.image_processor.size["longest_edge"] == 123456


def test_a_tokenizer_without_image_tokens(folder):
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace("<|image_pad|>", "<|picture|>"))
    with pytest.raises(ValueError, match=r"the tokenizer has no token <\|image_pad\|>"):
        load(folder)


def test_other_tools_read_the_folder(saved, processor):
    config = AutoConfig.from_pretrained(saved)
    tokenizer = AutoTokenizer.from_pretrained(saved)
    images = AutoImageProcessor.from_pretrained(saved)
    assert config.model_type == FAMILY.model_type
    assert tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert tokenizer(TEXT)["input_ids"] == processor.tokenizer(TEXT)["input_ids"]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert config.image_token_id == tokenizer.convert_tokens_to_ids("<|image_pad|>") == processor.image_token_id
    pixels = picture((61, 93))
    assert torch.equal(
        torch.as_tensor(images(images=[pixels], return_tensors="pt")["pixel_values"]),
        processor.image_processor(images=[pixels], return_tensors="pt")["pixel_values"],
    )


def test_the_processor_alone_is_not_pushed_to_the_hub(processor, tmp_path):
    with pytest.raises(ValueError, match="push the whole checkpoint folder"):
        processor.save_pretrained(tmp_path, push_to_hub=True)
