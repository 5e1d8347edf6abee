"""Fixtures of the tests of constrained decoding. Without its packages they are skipped as a whole."""

from __future__ import annotations

import importlib.util

import pytest

if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers")):
    collect_ignore_glob = ["test_*.py"]
else:
    from constrain.play import PIECES, byte_vocabulary, qwen_like_tokenizer, small_tokenizer, spec_of
    from scenerl.answers import OutputFormat, build_grammar
    from scenerl.constrain import Vocabulary

    @pytest.fixture(scope="session")
    def tokenizer():
        """Of a few hundred tokens, trained on answers in all formats; tokens run over the ends of slots."""
        return small_tokenizer()

    @pytest.fixture(scope="session")
    def vocabulary(tokenizer):
        return Vocabulary(tokenizer, len(tokenizer) + 5, [tokenizer.eos_token_id], [3, 4, 5, 6])

    @pytest.fixture(scope="session")
    def qwen_like():
        """A tokenizer that cuts text as Qwen2's does, and its vocabulary."""
        tokenizer = qwen_like_tokenizer()
        return tokenizer, Vocabulary(tokenizer, len(tokenizer), [tokenizer.eos_token_id])

    @pytest.fixture(scope="session")
    def bytewise():
        """Every byte a token."""
        return byte_vocabulary()

    @pytest.fixture(scope="session")
    def matcher_of():
        """A matcher of the grammar that servers get, for :data:`constrain.play.PIECES` as tokens."""
        xgrammar = pytest.importorskip("xgrammar")
        info = xgrammar.TokenizerInfo([*PIECES, b"</s>"], stop_token_ids=[len(PIECES)])
        compiler = xgrammar.GrammarCompiler(info, max_threads=1)

        def matcher_of(output_format: OutputFormat, bounds_wh=None):
            grammar = build_grammar(output_format, bounds_wh or spec_of(output_format).bounds_wh)
            return xgrammar.GrammarMatcher(compiler.compile_grammar(grammar), terminate_without_stop_token=True)

        return matcher_of

    @pytest.fixture(scope="session")
    def in_grammar(matcher_of):
        """Whether xgrammar takes a text for a whole answer, by the grammar that servers get."""

        def in_grammar(output_format: OutputFormat, text: str, bounds_wh=None) -> bool:
            matcher = matcher_of(output_format, bounds_wh)
            return matcher.accept_string(text) and matcher.is_terminated()

        return in_grammar
