"""What the tests of models share. Without the packages of the extra ``train`` they are skipped as a whole."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

if importlib.util.find_spec("transformers") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    import huggingface_hub

    from hub_cache import fill_cache
    from training.small_run import examples_of, save_base, write_data

    @pytest.fixture(scope="session")
    def saved(tmp_path_factory):
        """Folder of an untrained checkpoint; not to be changed."""
        folder = tmp_path_factory.mktemp("saved")
        return save_base(folder / "checkpoint", examples_of(write_data(folder)))

    @pytest.fixture
    def folder(saved, tmp_path):
        """A copy of the checkpoint that a test may break."""
        return shutil.copytree(saved, tmp_path / "checkpoint")

    @pytest.fixture
    def hub_copy(tmp_path, monkeypatch):
        """Puts a folder into the hub's local cache under a name."""
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        return lambda folder, name: fill_cache(tmp_path / "cache", folder, name)
