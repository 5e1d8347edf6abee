"""Data sets: each is a module that turns what users have on disk or on the hub into a stream of examples.

Adding one is a module with ``read(...) -> Iterator[Record]`` (a record per row, bad rows included), a line in
:data:`DATASETS` and a test. Nothing is read before the stream is iterated, and no more than a row or a small batch is
held at a time.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from scenerl.data.rows import Record
from scenerl.errors import DataError
from scenerl.types import Example

if TYPE_CHECKING:
    from scenerl.data.provided import DetectorBoxes

__all__ = ["DATASETS", "DataError", "Examples", "Record", "load", "read"]

_log = logging.getLogger(__name__)
_SHOWN_WARNINGS = 3


def _synthetic(argument: str, split: str | None) -> Iterator[Record]:
    """``synthetic:count=100,seed=0``; splits ``sparse`` (as training data is annotated) and ``complete``."""
    from scenerl.data import synthetic

    splits = {"sparse": {"complete": False}, "complete": {"complete": True}}
    return _scenes("synthetic", synthetic.load, splits, argument, split)


def _scenes(
    name: str,
    load_scenes: Callable[..., Iterator[Example]],
    splits: Mapping[str, Mapping[str, object]],
    argument: str,
    split: str | None,
) -> Iterator[Record]:
    """The records of a synthetic set; ``splits`` are their names with what each hands to ``load_scenes``, the usual one
    first."""
    settings = {"count": 100, "seed": 0, "size": 112}
    if split is not None and split not in splits:
        raise DataError(f"{name} has no split {split!r}; allowed: {', '.join(splits)}")
    for part in filter(None, argument.split(",")):
        key, _, value = part.partition("=")
        if key not in settings or not value.isdecimal():
            raise DataError(
                f"{name}: {part!r} is not understood; allowed: {', '.join(settings)}, each =NUMBER, separated by commas"
            )
        settings[key] = int(value)
    examples = load_scenes(**settings, **splits[split or next(iter(splits))])
    return (Record(f"{name}, row {number}", example) for number, example in enumerate(examples, start=1))


def _jsonl(argument: str, split: str | None) -> Iterator[Record]:
    from scenerl.data import jsonl

    path = Path(argument)
    if path.is_dir():
        return jsonl.read(jsonl.find_file(path, split))
    if split is not None:
        raise DataError(f"{path} is one file and has no split {split!r}; name its folder to choose a split")
    return jsonl.read(path)


def _hub(argument: str, split: str | None) -> Iterator[Record]:
    from scenerl.data import hub

    return hub.read(argument, split)


def _vg150(argument: str, split: str | None) -> Iterator[Record]:
    from scenerl.data import vg150

    return vg150.read(argument, split)


def _psg(argument: str, split: str | None) -> Iterator[Record]:
    from scenerl.data import psg

    return psg.read(argument, split)


def _vcoco(argument: str, split: str | None) -> Iterator[Record]:
    from scenerl.data import vcoco

    return vcoco.read(argument, split)


def _synthetic_detection(argument: str, split: str | None) -> Iterator[Record]:
    """``synthetic_detection:count=100,seed=0``; splits ``negatives`` and ``few_negatives``."""
    from scenerl.data import synthetic_detection

    splits = {asking: {"asking": asking} for asking in ("negatives", "few_negatives")}
    return _scenes("synthetic_detection", synthetic_detection.load, splits, argument, split)


def _coco(argument: str, split: str | None) -> Iterator[Record]:
    from scenerl.data import coco

    return coco.read(argument, split)


def _d3(argument: str, split: str | None) -> Iterator[Record]:
    from scenerl.data import d3

    return d3.read(argument, split)


def _ovdeval(argument: str, split: str | None) -> Iterator[Record]:
    from scenerl.data import ovdeval

    return ovdeval.read(argument, split)


def _vlmr1(argument: str, split: str | None) -> Iterator[Record]:
    from scenerl.data import vlmr1

    return vlmr1.read(argument, split)


DATASETS: dict[str, Callable[[str, str | None], Iterator[Record]]] = {
    "synthetic": _synthetic,
    "synthetic_detection": _synthetic_detection,
    "jsonl": _jsonl,
    "hub": _hub,
    "coco": _coco,
    "d3": _d3,
    "ovdeval": _ovdeval,
    "vlmr1_jsonl": _vlmr1,
    "vg150": _vg150,
    "psg": _psg,
    "vcoco": _vcoco,
}
"""Name of a data set to its reader: (argument, split) to records. A source is written ``name:argument``."""


@dataclasses.dataclass(frozen=True)
class Examples:
    """A data set that can be iterated any number of times, each time anew from its source.

    ``quiet`` leaves out the warnings, for a pass after one that gave them. ``boxes``
    (:class:`scenerl.data.provided.DetectorBoxes`) become the examples' given objects.

    Raises:
        DataError: while iterating, on the first row that cannot be used (unless ``skip_bad``), on an image id that an
            earlier row has, and at the end when there was no row at all.
    """

    source: str
    split: str | None = None
    limit: int | None = None
    skip_bad: bool = False
    need_images: bool = False
    quiet: bool = False
    boxes: DetectorBoxes | None = None
    stored: bool = False

    def __iter__(self) -> Iterator[Example]:
        if self.boxes is None:
            return self._read()
        from scenerl.data.provided import with_provided

        return with_provided(self._read(), self.boxes)

    def _read(self) -> Iterator[Example]:
        seen: dict[str, int] = {}  # numbers, as the places in words would take most of the memory of a large set
        num_rows = num_bad = num_warnings = 0
        try:
            for record in itertools.islice(read(self.source, self.split, self.stored), self.limit):
                num_rows += 1
                for warning in record.warnings:
                    num_warnings += 1
                    if num_warnings <= _SHOWN_WARNINGS and not self.quiet:
                        _log.warning("%s: %s", record.where, warning)
                error = record.errors[0] if record.example is None else None
                if error is None and self.need_images:
                    error = _image_error(record.example)
                if error is not None and self.skip_bad:
                    num_bad += 1
                    if not self.quiet:
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
            if (num_warnings > _SHOWN_WARNINGS or num_bad) and not self.quiet:
                _log.warning(
                    "%s: %d warnings and %d skipped rows in %d rows; see them all with: scenerl data check %s",
                    self.source,
                    num_warnings,
                    num_bad,
                    num_rows,
                    self.source,
                )
        if num_rows == num_bad:
            raise DataError(f"{self.source} is empty: {num_rows} rows, none of them usable; expected at least one")


def load(
    source: str | Path,
    split: str | None = None,
    limit: int | None = None,
    skip_bad: bool = False,
    need_images: bool = False,
    boxes: DetectorBoxes | None = None,
    stored: bool = False,
) -> Examples:
    """A data set by its source.

    Args:
        source: a JSONL file, a Parquet file, a folder of either, or ``name:argument`` with a name from
            :data:`DATASETS` (``hub:owner/name``, ``synthetic:count=100,seed=0``).
        split: which one, where the source has several.
        limit: at most so many rows.
        skip_bad: leave out rows that cannot be used, with a warning each, instead of stopping.
        need_images: refuse a row without an image, or whose image is missing, no image, of another size than the row
            says, too large or cut off; see :func:`scenerl.data.images.check_image`.
        boxes: a detector's objects, to be given in prompts.
        stored: leave images that a set has in its rows (``hub:``) on the disk until each is opened, so that the
            examples can be kept, all of them.

    Returns:
        Examples in the order of the source; warnings go to the log, the first few whole and all of them as a count.

    Raises:
        UserError: the source is of no known kind.
    """
    _resolve(str(source))
    return Examples(str(source), split, limit, skip_bad, need_images, boxes=boxes, stored=stored)


def _image_error(example: Example) -> str | None:
    """What is wrong with an example's image, as far as its file tells without being decoded."""
    from scenerl.data.images import check_image

    try:
        check_image(example)
    except DataError as error:
        return str(error)
    return None


def read(source: str | Path, split: str | None = None, stored: bool = False) -> Iterator[Record]:
    """The records of a source, bad rows included. Arguments and errors as for :func:`load`."""
    name, argument = _resolve(str(source))
    if stored and name == "hub":  # the only set of files whose images are in its rows
        from scenerl.data import hub

        return hub.read(argument, split, stored=True)
    return DATASETS[name](argument, split)


def _resolve(source: str) -> tuple[str, str]:
    """Data set name and argument of a source."""
    name, colon, argument = source.partition(":")
    if name in DATASETS and (colon or name in ("synthetic", "synthetic_detection")):
        return name, argument
    path = Path(source)
    if path.suffix == ".jsonl":
        return "jsonl", source
    if path.suffix == ".parquet":
        return "hub", source
    if source and path.is_dir():
        # A folder that save_to_disk wrote has *.json and *.arrow files, no Parquet.
        saved = (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()
        if not saved and any(path.glob("*.jsonl")):
            return "jsonl", source
        if saved or next(path.rglob("*.parquet"), None) is not None:
            return "hub", source
        raise DataError(f"{source} holds neither JSONL nor Parquet files")
    problem = "is of no known kind" if path.exists() or colon else "does not exist"
    raise DataError(
        f"data source {source!r} {problem}; allowed: a .jsonl or .parquet file, a folder of either, "
        f"hub:owner/name, or another of {', '.join(f'{known}:' for known in DATASETS)} with its argument"
    )
