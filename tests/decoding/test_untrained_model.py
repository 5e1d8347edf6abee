"""What an untrained model samples under constraints, through the engine that `predict` uses: answers, all of them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from PIL import Image

from decoding.play import ENVELOPES, FRAMES, OBJECTS, PREDICATES, style_of
from scenerl.answers import AnswerShape, AnswerStyle, parse_answer
from scenerl.conversation import Conversation
from scenerl.decoding import Vocabulary, constraint_of
from scenerl.frames import frame_wh
from scenerl.inference.engine import Sampling
from scenerl.inference.hf import HFEngine
from scenerl.models.loading import load
from scenerl.training import from_scratch
from scenerl.types import Example, Relation, SceneGraph, SceneObject
from training.small_run import SHAPE

SIZES = ((84, 56), (56, 56), (61, 190))
TEMPERATURES = (1.0, 0.05)
"""Every token about as likely as any other, and a few tokens again and again."""
SPARE = (0, 3, 40, 160)
"""Tokens beyond the smallest answer of a style."""
FORMATS = ("json", "compact", "detections")


@pytest.fixture(scope="module", params=FORMATS)
def conversation(request, tmp_path_factory):
    """An untrained model whose tokenizer was made for answers of one format."""
    examples = []
    for number, (label, predicate) in enumerate(product(OBJECTS, PREDICATES)):
        width, height = SIZES[number % len(SIZES)]
        objects = SceneObject(label, (0, 0, 40, 40)), SceneObject("dog", (8, 8, width, height))
        graph = SceneGraph(objects, (Relation(0, predicate, 1),))
        query = OBJECTS if request.param == "detections" else None
        examples.append(Example(str(number), width, height, graph, query=query))
    style = AnswerStyle(request.param, grid=20)
    folder = tmp_path_factory.mktemp(request.param)
    from_scratch.create(folder, examples, style, SHAPE)
    return Conversation(style, load(folder, dtype="float32"))


def sample(conversation: Conversation, style: AnswerStyle, spare: int, count: int, **sampling) -> int:
    """So many answers to each of three pictures are answers; returns how many that were."""
    shapes, prompts, sizes = [], [], []
    for width, height in SIZES:
        example = Example("x", width, height, SceneGraph(), query=OBJECTS if style.format == "detections" else None)
        sizes.append(((width, height), conversation.input_wh(example)))
        shapes.append(AnswerShape(style, frame_wh(style.frame, *sizes[-1])))
        pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
        prompts.append(conversation.prompt(example, Image.fromarray(pixels)))
    vocabulary = Vocabulary.of(conversation.checkpoint, conversation.checkpoint.stop_ids)
    limit = max(constraint_of(shape, vocabulary).least for shape in shapes) + spare
    engine = HFEngine(conversation.checkpoint, Sampling(max_new_tokens=limit, num_samples=count, **sampling))
    replies = engine.answer(prompts, seed=spare, shapes=shapes)
    for (image_wh, input_wh), row in zip(sizes, replies, strict=True):
        for reply in row:
            assert reply.finish_reason == "stop" and reply.num_tokens < limit, reply
            result = parse_answer(reply.text, style, image_wh, input_wh)
            assert result.ok and not result.issues and result.in_envelope, (result, reply)
    return sum(map(len, replies))


def styles(fmt: str) -> list[AnswerStyle]:
    """In both envelopes, over closed vocabularies and open ones, in frames that take turns."""
    frames, choices = list(FRAMES), product(ENVELOPES, (True, False))
    return [style_of(fmt, *choice, frames[(number + FORMATS.index(fmt)) % 4]) for number, choice in enumerate(choices)]


def test_a_few(conversation):
    for number, style in enumerate(styles(conversation.style.format)):
        sample(conversation, style, SPARE[number], 2, temperature=1.0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand(conversation):
    """3 formats x 4 styles x 4 limits x 2 temperatures x 3 pictures x 35 samples = 10,080 answers."""
    count = 0
    for style, spare, temperature in product(styles(conversation.style.format), SPARE, TEMPERATURES):
        count += sample(conversation, style, spare, 35, temperature=temperature)
    assert count == 3360
