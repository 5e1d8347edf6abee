"""``scenerl app``: serve the page until it is stopped."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from scenerl.app.checkpoints import Checkpoints, named_models
from scenerl.commands.app import AppOptions
from scenerl.errors import UserError
from scenerl.report.drawing import asset

LOOPBACK = ("127.0.0.1", "localhost", "::1")
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self' https://huggingface.co"
)
"""What the page may load: nothing from elsewhere. Gradio's scripts and styles are inline and build functions."""


def run(options: AppOptions) -> None:
    """The command: serves until Ctrl-C or SIGTERM, which end the answer that is being made.

    Raises:
        UserError: a checkpoint that is not there, an address or a device that cannot be used.
    """
    # Before gradio is imported: it reads them then. The last one keeps uploads in a folder that is removed at the end.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    with tempfile.TemporaryDirectory(prefix="scenerl-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        _serve(options, Path(folder))


def _serve(options: AppOptions, folder: Path) -> None:
    models = named_models(options.models)  # before the imports that take long
    import uvicorn

    from scenerl.app.page import Page
    from scenerl.inference.engines import device_named

    checkpoints = Checkpoints(
        models,
        dtype=options.dtype,
        device=device_named(options.device),
        min_pixels=options.min_pixels,
        max_pixels=options.max_pixels,
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    page = Page(checkpoints, options, folder)

    class Server(uvicorn.Server):
        """Stops on SIGINT and SIGTERM, also where a shell started it in the background with SIGINT ignored."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

        def handle_exit(self, sig, frame) -> None:
            page.closing.set()
            super().handle_exit(sig, frame)

        async def startup(self, sockets=None) -> None:
            await super().startup(sockets)
            if self.started:
                port = self.servers[0].sockets[0].getsockname()[1]
                host = f"[{options.host}]" if ":" in options.host else options.host
                print(f"Open http://{host}:{port}/ in a browser; Ctrl-C stops", flush=True)

    if options.host not in LOOPBACK:
        print("warning: anybody who can reach this machine can use the page; it asks for no password", file=sys.stderr)
    settings = {"log_level": "warning", "timeout_graceful_shutdown": 2, "lifespan": "on"}
    with _listening(options.host, options.port) as listener:
        Server(uvicorn.Config(web_app(page, options), **settings)).run(sockets=[listener])
    print("stopping", file=sys.stderr)


def _listening(host: str, port: int) -> socket.socket:
    """A socket that accepts connections; uvicorn's own would end the process without our message."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UserError(f"cannot listen on {host}, port {port}: {error.strerror}") from error


def web_app(page, options: AppOptions):
    """The ASGI application: Gradio's page, for requests under this machine's own names, with a policy on every reply.

    Args:
        page: a :class:`scenerl.app.page.Page`.
    """
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    files = resources.files("scenerl.app")
    script = asset("dom.js", "scene.js", "graph.js") + (files / "draw.js").read_text(encoding="utf-8")
    application = FastAPI(openapi_url=None)
    gr.mount_gradio_app(
        application,
        page.build(),
        "/",
        footer_links=[],
        show_error=False,
        max_file_size=options.max_megabytes * 1_000_000,
        ssr_mode=False,
        enable_monitoring=False,
        theme=gr.themes.Base(
            primary_hue="blue",
            font=["ui-sans-serif", "system-ui", "sans-serif"],
            font_mono=["ui-monospace", "Menlo", "Consolas", "monospace"],
        ),
        css=asset("drawing.css") + (files / "app.css").read_text(encoding="utf-8"),
        head=f"<script>(() => {{\n{script}}})();</script>",
    )
    application.add_middleware(_Policy)
    if options.host in LOOPBACK:
        # A page elsewhere cannot reach this one under a name of its own that resolves to this machine.
        application.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"])
    return application


class _Policy:
    """Adds the content security policy to every reply."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        async def send_with_policy(message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, send_with_policy if scope["type"] == "http" else send)
