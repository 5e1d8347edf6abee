"""Messages to servers with OpenAI's chat API, and what is made of their completions, good and hostile."""

from __future__ import annotations

import base64
import io

import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from inference.loopback import logprobs_of, said
from scenerl.inference.chat import Completion, replies_of, to_messages
from scenerl.inference.engine import GenerationError
from scenerl.models.loading import Checkpoint, family_of


def replies(answer: dict, count: int = 1, logprobs: bool = False):
    return replies_of(Completion.model_validate(answer), count, logprobs)


@pytest.mark.parametrize("size", [(56, 56), (200, 90), (31, 77), (1000, 700), (1, 1)])
def test_the_model_sees_the_pixels_that_it_would_see_here(folder, size):
    family = family_of(folder)
    checkpoint = Checkpoint(str(folder), family, None, family.load_processor(folder))
    image = Image.effect_noise(size, 90).convert("RGB")
    prompt = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "?"}]}]
    [message] = to_messages(prompt, checkpoint)
    url = message["content"][0]["image_url"]["url"]
    assert url.startswith("data:image/png;base64,")
    sent = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert sent.size == checkpoint.family.input_wh(checkpoint.processor, size)

    def pixels(image):
        return checkpoint.processor.image_processor(image, return_tensors="pt")["pixel_values"]

    assert torch.equal(pixels(sent), pixels(prompt[0]["content"][0]["image"]))
    [unknown] = to_messages(prompt)  # nothing is known of the model: the original
    sent = Image.open(io.BytesIO(base64.b64decode(unknown["content"][0]["image_url"]["url"].partition(",")[2])))
    assert sent.size == size and sent.tobytes() == prompt[0]["content"][0]["image"].tobytes()


HOSTILE = [
    {},
    {"choices": None},
    {"choices": []},
    {"choices": ["x"]},
    {"choices": [{}]},
    {"choices": [{"message": "dog", "finish_reason": "stop"}]},
    {"choices": [{"message": {"content": ["dog"]}, "finish_reason": "stop"}]},
    {"choices": [{"message": {"content": "dog"}}]},
    {"choices": [{"message": {"content": "dog"}, "finish_reason": "content_filter"}]},
    said("dog", logprobs={"content": "x"}),
    said("dog", logprobs={"content": [None]}),
    said("dog", logprobs={"content": [{"bytes": [256], "logprob": -1}]}),
    said("dog", logprobs={"content": [{"bytes": [100], "logprob": "low"}]}),
    said("dog", logprobs={"content": [{"bytes": 10**12, "logprob": -1}]}),
    said("dog", logprobs={"content": [{"bytes": [100], "logprob": None}]}),
]


@pytest.mark.parametrize("answer", HOSTILE)
def test_answers_that_cannot_be_used(answer):
    with pytest.raises((ValidationError, GenerationError)):
        replies(answer, logprobs=True)


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_a_server_that_splits_off_the_reasoning(key):
    answer = said("dog")
    answer["choices"][0]["message"][key] = None
    assert replies(answer)[0].text == "dog"
    answer["choices"][0]["message"][key] = "Is it a dog?"
    with pytest.raises(GenerationError, match="start it without a reasoning parser"):
        replies(answer)


def test_odd_answers_that_can_be_used():
    [reply] = replies(said(None, finish="length", usage={"completion_tokens": None}))
    assert (reply.text, reply.num_tokens, reply.finish_reason) == ("", 0, "length")
    assert [reply.text for reply in replies({"choices": said("a", "b", "c")["choices"][::-1]}, 2)] == ["a", "b"]
    with pytest.raises(GenerationError, match="1 answer in place of 2"):
        replies(said("a"), 2)
    cut_off = said("dog 4", finish="length", logprobs=logprobs_of([b"dog", b" 4"]), token_ids=[65, 66])
    [reply] = replies(cut_off, logprobs=True)
    assert (reply.num_tokens, reply.spans) == (2, ((0, 3), (3, 5)))
