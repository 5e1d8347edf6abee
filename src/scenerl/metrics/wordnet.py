"""Synonyms by WordNet: two labels are synonyms when a synset holds both."""

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
        folder: WordNet's database folder (``index.noun``, ``index.verb`` and so on), which is not part of this package;
            ``nltk.download("wordnet")`` leaves one in ``nltk_data/corpora/wordnet``.

    Raises:
        UserError: there is no index file in it, or one that is not WordNet's.

    Source: Fellbaum 1998, WordNet; file format in the manual page wndb(5WN).
    """

    def __init__(self, folder: Path) -> None:
        # Lemma to its senses (part of speech and offset of the synset), the commonest first.
        self.senses: dict[str, list[tuple[str, str]]] = {}
        paths = [path for part in PARTS if (path := Path(folder) / f"index.{part}").is_file()]
        if not paths:
            raise UserError(f"{folder} holds no index.noun; expected WordNet's database folder")
        for path in paths:
            for line in path.read_text(encoding="utf-8").splitlines():
                if line.startswith(" "):  # the licence at the top
                    continue
                fields = line.split()
                try:
                    offsets = fields[-int(fields[2]) :]
                except (IndexError, ValueError):
                    raise UserError(f"{path}: not a line of WordNet's index: {line[:60]!r}") from None
                self.senses.setdefault(fields[0], []).extend((path.suffix, offset) for offset in offsets)

    def _senses_of(self, label: str) -> list[tuple[str, str]]:
        return self.senses.get("_".join(label.lower().split()), [])

    def __call__(self, label: str, vocabulary: Sequence[str]) -> str | None:
        of_others = [self._senses_of(other) for other in vocabulary]
        for sense in self._senses_of(label):
            ranked = [(senses.index(sense), place) for place, senses in enumerate(of_others) if sense in senses]
            if ranked:
                return vocabulary[min(ranked)[1]]
        return None
