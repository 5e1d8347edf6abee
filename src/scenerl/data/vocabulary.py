"""Closed vocabularies: the object labels and predicates that a task allows.

Those of published sets have names, ``vg150``, ``psg`` and ``coco``, and stand in ``vocabularies/`` beside this module:
the public lists of classes, each with the numbers that the set's own files give them (``category_ids``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from scenerl.answers.elements import excerpt, normal_text
from scenerl.errors import DataError, UserError
from scenerl.json_files import read_json
from scenerl.types import Example

NAMED = ("vg150", "psg", "coco")
"""Vocabularies that come with the package."""

_FOLDER = Path(__file__).parent / "vocabularies"
_EXPECTED = 'JSON {"objects": [labels], "predicates": [labels]}'


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Labels and predicates in the order in which prompts list them.

    Raises:
        UserError: an entry twice.
    """

    objects: tuple[str, ...]
    predicates: tuple[str, ...]

    def __post_init__(self) -> None:
        for name, entries in (("objects", self.objects), ("predicates", self.predicates)):
            if twice := [entry for entry, count in Counter(entries).items() if count > 1]:
                raise UserError(f"vocabulary: {name} holds an entry twice: {excerpt(twice)}")

    @classmethod
    def read(cls, path: Path | str) -> Vocabulary:
        """From a JSON file ``{"objects": [...], "predicates": [...]}``; other keys are ignored, so the statistics
        that ``scenerl data stats --out`` writes serve as well.

        Args:
            path: the file, or a name from :data:`NAMED`.

        Raises:
            DataError: the file is missing, not JSON or not of this form.
        """
        value = read_json(_file(path), f"{_EXPECTED}, or the name of a vocabulary: {', '.join(NAMED)}")
        lists = []
        for key in ("objects", "predicates"):
            entries = value.get(key) if isinstance(value, dict) else None
            if not isinstance(entries, list) or not all(isinstance(entry, str) and entry.strip() for entry in entries):
                raise DataError(f"vocabulary {path}: {key!r} is missing or not a list of labels; expected {_EXPECTED}")
            lists.append(tuple(map(normal_text, entries)))
        try:
            return cls(*lists)
        except ValueError as error:
            raise DataError(f"{path}: {error}") from error

    def outside(self, example: Example) -> tuple[Counter[str], Counter[str]]:
        """Object labels and predicates of an example that are not in the vocabulary, with their counts."""
        allowed_objects, allowed_predicates = set(self.objects), set(self.predicates)
        objects = Counter(found.label for found in example.graph.objects if found.label not in allowed_objects)
        predicates = Counter(
            relation.predicate for relation in example.graph.relations if relation.predicate not in allowed_predicates
        )
        return objects, predicates

    def require(self, examples: Iterable[Example], name: str = "the data set") -> None:
        """Refuse examples that use anything outside the vocabulary.

        Raises:
            DataError: lists the offenders with their counts, most frequent first, and what is allowed.
        """
        objects: Counter[str] = Counter()
        predicates: Counter[str] = Counter()
        for example in examples:
            found = self.outside(example)
            objects += found[0]
            predicates += found[1]
        kinds = (("object labels", objects, self.objects), ("predicates", predicates, self.predicates))
        parts = [
            f"{kind} that are not in the vocabulary: "
            f"{_bounded([f'{entry!r} ({offenders[entry]} times)' for entry in by_frequency(offenders)])}; "
            f"allowed: {_bounded(list(map(repr, allowed)))}"
            for kind, offenders, allowed in kinds
            if offenders
        ]
        if parts:
            raise DataError(f"{name} has {'. It has '.join(parts)}")


def category_names(path: Path | str) -> dict[int, str]:
    """The labels of a vocabulary by the numbers that detectors give them, where it says which: VG150's from 1, PSG's
    from 0, COCO's from 1 to 90 with gaps. Empty for a file without ``category_ids``.

    Raises:
        DataError: as :meth:`Vocabulary.read`, or ``category_ids`` are no list of a whole number for each label.
    """
    objects = Vocabulary.read(path).objects
    numbers = read_json(_file(path), _EXPECTED).get("category_ids")
    if numbers is None:
        return {}
    whole = isinstance(numbers, list) and all(type(number) is int for number in numbers)
    if not whole or len(numbers) != len(objects):
        found = excerpt(numbers)
        raise DataError(f"vocabulary {path}: category_ids must be a whole number for each label, found {found}")
    return dict(zip(numbers, objects, strict=True))


def _file(path: Path | str) -> Path:
    return _FOLDER / f"{path}.json" if str(path) in NAMED else Path(path)


def by_frequency(counts: Counter[str]) -> tuple[str, ...]:
    """Keys by falling count, ties by name."""
    return tuple(sorted(counts, key=lambda entry: (-counts[entry], entry)))


def _bounded(parts: list[str], limit: int = 10) -> str:
    shown = ", ".join(parts[:limit]) or "none"
    return f"{shown} and {len(parts) - limit} more" if len(parts) > limit else shown
