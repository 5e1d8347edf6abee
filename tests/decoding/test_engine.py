"""Constraints in the engine that `predict` uses: all that an untrained model samples are answers, and what a model that
is right writes stays as it is."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image

from decoding.play import BOX_FORMATS, FORMATS, OBJECTS, PREDICATES, TEMPLATES, graph, output_format_of
from scenerl import tiny
from scenerl.answers import GrammarSpec, OutputFormat, parse_answer, write_answer
from scenerl.box_formats import extent_wh
from scenerl.decoding import Vocabulary, constraint_of
from scenerl.inference.engine import Reply, Sampling
from scenerl.inference.hf import HFEngine
from scenerl.models.loading import load
from scenerl.types import Example, Relation, SceneGraph, SceneObject
from training.small_run import SHAPE

SIZES = ((84, 56), (56, 56), (61, 190))
TEMPERATURES = (1.0, 0.05)
"""Every token about as likely as any other, and a few tokens again and again."""
SPARE = (0, 3, 40, 160)
"""Tokens beyond the smallest answer of a style."""


class Asked:
    """An untrained model whose tokenizer was made for answers of one format, and pictures that it is asked about.

    Attributes:
        fmt: the format.
        sizes: of the pictures, each with that of the input that the model sees.
    """

    def __init__(self, fmt: str, folder):
        self.fmt, query = fmt, OBJECTS if fmt == "detections" else None
        examples = []
        for number, (label, predicate) in enumerate(product(OBJECTS, PREDICATES)):
            width, height = SIZES[number % len(SIZES)]
            objects = SceneObject(label, (0, 0, 40, 40)), SceneObject("dog", (8, 8, width, height))
            scene = SceneGraph(objects, (Relation(0, predicate, 1),))
            examples.append(Example(str(number), width, height, scene, query=query))
        output_format = OutputFormat(fmt, step=20)
        tiny.create(folder, examples, output_format, SHAPE)
        self._checkpoint = load(folder, dtype="float32")
        conversation = self._checkpoint.conversation(output_format)
        self._tokenizer = self._checkpoint.processor.tokenizer
        self._vocabulary = Vocabulary.of(self._checkpoint, self._checkpoint.stop_ids)
        self._engine = HFEngine(self._checkpoint, Sampling())
        self._engine._vocabulary = self._vocabulary  # with what was found out of its tokens
        self.sizes, self._prompts = [], []
        for width, height in SIZES:
            example = Example("x", width, height, SceneGraph(), query=query)
            self.sizes.append((example.image_wh, conversation.input_wh(example)))
            pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
            self._prompts.append(conversation.prompt(example, Image.fromarray(pixels)))

    def shapes(self, output_format: OutputFormat) -> list[GrammarSpec]:
        return [GrammarSpec(output_format, extent_wh(output_format.box_format, *pair)) for pair in self.sizes]

    def least(self, output_format: OutputFormat) -> int:
        """Tokens of the smallest answer."""
        return max(constraint_of(shape, self._vocabulary).least for shape in self.shapes(output_format))

    def answers(self, output_format: OutputFormat, seed: int = 0, **sampling) -> list[list[Reply]]:
        """Constrained answers about each picture."""
        self._engine.sampling = Sampling(**sampling)
        return self._engine.answer(self._prompts, seed, self.shapes(output_format))

    def said(self, output_format: OutputFormat, text: str, limit: int = 300, is_constrained: bool = True) -> Reply:
        """The greedy answer about the first picture of a model that wants to say ``text``."""
        wanted = [*self._tokenizer(text)["input_ids"], self._tokenizer.eos_token_id]
        self._engine.sampling = Sampling(max_new_tokens=limit)
        model = self._checkpoint.model
        head, model.lm_head = model.lm_head, Saying(wanted, self._vocabulary.size)
        try:
            shapes = self.shapes(output_format)[:1] if is_constrained else None
            return self._engine.answer(self._prompts[:1], shapes=shapes)[0][0]
        finally:
            model.lm_head = head


class Saying(torch.nn.Module):
    """In place of a model's head: it wants the given tokens in turn, whatever the model sees, and the last for ever."""

    def __init__(self, tokens: list[int], size: int):
        super().__init__()
        self.tokens, self.size, self.step = tokens, size, 0

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        wanted = self.tokens[min(self.step, len(self.tokens) - 1)]
        self.step += 1
        return torch.nn.functional.one_hot(torch.tensor(wanted), self.size).float().expand(*hidden.shape[:-1], -1)


@pytest.fixture(scope="module", params=FORMATS)
def asked(request, tmp_path_factory) -> Asked:
    return Asked(request.param, tmp_path_factory.mktemp(request.param))


def output_formats(fmt: str) -> list[OutputFormat]:
    """In both envelopes, over closed vocabularies and open ones, in frames that take turns."""
    box_formats, choices = list(BOX_FORMATS), product(TEMPLATES, (True, False))
    return [
        output_format_of(fmt, *choice, box_formats[(number + FORMATS.index(fmt)) % 4])
        for number, choice in enumerate(choices)
    ]


def check(asked: Asked, output_format: OutputFormat, spare: int, count: int, temperature: float) -> int:
    """So many samples about each picture are answers; returns how many that were."""
    limit = asked.least(output_format) + spare
    replies = asked.answers(output_format, spare, max_new_tokens=limit, num_samples=count, temperature=temperature)
    for pair, row in zip(asked.sizes, replies, strict=True):
        for reply in row:
            assert reply.finish_reason == "stop" and reply.num_tokens < limit, reply
            result = parse_answer(reply.text, output_format, *pair)
            assert result.ok and not result.issues and result.in_template, (result, reply)
    return sum(map(len, replies))


def test_samples_are_answers(asked):
    for number, output_format in enumerate(output_formats(asked.fmt)):
        assert check(asked, output_format, SPARE[number], 1, 1.0) == 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_samples_are_answers(asked):
    """3 formats, 4 styles, 4 limits, 2 temperatures, 3 pictures, 35 samples: 10,080 answers."""
    rounds = product(output_formats(asked.fmt), SPARE, TEMPERATURES)
    assert (
        sum(check(asked, output_format, spare, 35, temperature) for output_format, spare, temperature in rounds) == 3360
    )


def test_right_answers_stay_as_they_are(asked):
    rng = np.random.default_rng(3)
    for output_format in output_formats(asked.fmt):
        items = [replace(item, box=(8, 8, 40, 44)) for item in graph(rng, least=2).objects]
        scene = SceneGraph(tuple(items), (Relation(0, "on", 1), Relation(1, "on", 0)))
        reasoning = "no.1 is < 2\n\tfar" if output_format.template == "think" else None
        text = write_answer(scene, output_format, *asked.sizes[0], reasoning)
        free, held = (
            asked.said(output_format, text, is_constrained=is_constrained) for is_constrained in (False, True)
        )
        assert free == held and held.text == text
        assert asked.said(output_format, text, limit=held.num_tokens + 16) == held


def test_wrong_answers_become_right(asked):
    output_format = output_formats(asked.fmt)[0]
    box = {"norm1000": "20 20 20 40", "norm1": "0.7 0.7 0.7 0.84", "resized": "20 20 20 40"}[output_format.box_format]
    numbers = box.replace(" ", ", ")
    text = {
        "json": f'{{"objects": [{{"id": "dog.1", "bbox": [{numbers}]}}, {{"id": "dog.1", "bbox": [{numbers}]}}], '
        '"relationships": [{"subject": "dog.1", "predicate": "on", "object": "dog.3"}]}',
        "compact": f"dog {box}\nunicorn {box}\n\n1 on 1\n1 on 3\nend",
        "detections": f'[{{"bbox_2d": [{numbers}], "label": "dog"}}, {{"bbox_2d": [{numbers}], "label": "unicorn"}}]',
    }[asked.fmt]
    free = parse_answer(asked.said(output_format, text, is_constrained=False).text, output_format, *asked.sizes[0])
    assert free.ok and len(free.issues) >= 2
    for limit in (asked.least(output_format), 20, 300):
        held = asked.said(output_format, text, limit)
        result = parse_answer(held.text, output_format, *asked.sizes[0])
        assert held.finish_reason == "stop" and result.ok and not result.issues and result.in_template


def test_errors_come_before_the_model_is_asked(asked, monkeypatch):
    output_format = output_formats(asked.fmt)[0]
    monkeypatch.setattr(asked._checkpoint.model, "generate", lambda *args, **kwargs: pytest.fail("asked"))
    with pytest.raises(
        ValueError, match=r"^constrain: the smallest answer takes \d+ tokens, but the limit is 1; raise it"
    ):
        asked.answers(output_format, max_new_tokens=1)
    with pytest.raises(ValueError, match="^constrain: no answer can hold the object label ' dog'"):
        asked.answers(replace(output_format, objects=(" dog",)))
