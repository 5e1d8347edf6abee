"""What the tests of training share. Without the packages of the extra ``train`` they are skipped as a whole."""

from __future__ import annotations

import importlib.util

import pytest

if importlib.util.find_spec("trl") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    import torch

    from training.small_run import STYLE, load_checkpoint

    @pytest.fixture(scope="session", autouse=True)
    def one_thread():
        """Small matrices are slower on several threads, and sums in one order can be compared exactly."""
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)

    @pytest.fixture
    def checkpoint(base):
        """A freshly loaded model, which a test may change."""
        return load_checkpoint(base)

    @pytest.fixture
    def conversation(checkpoint):
        return checkpoint.conversation(STYLE)
