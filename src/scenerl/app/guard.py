"""Which requests come from the page itself: other sites in the same browser can reach a server on this machine, too."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

HEADER = "X-SceneRL"
"""A request that changes something carries this header, which another site's script cannot send without being allowed
to, and nothing allows it."""

POLICY = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""Headers of every answer: the page loads nothing from elsewhere and cannot be framed."""


def known_host(header: str | None, own: str) -> bool:
    """Whether a ``Host`` header names this server: by an address, as localhost, by the name it was told to serve, or
    by the machine's. A name of somebody else's that resolves to this machine (DNS rebinding) is none of these."""
    name = _hostname(header)
    if not name:
        return False
    if name in {"localhost", own.lower(), socket.gethostname().lower()}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def own_request(headers: Mapping[str, str]) -> bool:
    """Whether a request that changes something was made by our page, or by a program that is no browser."""
    origin = headers.get("Origin")
    same = origin is None or origin == f"http://{headers.get('Host')}"
    return same and headers.get(HEADER) is not None


def _hostname(header: str | None) -> str | None:
    try:
        return urlsplit(f"//{header}").hostname if header and not set(header) & set("/@?#\\ ") else None
    except ValueError:
        return None
