"""A server with OpenAI's API on this machine that does as a test tells it, good or bad."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORD = "qzjx"
WORD_GRAMMAR = f'root ::= "{WORD}"'
"""The grammar of the question whether a server keeps to grammars."""


def said(*texts: str, finish: str = "stop", usage: dict | None = None, **choice) -> dict:
    """A chat completion with an answer for each text."""
    choices = [
        {"index": k, "message": {"role": "assistant", "content": text}, "finish_reason": finish, **choice}
        for k, text in enumerate(texts)
    ]
    return {"object": "chat.completion", "choices": choices, "usage": usage or {"completion_tokens": 7}}


def logprobs_of(pieces: list[bytes], value: float = -0.5) -> dict:
    return {"content": [{"token": "", "bytes": list(piece), "logprob": value} for piece in pieces]}


class Loopback:
    """A running server; leave it with ``close``.

    Args:
        do: (number of the chat request from 0, its body) to what happens: a dict to answer with, bytes to answer with,
            (status, dict or text, headers), or one of the words ``drop``, ``half``, ``late`` and ``endless``.
        kind: which program it says it is (:data:`scenerl.inference.server.KINDS`).

    Attributes:
        bodies: of the chat requests. headers: theirs, names in lower case.
        num_bytes: of endless replies that were sent.
        models: names that it lists, with what it says of each; None: it has no list.
        loading: the events with which ``/load_model`` answers, as ``transformers serve`` does.
    """

    def __init__(self, do: Callable[[int, dict], object], models: tuple[str, ...] | None = ("m",), kind: str = "vllm"):
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.models = None if models is None else {name: {"owned_by": kind} for name in models}
        self.loading: list[dict] = [{"status": "ready", "model": "m@main"}]
        self.stopped = threading.Event()
        self.num_bytes = 0
        server, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                if self.path == "/openapi.json":
                    self.send(200, {"paths": {"/load_model": {}} if kind == "transformers" else {}})
                elif server.models is None:
                    self.send(404, "no such page")
                else:
                    self.send(200, {"data": [{"id": name, **more} for name, more in server.models.items()]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/load_model":
                    return self.send(200, "".join(f"data: {json.dumps(event)}\n\n" for event in server.loading))
                with lock:
                    number = len(server.bodies)
                    server.bodies.append(body)
                    server.headers.append({name.lower(): value for name, value in self.headers.items()})
                action = do(number, body)
                if action == "late":
                    server.stopped.wait(30)
                    action = "drop"
                if action == "drop":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                elif action == "half":
                    text = json.dumps(said("half")).encode()
                    self.send(200, text[:20], {"Content-Length": str(len(text))})
                    self.close_connection = True
                elif action == "endless":
                    self.close_connection = True
                    self.send(200, b" ", {"Content-Length": str(1 << 40)})
                    with suppress(OSError):
                        while not server.stopped.is_set():
                            self.wfile.write(b" " * 10_000)
                            server.num_bytes += 10_000
                else:
                    self.send(*action) if isinstance(action, tuple) else self.send(200, action)

            def send(self, status, content, headers=None):
                text = content if isinstance(content, bytes) else None
                text = text or (content if isinstance(content, str) else json.dumps(content)).encode()
                self.send_response(status)
                known = {"Content-Length": str(len(text)), "Content-Type": "application/json"}
                for key, value in {**known, **(headers or {})}.items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(text)

        class Server(ThreadingHTTPServer):
            request_queue_size = 128  # with the usual 5, a client that opens many at once on a busy machine loses some

        self._http = Server(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._http.server_port}/v1"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.stopped.set()
        self._http.shutdown()
        self._http.server_close()


def free_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
