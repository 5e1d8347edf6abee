"""Branched sampling gives the answers that transformers' own loop gives for the same seed, and reads prompts once."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from scenerl.models.branching import BranchSampler
from scenerl.models.loading import load

QUESTIONS = ["?", "Which is it, and where is the other one?", "Go on."]
COUNTS = [3, 1, 2]


@pytest.fixture
def asked(saved):
    """A model that cares about what it sees, and three prompts of different lengths, the second without an image."""
    checkpoint = load(saved, dtype="float32")
    model = checkpoint.model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter *= 4
    prompts = []
    for number, question in enumerate(QUESTIONS):
        content = [{"type": "text", "text": question}]
        if number != 1:
            image = Image.new("RGB", (56 + 28 * number, 56), (50 * number, 200, 90))
            content.insert(0, {"type": "image", "image": image})
        prompts.append([{"role": "user", "content": content}])
    inputs = checkpoint.processor.apply_chat_template(
        prompts, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left"},
    )  # fmt: skip
    return model, inputs


def repeated(model, inputs) -> dict:
    """Each prompt as often as it gets answers, images included, as TRL repeats them."""
    rows = torch.repeat_interleave(torch.tensor(COUNTS))
    images = [0] * 3 + [1] * 2
    patches = inputs["pixel_values"].split(inputs["image_grid_thw"].prod(-1).tolist())
    return {
        **{key: inputs[key][rows] for key in ("input_ids", "attention_mask", "mm_token_type_ids")},
        "pixel_values": torch.cat([patches[image] for image in images]),
        "image_grid_thw": inputs["image_grid_thw"][images],
    }


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": True, "temperature": 2.0},
        {"do_sample": True, "temperature": 1.5, "top_p": 0.9, "repetition_penalty": 1.2},
        {"do_sample": False},
    ],
    ids=["sampled", "limited", "greedy"],
)
def test_the_same_seed_gives_the_answers_of_transformers(asked, settings):
    model, inputs = asked
    width = inputs["input_ids"].shape[1]
    common = {"max_new_tokens": 24, "suppress_tokens": [3, 4, 5, 6], **settings}
    # an answer meets one of these after about a dozen tokens, so that the batch shrinks on the way
    stops = list(range(1, model.config.text_config.vocab_size, 12))
    torch.manual_seed(5)
    wanted = model.generate(**repeated(model, inputs), **common, eos_token_id=stops)
    torch.manual_seed(5)
    read = []
    hook = model.model.visual.register_forward_pre_hook(lambda module, args: read.append(len(args[0])))
    sampler = BranchSampler(COUNTS, temperature=1.0)
    got = model.generate(**inputs, **common, eos_token_id=stops, custom_generate=sampler)
    hook.remove()
    assert got.tolist() == wanted.tolist()
    assert sum(read) == len(inputs["pixel_values"])
    ends = [next((k for k, token in enumerate(row) if token in stops), 24) for row in got[:, width:].tolist()]
    assert len(set(ends)) > 3 or not settings["do_sample"]
    # the recorded log-probabilities are those of a plain forward pass over the whole row
    row = got[0]
    rows = {
        key: value[:1] for key, value in repeated(model, inputs).items() if key not in ("input_ids", "pixel_values")
    }
    num_patches = int(rows["image_grid_thw"].prod())
    logits = model(
        input_ids=row[None],
        attention_mask=torch.cat([rows["attention_mask"], torch.ones(1, len(row) - width, dtype=torch.long)], 1),
        mm_token_type_ids=torch.cat([rows["mm_token_type_ids"], torch.zeros(1, len(row) - width, dtype=torch.int)], 1),
        image_grid_thw=rows["image_grid_thw"],
        pixel_values=inputs["pixel_values"][:num_patches],
    ).logits[0, width - 1 : -1]
    plain = logits.log_softmax(-1).gather(-1, row[width:, None])[:, 0]
    length = min(ends[0] + 1, len(row) - width)
    torch.testing.assert_close(sampler.logps[0, :length], plain[:length], rtol=0, atol=1e-4)


def test_answers_that_end_at_once(asked):
    model, inputs = asked
    every = list(range(model.config.text_config.vocab_size))
    got = model.generate(
        **inputs, do_sample=True, max_new_tokens=8, eos_token_id=every, custom_generate=BranchSampler(COUNTS)
    )
    assert got.shape == (6, inputs["input_ids"].shape[1] + 1)
