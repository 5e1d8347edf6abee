"""What the tests of the page share: a server in a thread, and a client. Without the packages of the extra ``train``
they are skipped as a whole."""

from __future__ import annotations

import importlib.util
import json
import threading
from http.client import HTTPConnection

import pytest

from app.image_files import png

if importlib.util.find_spec("transformers") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    from scenerl.app.asks import Limits
    from scenerl.app.server import App, Settings
    from training.small_run import examples_of, save_base, write_data

    class FewCheckpoints:
        """Names without models."""

        def __init__(self, *names: str):
            self.output_formats = dict.fromkeys(names)

        def engine(self, name: str):
            return name

        def describe(self) -> list[dict]:
            return [{"name": name, "task": "sgdet"} for name in self.output_formats]

    class Client:
        """Talks to a server as the page does, unless told otherwise."""

        def __init__(self, app: App):
            self.port = app.server_address[1]

        def __call__(self, method: str, path: str, body: bytes | None = None, **headers: str):
            """(status, headers, content); a header named with underscores replaces that of the page, None drops it."""
            own = {"Host": f"127.0.0.1:{self.port}", "X-SceneRL": "app"}
            sent = own | {name.replace("_", "-"): value for name, value in headers.items()}
            connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
            try:
                connection.putrequest(method, path, skip_host=True)
                for name, value in (sent | ({"Content-Length": str(len(body))} if body is not None else {})).items():
                    if value is not None:
                        connection.putheader(name, value)
                connection.endheaders(body)
                response = connection.getresponse()
                return response.status, response.headers, response.read()
            finally:
                connection.close()

        def json(self, method: str, path: str, body: bytes | None = None, **headers: str):
            """(status, value) of an answer in JSON."""
            status, _, content = self(method, path, body, **headers)
            return status, json.loads(content)

        def upload(self, content: bytes) -> str:
            status, value = self.json("POST", "/api/images", content)
            assert status == 200, value
            return value["id"]

        def ask(self, **question):
            question = {"model": "small", **question}
            return self.json("POST", "/api/answers", json.dumps(question).encode())

    @pytest.fixture
    def serve():
        """Starts a server in a thread; stops all of them at the end."""
        running = []

        def start(answer, checkpoints=None, **changes) -> App:
            settings = {"host": "127.0.0.1", "port": 0, "max_bytes": 200_000, "max_pixels": 1_000_000}
            settings |= {"limits": Limits(64, 4), **changes}
            app = App(Settings(**settings), checkpoints or FewCheckpoints("small", "other"), answer)
            thread = threading.Thread(target=app.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
            thread.start()
            running.append((app, thread))
            return app

        yield start
        for app, thread in running:
            app.shutdown()
            thread.join()
            app.finish(10)

    @pytest.fixture
    def client(serve):
        """A client of a server that repeats the question it got."""
        return Client(serve(lambda ask, picture, engine, saved: {"asked": ask.task, "wh": picture.image_wh}))

    @pytest.fixture
    def connect():
        return Client

    @pytest.fixture
    def image() -> bytes:
        return png(60, 40)

    @pytest.fixture(scope="module")
    def base(tmp_path_factory):
        """Folder of an untrained checkpoint."""
        folder = tmp_path_factory.mktemp("base")
        return save_base(folder / "checkpoint", examples_of(write_data(folder / "data")))
