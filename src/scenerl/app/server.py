"""The HTTP server: the page, uploads and answers. One model call at a time; everything a stranger sends is bounded."""

from __future__ import annotations

import itertools
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler
from importlib import resources
from socketserver import TCPServer
from urllib.parse import urlsplit

from scenerl.app.asks import VOCABULARIES, Ask, Limits, read_ask
from scenerl.app.checkpoints import Checkpoints
from scenerl.app.connections import RETRY_AFTER, BoundedServer
from scenerl.app.guard import POLICY, known_host, own_request
from scenerl.app.pictures import Picture, Pictures, read_picture
from scenerl.errors import UserError

Answer = Callable[[Ask, Picture, object, object], dict]
"""As :func:`scenerl.app.answer.answer`."""

MAX_ASK = 1_000_000
"""Bytes of a question."""
MAX_WAITING = 8
"""Questions at a time: one that the model answers, the others wait."""
MAX_UPLOADS = 8
"""Uploads that are read at a time, since each takes memory; the others wait."""
DRAINED = 4
"""A body that is too large is read on, and thrown away, up to so many times the limit, so that the browser gets to read
why it was refused."""
IDLE = 60.0
"""Seconds that a connection may be silent."""

PAGE = {
    "/": ("index.html", "text/html"),
    "/app.css": ("app.css", "text/css"),
    "/app.js": ("app.js", "text/javascript"),
    "/draw.js": ("draw.js", "text/javascript"),
}
"""Path to file and type; there are no other paths to files."""

_log = logging.getLogger(__name__)


class Refused(Exception):
    """A request that gets an HTTP status and a message instead of what it asks for."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the server listens, and the most that it takes: bytes and pixels of an upload, and of a question."""

    host: str
    port: int
    max_bytes: int
    max_pixels: int
    limits: Limits


class App(BoundedServer):
    """The server with its checkpoints and pictures.

    Args:
        answer: puts a question to a checkpoint.

    Raises:
        UserError: the address cannot be used.
    """

    allow_reuse_port = False

    def __init__(self, settings: Settings, checkpoints: Checkpoints, answer: Answer):
        self.settings = settings
        self.checkpoints = checkpoints
        self.pictures = Pictures()
        self._answer = answer
        self._model, self._decoder = threading.Lock(), threading.Lock()
        self._waiting = threading.BoundedSemaphore(MAX_WAITING)
        self.uploading = threading.BoundedSemaphore(MAX_UPLOADS)
        self._working, self._change = 0, threading.Condition()
        self.address_family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        try:
            super().__init__((settings.host, settings.port), Handler)
        except OSError as error:
            raise UserError(f"cannot listen on {settings.host}, port {settings.port}: {error.strerror}") from error

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's would ask for the name of the address, which may take long

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    @cached_property
    def files(self) -> dict[str, tuple[bytes, str]]:
        folder = resources.files("scenerl.app") / "page"
        return {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in PAGE.items()}

    def info(self) -> dict:
        """What the page has to know to show its form."""
        limits = self.settings.limits
        return {
            "models": self.checkpoints.describe(),
            "vocabularies": VOCABULARIES,
            "max_bytes": self.settings.max_bytes,
            "max_pixels": self.settings.max_pixels,
            "max_new_tokens": limits.max_new_tokens,
            "num_samples": limits.num_samples,
        }

    def upload(self, content: bytes) -> dict:
        """Take an image; gives its id and size.

        Raises:
            UserError: it cannot be used.
        """
        with self._decoder:  # one image at a time takes memory
            picture = read_picture(content, self.settings.max_pixels)
        width, height = picture.image_wh
        return {"id": self.pictures.add(picture), "width": width, "height": height}

    def ask(self, value: object) -> dict:
        """Answer a question, when those before it are answered.

        Raises:
            Refused: too many are waiting, or the image is gone. ValueError: the question is wrong.
        """
        ask = read_ask(value, self.checkpoints.output_formats, self.settings.limits)
        picture = self.pictures.get(ask.image)
        if picture is None:
            raise Refused(404, "the server does not have this image any more; choose it again")
        if not self._waiting.acquire(blocking=False):
            raise Refused(503, f"{MAX_WAITING} questions are waiting already; try again in a while")
        try:
            times = [time.monotonic()]
            with self._model:
                times.append(time.monotonic())
                engine = self.checkpoints.engine(ask.model)
                times.append(time.monotonic())
                result = self._answer(ask, picture, engine, self.checkpoints.output_formats[ask.model])
                times.append(time.monotonic())
        finally:
            self._waiting.release()
        spans = [round(after - before, 3) for before, after in itertools.pairwise(times)]
        seconds = dict(zip(("waiting", "loading", "answering"), spans, strict=True))
        return {"model": ask.model, **result, "seconds": seconds}

    @contextmanager
    def working(self) -> Iterator[None]:
        """While a request is being answered."""
        with self._change:
            self._working += 1
        try:
            yield
        finally:
            with self._change:
                self._working -= 1
                self._change.notify_all()

    def finish(self, seconds: float) -> None:
        """Wait until no request is being answered, at most so long, and stop listening."""
        with self._change:
            self._change.wait_for(lambda: not self._working, seconds)
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):  # a browser that went away is no error
            _log.exception("request of %s", client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: App
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "SceneRL", ""
    timeout = IDLE

    def do_GET(self) -> None:
        with self.server.working():
            self._answer(self._get)

    def do_POST(self) -> None:
        with self.server.working():
            self._answer(self._post)

    def _get(self, path: str) -> tuple[bytes, str]:
        if path in self.server.files:
            return self.server.files[path]
        if path == "/api/info":
            return _json(self.server.info())
        folder, _, name = path.rpartition("/")
        picture = self.server.pictures.get(name) if folder == "/api/images" else None
        if picture is None:
            raise Refused(404, "there is nothing here")
        return picture.shown, "image/webp"

    def _post(self, path: str) -> tuple[bytes, str]:
        if not own_request(self.headers):
            raise Refused(403, "requests are taken from the page itself only")
        if path == "/api/images":
            with self.server.uploading:
                return _json(self.server.upload(self._body(self.server.settings.max_bytes)))
        if path == "/api/answers":
            try:
                value = json.loads(self._body(MAX_ASK))
            except (ValueError, RecursionError) as error:
                raise UserError("the request is not JSON") from error
            return _json(self.server.ask(value))
        raise Refused(404, "there is nothing here")

    def _answer(self, method: Callable[[str], tuple[bytes, str]]) -> None:
        """Run a method for the path that is asked for, and send what it gives or why there is nothing."""
        try:
            if not known_host(self.headers.get("Host"), self.server.settings.host):
                raise Refused(403, "this host name is not the server's")
            status, (content, kind) = 200, method(urlsplit(self.path).path)
        except Refused as error:
            status, (content, kind) = error.status, _json({"error": str(error)})
        except ValueError as error:
            status, (content, kind) = 400, _json({"error": " ".join(str(error).split())})
        except (ConnectionError, TimeoutError):
            raise
        except (
            Exception
        ) as error:  # a bug, or a device out of memory: the server lives on, and its log says what it was
            _log.exception("%s %s", self.command, self.path)
            status, (content, kind) = 500, _json({"error": f"the server failed: {type(error).__name__}"})
        if status != 200:
            self.close_connection = True  # the body may not have been read
        self.send_response(status)
        for name, value in (*POLICY.items(), ("Content-Type", kind), ("Content-Length", str(len(content)))):
            self.send_header(name, value)
        if status == 503:
            self.send_header("Retry-After", str(RETRY_AFTER))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def _body(self, most: int) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or self.headers.get("Transfer-Encoding"):
            raise Refused(411, "the length of the content is missing")
        size = int(length)
        if size > most:
            self._drain(min(size, DRAINED * most))
            raise Refused(413, f"the file has {size} bytes; allowed: {most}")
        content = self.rfile.read(size)
        if len(content) < size:
            raise ConnectionResetError("the body broke off")
        return content

    def _drain(self, size: int) -> None:
        while size > 0 and (chunk := self.rfile.read(min(size, 1 << 16))):
            size -= len(chunk)

    def log_message(self, format: str, *args) -> None:
        _log.debug(format, *args)


def _json(value: dict) -> tuple[bytes, str]:
    return json.dumps(value, allow_nan=False).encode(), "application/json"
