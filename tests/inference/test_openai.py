"""The engine that asks a server: what it sends, what it makes of the answers, and what it finds out at the start."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
import threading
from concurrent.futures import CancelledError
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from inference.loopback import WORD, WORD_GRAMMAR, logprobs_of, said
from scenerl.answers import GrammarSpec, OutputFormat, build_grammar
from scenerl.inference.engine import Sampling, Unanswered
from scenerl.inference.openai import OpenAIEngine
from scenerl.inference.openai_client import Client
from scenerl.inference.openai_messages import to_messages
from scenerl.inference.openai_reply import Unreadable, read_replies, spans_of
from scenerl.models.loading import Checkpoint, family_of

IDS = {"token_ids": [65, 66, 2]}


@pytest.fixture(scope="module")
def checkpoint(base):
    """What is known here of a served checkpoint: no weights."""
    family = family_of(base)
    return Checkpoint(str(base), family, None, family.load_processor(base))


def prompt_of(*texts: str, size=(56, 56)) -> list[list[dict]]:
    image = Image.effect_noise(size, 90).convert("RGB")
    return [
        [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": text}]}]
        for text in texts
    ]


def text_of(body: dict) -> str:
    return body["messages"][0]["content"][1]["text"]


def asked(server) -> list[dict]:
    """The requests after those of the start."""
    return [body for body in server.bodies if text_of(body) != "Ready?"]


@pytest.fixture
def engine_for(checkpoint):
    """Engines that are closed at the end."""
    engines = []

    def start(server, sampling=None, known=checkpoint, constrain=False, model="m", **client) -> OpenAIEngine:
        client = Client(server.address, **{"tries": 1, "timeout": 60, **client})
        engines.append(OpenAIEngine(client, model, sampling or Sampling(max_new_tokens=9), known, constrain))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


def test_a_request_says_everything_that_the_answer_depends_on(serve, engine_for, checkpoint):
    server = serve(lambda number, body: said("dog", **IDS))
    sampling = Sampling(max_new_tokens=9, temperature=0.7, top_p=0.9, top_k=5)
    [[reply]] = engine_for(server, sampling).answer(prompt_of("What is there?"), seed=3)
    assert (reply.text, reply.num_tokens, reply.finish_reason, reply.logprobs) == ("dog", 2, "stop", None)
    [body] = asked(server)
    assert isinstance(body.pop("seed"), int) and text_of(body) == "What is there?"
    [message] = body.pop("messages")
    assert message["role"] == "user" and [part["type"] for part in message["content"]] == ["image_url", "text"]
    assert checkpoint.banned_ids and body == {
        "model": "m",
        "max_completion_tokens": 9,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 5,
        "repetition_penalty": 1.0,
        "return_token_ids": True,
        "logit_bias": {str(token): -100 for token in checkpoint.banned_ids},
    }


def test_greedy_is_without_limits_and_without_the_servers_own_defaults(serve, engine_for):
    server = serve(lambda number, body: said("dog"))
    engine_for(server).answer(prompt_of("?"))
    [body] = asked(server)
    assert (body["temperature"], body["top_p"], body["top_k"], body["repetition_penalty"]) == (0, 1, -1, 1)
    assert "n" not in body and "logprobs" not in body


@pytest.mark.parametrize("size", [(56, 56), (200, 90), (31, 77), (1000, 700), (1, 1)])
def test_the_model_sees_the_pixels_that_it_would_see_here(checkpoint, size):
    [prompt] = prompt_of("?", size=size)
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


def test_several_answers_in_one_request_or_one_by_one(serve, engine_for):
    sampling = Sampling(max_new_tokens=9, temperature=1.0, num_samples=3)
    all_at_once = serve(lambda number, body: said(*"abc"[: body.get("n", 1)], **IDS))
    replies = engine_for(all_at_once, sampling).answer(prompt_of("x", "y"), seed=1)
    assert [[reply.text for reply in group] for group in replies] == [["a", "b", "c"]] * 2
    assert [body["n"] for body in asked(all_at_once)] == [3, 3]

    def one_by_one(number, body):
        return said(f"{text_of(body)} {body['seed']}")

    ignoring = serve(one_by_one)  # n, as transformers serve does
    engine = engine_for(ignoring, sampling)
    replies = engine.answer(prompt_of("x", "y"), seed=1)
    texts = [reply.text for group in replies for reply in group]
    assert [text[0] for text in texts] == ["x"] * 3 + ["y"] * 3 and len(set(texts)) == 6
    assert not any("n" in body for body in asked(ignoring))
    assert engine.answer(prompt_of("x", "y"), seed=1) == replies
    assert engine.answer(prompt_of("x", "y"), seed=2) != replies

    def refusing(number, body):
        return (400, "n must be 1") if "n" in body else one_by_one(number, body)

    assert engine_for(serve(refusing), sampling).answer(prompt_of("x", "y"), seed=1) == replies
    uncounted = serve(lambda number, body: said(*"abc"[: body.get("n", 1)]))  # whose tokens are whose is not told
    assert len(engine_for(uncounted, sampling).answer(prompt_of("x"), seed=1)[0]) == 3
    assert not any("n" in body for body in asked(uncounted))


def only(*known: str):
    """A server that refuses fields it does not know, as transformers serve and OpenAI's own do."""
    always = {"model", "messages", "seed", "max_completion_tokens"}

    def do(number, body):
        unknown = body.keys() - always - set(known)
        return (422, {"detail": f"Unexpected fields in the request: {sorted(unknown)}"}) if unknown else said("dog")

    return do


def test_servers_that_refuse_what_they_do_not_know(serve, engine_for, checkpoint, caplog):
    sampling = Sampling(max_new_tokens=9, temperature=0.5, top_k=4)
    server = serve(only("generation_config"))
    engine_for(server, sampling).answer(prompt_of("?"))
    assert json.loads(asked(server)[0]["generation_config"]) == {
        "do_sample": True,
        "temperature": 0.5,
        "top_p": 1.0,
        "top_k": 4,
        "repetition_penalty": 1.0,
        "suppress_tokens": checkpoint.banned_ids,
        "max_new_tokens": 9,
    }
    own = serve(only("temperature", "top_p", "logit_bias"))
    with pytest.raises(ValueError, match="takes no top_k; allowed with it: top_k 0"):
        engine_for(own, sampling)
    engine_for(own, replace(sampling, top_k=0)).answer(prompt_of("?"))
    assert asked(own)[0]["logit_bias"] and caplog.records == []
    poor = serve(only("temperature", "top_p"))
    engine_for(poor).answer(prompt_of("?"))
    assert "logit_bias" not in asked(poor)[0]
    assert [record.getMessage() for record in caplog.records] == [
        f"{poor.address} bars no tokens: some that stand for images may stand in answers"
    ]


def test_a_server_that_does_not_know_the_model(serve, engine_for):
    def refuse(number, body):
        return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}

    server = serve(refuse, models=("sft", "grpo"))
    with pytest.raises(ValueError, match=r"does not know the model 'm'; it has 'sft', 'grpo' \(404 The model `m`"):
        engine_for(server)
    assert len(server.bodies) == 1
    with pytest.raises(ValueError, match=r"does not know the model 'm' \(404 The model `m` does not exist.\)"):
        engine_for(serve(refuse, models=None))


def test_a_server_that_answers_whatever_the_model_is_called(serve, engine_for, caplog):
    server = serve(lambda number, body: said("dog"), models=("other",))
    engine_for(server)
    assert [record.getMessage() for record in caplog.records] == [
        f"{server.address} answers as 'm', but lists other models only: 'other'"
    ]


def test_a_server_that_refuses_every_request(serve, engine_for):
    server = serve(lambda number, body: (400, "this model takes no images"))
    with pytest.raises(
        ValueError, match="refuses what every image would be asked with: 400 this model takes no images"
    ):
        engine_for(server)
    broken = serve(lambda number, body: (500, "out of order"))
    with pytest.raises(ValueError, match="asked once, the last time: 500 Internal Server Error: out of order"):
        engine_for(broken)
    with pytest.raises(ValueError, match="the server's first answer: an answer without choices"):
        engine_for(serve(lambda number, body: {"object": "chat.completion"}), Sampling(logprobs=True))


def test_an_answer_that_leaves_no_room_for_the_prompt(serve, engine_for):
    server = serve(lambda number, body: said("dog"))
    server.models = {"m": {"max_model_len": 100}}
    with pytest.raises(ValueError, match="at most 100 tokens, so max_new_tokens 100 leaves no room"):
        engine_for(server, Sampling(max_new_tokens=100))
    engine_for(server, Sampling(max_new_tokens=99))


def test_log_probabilities(serve, engine_for):
    """The ending token is no part of the answer; the model's own tokenizer says who wrote what where ids are told."""
    pieces = [b"dog", b"", b"<|im_end|>"]

    def do(number, body):
        return said("dog", logprobs=logprobs_of(pieces, -0.25), **({} if text_of(body) == "bytes" else IDS))

    server = serve(do)
    engine = engine_for(server, Sampling(max_new_tokens=9, logprobs=True))
    [[by_bytes], [by_ids]] = engine.answer(prompt_of("bytes", "ids"))
    assert asked(server)[0]["logprobs"] is True
    assert (by_bytes.num_tokens, by_bytes.logprobs, by_bytes.spans) == (2, (-0.25, -0.25), ((0, 3), (3, 3)))
    assert (by_ids.num_tokens, by_ids.logprobs) == (2, (-0.25, -0.25))


@pytest.mark.parametrize("ignores", [True, False])
def test_a_server_without_log_probabilities(serve, engine_for, ignores):
    def do(number, body):
        return said("dog") if ignores or "logprobs" not in body else (400, "logprobs are not supported")

    with pytest.raises(ValueError, match="gives no log-probabilities.*; leave out --logprobs"):
        engine_for(serve(do), Sampling(logprobs=True))


@pytest.mark.parametrize("field", ["structured_outputs", "ebnf"])
def test_grammars_are_sent_the_way_that_the_server_keeps_to(serve, engine_for, field):
    def do(number, body):
        return said(WORD if field in body else "no idea", **IDS)

    server = serve(do)
    shapes = [GrammarSpec(OutputFormat("compact", objects=(label,)), (1000, 1000)) for label in ("cat", "dog")]
    engine_for(server, constrain=True).answer(prompt_of("x", "y"), 0, shapes)
    grammars = [build_grammar(shape.output_format, shape.bounds_wh) for shape in shapes]
    assert "dog" not in grammars[0] and "dog" in grammars[1]
    sent = [body[field] for body in sorted(asked(server), key=text_of)]
    assert sent == ([{"grammar": grammar} for grammar in grammars] if field == "structured_outputs" else grammars)
    trials = [body[field] for body in server.bodies if field in body and text_of(body) == "Ready?"]
    assert trials == [{"grammar": WORD_GRAMMAR} if field == "structured_outputs" else WORD_GRAMMAR]


@pytest.mark.parametrize(
    ("do", "told"),
    [
        (lambda number, body: said("yes"), "; ebnf: told to say 'qzjx' it says 'yes'"),
        (only("generation_config"), "transformers serve.*none of its kind does"),
        (
            lambda number, body: (400, "no grammars") if "structured_outputs" in body else said("x"),
            r"\(structured_outputs: 400 no grammars; ebnf: told to say 'qzjx' it says 'x'\)",
        ),
    ],
)
def test_a_server_that_does_not_keep_to_grammars(serve, engine_for, do, told):
    with pytest.raises(ValueError, match=r"does not keep to grammars \(.*\); leave out --constrain") as error:
        engine_for(serve(do), constrain=True)
    assert re.search(told, str(error.value))


def test_shapes_that_no_grammar_has(serve, engine_for):
    engine = engine_for(serve(lambda number, body: said(WORD)), constrain=True)
    for ask in (engine.check, lambda shape: engine.answer(prompt_of("x"), 0, [shape])):
        with pytest.raises(ValueError, match="no box with an area fits a frame of 0 x 9"):
            ask(GrammarSpec(OutputFormat("compact"), (0, 9)))


def test_one_image_that_the_server_will_not_answer(serve, engine_for):
    server = serve(lambda number, body: (400, "too large") if text_of(body) == "bad" else said("dog"))
    engine = engine_for(server)
    with pytest.raises(Unanswered, match=f"{server.address}: refused: 400 too large"):
        engine.answer(prompt_of("good", "bad"))
    assert engine.answer(prompt_of("good"))[0][0].text == "dog"


def test_another_prompt_than_ours_is_told_once(serve, engine_for, checkpoint, caplog):
    """The wrong chat template, tokenizer, family or pixel bounds all show in what the server reads."""
    prompts = prompt_of("a", "b", "c")
    ours = checkpoint.processor.apply_chat_template(
        [prompts[0]], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    ids = [int(token) for token in ours["input_ids"][0]]

    def reading(**read):
        usage = {"completion_tokens": 1, **{key: value for key, value in read.items() if key == "prompt_tokens"}}
        more = {key: value for key, value in read.items() if key != "prompt_tokens"}
        return serve(lambda number, body: {**said("dog", usage=usage), **more})

    for right in (reading(prompt_token_ids=ids), reading(prompt_tokens=len(ids)), reading()):
        engine_for(right).answer(prompts[:1])
    assert caplog.records == []
    server = reading(prompt_tokens=len(ids) + 4)
    engine = engine_for(server)
    for _ in range(2):
        engine.answer(prompts)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert (
        f"read a prompt as {len(ids) + 4} tokens, where the processor of {checkpoint.name} makes {len(ids)} of it"
        in record.getMessage()
    )
    caplog.clear()
    engine_for(reading(prompt_token_ids=[ids[0] + 1, *ids[1:]])).answer(prompts[:1])
    assert (
        f"as {len(ids)} tokens, where the processor of {checkpoint.name} makes others of it"
        in caplog.records[0].getMessage()
    )


def test_closing_drops_what_is_under_way(serve, engine_for):
    arrived = threading.Event()

    def do(number, body):
        if text_of(body) != "Ready?":
            arrived.set()
            return "late"
        return said("dog")

    engine = engine_for(serve(do))
    failures = []

    def wait():
        try:
            engine.answer(prompt_of("?"))
        except BaseException as error:
            failures.append(type(error))

    thread = threading.Thread(target=wait)
    thread.start()
    assert arrived.wait(60)
    engine.close()
    thread.join(60)
    assert failures == [CancelledError]
    with pytest.raises(CancelledError):
        engine.answer(prompt_of("?"))


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
def test_answers_that_are_none(answer):
    with pytest.raises(Unreadable):
        read_replies(answer, 1, logprobs=True)


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_a_server_that_takes_thoughts_away(key):
    answer = said("dog")
    answer["choices"][0]["message"][key] = None
    assert read_replies(answer, 1, logprobs=False)[0].text == "dog"
    answer["choices"][0]["message"][key] = "Is it a dog?"
    with pytest.raises(Unanswered, match="start it without a reasoning parser"):
        read_replies(answer, 1, logprobs=False)


def test_odd_answers_that_are_some():
    [reply] = read_replies(said(None, finish="length", usage={"completion_tokens": "many"}), 1, logprobs=False)
    assert (reply.text, reply.num_tokens, reply.finish_reason) == ("", 0, "length")
    replies = read_replies({"choices": said("a", "b", "c")["choices"][::-1]}, 2, logprobs=False)
    assert [reply.text for reply in replies] == ["a", "b"]
    with pytest.raises(Unreadable, match="1 answers in place of 2"):
        read_replies(said("a"), 2, logprobs=False)
    cut = said("dog 4", finish="length", logprobs=logprobs_of([b"dog", b" 4"]), token_ids=[65, 66])
    [reply] = read_replies(cut, 1, logprobs=True)
    assert (reply.num_tokens, reply.spans) == (2, ((0, 3), (3, 5)))


@pytest.mark.parametrize(
    ("pieces", "text", "spans"),
    [
        ([], "", ()),
        ([b"<|im_end|>"], "", ((0, 0),)),
        (["é".encode()[:1], "é".encode()[1:], b"x"], "éx", ((0, 1), (0, 1), (1, 2))),
        ([b"", "é".encode(), b"x"], "éx", ((0, 1), (0, 1), (1, 2))),  # vLLM's way to say the same
        ([b"a", b"", b"b"], "a\ufffdb", ((0, 1), (1, 3), (2, 3))),  # and of half a character
        ([b"a", b"<|x|>", b"b"], "ab", ((0, 1), (1, 1), (1, 2))),
        ([b"a", b"b"], "a b", None),
        ([b"ab"], "abc", None),
    ],
)
def test_bytes_to_characters(pieces, text, spans):
    assert spans_of(pieces, text) == spans


@given(st.text(max_size=30), st.lists(st.integers(0, 120), max_size=12))
def test_any_cut_of_any_text_is_found_again(text, cuts):
    """Every span holds the characters whose bytes the token has, and no more."""
    data = text.encode("utf-8", "replace")
    text = data.decode()
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[low:high] for low, high in zip(edges, edges[1:], strict=False)]
    spans = spans_of(pieces, text)
    assert spans is not None and len(spans) == len(pieces)
    for (start, end), piece in zip(spans, pieces, strict=True):
        assert piece in text[start:end].encode()
        assert len(text[start + 1 : end - 1].encode()) <= len(piece)
