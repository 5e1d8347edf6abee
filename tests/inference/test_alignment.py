"""Which characters each token of an answer wrote: from a tokenizer, or from the bytes that a server reports."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from scenerl.inference.alignment import MAX_DAMAGE, spans_of_bytes, spans_of_tokens

MERGES = [("ç", "Ĭ"), ("d", "o"), ("do", "g"), ("Ġ", "dog"), ("1", "0"), ("¬", '"')]


def byte_level():
    """A byte-level tokenizer: all 256 bytes and some merges, one of them across the end of a character."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: k for k, token in enumerate([*alphabet, *("".join(pair) for pair in MERGES)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>"])
    return tokenizer


BYTES = byte_level()
SPECIAL = BYTES.token_to_id("<s>")


def byte_decode(ids) -> str:
    return BYTES.decode(ids, skip_special_tokens=True)


def aligned(ids) -> list[str]:
    text = byte_decode(ids)
    spans = spans_of_tokens(BYTES, ids, text, [SPECIAL])
    return [text[slice(*span)] for span in spans]


def ids_of(*tokens: str) -> list[int]:
    return [BYTES.token_to_id(token) for token in tokens]


def test_tokens_that_hold_parts_of_characters():
    # 犬 is the bytes E7 8A AC: ç Ĭ ¬
    assert aligned(ids_of("dog", "Ġdog")) == ["dog", " dog"]
    assert aligned(ids_of("ç", "Ĭ", "¬", "dog")) == ["犬", "犬", "犬", "dog"]
    assert aligned(ids_of("1", "çĬ", '¬"', "10")) == ["1", '犬"', '犬"', "10"]
    assert aligned(ids_of("<s>", "dog", "<s>", "çĬ", "¬")) == ["", "dog", "", "犬", "犬"]
    assert aligned(ids_of("ç", "<s>", "Ĭ", "¬")) == ["犬", "", "犬", "犬"]
    assert aligned(ids_of("ç", "1", "Ĭ")) == ["\ufffd1", "\ufffd1", "\ufffd"]
    assert aligned([]) == [] and aligned([SPECIAL]) == [""]


@given(ids=st.lists(st.integers(0, BYTES.get_vocab_size() - 1), max_size=40))
def test_any_bytes_are_aligned(ids):
    text = byte_decode(ids)
    spans = spans_of_tokens(BYTES, ids, text, [SPECIAL])
    written = [span for token, span in zip(ids, spans, strict=True) if token != SPECIAL]
    assert all(start == end for token, (start, end) in zip(ids, spans, strict=True) if token == SPECIAL)
    # every character is somebody's, and shared or next to what came before
    place = 0
    for before, (start, end) in zip([None, *written], written, strict=False):
        assert start < end and ((start, end) == before or start == place)
        place = end
    assert place == len(text)
    # a token that is text by itself stands where it says
    for token, (start, end) in zip(ids, spans, strict=True):
        piece = byte_decode([token])
        if "\ufffd" not in piece:
            assert piece in text[start:end]


@given(text=st.text(st.sampled_from('dog 10"犬é\n😀'), max_size=30))
def test_whole_text_is_aligned_to_single_characters(text):
    ids = BYTES.encode(text).ids
    spans = spans_of_tokens(BYTES, ids, text)
    for token, (start, end) in zip(ids, spans, strict=True):
        piece = byte_decode([token])
        if "\ufffd" in piece:
            # parts of a character share it; a merge across its end shares what follows too
            assert end - start == 1 or '"' in text[start:end]
        else:
            assert text[start:end] == piece


def test_tokens_that_are_not_in_the_text():
    assert spans_of_tokens(BYTES, ids_of("dog", "Ġdog"), "dogdog") is None
    assert spans_of_tokens(BYTES, ids_of("dog"), "dog dog") is None


def test_endless_damage_is_given_up():
    ids = ids_of("ÿ") * (MAX_DAMAGE + 1)
    assert spans_of_tokens(BYTES, ids, byte_decode(ids)) is None
    assert len(spans_of_tokens(BYTES, ids[1:], byte_decode(ids[1:]))) == MAX_DAMAGE


@pytest.mark.parametrize(
    ("pieces", "text", "spans"),
    [
        ([], "", ()),
        ([b"<|im_end|>"], "", ((0, 0),)),
        (["é".encode()[:1], "é".encode()[1:], b"x"], "éx", ((0, 1), (0, 1), (1, 2))),
        ([b"", "é".encode(), b"x"], "éx", ((0, 1), (0, 1), (1, 2))),  # vLLM's way to say the same
        ([b"a", b"", b"b"], "a\ufffdb", ((0, 1), (1, 3), (2, 3))),  # and of half a character
        ([b"a", b"<|x|>", b"b"], "ab", ((0, 1), (1, 1), (1, 2))),
        ([b"a", b"b"], "a b", None),
        ([b"ab"], "abc", None),
    ],
)
def test_bytes_to_characters(pieces, text, spans):
    assert spans_of_bytes(pieces, text) == spans


@given(st.text(max_size=30), st.lists(st.integers(0, 120), max_size=12))
def test_any_cut_of_any_text_is_found_again(text, cuts):
    """Every span holds the characters whose bytes the token has, and no more."""
    data = text.encode("utf-8", "replace")
    text = data.decode()
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[low:high] for low, high in zip(edges, edges[1:], strict=False)]
    spans = spans_of_bytes(pieces, text)
    assert spans is not None and len(spans) == len(pieces)
    for (start, end), piece in zip(spans, pieces, strict=True):
        assert piece in text[start:end].encode()
        assert len(text[start + 1 : end - 1].encode()) <= len(piece)


def test_tokens_that_cannot_be_decoded_one_by_one_have_no_spans(monkeypatch):
    class Broken:
        def __init__(self, **_):
            pass

        def step(self, tokenizer, token):
            raise Exception("Invalid prefix encountered while decoding stream")

    monkeypatch.setattr("scenerl.inference.alignment.DecodeStream", Broken)
    assert spans_of_tokens(None, [1], "a") is None
