"""Requests to a server that misbehaves in every way a network and a busy machine know."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from inference.loopback import free_port, said
from scenerl.inference import openai_client
from scenerl.inference.engine import Unanswered
from scenerl.inference.openai_client import Client, Refused, Unreadable


@pytest.fixture
def waits(monkeypatch):
    """The seconds that are waited for between tries; nobody really waits."""
    seen = []

    async def sleep(seconds):
        seen.append(seconds)

    monkeypatch.setattr(openai_client.asyncio, "sleep", sleep)
    return seen


def ask(server, body=None, read=lambda answer: answer, timeout=20.0, **more):
    async def once():
        client = Client(server if isinstance(server, str) else server.address, timeout=timeout, **more)
        try:
            return await client.request("/chat/completions", {} if body is None else body, read)
        finally:
            await client.close()

    return asyncio.run(once())


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("drop", "connection lost"),
        ("half", "connection lost"),
        ("late", "no whole answer within 0.3 s"),
        (b"<html>not JSON", "an answer that is not JSON"),
        (b"[" * 100_000, "an answer that is not JSON"),
        ([1, 2], "an answer that is not a JSON object but a list"),
        ((429, {"error": {"message": "slow down"}}), "429 Too Many Requests: slow down"),
        ((500, "boom"), "500 Internal Server Error: boom"),
        ((503, {"detail": "warming up"}), "503 Service Unavailable: warming up"),
        ((599, b"\xff\xfe"), "599: "),
        ({"choices": []}, "no choices"),
        ((200, b"xyz", {"Content-Encoding": "gzip"}), "connection lost"),
    ],
)
def test_what_may_go_better_is_tried_again_so_often_and_no_oftener(serve, waits, bad, told):
    def read(answer):
        if not answer["choices"]:
            raise Unreadable("no choices")
        return answer["choices"][0]["message"]["content"]

    timeout = 0.3 if bad == "late" else 20.0
    twice = serve(lambda number, body: bad if number < 2 else said("good"))
    assert ask(twice, {"a": 1}, read, timeout=timeout, tries=3) == "good"
    assert twice.bodies == [{"a": 1}] * 3 and len(waits) == 2
    always = serve(lambda number, body: bad)
    with pytest.raises(Unanswered) as failure:
        ask(always, {}, read, timeout=timeout, tries=3)
    assert len(always.bodies) == 3
    message = str(failure.value)
    assert message.startswith(f"{always.address}: asked 3 times, the last time: ") and told in message
    assert "\n" not in message and len(message) < 500


def test_waits_double_and_differ(serve, waits):
    server = serve(lambda number, body: (500, "boom"))
    with pytest.raises(Unanswered):
        ask(server, tries=5, backoff=4.0)
    assert len(waits) == 4
    for number, seconds in enumerate(waits):
        assert 2 * 2**number <= seconds <= 4 * 2**number
    assert len(set(waits)) == 4
    waits.clear()
    with pytest.raises(Unanswered):
        ask(server, tries=9, backoff=4.0)
    assert 15 <= max(waits) <= 30


def test_retry_after_is_honoured(serve, waits):
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    headers = ["7.5", soon, "-3", "soon", ""]
    server = serve(lambda number, body: (429, "busy", {"Retry-After": headers[number]}) if number < 5 else said("good"))
    ask(server, tries=6, backoff=0.01)
    assert waits[0] == 7.5 and 50 < waits[1] <= 100
    assert all(seconds < 1 for seconds in waits[2:])


@pytest.mark.parametrize("asked", ["100000", "inf"])
def test_a_server_that_asks_to_wait_for_hours_is_left_alone(serve, waits, asked):
    server = serve(lambda number, body: (503, "closed", {"Retry-After": asked}))
    with pytest.raises(Unanswered, match="503 Service Unavailable: closed, and asks to wait"):
        ask(server, tries=6)
    assert waits == [] and len(server.bodies) == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"error": {"message": "n is too large", "code": 400}}, "400 n is too large"),
        ({"detail": [{"loc": ["body"], "msg": "x"}]}, '400 [{"loc": ["body"], "msg": "x"}]'),
        ({"error": "gone"}, "400 gone"),
        ("plain\n text", "400 plain text"),
        ("y" * 5000, "400 " + "y" * 300 + " …"),
        ("", "400 no message"),
    ],
)
def test_a_refusal_is_final(serve, waits, content, told):
    server = serve(lambda number, body: (400, content))
    with pytest.raises(Refused) as refusal:
        ask(server)
    assert str(refusal.value) == told and refusal.value.status == 400
    assert len(server.bodies) == 1 and waits == []


def test_a_key_is_sent_and_never_shown(serve):
    server = serve(lambda number, body: said("good") if number == 0 else (401, "wrong key"))
    ask(server, key="s3cret")
    assert server.headers[0]["Authorization"] == "Bearer s3cret"
    with pytest.raises(ValueError, match="401 Unauthorized: wrong key; a key is read from") as error:
        ask(server.address.replace("//", "//user:s3cret@"), key="s3cret")
    assert "s3cret" not in str(error.value) and "OPENAI_API_KEY" in str(error.value)
    open_to_all = serve(lambda number, body: said("good"))
    ask(open_to_all)
    assert "Authorization" not in open_to_all.headers[0]
    ask(open_to_all, key="s3cret\n")  # as a file gives it
    assert open_to_all.headers[1]["Authorization"] == "Bearer s3cret"
    for key in ("s3\ncret", "s3crét"):
        with pytest.raises(ValueError, match="OPENAI_API_KEY: holds characters that no key has") as error:
            Client(server.address, key)
        assert key not in str(error.value)


def test_no_server(waits):
    port = free_port()
    with pytest.raises(ValueError, match=rf"no server answers at http://127.0.0.1:{port}/v1 .*--server"):
        ask(f"http://127.0.0.1:{port}", tries=3)
    assert len(waits) == 2


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
def test_addresses_that_cannot_be(address):
    with pytest.raises(ValueError, match="not an address; allowed: http://HOST:PORT/v1"):
        Client(address)


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("http://h:1", "http://h:1/v1"),
        ("http://h:1/", "http://h:1/v1"),
        ("https://h/v1/", "https://h/v1"),
        ("https://h/api/openai/v1?x=1#y", "https://h/api/openai/v1"),
    ],
)
def test_the_path_may_be_left_out(address, meant):
    assert Client(address).address == meant


def test_an_endless_answer_is_cut(serve, waits, monkeypatch):
    monkeypatch.setattr(openai_client, "MAX_BYTES", 1000)
    server = serve(lambda number, body: said("x" * 2000))
    with pytest.raises(Unanswered, match="an answer of more than 1000 bytes"):
        ask(server, tries=2)


def test_no_more_requests_at_once_than_asked_for(serve):
    """Six of them, two at a time: as long as the server keeps two waiting, there is no third."""
    answered = threading.Event()

    def do(number, body):
        assert answered.wait(60)
        return said("good")

    server = serve(do)

    async def all_of_them():
        client = Client(server.address, at_once=2)
        asked = [asyncio.create_task(client.request("/chat/completions", {"k": k})) for k in range(6)]
        while len(server.bodies) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        seen = len(server.bodies)
        answered.set()
        await asyncio.gather(*asked)
        await client.close()
        return seen

    assert asyncio.run(all_of_them()) == 2
    assert sorted(body["k"] for body in server.bodies) == list(range(6))


def test_redirects_are_not_followed(serve):
    """A key must not travel to another server."""
    server = serve(lambda number, body: (307, "over there", {"Location": "http://127.0.0.1:9/v1"}))
    with pytest.raises(Refused, match="307 over there"):
        ask(server, key="s3cret")
