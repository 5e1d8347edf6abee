"""Settings for all tests: nothing reaches for the network, and no test depends on how fast the machine is."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hypothesis import HealthCheck, settings

from browser import browser, visit  # noqa: F401  fixtures

# The same few examples every time; `--hypothesis-profile thorough` draws many others.
settings.register_profile(
    "scenerl", max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)  # fmt: skip
settings.register_profile("thorough", settings.get_profile("scenerl"), max_examples=1000, derandomize=False)
settings.load_profile("scenerl")


@pytest.fixture(scope="session")
def rows(tmp_path_factory):
    """Path of a JSONL file of six examples with small images; not to be changed."""
    from training.small_run import write_data

    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def examples(rows):
    from training.small_run import examples_of

    return examples_of(rows)


@pytest.fixture(scope="session")
def base(tmp_path_factory, examples):
    """Folder of an untrained checkpoint of a hundred thousand weights; not to be changed."""
    from training.small_run import save_base

    return save_base(tmp_path_factory.mktemp("base") / "checkpoint", examples)
