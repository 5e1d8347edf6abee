"""Constraints in the engine that `predict` uses: an untrained model samples right answers only, a right answer stays as
it is, and tokens that run through the model together are those of one step at a time."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LogitsProcessor, LogitsProcessorList

from constrain.play import BOX_FORMATS, FORMATS, OBJECTS, PREDICATES, TEMPLATES, graph, output_format_of
from scenerl import tiny
from scenerl.answers import GrammarSpec, OutputFormat, parse_answer, write_answer
from scenerl.box_formats import extent_wh
from scenerl.constrain import ConstraintMask, Row, RunSampler, Vocabulary, constraint_of
from scenerl.inference.engine import Reply, Sampling
from scenerl.inference.hf import HFEngine
from scenerl.models.branching import BranchSampler
from scenerl.models.loading import load
from scenerl.training.shared_prefix.rollout import cut_at_stop
from scenerl.types import Example, Relation, SceneGraph, SceneObject
from training.small_run import SHAPE

SIZES = ((84, 56), (56, 56), (61, 190))
TEMPERATURES = (1.0, 0.05)
"""Every token about as likely as any other, and a few tokens again and again."""
SPARE = (0, 3, 40, 160)
"""Tokens beyond the smallest answer."""


class Prompted:
    """An untrained model whose tokenizer was made for answers of one format, and pictures for prompts.

    Attributes:
        fmt: the format.
        sizes: of the pictures, each with that of the input that the model sees.
    """

    def __init__(self, fmt: str, folder, model_type: str = "qwen2_vl"):
        self.fmt, query = fmt, OBJECTS if fmt == "detections" else None
        examples = []
        for number, (label, predicate) in enumerate(product(OBJECTS, PREDICATES)):
            width, height = SIZES[number % len(SIZES)]
            objects = SceneObject(label, (0, 0, 40, 40)), SceneObject("dog", (8, 8, width, height))
            scene = SceneGraph(objects, (Relation(0, predicate, 1),))
            examples.append(Example(str(number), width, height, scene, query=query))
        output_format = OutputFormat(fmt, step=20)
        tiny.create(folder, examples, output_format, SHAPE, model_type=model_type)
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

    def specs(self, output_format: OutputFormat) -> list[GrammarSpec]:
        return [GrammarSpec(output_format, extent_wh(output_format.box_format, *pair)) for pair in self.sizes]

    def least(self, output_format: OutputFormat) -> int:
        """Tokens of the smallest answer."""
        return max(constraint_of(spec, self._vocabulary).least for spec in self.specs(output_format))

    def answers(self, output_format: OutputFormat, seed: int = 0, **sampling) -> list[list[Reply]]:
        """Constrained answers about each picture."""
        self._engine.sampling = Sampling(**sampling)
        return self._engine.answer(self._prompts, seed, self.specs(output_format))

    def said(self, output_format: OutputFormat, text: str, limit: int = 300, is_constrained: bool = True) -> Reply:
        """The greedy answer about the first picture of a model that wants to say ``text``."""
        wanted = [*self._tokenizer(text)["input_ids"], self._tokenizer.eos_token_id]
        self._engine.sampling = Sampling(max_new_tokens=limit)
        self._engine.generation_settings = lambda: (
            HFEngine.generation_settings(self._engine) | {"logits_processor": LogitsProcessorList([Wanting(wanted)])}
        )
        constrained = self._engine._constrained
        self._engine._constrained = lambda specs: WantingMask(constrained(specs), wanted, limit)
        try:
            specs = self.specs(output_format)[:1] if is_constrained else None
            return self._engine.answer(self._prompts[:1], shapes=specs)[0][0]
        finally:
            del self._engine.generation_settings, self._engine._constrained

    def generate(self, output_format: OutputFormat, sampler_of, limit: int, count: int):
        """Token ids and log-probabilities of an answer about each of the first ``count`` pictures."""
        self._engine.sampling = Sampling(max_new_tokens=limit)
        mask = ConstraintMask(self.specs(output_format)[:count], self._vocabulary, limit)
        processor, sampler = sampler_of(mask)
        inputs = self._engine.encode(self._prompts[:count])
        output = self._checkpoint.model.generate(
            **inputs,
            **self._engine.generation_settings(),
            logits_processor=LogitsProcessorList([processor]),
            custom_generate=sampler,
        )
        answers = cut_at_stop(output[:, inputs["input_ids"].shape[1] :], self._checkpoint.stop_ids)
        return answers, [row[: len(own)] for row, own in zip(sampler.logps, answers, strict=True)], sampler


class Wanting(LogitsProcessor):
    """Makes a model want the given tokens in turn, whatever it sees, and the last for ever."""

    def __init__(self, wanted: list[int]):
        self.wanted, self.step = wanted, 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.step += 1
        return raised(scores, self.wanted, self.step - 1)


class WantingMask(ConstraintMask):
    """The same under a constraint."""

    def __init__(self, mask: ConstraintMask, wanted: list[int], limit: int):
        self.rows, self.wanted, self.limit = mask.rows, wanted, limit

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        (row,) = self.rows
        return super().__call__(input_ids, raised(scores, self.wanted, self.limit - row.left))


def raised(scores: torch.Tensor, wanted: list[int], step: int) -> torch.Tensor:
    token = wanted[min(step, len(wanted) - 1)]
    return scores.index_fill(1, torch.tensor([token]), 1e6)


class OneByOne(LogitsProcessor):
    """Constraints in a loop that samples every token."""

    def __init__(self, rows: list[Row]):
        self.rows, self.has_begun = [row.copy() for row in rows], False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        for row, token in zip(self.rows, input_ids[:, -1].tolist(), strict=True):
            if self.has_begun and not row.is_done:
                row.take(token)
        self.has_begun = True
        ended = np.ones(scores.shape[1], dtype=bool)
        masks = np.stack([ended if row.is_done else row.mask() for row in self.rows])
        return scores.masked_fill(~torch.from_numpy(masks), -torch.inf)

    def pick_rows(self, rows: torch.Tensor) -> None:
        self.rows = [self.rows[row] for row in rows.tolist()]


@pytest.fixture(scope="module", params=FORMATS)
def prompted(request, tmp_path_factory) -> Prompted:
    return Prompted(request.param, tmp_path_factory.mktemp(request.param))


def output_formats(fmt: str) -> list[OutputFormat]:
    """In both templates, with closed vocabularies and open ones; box formats take turns."""
    box_formats, choices = list(BOX_FORMATS), product(TEMPLATES, (True, False))
    return [
        output_format_of(fmt, *choice, box_formats[(number + FORMATS.index(fmt)) % 4])
        for number, choice in enumerate(choices)
    ]


def check(prompted: Prompted, output_format: OutputFormat, spare: int, count: int, temperature: float) -> int:
    """``count`` samples for each picture are right answers; returns how many there were."""
    limit = prompted.least(output_format) + spare
    replies = prompted.answers(output_format, spare, max_new_tokens=limit, num_samples=count, temperature=temperature)
    for pair, row in zip(prompted.sizes, replies, strict=True):
        for reply in row:
            assert reply.finish_reason == "stop" and reply.num_tokens < limit, reply
            result = parse_answer(reply.text, output_format, *pair)
            assert result.ok and not result.issues and result.in_template, (result, reply)
    return sum(map(len, replies))


def test_samples_are_answers(prompted):
    for number, output_format in enumerate(output_formats(prompted.fmt)):
        assert check(prompted, output_format, SPARE[number], 1, 1.0) == 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_thousand_samples_are_answers(prompted):
    """3 formats, 4 output formats each, 4 limits, 2 temperatures, 3 pictures, 35 samples: 10,080 answers."""
    rounds = product(output_formats(prompted.fmt), SPARE, TEMPERATURES)
    assert (
        sum(check(prompted, output_format, spare, 35, temperature) for output_format, spare, temperature in rounds)
        == 3360
    )


def test_right_answers_stay_as_they_are(prompted):
    rng = np.random.default_rng(3)
    for output_format in output_formats(prompted.fmt)[:: 1 if prompted.fmt != "detections" else 2]:
        items = [item._replace(label="dog", box=(8, 8, 40, 44)) for item in graph(rng, least=2).objects]
        scene = SceneGraph(tuple(items), (Relation(0, "on", 1), Relation(1, "on", 0)))
        text = write_answer(scene, output_format, *prompted.sizes[0])
        free, held = (
            prompted.said(output_format, text, is_constrained=is_constrained) for is_constrained in (False, True)
        )
        assert free.text == held.text == text
        assert prompted.said(output_format, text, limit=held.num_tokens + 40) == held


@pytest.mark.parametrize("count", [1, 3])
def test_runs_are_what_single_steps_say(count, prompted):
    """Greedy answers and their log-probabilities, forced tokens included, where answers move at different pace."""
    for output_format in output_formats(prompted.fmt):
        limit = prompted.least(output_format) + 60
        slow, slow_logps, _ = prompted.generate(
            output_format, lambda mask: (OneByOne(mask.rows), BranchSampler([1] * count, 1.0)), limit, count
        )
        fast, fast_logps, sampler = prompted.generate(
            output_format, lambda mask: (mask, RunSampler(mask, [1] * count, 1.0)), limit, count
        )
        assert fast == slow
        assert sampler.num_passes < max(map(len, fast)) - 1
        for one, other in zip(slow_logps, fast_logps, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_linear_attention_gets_one_token_at_a_time(tmp_path):
    """Padding in front of a shorter run would change its states."""
    prompted = Prompted("compact", tmp_path, "qwen3_5")
    output_format = output_format_of("compact", "plain", True, "norm1000")
    limit = prompted.least(output_format) + 60
    found = [
        prompted.generate(output_format, sampler, limit, 3)
        for sampler in (
            lambda mask: (OneByOne(mask.rows), BranchSampler([1] * 3, 1.0)),
            lambda mask: (mask, RunSampler(mask, [1] * 3, 1.0)),
        )
    ]
    (slow, slow_logps, _), (held, held_logps, _) = found
    assert held == slow and len(set(map(len, held))) > 1
    for one, other in zip(slow_logps, held_logps, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_samples_follow_the_masked_distribution(prompted):
    """The first choice of many samples, against the model's probabilities of what is allowed."""
    output_format = OutputFormat("detections", objects=("dog", "cat"), step=20)
    if prompted.fmt != "detections":
        pytest.skip("one format is enough")
    spec = [GrammarSpec(output_format, (1000, 1000))]
    prompted._engine.sampling = Sampling(max_new_tokens=60, temperature=2.0, top_p=1.0, top_k=0)
    inputs = prompted._engine.encode(prompted._prompts[:1])
    mask = ConstraintMask(spec, prompted._vocabulary, 60)
    expected = (prompted._checkpoint.model(**inputs).logits[0, -1].float() / 2).softmax(-1)
    allowed = torch.from_numpy(mask.rows[0].mask())
    expected = torch.where(allowed, expected, 0)
    expected = expected / expected.sum()
    torch.manual_seed(0)
    output = prompted._checkpoint.model.generate(
        **inputs,
        **prompted._engine.generation_settings(),
        logits_processor=LogitsProcessorList([mask]),
        custom_generate=RunSampler(mask, [400]),
    )
    first = output[:, inputs["input_ids"].shape[1]]
    for token in allowed.nonzero()[:, 0].tolist():
        assert abs((first == token).float().mean() - expected[token]) < 0.1


def test_wrong_answers_become_right(prompted):
    output_format = output_formats(prompted.fmt)[0]
    box = {"norm1000": "20 20 20 40", "norm1": "0.7 0.7 0.7 0.84", "resized": "20 20 20 40"}[output_format.box_format]
    numbers = box.replace(" ", ", ")
    text = {
        "json": f'{{"objects": [{{"id": "dog.1", "bbox": [{numbers}]}}, {{"id": "dog.1", "bbox": [{numbers}]}}], '
        '"relationships": [{"subject": "dog.1", "predicate": "on", "object": "dog.3"}]}',
        "compact": f"dog {box}\nunicorn {box}\n\n1 on 1\n1 on 3\nend",
        "detections": f'[{{"bbox_2d": [{numbers}], "label": "dog"}}, {{"bbox_2d": [{numbers}], "label": "unicorn"}}]',
    }[prompted.fmt]
    free = parse_answer(
        prompted.said(output_format, text, is_constrained=False).text, output_format, *prompted.sizes[0]
    )
    assert free.ok and len(free.issues) >= 2
    for limit in (prompted.least(output_format), 20, 300):
        held = prompted.said(output_format, text, limit)
        result = parse_answer(held.text, output_format, *prompted.sizes[0])
        assert held.finish_reason == "stop" and result.ok and not result.issues and result.in_template


def test_errors_come_before_the_model_runs(prompted, monkeypatch):
    output_format = output_formats(prompted.fmt)[0]
    monkeypatch.setattr(prompted._checkpoint.model, "generate", lambda *args, **kwargs: pytest.fail("the model ran"))
    with pytest.raises(
        ValueError, match=r"^constrain: the smallest answer takes \d+ tokens, but the limit is 1; raise it"
    ):
        prompted.answers(output_format, max_new_tokens=1)
    with pytest.raises(ValueError, match="^constrain: no answer can hold the object label ' dog'"):
        prompted.answers(replace(output_format, objects=(" dog",)))
