"""What the tests of training share. Without the packages of the extra ``train`` they are skipped as a whole."""

from __future__ import annotations

import importlib.util

import pytest

if importlib.util.find_spec("trl") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    import torch

    from training.small_run import STYLE, examples_of, load_checkpoint, save_base, write_data

    @pytest.fixture(scope="session", autouse=True)
    def one_thread():
        """Small matrices are slower on several threads, and sums in one order can be compared exactly."""
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)

    @pytest.fixture(scope="session")
    def rows(tmp_path_factory):
        """Path of a JSONL file of six examples."""
        return write_data(tmp_path_factory.mktemp("data"))

    @pytest.fixture(scope="session")
    def examples(rows):
        return examples_of(rows)

    @pytest.fixture(scope="session")
    def base(tmp_path_factory, examples):
        """Folder of an untrained checkpoint."""
        return save_base(tmp_path_factory.mktemp("base"), examples)

    @pytest.fixture
    def checkpoint(base):
        """A freshly loaded model, which a test may change."""
        return load_checkpoint(base)

    @pytest.fixture
    def conversation(checkpoint):
        return checkpoint.conversation(STYLE)
