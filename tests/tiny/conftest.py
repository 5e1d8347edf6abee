"""Without the packages of the extra ``train`` these tests are skipped as a whole."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("trl") is None:
    collect_ignore_glob = ["test_*.py"]
