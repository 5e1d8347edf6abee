"""Check a data set row by row: everything that is wrong with it, and where."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from scenerl.data.images import open_image, orientation_note
from scenerl.data.inspect.conventions import Conventions
from scenerl.data.records import Record
from scenerl.data.vocabulary import Vocabulary
from scenerl.errors import DataError, counted
from scenerl.types import Example

_SHOWN = 3  # messages of a kind in a row
_SHOWN_IN_ALL = 20  # and of all rows
_VALUES = re.compile(r"""'[^']*'|"[^"]*"|-?\d+(?:\.\d+)?""")


@dataclass(frozen=True, slots=True)
class Problem:
    """``level`` is ``error`` (the row cannot be used) or ``warning`` (work goes on without what it names)."""

    where: str
    level: str
    message: str


@dataclass
class Checker:
    """Collects counts while :meth:`problems` goes through a data set in bounded memory.

    Args:
        vocabulary: labels and predicates outside it are errors.
        images: decode every image and compare its size with the row's.
    """

    vocabulary: Vocabulary | None = None
    images: bool = True
    counts: Counter[str] = field(
        default_factory=lambda: Counter(
            dict.fromkeys(("rows", "bad_rows", "errors", "warnings", "objects", "relations", "images"), 0)
        )
    )
    conventions: Conventions = field(default_factory=Conventions)

    def problems(self, records: Iterable[Record]) -> Iterator[Problem]:
        """Every problem of every row, as it is found; nothing stops at a bad row. At the end, whether all boxes look
        as if they were of another convention."""
        rows_by_id: dict[str, int] = {}
        for record in records:
            self.counts["rows"] += 1
            self.conventions.add(record)
            errors = list(record.errors)
            if record.example is not None:
                errors += self._example_errors(record.example, rows_by_id)
            self.counts["bad_rows"] += bool(errors)
            self.counts["errors"] += len(errors)
            warnings = list(record.warnings)
            if self.images and record.example is not None and record.example.image is not None and not errors:
                warnings += filter(None, [orientation_note(record.example)])
            self.counts["warnings"] += len(warnings)
            for level, messages in (("error", errors), ("warning", warnings)):
                for message in _summed_up(messages):
                    yield Problem(record.where, level, message)
        for hint in self.conventions.hints():
            self.counts["warnings"] += 1
            yield Problem("all rows", "warning", hint)

    def _example_errors(self, example: Example, rows_by_id: dict[str, int]) -> Iterator[str]:
        self.counts["objects"] += len(example.graph.objects)
        self.counts["relations"] += len(example.graph.relations)
        number = self.counts["rows"]
        earlier = rows_by_id.setdefault(example.image_id, number)
        if earlier != number:
            yield f"the image_id {example.image_id!r} is that of row {earlier} already; ids must differ"
        if self.vocabulary is not None:
            for kind, offenders in zip(("object label", "predicate"), self.vocabulary.outside(example), strict=True):
                for offender, count in offenders.items():
                    yield f"the {kind} {offender!r} ({count} times) is not in the vocabulary"
        # An image that no row names is no error here: scoring and evaluation need none. One that is named must be good.
        if self.images and example.image is not None:
            try:
                open_image(example)
                self.counts["images"] += 1
            except DataError as error:
                yield str(error)


class Repeats:
    """Tells which problems of a data set need not be shown, since many were that differ from them only in numbers and
    quoted values."""

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, str], list] = {}  # the first of a kind, and how many there are

    def add(self, problem: Problem) -> bool:
        """Count a problem; whether it is one to show."""
        kind = self._kinds.setdefault((problem.level, _VALUES.sub("", problem.message)), [problem, 0])
        kind[1] += 1
        return kind[1] <= _SHOWN_IN_ALL

    def left_out(self) -> Iterator[Problem]:
        """For each kind of which some were not to show, how many."""
        for first, count in self._kinds.values():
            if count > _SHOWN_IN_ALL:
                yield replace(first, where=f"{counted(count - _SHOWN_IN_ALL, 'more line')} like that of {first.where}")


def _summed_up(messages: list[str]) -> Iterator[str]:
    """The messages of a row; of those that differ only in numbers and quoted values, the first few and the rest as a
    count."""
    counts: Counter[str] = Counter()
    for message in messages:
        kind = _VALUES.sub("", message)
        counts[kind] += 1
        if counts[kind] <= _SHOWN:
            yield message
    if more := sum(max(0, count - _SHOWN) for count in counts.values()):
        yield f"and {more} more like these in this row"
