"""The server over HTTP: who may ask, what is taken, what becomes of the rest."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
import time
from collections import Counter

import pytest

from app.image_files import header_bomb, png
from scenerl.app.connections import MAX_CONNECTIONS
from scenerl.app.server import MAX_UPLOADS, MAX_WAITING


def test_an_image_is_uploaded_shown_and_asked_about(client, image):
    name = client.upload(image)
    status, headers, content = client("GET", f"/api/images/{name}")
    assert (status, headers["Content-Type"], content[:4]) == (200, "image/webp", b"RIFF")
    status, answer = client.ask(image=name, task="sgdet")
    assert status == 200 and answer["asked"] == "sgdet" and answer["wh"] == [60, 40] and answer["model"] == "small"
    assert set(answer["seconds"]) == {"waiting", "loading", "answering"}


def test_the_page_and_its_files(client):
    for path, kind in (("/", "text/html"), ("/app.js", "text/javascript"), ("/draw.js", "text/javascript")):
        status, headers, content = client("GET", path)
        assert (status, headers["Content-Type"]) == (200, kind) and content
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert (headers["X-Content-Type-Options"], headers["Cache-Control"]) == ("nosniff", "no-store")
        assert "Access-Control-Allow-Origin" not in headers
    status, info = client.json("GET", "/api/info?x=1")
    assert [model["name"] for model in info["models"]] == ["small", "other"] and info["max_bytes"] == 200_000


def test_the_page_holds_no_markup_of_others():
    """Every text of a model is set as text."""
    from importlib import resources

    for name in ("app.js", "draw.js"):
        script = (resources.files("scenerl.app") / "page" / name).read_text(encoding="utf-8")
        assert not {
            word for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(") if word in script
        }


@pytest.mark.parametrize(
    "path",
    [
        "/app.py",
        "/index.html",
        "/../server.py",
        "/%2e%2e/server.py",
        "/page/../server.py",
        "//etc/passwd",
        "/api/images/",
        "/api/images/../../server.py",
        "/api/images/x",
        "/api",
        "/" + "a" * 5000,
    ],
)
def test_there_is_nothing_else(client, path):
    assert client.json("GET", path) == (404, {"error": "there is nothing here"})
    assert client.json("POST", path, b"")[0] == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods(client, method):
    assert client(method, "/")[0] == 501


@pytest.mark.parametrize(
    "host",
    ["localhost:7860", "127.0.0.1", "127.0.0.1:1", "[::1]:7860", "LOCALHOST", "192.168.0.7:7860"],
)
def test_own_names(client, host):
    assert client("GET", "/", Host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    [None, "", "evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost@evil.example", "[::1", "a b",
     "localhost.evil.example", "http://localhost"],
)  # fmt: skip
def test_names_of_others_are_refused(client, image, host):
    """DNS rebinding: a name of the attacker's that leads to this machine."""
    assert client("GET", "/", Host=host)[0] == 403
    assert client("POST", "/api/images", image, Host=host)[0] == 403


def test_requests_of_other_sites_are_refused(client, image):
    own = f"http://127.0.0.1:{client.port}"
    assert client("POST", "/api/images", image, Origin=own)[0] == 200
    for headers in (
        {"X_SceneRL": None},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": own.replace("http:", "https:")},
        {"Origin": f"{own}.evil.example"},
        {"X_SceneRL": None, "Origin": own},
    ):
        assert client("POST", "/api/images", image, **headers)[0] == 403, headers


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"hello", "not an image"),
        (b"", "not an image"),
        (png(60, 40)[:60], "truncated"),
        (header_bomb(), "80000000 pixels"),
    ],
)
def test_files_that_cannot_be_used(client, content, says):
    status, value = client.json("POST", "/api/images", content)
    assert status == 400 and says in value["error"]


def test_files_that_are_too_large(client):
    """Refused with a message that the browser gets to read, whether the body comes or not."""
    status, value = client.json("POST", "/api/images", bytes(200_001))
    assert status == 413 and "200001 bytes; allowed: 200000" in value["error"]
    assert client.json("POST", "/api/images", bytes(1_000_000))[0] == 413
    assert client.json("POST", "/api/answers", b" " * 1_000_001)[0] == 413


def test_a_body_without_a_length(client):
    for headers in ({}, {"Content_Length": "-1"}, {"Content_Length": "1e3"}, {"Transfer_Encoding": "chunked"}):
        assert client.json("POST", "/api/images", **headers)[0] == 411


def test_a_body_that_breaks_off(client, image):
    with socket.create_connection(("127.0.0.1", client.port)) as raw:
        lines = (
            "POST /api/images HTTP/1.1",
            "Host: localhost",
            "X-SceneRL: app",
            f"Content-Length: {len(image)}",
            "",
            "",
        )
        raw.sendall("\r\n".join(lines).encode())
        raw.sendall(image[:20])
        raw.shutdown(socket.SHUT_WR)
        assert raw.recv(100) == b""
    assert client.upload(image)


@pytest.mark.parametrize(
    "noise", [b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 70_000], ids=range(4)
)
def test_what_is_no_http(client, image, noise):
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as raw:
        raw.sendall(noise)
        raw.shutdown(socket.SHUT_WR)
        try:
            raw.recv(1000)
        except ConnectionResetError:
            pass
    assert client.upload(image)


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff", b"null", b'{"image": 1}', b"1e999"], ids=range(7))
def test_questions_that_are_none(client, body):
    status, value = client.json("POST", "/api/answers", body)
    assert status == 400 and value["error"]


def test_an_image_that_is_gone(client):
    status, value = client.ask(image="gone")
    assert status == 404 and "choose it again" in value["error"]


def test_several_requests_on_one_connection(client, image):
    connection = http.client.HTTPConnection("127.0.0.1", client.port)
    for _ in range(3):
        connection.request("POST", "/api/images", image, {"X-SceneRL": "app"})
        response = connection.getresponse()
        assert response.status == 200 and json.loads(response.read())["width"] == 60
    connection.close()


def test_an_answer_that_fails(serve, connect, image, caplog):
    def answer(ask, picture, engine, saved):
        raise RuntimeError("secret of the server") if ask.model == "small" else ValueError("1 x 1 is\nno size")

    client = connect(serve(answer))
    name = client.upload(image)
    with caplog.at_level(logging.CRITICAL):
        status, value = client.ask(image=name)
    assert status == 500 and value["error"] == "the server failed: RuntimeError"
    assert client.ask(image=name, model="other") == (400, {"error": "1 x 1 is no size"})
    assert client("GET", "/")[0] == 200


def test_one_at_a_time_and_not_too_many_wait(serve, connect, image):
    inside, most, go = [0], [0], threading.Event()

    def answer(ask, picture, engine, saved):
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        go.wait(20)
        inside[0] -= 1
        return {}

    app = serve(answer)
    client = connect(app)
    name, statuses = client.upload(image), []
    question = json.dumps({"model": "small", "image": name}).encode()

    def put() -> None:
        status, headers, _ = client("POST", "/api/answers", question)
        statuses.append((status, headers["Retry-After"]))

    threads = [threading.Thread(target=put) for _ in range(MAX_WAITING + 3)]
    for thread in threads:
        thread.start()
    while len(statuses) < 3:  # those that found the queue full
        go.wait(0.01)
    assert client("GET", "/api/info")[0] == 200  # the page still works
    go.set()
    for thread in threads:
        thread.join()
    assert Counter(statuses) == {(200, None): MAX_WAITING, (503, "5"): 3} and most == [1]
    assert client.ask(image=name)[0] == 200


def test_uploads_wait_for_those_before_them(serve, connect, image):
    app = serve(None)
    assert [app.uploading.acquire(blocking=False) for _ in range(MAX_UPLOADS + 1)] == [True] * MAX_UPLOADS + [False]
    lines = ("POST /api/images HTTP/1.1", "Host: localhost", "X-SceneRL: app", f"Content-Length: {len(image)}", "", "")
    with socket.create_connection(app.server_address) as waiting:
        waiting.sendall("\r\n".join(lines).encode() + image)
        waiting.settimeout(0.3)
        with pytest.raises(TimeoutError):
            waiting.recv(15)
        assert connect(app)("GET", "/")[0] == 200  # everything else goes on
        app.uploading.release()
        waiting.settimeout(30)
        assert waiting.recv(15) == b"HTTP/1.1 200 OK"


def test_who_comes_to_a_full_server_is_told_to_come_again(client, image):
    """Also one whose body is never read; as soon as somebody leaves there is room."""
    name = client.upload(image)
    silent = [socket.create_connection(("127.0.0.1", client.port)) for _ in range(MAX_CONNECTIONS - 1)]
    talking = http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)
    talking.connect()
    try:
        # Connections are taken in order: when this one is refused, those before it have their places.
        for method, path, body in (("GET", "/", None), ("POST", "/api/images", bytes(150_000))):
            status, headers, content = client(method, path, body)
            assert (status, headers["Retry-After"], headers["Connection"]) == (503, "5", "close")
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert json.loads(content)["error"] == "64 connections are open already; try again in a while"
        talking.request("GET", f"/api/images/{name}")  # those who are in are served
        assert talking.getresponse().status == 200
        many = [socket.create_connection(("127.0.0.1", client.port), timeout=30) for _ in range(30)]
        assert {connection.recv(12) for connection in many} <= {b"HTTP/1.1 503", b""}
        for connection in many:
            connection.close()
        silent.pop().close()
        while (status := client("POST", "/api/images", image)[0]) == 503:  # the server has yet to notice
            time.sleep(0.01)
        assert status == 200
    finally:
        talking.close()
        for connection in silent:
            connection.close()


def test_the_answer_that_is_being_made_is_finished(serve, connect, image):
    started, go, got = threading.Event(), threading.Event(), []

    def answer(ask, picture, engine, saved):
        started.set()
        go.wait(20)
        return {"done": True}

    app = serve(answer)
    client = connect(app)
    name = client.upload(image)
    thread = threading.Thread(target=lambda: got.append(client.ask(image=name)))
    thread.start()
    started.wait(20)
    threading.Timer(0.1, go.set).start()
    app.finish(20)
    thread.join()
    assert got[0][0] == 200 and got[0][1]["done"]


def test_a_port_that_is_taken(serve):
    port = serve(None).server_address[1]
    with pytest.raises(ValueError, match=f"cannot listen on 127.0.0.1, port {port}"):
        serve(None, port=port)


def test_ipv6(serve):
    try:
        app = serve(None, host="::1")
    except ValueError:
        pytest.skip("this machine has no IPv6")
    assert app.url.startswith("http://[::1]:")
