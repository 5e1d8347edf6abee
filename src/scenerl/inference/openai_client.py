"""HTTP requests to a server with OpenAI's API: a deadline for each, some tries, and one line on what is wrong."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from ipaddress import ip_address
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

import httpx2 as httpx

from scenerl.errors import UserError
from scenerl.inference.engine import Unanswered

MAX_BYTES = 64 << 20
"""Longest answer of a server that is read."""
MAX_WAIT = 300.0
"""Longest wait in seconds that a server may ask for with Retry-After."""
Answer = TypeVar("Answer")
_MAX_BACKOFF = 30.0
_AGAIN = {408, 409, 425, 429}
_SHOWN = 300


class Refused(Exception):
    """The server understood a request and will not do it, however often it is asked."""

    def __init__(self, status: int, message: str):
        super().__init__(f"{status} {message}")
        self.status = status


class Unreadable(Exception):
    """What the server sent is not what was asked for; the next time it may be."""


class _Failed(Exception):
    """One try that may go better the next time; ``wait``: seconds that the server asks for."""

    def __init__(self, reason: str, wait: float = 0.0, is_there: bool = True):
        super().__init__(reason)
        self.wait = wait
        self.is_there = is_there


class Client:
    """Asks one server; all its methods run in one event loop.

    A request is made again after a lost or refused connection, a late, cut off or unreadable answer, and the statuses
    408, 409, 425, 429 and 5xx. Before that it waits for a random time that doubles with every try, or for as long as
    the server's Retry-After says.

    Args:
        address: of the server, such as ``http://127.0.0.1:8000/v1``; without a path, ``/v1`` is meant.
        key: sent as a bearer token; None: none is.
        timeout: seconds that one try may take, its answer included.
        tries: how often a request is made at most.
        at_once: requests under way at a time; others wait, which does not count as their time.
        backoff: seconds before the second try, at most.

    Raises:
        UserError: the address is none, or the key cannot be one.
    """

    def __init__(
        self,
        address: str,
        key: str | None = None,
        timeout: float = 300.0,
        tries: int = 5,
        at_once: int = 16,
        backoff: float = 1.0,
    ):
        parts = _parts(address)
        key = (key or "").strip()  # a key that comes from a file often ends in a line break
        if not (key.isascii() and key.isprintable()):
            raise UserError("OPENAI_API_KEY: holds characters that no key has")  # which are not for a terminal or log
        self.address = parts._replace(path=parts.path.rstrip("/") or "/v1", query="", fragment="").geturl()
        self.shown = self.address.replace(f"{parts.netloc.rpartition('@')[0]}@", "", 1)  # without a password in it
        self._timeout, self._tries, self._backoff = timeout, tries, backoff
        self._turn = asyncio.Semaphore(at_once)
        self._http = httpx.AsyncClient(
            timeout=None,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once),
            trust_env=not _is_loopback(parts.hostname),  # a proxy does not know this machine's own servers
        )

    async def request(
        self,
        path: str,
        body: dict | None = None,
        read: Callable[[dict], Answer] = lambda answer: answer,
        tries: int | None = None,
    ) -> Answer:
        """What ``read`` makes of the JSON object that the server answers to a GET, or to a POST of ``body``.

        Args:
            read: raises :class:`Unreadable` where the server is to be asked again.
            tries: not given: the client's.

        Raises:
            Refused: the server says no.
            Unanswered: it failed every time; says how the last time.
            UserError: nothing listens there, or it wants another key.
        """
        content = None if body is None else json.dumps(body).encode()
        tries = tries or self._tries
        for number in range(1, tries + 1):
            try:
                async with self._turn, asyncio.timeout(self._timeout):
                    return read(await self._try(path, content))
            except TimeoutError:
                failure = _Failed(f"no whole answer within {self._timeout:g} s")
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = _Failed(_line(error), is_there=False)
            except httpx.RequestError as error:
                failure = _Failed(f"connection lost ({_line(error)})")
            except Unreadable as error:
                failure = _Failed(str(error))
            except _Failed as error:
                failure = error
            if failure.wait > MAX_WAIT:
                raise Unanswered(f"{self.shown}: {failure}, and asks to wait {failure.wait:.0f} s")
            if number < tries:
                await asyncio.sleep(max(failure.wait, self._pause(number)))
        if not failure.is_there:
            raise UserError(f"no server answers at {self.shown} ({failure}); start it, or give its address: --server")
        times = "once" if tries == 1 else f"{tries} times"
        raise Unanswered(f"{self.shown}: asked {times}, the last time: {failure}")

    async def close(self) -> None:
        await self._http.aclose()

    def _pause(self, number: int) -> float:
        """Seconds to wait after the ``number``-th try: half of them sure, so that many clients do not come at once."""
        longest = min(self._backoff * 2 ** (number - 1), _MAX_BACKOFF)
        return longest * (1 + random.random()) / 2

    async def _try(self, path: str, content: bytes | None) -> dict:
        headers = {"Content-Type": "application/json"} if content else {}
        method = "GET" if content is None else "POST"
        async with self._http.stream(method, f"{self.address}{path}", content=content, headers=headers) as response:
            received = bytearray()
            async for part in response.aiter_bytes():
                received += part
                if len(received) > MAX_BYTES:
                    raise _Failed(f"an answer of more than {MAX_BYTES} bytes")
        status = response.status_code
        if status in _AGAIN or status >= 500:
            raise _Failed(f"{_reason(status)}: {_message(received)}", _retry_after(response.headers))
        if status in (401, 403):
            raise UserError(
                f"{self.shown}: {_reason(status)}: {_message(received)}; a key is read from the environment variable "
                "OPENAI_API_KEY"
            )
        if status != 200:
            raise Refused(status, _message(received))
        try:
            answer = json.loads(received)
        except (ValueError, RecursionError) as error:
            raise _Failed(f"an answer that is not JSON ({_line(error)})") from error
        if not isinstance(answer, dict):
            raise _Failed(f"an answer that is not a JSON object but a {type(answer).__name__}")
        return answer


def _parts(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    except ValueError:  # of urlsplit, or of a port that is no number
        pass
    raise UserError(f"server {address!r}: not an address; allowed: http://HOST:PORT/v1 or https://…")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"


def _reason(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _message(received: bytes) -> str:
    """What an error says: servers put it under ``error.message``, ``message`` or ``detail``, or send mere text."""
    text = received[: 1 << 16].decode("utf-8", "replace")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = text
    for key in ("error", "message", "detail"):
        found = found.get(key, found) if isinstance(found, dict) else found
    return _line(Exception(found if isinstance(found, str) else json.dumps(found))) if found else "no message"


def _retry_after(headers) -> float:
    """Seconds that the header asks to wait, given as such or as a date; 0 where there is none that can be read."""
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(value)
        return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
