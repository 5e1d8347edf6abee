"""The tokens of a checkpoint as bytes: what they are, how text is spelt in them, grammars compiled for them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache

import numpy as np

from scenerl.errors import UserError

MAX_PIECE = 64
"""Bytes of a token; a constrained answer uses no longer ones. Prompts that are one token are such."""
_CHECKED = 512
"""Tokens whose bytes are compared with what the tokenizer makes of them."""


class Vocabulary:
    """What a tokenizer's tokens write.

    Args:
        tokenizer: a Hugging Face tokenizer.
        size: how many logits the model has, tokens that stand for nothing included.
        stop_ids: tokens that end an answer.
        banned_ids: tokens that must not be sampled.

    Attributes:
        pieces: the bytes of each token; empty for tokens that no answer may hold.
        lookup: the tokens that write some bytes, by these bytes.
        num_characters: (V) of each token, begun ones left out.

    Raises:
        UserError: the package xgrammar is missing, or tokens of this tokenizer write other text one by one than
            together.
    """

    def __init__(self, tokenizer, size: int, stop_ids: Collection[int], banned_ids: Collection[int] = ()):
        try:
            import xgrammar
        except ImportError as error:
            raise UserError(
                f"constrain: needs the package xgrammar (pip install 'scenerl[constrain]'): {error}"
            ) from error
        self.size = size
        self.stop_ids = sorted(stop_ids)
        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=size, stop_token_ids=self.stop_ids)
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=1)
        self._new_mask = xgrammar.allocate_token_bitmask
        self._new_matcher = xgrammar.GrammarMatcher
        # a special token has a text, and stands for nothing where answers are decoded
        special = (number for number, token in tokenizer.added_tokens_decoder.items() if token.special)
        out = {*self.stop_ids, *banned_ids, *special, *tokenizer.all_special_ids, *info.special_token_ids}
        self.pieces = [
            b"" if number in out or len(piece) > MAX_PIECE else piece for number, piece in enumerate(info.decoded_vocab)
        ]
        self._check(tokenizer)
        lengths = [len(piece.decode(errors="ignore")) for piece in self.pieces]
        self.num_characters = np.array(lengths + [0] * (size - len(lengths)))
        self.is_usable = np.array([bool(piece) for piece in self.pieces] + [False] * (size - len(self.pieces)))
        self.lookup: dict[bytes, list[int]] = {}
        for number, piece in enumerate(self.pieces):
            if piece:
                self.lookup.setdefault(piece, []).append(number)
        lengths: dict[int, set[int]] = {}
        for piece in self.lookup:
            lengths.setdefault(piece[0], set()).add(len(piece))
        self._lengths = {byte: sorted(found) for byte, found in lengths.items()}
        self.spell = lru_cache(maxsize=1 << 16)(self._spell)
        self.compile = lru_cache(maxsize=64)(self._compiler.compile_grammar)
        self._sets: dict[object, np.ndarray] = {}
        self._by_first: dict[int, list[int]] = {}

    @classmethod
    def of(cls, checkpoint, stop_ids: Collection[int]) -> Vocabulary:
        """That of a :class:`scenerl.models.loading.Checkpoint`."""
        size = checkpoint.model.config.get_text_config().vocab_size
        return cls(checkpoint.processor.tokenizer, size, stop_ids, checkpoint.banned_ids)

    def _check(self, tokenizer) -> None:
        added = tokenizer.get_added_vocab().values()
        step = max(1, len(self.pieces) // _CHECKED)
        for number in {*range(0, len(self.pieces), step), *added}:
            piece = self.pieces[number]
            try:
                text = piece.decode()
            except UnicodeDecodeError:
                continue
            alone = tokenizer.decode([number], skip_special_tokens=True)
            if text and alone != text:
                raise UserError(
                    f"constrain: token {number} of this tokenizer writes {text!r} between others but {alone!r} alone; "
                    "only tokenizers whose tokens are bytes can be constrained"
                )

    def matcher(self, grammar: str) -> Matcher:
        return Matcher(self, self._new_matcher(self.compile(grammar)), self._new_mask(1, self.size))

    def having(self, name: object, accepts) -> np.ndarray:
        """Which tokens' bytes ``accepts`` takes, (V) bool; kept by ``name``."""
        if name not in self._sets:
            marks = [bool(piece) and accepts(piece) for piece in self.pieces]
            self._sets[name] = np.array(marks + [False] * (self.size - len(marks)))
        return self._sets[name]

    def beginning_with(self, first: int) -> list[int]:
        """The tokens of which this is the first byte."""
        if not self._by_first:
            for number, piece in enumerate(self.pieces):
                if piece:
                    self._by_first.setdefault(piece[0], []).append(number)
        return self._by_first.get(first, [])

    def _spell(self, text: bytes) -> tuple[int, ...] | None:
        """The fewest tokens that write ``text``, or None where the tokenizer cannot."""
        best: list[tuple[int, int] | None] = [(0, 0)] + [None] * len(text)  # tokens up to here, where the last begins
        for start in range(len(text)):
            if best[start] is None:
                continue
            count = best[start][0] + 1
            for end in (start + length for length in self._lengths.get(text[start], ()) if start + length <= len(text)):
                if text[start:end] in self.lookup and (best[end] is None or count < best[end][0]):
                    best[end] = count, start
        tokens, end = [], len(text)
        if best[end] is None:
            return None
        while end:
            start = best[end][1]
            tokens.append(self.lookup[text[start:end]][0])
            end = start
        return tuple(reversed(tokens))

    def require(self, texts: Iterable[bytes]) -> None:
        """Raise ValueError for the first text that the tokenizer cannot write."""
        for text in texts:
            if self.spell(text) is None:
                raise UserError(f"constrain: the tokenizer cannot write {text.decode()!r}, so no answer can hold it")


class Matcher:
    """xgrammar's state of one answer. Tokens are handed on when a mask is asked for."""

    def __init__(self, vocabulary: Vocabulary, matcher, bits):
        self._vocabulary, self._matcher, self._bits = vocabulary, matcher, bits

    def copy(self) -> Matcher:
        return Matcher(self._vocabulary, self._matcher.fork(), self._bits)

    def candidates(self, tokens: Iterable[int]) -> np.ndarray:
        """Which tokens the grammar allows after some more, (V) bool, those that end the answer left out."""
        for token in tokens:
            assert self._matcher.accept_token(token), f"the grammar refuses {self._vocabulary.pieces[token]!r}"
        self._matcher.fill_next_token_bitmask(self._bits)
        bits = np.unpackbits(self._bits.numpy().view(np.uint8)[0], bitorder="little")[: self._vocabulary.size]
        return bits.view(bool) & self._vocabulary.is_usable
