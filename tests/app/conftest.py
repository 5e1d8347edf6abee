"""What the tests of the app share: a checkpoint, and the page served in a thread with answers that a test decides on.
Without the packages of the extras ``train`` and ``app`` they are skipped as a whole."""

from __future__ import annotations

import importlib.util
import threading
import time
from types import SimpleNamespace

import pytest

if any(importlib.util.find_spec(name) is None for name in ("transformers", "gradio")):
    collect_ignore_glob = ["test_*.py"]
else:
    import uvicorn

    from scenerl.app import page as page_module
    from scenerl.app.command import web_app
    from scenerl.app.page import Page
    from scenerl.commands.app import AppOptions
    from training.small_run import examples_of, save_base, write_data

    @pytest.fixture(scope="session")
    def base(tmp_path_factory):
        """Folder of an untrained checkpoint."""
        folder = tmp_path_factory.mktemp("base")
        return save_base(folder / "checkpoint", examples_of(write_data(folder / "data")))

    class Model:
        """The part of a torch module that the page uses: hooks that run before each step."""

        def __init__(self):
            self.hooks = {}

        def register_forward_pre_hook(self, hook):
            self.hooks[id(hook)] = hook
            return SimpleNamespace(remove=lambda: self.hooks.pop(id(hook)))

        def step(self):
            for hook in self.hooks.values():
                hook()

    class FewCheckpoints:
        """Names without weights."""

        def __init__(self, *names: str):
            self.output_formats = dict.fromkeys(names)
            self.model = Model()

        def engine(self, name: str):
            return SimpleNamespace(name=name, checkpoint=SimpleNamespace(model=self.model))

        def task_of(self, name: str) -> str:
            return "sgdet"

    @pytest.fixture
    def serve(monkeypatch, tmp_path):
        """``serve(answer, *names, **options)`` gives the page's URL; ``answer`` takes what the app's does."""
        running = []

        def start(answer, *names: str, **options) -> str:
            monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
            monkeypatch.setattr(page_module, "answer", answer)
            settings = AppOptions(models=["x"], port=0, max_new_tokens=64, max_samples=4, **options)
            page = Page(FewCheckpoints(*(names or ("small", "other"))), settings, tmp_path)
            config = uvicorn.Config(web_app(page, settings), port=0, log_level="warning", timeout_graceful_shutdown=1)
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, daemon=True)
            thread.start()
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.02)
            running.append((page, server, thread))
            return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"

        yield start
        for page, server, thread in running:
            page.closing.set()
            server.should_exit = True
            thread.join(20)
