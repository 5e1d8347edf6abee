"""What evaluation needs to know of training data: triplet types for zR@K, predicate counts for head, body and tail."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from scenerl.answers.elements import excerpt
from scenerl.data import load, resolve
from scenerl.errors import DataError
from scenerl.json_files import read_json
from scenerl.progress import track

Triplet = tuple[str, str, str]


def read_training(source: str, split: str | None = None) -> tuple[set[Triplet], dict[str, int] | None]:
    """Label triplets of the training data, and how often each predicate occurs in them (None where unknown).

    Args:
        source: a data source, or a JSON file with a list of [subject, predicate, object], bare or under
            ``triplets`` beside ``predicate_counts``, as ``scenerl data triplets`` writes it.
        split: which one, where a data source has several.

    Raises:
        DataError: the file or a row of it cannot be used, or there is no such split.
    """
    if not _is_triplets_file(source):
        triplets: set[Triplet] = set()
        predicates: Counter[str] = Counter()
        for example in track(load(source, split), "training rows"):
            triplets.update(example.graph.triplet(relation) for relation in example.graph.relations)
            predicates.update(relation.predicate for relation in example.graph.relations)
        return triplets, dict(predicates)
    if split is not None:
        raise DataError(f"{source} is a file of triplets and has no split {split!r}")
    expected = "a JSON list of [subject, predicate, object], bare or under 'triplets'"
    value = read_json(source, expected)
    entries = value.get("triplets") if isinstance(value, dict) else value
    if not isinstance(entries, list):
        raise DataError(f"{source}: expected {expected}")
    for n, entry in enumerate(entries):
        if not (isinstance(entry, list) and len(entry) == 3 and all(isinstance(part, str) for part in entry)):
            raise DataError(f"{source}, entry {n}: expected {expected}, found {excerpt(entry)}")
    counts = value.get("predicate_counts") if isinstance(value, dict) else None
    if counts is not None and not (isinstance(counts, dict) and all(type(number) is int for number in counts.values())):
        raise DataError(f"{source}: predicate_counts must be an object of whole numbers, found {excerpt(counts)}")
    return {(subject, predicate, object_) for subject, predicate, object_ in entries}, counts or None


def _is_triplets_file(source: str) -> bool:
    """Whether a source is a ``.json`` file that is no data set."""
    try:
        resolve(source)
    except DataError:
        return Path(source).suffix == ".json"
    return False
