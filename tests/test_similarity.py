"""Label similarity: exact, word vectors from a file and from the package, spaCy."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenerl import similarity
from scenerl.similarity import (
    VectorSimilarity,
    build_similarity,
    exact,
    read_glove_text,
    similarity_matrix,
)

VECTORS = {
    "cat": np.array([1.0, 0.0]),
    "dog": np.array([0.6, 0.8]),
    "rock": np.array([-1.0, 0.0]),
    "black": np.array([0.0, 1.0]),
    "nil": np.array([0.0, 0.0]),
}
LABELS = st.lists(st.sampled_from([*VECTORS, "zebra", "Cat"]), min_size=0, max_size=3).map(" ".join)


@pytest.fixture
def by_vectors() -> VectorSimilarity:
    return VectorSimilarity(VECTORS.get)


def test_exact():
    assert exact("cat", "cat") == 1.0
    assert exact("cat", "Cat") == exact("cat", "dog") == 0.0
    assert build_similarity("exact") is exact


def test_cosine(by_vectors):
    assert by_vectors("cat", "dog") == 0.6  # both of length 1: 1 * 0.6 + 0 * 0.8
    assert by_vectors("cat", "rock") == 0.0  # -1, clipped
    assert by_vectors("cat", "cat") == 1.0


def test_words_of_a_label_are_averaged(by_vectors):
    # (1, 0) and (0, 1) average to (0.5, 0.5); its cosine with (1, 0) is 1 / sqrt(2)
    assert by_vectors("black cat", "cat") == pytest.approx(0.5**0.5)
    assert by_vectors("black_cat", "cat") == by_vectors("black cat", "CAT") == by_vectors("black  cat ", "cat")


def test_unknown_words_fall_back_to_exact(by_vectors):
    assert by_vectors("zebra", "zebra") == 1.0
    assert by_vectors("zebra", "cat") == by_vectors("zebra cat", "cat") == 0.0
    assert by_vectors("", "cat") == by_vectors("nil", "cat") == 0.0


@given(LABELS, LABELS)
def test_symmetric_and_in_range(a, b):
    by_vectors = VectorSimilarity(VECTORS.get)
    assert 0.0 <= by_vectors(a, b) <= 1.0
    assert by_vectors(a, b) == by_vectors(b, a)
    assert by_vectors(a, a) == 1.0


def test_pairs_are_looked_up_once():
    asked = []

    def lookup(word):
        asked.append(word)
        return VECTORS.get(word)

    counting = VectorSimilarity(lookup)
    for _ in range(3):
        counting("cat", "dog"), counting("dog", "cat")
    assert sorted(asked) == ["cat", "dog"]


def test_matrix(by_vectors):
    assert similarity_matrix(exact, ["cat", "dog"], ["dog", "cat", "rock"]).tolist() == [[0, 1, 0], [1, 0, 0]]
    assert similarity_matrix(by_vectors, ["cat"], ["dog", "rock"]).tolist() == [[0.6, 0.0]]
    assert similarity_matrix(exact, [], ["dog"]).shape == similarity_matrix(by_vectors, [], ["dog"]).shape == (0, 1)


def test_vectors_from_a_text_file(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("cat 1 0\ndog 0.6 0.8\n. . -1 0.5\ncat 9 9\n", encoding="utf-8")
    lookup = read_glove_text(path)
    assert lookup("dog").tolist() == pytest.approx([0.6, 0.8])
    assert lookup(". .").tolist() == [-1, 0.5]  # words with spaces, as in the largest GloVe file
    assert lookup("cat").tolist() == [1, 0]  # the first of two counts
    assert lookup("zebra") is None
    assert build_similarity(f"vectors:{path}")("cat", "dog") == pytest.approx(0.6)


def test_a_header_line_is_skipped(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("2 2\ncat 1 0\ndog 0 1\n", encoding="utf-8")
    assert read_glove_text(path)("2") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cat 1 0\ndog 1\n", "line 2: a line holds a word and 2 finite numbers"),
        (b"cat 1 zero\n", "line 1"),
        (b"cat 1 nan\n", "line 1"),
        (b"cat\n", "line 1"),
        (b"cat 1 0\n\n", "line 2"),
        (b"", "holds no vectors"),
        (b"\xff\xfe 1 0\n", "not a UTF-8 text file"),
    ],
)
def test_a_broken_vector_file_is_named_with_its_line(tmp_path, content, message):
    path = tmp_path / "vectors.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_glove_text(path)
    assert str(path) in str(caught.value)


def test_a_missing_vector_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="none.txt"):
        build_similarity(f"vectors:{tmp_path / 'none.txt'}")


@pytest.mark.parametrize("name", ["glove", "vectors:", "spacy", "spacy:", "", "exact:1"])
def test_unknown_names_are_refused_with_what_is_allowed(name):
    with pytest.raises(ValueError, match="unknown similarity .*exact, vectors, vectors:FILE, spacy:MODEL"):
        build_similarity(name)


@pytest.mark.skipif(find_spec(similarity.GLOVE_PACKAGE) is None, reason="the extra `vectors` is not installed")
def test_vectors_of_the_package():
    by_glove = build_similarity("vectors")
    assert 0.7 < by_glove("man", "woman") < 1.0
    assert by_glove("man", "woman") > by_glove("man", "refrigerator")
    assert by_glove("xqzzy", "man") == 0.0


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(similarity, "GLOVE_PACKAGE", "no_such_package_here")
    with pytest.raises(ValueError, match=r"scenerl\[vectors\].*vectors:FILE"):
        build_similarity("vectors")


def spacy_stand_in(vectors: dict[str, np.ndarray]) -> ModuleType:
    """The few parts of spaCy that are used, over vectors of our own."""
    vocab = SimpleNamespace(
        vectors_length=len(next(iter(vectors.values()), ())),
        has_vector=vectors.__contains__,
        get_vector=vectors.__getitem__,
    )

    def load(name):
        if name != "small":
            raise OSError(f"[E050] Can't find model '{name}'.")
        return SimpleNamespace(vocab=vocab)

    module = ModuleType("spacy")
    module.load = load
    module.__spec__ = SimpleNamespace(name="spacy")
    return module


def test_spacy(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", spacy_stand_in(VECTORS))
    by_spacy = build_similarity("spacy:small")
    assert by_spacy("cat", "dog") == 0.6
    assert by_spacy("zebra", "dog") == 0.0
    with pytest.raises(ValueError, match="'huge'"):
        build_similarity("spacy:huge")


def test_a_spacy_model_without_vectors_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", spacy_stand_in({}))
    with pytest.raises(ValueError, match="no word vectors"):
        build_similarity("spacy:small")


def test_real_spacy_with_a_model_made_here(tmp_path):
    spacy = pytest.importorskip("spacy")
    nlp = spacy.blank("en")
    for word, vector in VECTORS.items():
        nlp.vocab.set_vector(word, vector.astype(np.float32))
    nlp.to_disk(tmp_path / "model")
    assert build_similarity(f"spacy:{tmp_path / 'model'}")("cat", "dog") == pytest.approx(0.6)
