"""Settings for all tests: nothing reaches for the network, and no test depends on how fast the machine is."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from hypothesis import HealthCheck, settings

from browser import browser, visit  # noqa: F401  fixtures

settings.register_profile(
    "scenerl", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("scenerl")
