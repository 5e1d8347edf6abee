"""The engine for servers: what it sends, which failures it survives, and what it finds out at the start."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import replace

import pytest
from PIL import Image

from inference.loopback import WORD, WORD_GRAMMAR, free_port, logprobs_of, said
from scenerl.answers import GrammarSpec, OutputFormat, build_grammar
from scenerl.errors import UserError
from scenerl.inference.engine import GenerationError, Sampling
from scenerl.inference.server import ServerEngine
from scenerl.models.loading import Checkpoint, family_of

IDS = {"token_ids": [65, 66, 2]}


@pytest.fixture(scope="module")
def checkpoint(folder):
    """What is known here of a served checkpoint: no weights."""
    family = family_of(folder)
    return Checkpoint(str(folder), family, None, family.load_processor(folder))


def prompt_of(*texts: str) -> list[list[dict]]:
    image = Image.effect_noise((56, 56), 90).convert("RGB")
    return [
        [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": text}]}]
        for text in texts
    ]


def text_of(body: dict) -> str:
    return body["messages"][0]["content"][1]["text"]


def of_images(server) -> list[dict]:
    """The requests after the one of the start."""
    return [body for body in server.bodies if text_of(body) != "Ready?"]


@pytest.fixture
def engine_for(checkpoint):
    """Engines that are closed at the end."""
    engines = []

    def start(server, sampling=None, known=checkpoint, **more) -> ServerEngine:
        address = server if isinstance(server, str) else server.address
        more = {"tries": 1, "timeout": 60, **more}
        engines.append(ServerEngine(address, "m", sampling or Sampling(max_new_tokens=9), known, **more))
        return engines[-1]

    yield start
    for engine in engines:
        engine.close()


# requests


def test_a_request_holds_everything_that_the_answer_depends_on(serve, engine_for, checkpoint):
    server = serve(lambda number, body: said("dog", usage={"prompt_tokens": 1, "completion_tokens": 7}))
    engine = engine_for(server, Sampling(9, temperature=0.7, top_p=0.9, top_k=5))
    [[reply]] = engine.answer(prompt_of("What is there?"), seed=4)
    assert (reply.text, reply.num_tokens, reply.finish_reason, reply.logprobs) == ("dog", 7, "stop", None)
    assert len(server.bodies) == 2  # one at the start
    body = dict(of_images(server)[0])
    [message] = body.pop("messages")
    assert message["role"] == "user" and [part["type"] for part in message["content"]] == ["image_url", "text"]
    assert isinstance(body.pop("seed"), int)
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
    engine_for(server).answer(prompt_of("?"))  # greedy: without limits, and without the server's own defaults
    body = of_images(server)[1]
    assert (body["temperature"], body["top_p"], body["top_k"], body["repetition_penalty"]) == (0, 1, -1, 1)
    assert "n" not in body and "logprobs" not in body


@pytest.mark.parametrize("kind", ["vllm", "sglang", "transformers", "openai"])
def test_several_answers_in_one_request_or_one_by_one(serve, engine_for, kind):
    """Only vLLM says which tokens are whose."""
    sampling = Sampling(max_new_tokens=9, temperature=1.0, num_samples=3)

    def do(number, body):
        return said(*(f"{text_of(body)} {body['seed']} {k}" for k in range(body.get("n", 1))), **IDS)

    server = serve(do, kind=kind)
    engine = engine_for(server, sampling)
    replies = engine.answer(prompt_of("x", "y"), seed=1)
    texts = [reply.text for group in replies for reply in group]
    assert [text[0] for text in texts] == ["x"] * 3 + ["y"] * 3 and len(set(texts)) == 6
    assert [body.get("n") for body in of_images(server)] == ([3, 3] if kind == "vllm" else [None] * 6)
    assert engine.answer(prompt_of("x", "y"), seed=1) == replies
    assert engine.answer(prompt_of("x", "y"), seed=2) != replies


def test_answers_one_by_one_are_requested_side_by_side(serve, engine_for):
    """Requests of one image wait for each other at the server; as many at a time as allowed, and no more."""
    together, lock, under_way, most = threading.Barrier(3), threading.Lock(), 0, 0

    def do(number, body):
        nonlocal under_way, most
        if text_of(body) != "Ready?":
            with lock:
                under_way += 1
                most = max(most, under_way)
            together.wait(60)  # broken where fewer than three are under way
            with lock:
                under_way -= 1
        return said("dog")

    server = serve(do, kind="sglang")
    engine = engine_for(server, Sampling(max_new_tokens=9, temperature=1.0, num_samples=6), concurrency=3)
    assert [len(replies) for replies in engine.answer(prompt_of("x"))] == [6]
    assert most == 3


def test_one_answer_that_fails_leaves_the_others_unrequested(serve, engine_for):
    server = serve(lambda number, body: said("dog") if text_of(body) == "Ready?" else (400, "no"), kind="sglang")
    sampling = Sampling(max_new_tokens=9, temperature=1.0, num_samples=50)
    with pytest.raises(GenerationError, match="status 400: no"):
        engine_for(server, sampling, concurrency=1).answer(prompt_of("x"))
    assert len(of_images(server)) < 50


def test_the_settings_that_transformers_takes(serve, engine_for, checkpoint):
    """``temperature`` alone would not make it sample."""
    server = serve(lambda number, body: said("dog"), kind="transformers", models=None)
    engine_for(server, Sampling(max_new_tokens=9, temperature=0.5, top_k=4)).answer(prompt_of("?"))
    [body] = of_images(server)
    assert body.keys() == {"model", "messages", "seed", "max_completion_tokens", "generation_config"}
    assert json.loads(body["generation_config"]) == {
        "do_sample": True,
        "temperature": 0.5,
        "top_p": 1.0,
        "top_k": 4,
        "repetition_penalty": 1.0,
        "suppress_tokens": checkpoint.banned_ids,
        "max_new_tokens": 9,
    }


def test_openais_own_fields(serve, engine_for):
    server = serve(lambda number, body: said("dog"), kind="somebody")
    engine_for(server).answer(prompt_of("?"))
    [body] = of_images(server)
    own = {"model", "messages", "seed", "max_completion_tokens", "temperature", "top_p", "logit_bias"}
    assert body.keys() == own
    with pytest.raises(ValueError, match="takes no top_k; allowed with it: top_k 0"):
        engine_for(server, Sampling(temperature=1.0, top_k=4))


def test_the_kind_of_a_server_may_be_given(serve, engine_for):
    """A proxy may hide it."""
    server = serve(lambda number, body: said("dog", **IDS), kind="proxy")
    engine_for(server, Sampling(9, temperature=1.0, top_k=4), kind="vllm").answer(prompt_of("?"))
    assert of_images(server)[0]["top_k"] == 4


# failures


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("drop", "connection lost (Server disconnected"),
        ("half", "connection lost (peer closed connection"),
        ("late", "no answer within 0.3 s"),
        ((429, {"error": {"message": "slow down"}}), "status 429: slow down"),
        ((500, "boom"), "status 500: boom"),
        ((503, {"detail": "warming up"}), "status 503: warming up"),
        (b"<html>Bad gateway</html>", "not a chat completion: Invalid JSON"),
        (b"[" * 100_000, "not a chat completion: Invalid JSON"),
        ([1, 2], "not a chat completion: Input should be an object"),
        ({"choices": []}, "not a chat completion: choices: List should have at least 1 item"),
        (said(3), "not a chat completion: choices.0.message.content: Input should be a valid string"),
        (said("dog", finish="content_filter"), "not a chat completion: choices.0.finish_reason: Input should be"),
        ((200, said("dog"), {"Content-Encoding": "gzip"}), "a compressed reply, which was not requested"),
    ],
)
def test_what_may_go_better_is_tried_again(serve, engine_for, bad, reason):
    failures = 2

    def do(number, body):
        return said("dog") if text_of(body) == "Ready?" or len(of_images(server)) > failures else bad

    server = serve(do)
    engine = engine_for(server, tries=3, timeout=0.3 if bad == "late" else 60)
    assert engine.answer(prompt_of("?"))[0][0].text == "dog"
    assert len(of_images(server)) == 3
    failures = 99
    with pytest.raises(GenerationError) as error:
        engine.answer(prompt_of("?"))
    assert str(error.value).startswith(f"{server.address}: {reason}")
    assert len(of_images(server)) == 6


def test_a_model_that_transformers_serve_cannot_load_is_reported_with_its_reason(serve, engine_for):
    """The reason is the server's own; its answer has status 500 without one."""
    server = serve(lambda number, body: (500, "Internal Server Error"), kind="transformers", models=None)
    message = "\nQwen2VLVideoProcessor requires the Torchvision library\nbut it was not found in your environment.\n"
    server.loading = [
        {"status": "loading", "model": "m@main", "stage": "processor"},
        {"status": "error", "model": "m@main", "message": message},
    ]
    with pytest.raises(UserError) as error:
        engine_for(server)
    assert str(error.value) == f"{server.address} cannot load 'm': {' '.join(message.split())}"


@pytest.mark.parametrize("loading", [[], [[]], [{}], [{"status": "error"}], [{"status": "loading"}]])
def test_what_a_server_says_of_loading_may_be_anything(serve, engine_for, loading):
    server = serve(lambda number, body: (500, "no"), kind="transformers", models=None)
    server.loading = loading
    with pytest.raises(UserError, match="status 500: no; the server's log says why"):
        engine_for(server)


@pytest.mark.parametrize("headers", [{}, {"Connection": "close"}, {"Retry-After": "5"}])
@pytest.mark.parametrize("kind", ["vllm", "transformers"])
def test_a_server_that_can_answer_nothing_is_asked_once_and_said_to_have_a_log(serve, engine_for, kind, headers):
    server = serve(lambda number, body: (500, "Internal Server Error", headers), kind=kind)
    with pytest.raises(UserError) as error:
        engine_for(server, tries=5)
    assert str(error.value) == f"{server.address}: status 500: Internal Server Error; the server's log says why"
    assert len(server.bodies) == 1


@pytest.mark.parametrize("status", [503, 429])
def test_a_server_that_is_not_ready_yet_is_asked_again(serve, engine_for, status):
    server = serve(lambda number, body: said("dog") if number else (status, "loading", {"Retry-After": "0"}))
    engine_for(server, tries=2)
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ((400, {"error": {"message": "n is too large", "code": 400}}), "status 400: n is too large"),
        ((400, {"detail": [{"loc": ["body"], "msg": "x"}]}), 'status 400: [{"loc": ["body"], "msg": "x"}]'),
        ((400, {"error": "gone"}), "status 400: gone"),
        ((422, "plain\n text"), "status 422: plain text"),
        ((400, "y" * 5000), "status 400: " + "y" * 300 + " …"),
        ((503, "closed", {"Retry-After": "100000"}), "status 503: closed"),
        # a key must not travel to another server
        ((307, "over there", {"Location": "http://127.0.0.1:9/v1"}), "status 307: over there"),
    ],
)
def test_what_will_not_go_better_fails_at_once(serve, engine_for, bad, reason):
    server = serve(lambda number, body: bad if text_of(body) == "bad" else said("dog"))
    engine = engine_for(server, tries=3)
    with pytest.raises(GenerationError) as error:
        engine.answer(prompt_of("good", "bad"))
    assert str(error.value).startswith(f"{server.address}: {reason}") and len(str(error.value)) < 400
    assert len(of_images(server)) == 2
    assert engine.answer(prompt_of("good"))[0][0].text == "dog"


@pytest.mark.parametrize("status", [200, 500])
def test_a_reply_without_end_is_not_read_to_its_end(serve, engine_for, monkeypatch, status):
    monkeypatch.setattr("scenerl.inference.server.MAX_BYTES", 100_000)
    long = (status, b" " * 100_001)
    server = serve(lambda number, body: {"Ready?": said("dog"), "long": long}.get(text_of(body), "endless"))
    engine = engine_for(server, tries=2)
    for text in ("long", "endless"):
        with pytest.raises(GenerationError, match="a reply of more than 100000 bytes"):
            engine.answer(prompt_of(text))
    assert len(of_images(server)) == 4
    assert server.num_bytes < 50_000_000  # what the system keeps for a connection is sent, too


def test_a_list_of_models_without_end(serve, engine_for, monkeypatch):
    monkeypatch.setattr("scenerl.inference.server.MAX_BYTES", 100_000)
    server = serve(lambda number, body: said("dog"), models=tuple(f"{k:0100}" for k in range(1000)))
    assert engine_for(server).answer(prompt_of("?"))[0][0].text == "dog"


def test_a_key_is_sent_and_never_shown(serve, engine_for):
    server = serve(lambda number, body: said("good") if number == 0 else (401, "wrong key"))
    engine_for(server, key="s3cret\n")  # as a file gives it
    assert server.headers[0]["authorization"] == "Bearer s3cret"
    with pytest.raises(ValueError, match="status 401: wrong key; a key is read from") as error:
        engine_for(server.address.replace("//", "//user:s3cret@"), key="s3cret")
    assert "s3cret" not in str(error.value) and "OPENAI_API_KEY" in str(error.value)
    for key in ("s3\ncret", "s3crét"):
        with pytest.raises(ValueError, match="OPENAI_API_KEY: holds characters that no key has") as error:
            engine_for(server, key=key)
        assert key not in str(error.value)


def test_no_server(engine_for):
    port = free_port()
    with pytest.raises(ValueError, match=rf"no server answers at http://127.0.0.1:{port}/v1 .*--server"):
        engine_for(f"http://127.0.0.1:{port}", tries=3)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost:8000",
        "ftp://host/v1",
        "http://",
        "file:///etc/passwd",
        "http://h:x",
        "http://h:99999",
        "http://[",
    ],
)
def test_addresses_that_cannot_be(engine_for, address):
    with pytest.raises(ValueError, match="not an address; allowed: http://HOST:PORT/v1"):
        engine_for(address)


@pytest.mark.parametrize("ending", ["", "/", "/v1/", "/v1?x=1#y"])
def test_the_path_may_be_left_out(serve, engine_for, ending):
    server = serve(lambda number, body: said("dog"))
    assert engine_for(server.address.removesuffix("/v1") + ending).address == server.address


# the capability check


def test_a_server_that_does_not_know_the_model(serve, engine_for):
    def refuse(number, body):
        return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}

    server = serve(refuse, models=("sft", "grpo"))
    with pytest.raises(ValueError, match=r"does not know the model 'm' \(status 404: .*\); it has 'sft', 'grpo'$"):
        engine_for(server)
    assert len(server.bodies) == 1
    with pytest.raises(ValueError, match=r"does not know the model 'm' \(status 404: The model `m` does not exist.\)$"):
        engine_for(serve(refuse, models=None))


def test_a_server_that_answers_whatever_the_model_is_called(serve, engine_for, caplog):
    server = serve(lambda number, body: said("dog"), models=("other",))
    engine_for(server)
    assert [record.getMessage() for record in caplog.records] == [
        f"{server.address} answers as 'm', but lists other models only: 'other'"
    ]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ((400, "this model takes no images"), "status 400: this model takes no images"),
        ((500, "out of order"), "status 500: out of order"),
        ({"object": "chat.completion"}, "not a chat completion: choices: Field required"),
    ],
)
def test_a_server_that_fails_on_the_first_request(serve, engine_for, bad, reason):
    with pytest.raises(ValueError, match=f": {reason}"):
        engine_for(serve(lambda number, body: bad))


def test_an_answer_that_leaves_no_room_for_the_prompt(serve, engine_for):
    server = serve(lambda number, body: said("dog"))
    server.models["m"]["max_model_len"] = 100
    with pytest.raises(ValueError, match="at most 100 tokens, so max_new_tokens 100 leaves no room"):
        engine_for(server, Sampling(max_new_tokens=100))
    engine_for(server, Sampling(max_new_tokens=99))


@pytest.mark.parametrize("with_ids", [True, False])
def test_log_probabilities(serve, engine_for, with_ids):
    """The ending token is no part of the answer."""
    found = logprobs_of([b"dog", b"", b"<|im_end|>"], -0.25)
    server = serve(lambda number, body: said("dog", logprobs=found, **(IDS if with_ids else {})))
    [[reply]] = engine_for(server, Sampling(max_new_tokens=9, logprobs=True)).answer(prompt_of("?"))
    assert of_images(server)[0]["logprobs"] is True
    assert (reply.num_tokens, reply.logprobs, reply.spans) == (2, (-0.25, -0.25), ((0, 3), (3, 3)))


@pytest.mark.parametrize(
    ("kind", "answer", "reason"),
    [
        ("vllm", said("dog"), "an answer without log-probabilities; leave out --logprobs"),
        ("vllm", (400, "logprobs are not supported"), "logprobs are not supported"),
        ("transformers", said("dog"), "transformers serve gives no log-probabilities; leave out --logprobs"),
    ],
)
def test_a_server_without_log_probabilities(serve, engine_for, kind, answer, reason):
    with pytest.raises(ValueError, match=reason):
        engine_for(serve(lambda number, body: answer, kind=kind), Sampling(logprobs=True))


@pytest.mark.parametrize(("kind", "field"), [("vllm", "structured_outputs"), ("sglang", "ebnf")])
def test_grammars(serve, engine_for, kind, field):
    server = serve(lambda number, body: said(WORD if field in body else "no idea", **IDS), kind=kind)
    shapes = [GrammarSpec(OutputFormat("compact", objects=(label,)), (1000, 1000)) for label in ("cat", "dog")]
    engine = engine_for(server, constrain=True, concurrency=1)  # requests in order
    engine.answer(prompt_of("x", "y"), 0, shapes)
    grammars = [build_grammar(shape.output_format, shape.bounds_wh) for shape in shapes]
    assert "dog" not in grammars[0] and "dog" in grammars[1]
    wrapped = (lambda grammar: {"grammar": grammar}) if kind == "vllm" else str
    assert [body[field] for body in server.bodies] == [wrapped(text) for text in (WORD_GRAMMAR, *grammars)]
    impossible = GrammarSpec(OutputFormat("compact"), (0, 9))
    for use in (engine.check, lambda shape: engine.answer(prompt_of("x"), 0, [shape])):
        with pytest.raises(ValueError, match="no box with an area fits an image of 0 x 9"):
            use(impossible)


@pytest.mark.parametrize(
    ("kind", "answer", "reason"),
    [
        (
            "vllm",
            said("yes"),
            r"\(vLLM\) ignores grammars: instead of 'qzjx' it says 'yes'; leave out",
        ),
        ("sglang", (400, "no backend"), "status 400: no backend"),
        ("transformers", said(WORD), "transformers serve takes no grammars; leave out --constrain .*--server_kind"),
    ],
)
def test_a_server_that_does_not_keep_to_grammars(serve, engine_for, kind, answer, reason):
    with pytest.raises(ValueError, match=reason):
        engine_for(serve(lambda number, body: answer, kind=kind), constrain=True)


def test_a_warning_that_the_server_reads_other_prompts(serve, engine_for, checkpoint, caplog):
    """The wrong chat template, tokenizer, family or pixel bounds all show in what the server reads."""
    prompts = prompt_of("a", "b", "c")
    ours = checkpoint.processor.apply_chat_template(
        [prompts[0]], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    ids = [int(token) for token in ours["input_ids"][0]]

    def reading(count=None, **more):
        usage = {"completion_tokens": 1, "prompt_tokens": count}
        return serve(lambda number, body: {**said("dog", usage=usage), **more})

    for right in (reading(prompt_token_ids=ids), reading(len(ids)), reading()):
        engine_for(right).answer(prompts[:1])
    assert caplog.records == []
    engine = engine_for(reading(len(ids) + 4))
    for _ in range(2):
        engine.answer(prompts)
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    makes = f"tokens, where the processor of {checkpoint.name} makes"
    assert f"read a prompt as {len(ids) + 4} {makes} {len(ids)} of it" in record.getMessage()
    caplog.clear()
    engine_for(reading(prompt_token_ids=[ids[0] + 1, *ids[1:]])).answer(prompts[:1])
    assert f"as {len(ids)} {makes} others of it" in caplog.records[0].getMessage()


def test_any_number_of_threads(serve, engine_for):
    engine = engine_for(serve(lambda number, body: said(text_of(body))))
    found = {}

    def ask(name):
        found[name] = engine.answer(prompt_of(name))[0][0].text

    threads = [threading.Thread(target=ask, args=(f"{k}",)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {f"{k}": f"{k}" for k in range(8)}


def test_without_a_processor_nothing_is_barred_or_compared(serve, engine_for, checkpoint):
    server = serve(lambda number, body: said("dog", usage={"prompt_tokens": 1, "completion_tokens": 1}))
    engine_for(server, known=replace(checkpoint, processor=None)).answer(prompt_of("?"))
    assert "logit_bias" not in of_images(server)[0]
