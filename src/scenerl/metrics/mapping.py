"""Open vocabulary, auditable: labels outside the target vocabulary mapped into it, every mapping with its count.

Strict numbers never see a mapping; mapped ones stand beside them.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from scenerl.errors import UserError
from scenerl.json_files import read_json
from scenerl.metrics.protocols import Pair
from scenerl.similarity import Similarity
from scenerl.types import ParseResult, Relation, SceneGraph

KINDS = ("objects", "predicates")


@dataclass(frozen=True, slots=True)
class Mapped:
    """One mapping that was used: ``label`` became ``to`` ``count`` times, because of ``by``; ``swap`` turns the
    relation round (*worn by* to *wearing*)."""

    kind: str
    label: str
    to: str
    by: str
    count: int = 0
    swap: bool = False

    def to_json(self) -> dict:
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class LabelMapper:
    """How labels outside the vocabulary are mapped. The first rule that knows a label wins: ``table``, ``spelling``,
    ``synonyms``, ``similarity``.

    Args:
        table: kind (``objects`` or ``predicates``) to label to the target label, or ``{"to": label, "swap": true}``.
        spelling: map labels that differ from a target's in case, white space, underscores or hyphens only.
        synonyms: (label, vocabulary) to a synonym in the vocabulary or None; see :mod:`scenerl.metrics.wordnet`.
        similarity: of labels, with the least value of a mapping.
    """

    table: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=dict)
    spelling: bool = True
    synonyms: Callable[[str, Sequence[str]], str | None] | None = None
    similarity: tuple[Similarity, float] | None = None

    def find(self, kind: str, label: str, vocabulary: Sequence[str]) -> Mapped | None:
        """What a label becomes, or None where it stays as it is.

        >>> LabelMapper().find("objects", "Traffic_Light", ["car", "traffic light"]).to
        'traffic light'
        """
        entry = self.table.get(kind, {}).get(label)
        if entry is not None:
            to, swap = (entry["to"], bool(entry.get("swap"))) if isinstance(entry, Mapping) else (entry, False)
            return Mapped(kind, label, str(to), "table", swap=swap)
        if self.spelling and (other := _by_spelling(tuple(vocabulary)).get(spelled(label))) is not None:
            return Mapped(kind, label, other, "spelling")
        if self.synonyms is not None and (other := self.synonyms(label, vocabulary)) is not None:
            return Mapped(kind, label, other, "synonym")
        if self.similarity is not None and vocabulary:
            measure, least = self.similarity
            value, other = max((measure(label, other), other) for other in vocabulary)
            if value >= least:
                return Mapped(kind, label, other, f"similarity {value:.2f}")
        return None


def spelled(label: str) -> str:
    """A label without the differences that are none: case, underscores, hyphens, white space.

    >>> spelled(" In-front_of ")
    'in front of'
    """
    return " ".join(re.split(r"[\s_-]+", label.casefold())).strip()


@lru_cache(8)
def _by_spelling(vocabulary: tuple[str, ...]) -> dict[str, str]:
    """The first label of each spelling."""
    return {spelled(label): label for label in reversed(vocabulary)}


def map_pairs(
    pairs: Sequence[Pair], mapper: LabelMapper, objects: Sequence[str], predicates: Sequence[str]
) -> tuple[list[Pair], list[Mapped]]:
    """Predictions with labels outside the vocabularies mapped, and every mapping used, the commonest first.

    Args:
        pairs: predictions and targets; targets stay as they are.
        mapper: the rules.
        objects: the target vocabulary of labels. predicates: of predicates.
    """
    used = find_mappings(pairs, mapper, objects, predicates)
    found = {(entry.kind, entry.label): entry for entry in used}
    return [dataclasses.replace(pair, result=_mapped(pair.result, found)) for pair in pairs], used


def find_mappings(
    pairs: Sequence[Pair], mapper: LabelMapper, objects: Sequence[str], predicates: Sequence[str]
) -> list[Mapped]:
    """The mappings of all labels outside the vocabularies that some rule knows, the commonest first."""
    graphs = [pair.result.graph for pair in pairs if pair.result.graph]
    counts = {
        "objects": Counter([entry.label for graph in graphs for entry in graph.objects]),
        "predicates": Counter([entry.predicate for graph in graphs for entry in graph.relations]),
    }
    known = {"objects": set(objects), "predicates": set(predicates)}
    used = [
        dataclasses.replace(found, count=count)
        for kind, vocabulary in zip(KINDS, (objects, predicates), strict=True)
        for label, count in counts[kind].items()
        if label not in known[kind] and (found := mapper.find(kind, label, vocabulary)) is not None
    ]
    return sorted(used, key=lambda entry: -entry.count)


def misspelled(pairs: Sequence[Pair], objects: Sequence[str], predicates: Sequence[str]) -> list[Mapped]:
    """Labels that miss the vocabulary by case or spelling alone, the commonest first; nothing is changed."""
    return find_mappings(pairs, LabelMapper(), objects, predicates)


def _mapped(result: ParseResult, found: Mapping[tuple[str, str], Mapped]) -> ParseResult:
    if result.graph is None:
        return result
    objects, relations = [], []
    for item in result.graph.objects:
        mapping = found.get(("objects", item.label))
        objects.append(item if mapping is None else item._replace(label=mapping.to))
    for item in result.graph.relations:
        mapping = found.get(("predicates", item.predicate))
        if mapping is not None:
            ends = (item.object, item.subject) if mapping.swap else (item.subject, item.object)
            item = Relation(ends[0], mapping.to, ends[1], item.score)
        relations.append(item)
    return dataclasses.replace(result, graph=SceneGraph(tuple(objects), tuple(relations)))


def read_table(path: Path) -> dict[str, dict[str, object]]:
    """An explicit table: JSON ``{"objects": {label: target}, "predicates": {label: target or {"to": ..., "swap":
    true}}}``.

    Raises:
        UserError: the file cannot be read, or is not of this form.
    """
    expected = 'JSON {"objects": {label: target}, "predicates": {label: target or {"to": target, "swap": true}}}'
    value = read_json(path, expected)
    if not isinstance(value, dict) or not set(value) <= set(KINDS):
        raise UserError(f"{path}: expected {expected}")
    for kind, entries in value.items():
        for label, entry in entries.items() if isinstance(entries, dict) else [("", None)]:
            to = entry.get("to") if isinstance(entry, dict) else entry
            if not isinstance(to, str):
                raise UserError(f"{path}: {kind}: {label!r}: expected {expected}")
    return value
