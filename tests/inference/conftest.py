"""What the tests of inference share. Without the packages of the extra ``train`` they are skipped as a whole."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

if importlib.util.find_spec("transformers") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    import torch

    from inference.loopback import Loopback
    from training.small_run import STYLE, examples_of, load_checkpoint, save_base, write_data

    @pytest.fixture(scope="session", autouse=True)
    def one_thread():
        """Sums in one order, so that answers can be compared exactly, also with those of another process."""
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)

    @pytest.fixture(scope="module")
    def rows(tmp_path_factory):
        """Path of a JSONL file of six examples."""
        return write_data(tmp_path_factory.mktemp("data"))

    @pytest.fixture(scope="module")
    def examples(rows):
        return examples_of(rows)

    @pytest.fixture(scope="module")
    def base(tmp_path_factory, examples):
        """Folder of an untrained checkpoint; not to be changed."""
        return save_base(tmp_path_factory.mktemp("base") / "checkpoint", examples)

    @pytest.fixture(scope="module")
    def folder(base, tmp_path_factory):
        """What predict has to know of a checkpoint that a server runs: everything but the weights."""
        files = shutil.ignore_patterns("*.safetensors")
        return shutil.copytree(base, tmp_path_factory.mktemp("known") / "checkpoint", ignore=files)

    @pytest.fixture
    def checkpoint(base):
        """A freshly loaded model, which a test may change."""
        return load_checkpoint(base)

    @pytest.fixture
    def conversation(checkpoint):
        return checkpoint.conversation(STYLE)

    @pytest.fixture
    def serve(monkeypatch):
        """Starts servers and stops them at the end. Nobody waits between the tries of a request."""
        monkeypatch.setattr("openai._base_client.MAX_RETRY_DELAY", 0.0)
        running = []

        def start(do, **more) -> Loopback:
            running.append(Loopback(do, **more))
            return running[-1]

        yield start
        for server in running:
            server.close()
