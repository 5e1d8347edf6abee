"""Synonyms by WordNet: two labels are synonyms when a synset holds both.

WordNet is not part of this package. Any copy of its database folder will do (``index.noun``, ``index.verb`` and so on):
``nltk.download("wordnet")`` leaves one in ``nltk_data/corpora/wordnet``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scenerl.errors import UserError

PARTS = ("noun", "verb", "adj", "adv")


class WordNetSynonyms:
    """(label, vocabulary) to the synonym in the vocabulary, or None.

    Senses of the label are tried from the commonest on; of several labels of the vocabulary with that sense the one
    wins for which it is the commoner sense, then the first. Words are taken as they stand: *riding* is not reduced to
    *ride*.

    Args:
        folder: WordNet's database folder.

    Raises:
        UserError: there is no index file in it.

    Source: Fellbaum 1998, WordNet; file format in the manual page wndb(5WN).
    """

    def __init__(self, folder: Path) -> None:
        # Lemma to its senses (part of speech and offset of the synset), the commonest first.
        self.senses: dict[str, list[tuple[str, str]]] = {}
        files = [(part, Path(folder) / f"index.{part}") for part in PARTS]
        if not any(path.is_file() for _, path in files):
            raise UserError(f"{folder} holds no index.noun; expected WordNet's database folder")
        for part, path in files:
            if path.is_file():
                self._read(part, path)

    def _read(self, part: str, path: Path) -> None:
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith(" "):  # the licence at the top
                continue
            fields = line.split()
            try:
                number = int(fields[2])
            except (IndexError, ValueError):
                raise UserError(f"{path}: not a line of WordNet's index: {line[:60]!r}") from None
            self.senses.setdefault(fields[0], []).extend((part, offset) for offset in fields[len(fields) - number :])

    def __call__(self, label: str, vocabulary: Sequence[str]) -> str | None:
        for sense in self.senses.get(_lemma(label), ()):
            ranked = [
                (senses.index(sense), place, other)
                for place, other in enumerate(vocabulary)
                if sense in (senses := self.senses.get(_lemma(other), []))
            ]
            if ranked:
                return min(ranked)[2]
        return None


def _lemma(label: str) -> str:
    return "_".join(label.lower().split())
