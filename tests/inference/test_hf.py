"""The engine answers alike alone and in a batch, by its own settings only, and never with a token of an image."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from scenerl.answers import GrammarSpec, OutputFormat
from scenerl.inference.engine import Reply, Sampling
from scenerl.inference.hf import HFEngine
from scenerl.types import Example, SceneGraph
from training.small_run import STYLE

SIZES = [(56, 56), (61, 37), (161, 57), (40, 190), (84, 56)]


@pytest.fixture
def lively(checkpoint):
    """A model whose answers depend on the image: an untrained one says the same to everything."""
    model = checkpoint.model
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
        head = torch.randn(model.lm_head.weight.shape, generator=generator)
    model.lm_head.weight = torch.nn.Parameter(head)
    return checkpoint


def prompts_of(checkpoint):
    conversation, prompts = checkpoint.conversation(STYLE), []
    for seed, (width, height) in enumerate(SIZES):
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        example = Example(str(seed), width, height, SceneGraph())
        prompts.append(conversation.prompt(example, Image.fromarray(pixels)))
    return prompts


def answer(checkpoint, prompts, seed=0, **sampling):
    return HFEngine(checkpoint, Sampling(**{"max_new_tokens": 10, **sampling})).answer(prompts, seed)


def test_greedy_answers_do_not_depend_on_the_batch(lively):
    prompts = prompts_of(lively)
    together = answer(lively, prompts)
    assert together == [answer(lively, [prompt])[0] for prompt in prompts]
    assert together == answer(lively, prompts[:2]) + answer(lively, prompts[2:], seed=5)
    assert len({replies[0].text for replies in together}) == len(prompts)  # so that a mix-up would show


def test_samples_are_grouped_by_prompt(lively):
    """With top_k 1 every sample is the greedy answer of its own prompt."""
    prompts = prompts_of(lively)
    greedy = answer(lively, prompts)
    sampled = answer(lively, prompts, temperature=1.0, top_k=1, num_samples=3)
    assert sampled == [replies * 3 for replies in greedy]
    # likewise with a top_p that leaves one token, and at a temperature near zero
    assert answer(lively, prompts, temperature=1.0, top_p=1e-6) == greedy
    assert answer(lively, prompts, temperature=1e-4) == greedy


def test_a_seed_decides_the_samples(lively):
    prompts = prompts_of(lively)[:2]
    settings = {"temperature": 3.0, "num_samples": 3}
    first = answer(lively, prompts, 7, **settings)
    assert first == answer(lively, prompts, 7, **settings)
    assert first != answer(lively, prompts, 8, **settings)
    assert len({reply.text for replies in first for reply in replies}) == 6


def test_an_answer_ends_at_a_stop_token_or_at_the_limit(lively):
    model, tokenizer = lively.model, lively.processor.tokenizer
    prompts = prompts_of(lively)[:2]
    ids = []
    generate = model.generate
    model.generate = lambda **kwargs: ids.append(generate(**kwargs)) or ids[-1]
    unstopped = [[cut], [other]] = answer(lively, prompts)
    assert (cut.finish_reason, cut.num_tokens) == (other.finish_reason, other.num_tokens) == ("length", 10)
    written = ids[0][0, -10:].tolist()
    stop = next(k for k in range(1, 10) if written[k] not in written[:k])
    # any token that the checkpoint declares ends an answer, besides the tokenizer's own
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, written[stop]]
    stopped = answer(lively, prompts)[0][0]
    assert stopped == Reply(tokenizer.decode(written[:stop]), stop, "stop")
    model.generation_config.eos_token_id = written[stop]
    assert answer(lively, prompts)[0][0] == stopped
    model.generation_config.eos_token_id = None
    assert answer(lively, prompts) == unstopped


def test_an_answer_may_end_at_once(lively):
    model = lively.model
    first = model.generate(**HFEngine(lively, Sampling()).encode(prompts_of(lively)[:1]), max_new_tokens=1)
    model.generation_config.eos_token_id = int(first[0, -1])
    assert answer(lively, prompts_of(lively)[:1]) == [[Reply("", 0, "stop")]]


def sampled_ids(checkpoint, num_samples=8, max_new_tokens=24) -> set[int]:
    """Ids of everything sampled at temperature 5."""
    model = checkpoint.model
    seen: set[int] = set()
    generate = model.generate

    def watched(**kwargs):
        output = generate(**kwargs)
        seen.update(output[:, kwargs["input_ids"].shape[1] :].flatten().tolist())
        return output

    model.generate = watched
    try:
        answer(
            checkpoint,
            prompts_of(checkpoint),
            temperature=5.0,
            num_samples=num_samples,
            max_new_tokens=max_new_tokens,
        )
    finally:
        model.generate = generate
    return seen


def test_tokens_of_images_are_never_sampled(checkpoint, monkeypatch):
    """At temperature 5 an untrained model says anything."""
    banned = {*checkpoint.banned_ids}
    engine = HFEngine(checkpoint, Sampling())
    assert {*engine.generation_settings()["suppress_tokens"]} == banned
    tokenizer = checkpoint.processor.tokenizer
    known = {token for token in checkpoint.family.banned_tokens if token in tokenizer.get_vocab()}
    assert banned == {*tokenizer.convert_tokens_to_ids(sorted(known))} and len(banned) >= 4
    # 5 prompts x 8 samples x 24 tokens out of about 350: each token comes up about three times
    seen = sampled_ids(checkpoint)
    assert not seen & banned and len(seen) > 150
    monkeypatch.setattr(type(checkpoint), "banned_ids", [])
    assert sampled_ids(checkpoint) & banned  # they do come up where they may


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_checkpoints_own_sampling_has_no_effect(lively, temperature, caplog):
    """Released checkpoints ship temperatures and repetition penalties in generation_config.json."""
    prompts = prompts_of(lively)
    plain = answer(lively, prompts, 3, temperature=temperature)
    config = lively.model.generation_config
    config.update(do_sample=True, temperature=0.01, top_k=1, top_p=0.001, repetition_penalty=5.0)
    assert answer(lively, prompts, 3, temperature=temperature) == plain
    assert "generation flags" not in caplog.text


def test_a_batch_too_large_for_the_memory_is_answered_in_parts(lively, monkeypatch):
    prompts = prompts_of(lively)
    whole = answer(lively, prompts)
    model, sizes = lively.model, []
    generate = model.generate

    def cramped(**kwargs):
        sizes.append(len(kwargs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.cuda.OutOfMemoryError("too much")
        return generate(**kwargs)

    monkeypatch.setattr(model, "generate", cramped)
    engine = HFEngine(lively, Sampling(max_new_tokens=10))
    assert engine.answer(prompts) == whole
    assert sizes == [5, 2, 2, 1]
    assert engine.answer(prompts) == whole
    assert sizes[4:] == [2, 2, 1]  # it has learnt
    monkeypatch.setattr(model, "generate", lambda **kwargs: cramped(input_ids=range(9)))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        engine.answer(prompts)


@pytest.mark.parametrize("more", [{}, {"top_k": 5, "logprobs": True}], ids=["plain", "limited"])
def test_too_little_memory_does_not_change_the_samples_of_a_seed(lively, monkeypatch, more):
    prompts, sampling = prompts_of(lively), Sampling(10, temperature=1.5, num_samples=3, **more)
    whole = HFEngine(lively, sampling).answer(prompts, seed=7)
    generate, tries = lively.model.generate, []

    def cramped(**kwargs):
        tries.append(len(kwargs["input_ids"]))
        output = generate(**kwargs)  # the memory runs out after random numbers were drawn
        if tries[-1] > 1:
            raise torch.cuda.OutOfMemoryError("too much")
        return output

    monkeypatch.setattr(lively.model, "generate", cramped)
    parts = HFEngine(lively, sampling).answer(prompts, seed=7)
    assert tries == [5, 2, 1, 1, 1, 1, 1] and len({reply.text for group in whole for reply in group}) > 10
    assert [[reply.text for reply in group] for group in parts] == [[reply.text for reply in group] for group in whole]


@pytest.mark.parametrize(
    "more", [{}, {"temperature": 1.5, "num_samples": 3, "logprobs": True}], ids=["greedy", "drawn"]
)
def test_too_little_memory_does_not_change_constrained_answers(lively, monkeypatch, more):
    """Of a batch's answers, those in the second half are held to their own shapes, and drawn as in the whole."""
    prompts, labels, sampling = prompts_of(lively), ("apple", "book", "book", "apple", "book"), Sampling(60, **more)
    formats = [OutputFormat("compact", objects=(label,), predicates=("near",)) for label in labels]
    shapes = [GrammarSpec(output_format, (1000, 1000)) for output_format in formats]
    whole = HFEngine(lively, sampling).answer(prompts, 7, shapes)
    generate, tries = lively.model.generate, []

    def cramped(**kwargs):
        tries.append(len(kwargs["input_ids"]))
        output = generate(**kwargs)
        if tries[-1] > 2:
            raise torch.cuda.OutOfMemoryError("too much")
        return output

    monkeypatch.setattr(lively.model, "generate", cramped)
    parts = HFEngine(lively, sampling).answer(prompts, 7, shapes)
    assert tries == [5, 2, 2, 1]
    for group, wanted, label in zip(parts, whole, labels, strict=True):
        assert [(reply.text, reply.spans) for reply in group] == [(reply.text, reply.spans) for reply in wanted]
        for reply, other in zip(group, wanted, strict=True):
            assert reply.logprobs == (other.logprobs and pytest.approx(other.logprobs, abs=1e-4))
            assert set(re.findall("[a-z]+", reply.text)) <= {label, "near", "end"}


def test_several_greedy_answers_are_refused():
    with pytest.raises(ValueError, match="num_samples 2 with temperature 0"):
        Sampling(num_samples=2)


def test_no_prompts_no_answers(checkpoint):
    assert answer(checkpoint, []) == []
