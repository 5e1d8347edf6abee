"""Data sets: each is a module that turns what users have on disk or on the hub into a stream of examples.

Adding one takes a module with ``read(argument, split) -> Iterator[Record]`` (a record per row, bad rows included), its
name in :data:`DATASETS`, and a test. A set whose files number their categories, and whose own evaluators take its boxes
as they stand, has ``read_named(argument, split, exact) -> (Names, Iterator[Record])`` instead; see
:mod:`scenerl.data.ground_truth`. No more than a row or a small batch is held at a time, except the boxes of COCO files
and VG150's arrays.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from scenerl.config.convert import near_misses
from scenerl.data.records import Record
from scenerl.errors import DataError, counted, near_files
from scenerl.plugins import is_own
from scenerl.types import Example

if TYPE_CHECKING:
    from scenerl.data.provided import DetectorBoxes

__all__ = ["DATASETS", "DataError", "Examples", "Record", "load", "read"]

_log = logging.getLogger(__name__)
_SHOWN_WARNINGS = 3


DATASETS: dict[str, str] = {
    name: f"scenerl.data.{name}"
    for name in (
        "synthetic",
        "synthetic_detection",
        "jsonl",
        "hub",
        "coco",
        "d3",
        "ovdeval",
        "vlmr1_jsonl",
        "rec",
        "vg150",
        "vg",
        "sgg_coco",
        "psg",
        "vcoco",
        "toon",
        "annotated",
        "cvat",
        "label_studio",
        "photos",
        "own",
    )
}
"""Name of a data set to its module, imported when a source is read. A source is written ``name:argument``."""


@dataclasses.dataclass(frozen=True)
class Examples:
    """The examples of a data set in the order of the source; each iteration reads it anew.

    Warnings go to the log, the first few whole and all of them as a count.

    Args:
        source: a JSONL file, a Parquet file, images without annotations, a folder of one of these, a file of COCO
            instances with or without relations, a psg.json, a function of one's own (``FILE.py:NAME``), or
            ``name:argument`` with a name from :data:`DATASETS` (``hub:owner/name``, ``synthetic:count=100,seed=0``).
        split: which one, where the source has several.
        limit: at most so many rows.
        skip_bad: leave out rows that cannot be used, with a warning each, instead of stopping.
        need_images: refuse a row without an image, or whose image is missing, no image, of another size than the row
            says, too large or cut off; see :func:`scenerl.data.images.check_image`.
        boxes: a detector's objects, provided in prompts.
        query: labels to look for, in examples that have none of their own.
        stored: leave images that a set has in its rows (``hub:``) on the disk until each is opened, so that the
            examples can be kept, all of them.
        quiet: leave out the warnings, for a pass after one that gave them.

    Raises:
        UserError: the source is of no known kind.
        DataError: while iterating, on the first row that cannot be used (unless ``skip_bad``), on an image id that an
            earlier row has, and at the end when there was no row at all.
    """

    source: str | Path
    split: str | None = None
    limit: int | None = None
    skip_bad: bool = False
    need_images: bool = False
    boxes: DetectorBoxes | None = None
    query: tuple[str, ...] | None = None
    stored: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        resolve(str(self.source))

    def __iter__(self) -> Iterator[Example]:
        records = itertools.islice(read(self.source, self.split, self.stored), self.limit)
        examples = usable(records, str(self.source), self.skip_bad, self.need_images, self.quiet)
        if self.query:
            examples = (one if one.query else dataclasses.replace(one, query=self.query) for one in examples)
        if self.boxes is None:
            return examples
        from scenerl.data.provided import with_provided

        return with_provided(examples, self.boxes)


load = Examples
"""A data set by its source."""


def usable(
    records: Iterable[Record], source: str, skip_bad: bool = False, need_images: bool = False, quiet: bool = False
) -> Iterator[Example]:
    """The examples of records. Arguments and errors as for :class:`Examples`."""
    seen: dict[str, int] = {}  # row numbers: the places in words would take most of the memory of a large set
    num_rows = num_bad = num_warnings = 0
    try:
        for record in records:
            num_rows += 1
            for warning in record.warnings:
                num_warnings += 1
                if num_warnings <= _SHOWN_WARNINGS and not quiet:
                    _log.warning("%s: %s", record.where, warning)
            error = record.errors[0] if record.example is None else None
            if error is None and need_images:
                from scenerl.data.images import check_image

                try:
                    check_image(record.example)
                except DataError as problem:
                    error = str(problem)
            if error is not None and skip_bad:
                num_bad += 1
                if not quiet:
                    _log.warning("%s: row skipped: %s", record.where, error)
                continue
            example = record.unwrap()
            if error is not None:
                raise DataError(f"{record.where}: {error}")
            if example.image_id in seen:
                raise DataError(
                    f"{record.where}: the image_id {example.image_id!r} is that of "
                    f"row {seen[example.image_id]} already; ids must differ"
                )
            seen[example.image_id] = num_rows
            yield example
    finally:
        if (num_warnings > _SHOWN_WARNINGS or num_bad) and not quiet:
            _log.warning(
                "%s: %s and %s in %s; see them all with: scenerl data check %s",
                source,
                counted(num_warnings, "warning"),
                counted(num_bad, "skipped row"),
                counted(num_rows, "row"),
                source,
            )
    if num_rows == num_bad:
        raise DataError(f"{source} is empty: {counted(num_rows, 'row')}, none of them usable; expected at least one")


def read(source: str | Path, split: str | None = None, stored: bool = False) -> Iterator[Record]:
    """The records of a source, bad rows included. Arguments and errors as for :class:`Examples`."""
    name, argument = resolve(str(source))
    module = import_module(DATASETS[name])
    if hasattr(module, "read_named"):
        return module.read_named(argument, split, exact=False)[1]
    options = {"stored": True} if stored and name == "hub" else {}  # the only set of files with images in its rows
    return module.read(argument, split, **options)


def resolve(source: str) -> tuple[str, str]:
    """Data set name and argument of a source; files without a name before them are recognised by their content.

    Raises:
        DataError: the source is of no known kind.
    """
    if is_own(source):
        return "own", source.removeprefix("own:")
    name, colon, argument = source.partition(":")
    if name in DATASETS and (colon or name in ("synthetic", "synthetic_detection")):
        return name, argument
    path = Path(source)
    if path.suffix == ".jsonl":
        from scenerl.data import toon

        return "toon" if toon.is_toon(path) else "jsonl", source
    if path.suffix == ".json" and path.is_file():
        return _json_kind(path), source
    if path.suffix == ".parquet":
        return "hub", source
    from scenerl.data import cvat, photos

    if photos.is_photo(source):
        return "photos", source
    if source and cvat.cvat_file(path):
        return "cvat", source
    if source and path.is_dir():
        from scenerl.data.hub import is_saved

        saved = is_saved(path)
        if not saved and any(path.glob("*.jsonl")):
            return "jsonl", source
        if saved or next(path.rglob("*.parquet"), None) is not None:
            return "hub", source
        if photos.holds_photos(path):
            return "photos", source
        raise DataError(f"{source} holds neither JSONL nor Parquet files nor images")
    problem = "is of no known kind" if path.exists() or colon else "does not exist"
    near = near_misses(name, DATASETS) if colon else near_files(path)
    problem += near if "did you mean" in near else ""
    raise DataError(
        f"data source {source!r} {problem}; allowed: a .jsonl or .parquet file, images, a folder of one of these, COCO "
        f"instances, psg.json, Label Studio's JSON, CVAT's XML, hub:owner/name, or another of "
        f"{', '.join(f'{known}:' for known in DATASETS)} with its argument"
    )


def _json_kind(path: Path) -> str:
    """The data set of a JSON file, by the first entry of its images or tasks and by whether it has relations."""
    from scenerl.data.label_studio import is_task
    from scenerl.json_files import first_element, first_of_list, is_object, mentions

    expected = "COCO instances (images, annotations, categories) or psg.json (data, thing_classes, predicate_classes)"
    if not is_object(path, expected) and is_task(first_of_list(path, expected)):
        return "label_studio"
    found = first_element(path, ("data", "images"), expected)
    if found is None:
        raise DataError(f"{path}: neither {expected.replace(' or ', ' nor ')}")
    key, entry = found
    if key == "data":
        return "psg"
    if mentions(path, "rel_annotations"):
        return "sgg_coco"
    lists = isinstance(entry, Mapping) and any(isinstance(entry.get(key), list) for key in ("text", "neg_text"))
    return "ovdeval" if lists else "coco"
