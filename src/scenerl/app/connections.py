"""A thread for each connection, up to so many: whoever comes then is told to come again."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import ThreadingHTTPServer

from scenerl.app.guard import POLICY

MAX_CONNECTIONS = 64
"""A browser keeps about six."""
RETRY_AFTER = 5
"""Seconds after which one who was refused may come again."""
_MAX_REFUSED = 8  # at a time; further ones are closed without a word
_REFUSING = 2.0  # seconds for the client to read why

_CONTENT = json.dumps({"error": f"{MAX_CONNECTIONS} connections are open already; try again in a while"})
_HEADERS = {
    **POLICY,
    "Content-Type": "application/json",
    "Content-Length": len(_CONTENT),
    "Retry-After": RETRY_AFTER,
    "Connection": "close",
}
_REFUSAL = "\r\n".join(
    ["HTTP/1.1 503 Service Unavailable", *(f"{name}: {value}" for name, value in _HEADERS.items()), "", _CONTENT]
).encode()


class BoundedServer(ThreadingHTTPServer):
    """An HTTP server with at most ``MAX_CONNECTIONS`` connections."""

    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, address, handler):
        self._served = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._refused = threading.BoundedSemaphore(_MAX_REFUSED)
        super().__init__(address, handler)

    def process_request(self, request, client_address) -> None:
        for places, work in ((self._served, self.process_request_thread), (self._refused, self._refuse)):
            if places.acquire(blocking=False):
                arguments = (places, work, request, client_address)
                threading.Thread(target=self._in_place, args=arguments, daemon=True).start()
                return
        self.shutdown_request(request)

    @staticmethod
    def _in_place(places, work, request, client_address) -> None:
        try:
            work(request, client_address)
        finally:
            places.release()

    def _refuse(self, request: socket.socket, client_address) -> None:
        """Say why, and read on for a while: closing with something unread would take the answer back."""
        end = time.monotonic() + _REFUSING
        try:
            request.settimeout(_REFUSING)
            request.sendall(_REFUSAL)
            request.shutdown(socket.SHUT_WR)
            while time.monotonic() < end and request.recv(1 << 16):
                pass
        except OSError:
            pass  # it has gone
        finally:
            self.shutdown_request(request)
