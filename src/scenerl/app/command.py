"""``scenerl app``: serve the page until it is stopped."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

from scenerl.app.answer import answer
from scenerl.app.asks import Limits
from scenerl.app.checkpoints import Checkpoints, named_models
from scenerl.app.server import App, Settings
from scenerl.inference.engines import device_named

if TYPE_CHECKING:
    from scenerl.commands.app import AppOptions

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PATIENCE = 30.0
"""Seconds to wait at the end for the answer that is being made."""


def build(options: AppOptions) -> App:
    """The server, listening and not serving yet.

    Raises:
        UserError: a checkpoint that is not there, an address or a device that cannot be used.
    """
    checkpoints = Checkpoints(
        named_models(options.models),
        options.dtype,
        device_named(options.device),
        options.min_pixels,
        options.max_pixels,
    )
    settings = Settings(
        options.host,
        options.port,
        options.max_megabytes * 1_000_000,
        options.max_megapixels * 1_000_000,
        Limits(options.max_new_tokens, options.max_samples),
    )
    return App(settings, checkpoints, answer)


def run(options: AppOptions) -> None:
    """The command: serves until Ctrl-C or SIGTERM, then lets the answer that is being made finish.

    Raises:
        UserError: as :func:`build`.
    """
    app = build(options)
    if options.host not in LOOPBACK:
        print("warning: anybody who can reach this machine can use the page; it asks for no password", file=sys.stderr)
    print(f"Open {app.url} in a browser; Ctrl-C stops", flush=True)

    def stop(*_) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        app.serve_forever()
    except KeyboardInterrupt:
        print("stopping", file=sys.stderr)
    finally:
        app.finish(PATIENCE)
        signal.signal(signal.SIGTERM, before)
