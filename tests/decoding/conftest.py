"""What the tests of constrained decoding share. Without its packages they are skipped as a whole."""

from __future__ import annotations

import importlib.util

import pytest

if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "xgrammar")):
    collect_ignore_glob = ["test_*.py"]
else:
    from decoding.play import small_tokenizer
    from scenerl.decoding import Vocabulary

    @pytest.fixture(scope="session")
    def tokenizer():
        """Of a few hundred tokens, trained on answers in all formats."""
        return small_tokenizer()

    @pytest.fixture(scope="session")
    def vocabulary(tokenizer):
        return Vocabulary(tokenizer, len(tokenizer) + 5, [tokenizer.eos_token_id], [3, 4, 5, 6])
