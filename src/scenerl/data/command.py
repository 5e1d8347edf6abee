"""The ``data`` command: make, describe, check, draw, split and convert data sets.

Every action goes through its source row by row, so that a set of any size takes the memory of a small one, but for what
:class:`~scenerl.data.inspect.statistics.Statistics` counts and the image ids that may not repeat.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.text import Text

from scenerl import data
from scenerl.data.inspect.check import Checker, Problem, Repeats
from scenerl.data.inspect.draw import choose, write_drawings
from scenerl.data.inspect.statistics import Statistics, tables
from scenerl.data.jsonl import write_jsonl
from scenerl.data.records import Record
from scenerl.data.triplets import read_training
from scenerl.data.vocabulary import Vocabulary
from scenerl.data.writers import WRITERS
from scenerl.errors import DataError, UserError, counted
from scenerl.files import atomic_write_text, check_out, check_out_folder
from scenerl.progress import progress_bar, track
from scenerl.types import Example

if TYPE_CHECKING:
    from scenerl.commands.data import DataOptions

T = TypeVar("T")


def run(options: DataOptions) -> None:
    """Do what ``options.action`` says.

    Raises:
        UserError: the source or an option cannot be used, or ``check`` found errors.
    """
    if options.out is not None:
        if options.action in ("make", "draw", "split"):
            check_out_folder(options.out)
        else:
            check_out(options.out, [options.source, options.vocabulary, options.train_source])
    ACTIONS[options.action](options)


def make(options: DataOptions) -> None:
    """Write the synthetic set into a folder."""
    from scenerl.data import synthetic

    out = _required(options.out, "make", "--out FOLDER")
    if any(out.glob("*.jsonl")):
        raise DataError(f"{out} holds a data set already; choose another folder or remove it")
    with progress_bar("scenes", options.num_train + options.num_test) as advance:
        synthetic.make(out, options.num_train, options.num_test, options.seed, progress=advance)
    _say(
        f"{options.num_train} training and {counted(options.num_test, 'test scene')} in {out}; next: scenerl data "
        f"stats {out / 'train.jsonl'}"
    )


def stats(options: DataOptions) -> None:
    """Print statistics of the rows that can be used, and what is wrong with others as :func:`check` does; write the
    statistics as JSON with ``out``."""
    source = _required(options.source, "stats", "SOURCE")
    statistics, checker = Statistics(), Checker(images=False)

    def rows() -> Iterator[Record]:
        for record in track(islice(data.read(source, options.split), options.limit), "rows"):
            if record.example is not None:
                statistics.add(record.example)
            yield record

    deque(_shown(checker.problems(rows())), maxlen=0)
    if not statistics.num_images:
        raise DataError(
            f"{source} is empty: {counted(checker.counts['rows'], 'row')}, none of them usable; expected at least one"
        )
    seen = None
    if options.train_source is not None:
        seen, _ = read_training(options.train_source, options.train_split)
    if options.vocabulary is not None:
        usable = data.load(source, options.split, options.limit, skip_bad=True, quiet=True)
        Vocabulary.read(options.vocabulary).require(usable, source)
    Console().print(tables(statistics, seen))
    if skipped := checker.counts["rows"] - statistics.num_images:
        _say(f"{skipped} of {counted(checker.counts['rows'], 'row')} not counted, as unusable, see above")
    if options.out is not None:
        _write_json(options.out, statistics.as_dict(seen))


def triplets(options: DataOptions) -> None:
    """Write what zero-shot recall, groups of predicates and weighted rewards need to know of training data."""
    out = _required(options.out, "triplets", "--out FILE.json")
    statistics = Statistics.of(track(_examples(options), "rows"))
    _write_json(out, statistics.triplets_dict())
    _say(
        f"{counted(len(statistics.triplets), 'triplet type')} of {counted(len(statistics.predicates), 'predicate')} in "
        f"{counted(statistics.num_images, 'image')}; for scenerl eval --train {out} and scenerl grpo "
        f"--predicate_counts {out}"
    )


def check(options: DataOptions) -> None:
    """Print problems with their rows, the first 20 of a kind, then counts; with ``out``, write all of them as JSONL."""
    source = _required(options.source, "check", "SOURCE")
    checker = Checker(Vocabulary.read(options.vocabulary) if options.vocabulary else None, options.images)
    problems = checker.problems(track(islice(data.read(source, options.split), options.limit), "rows"))
    if options.out is not None:
        write_jsonl(options.out, map(asdict, _shown(problems)))
    else:
        deque(_shown(problems), maxlen=0)
    counts = checker.counts
    _say(", ".join(counted(counts[name], name.replace("_", " ").removesuffix("s")) for name in counts))
    if not counts["rows"]:
        raise DataError(f"{source} is empty: no rows; expected at least one")
    if counts["errors"]:
        raise DataError(f"{source}: {counts['bad_rows']} of {counted(counts['rows'], 'row')} cannot be used, see above")


def draw(options: DataOptions) -> None:
    """Draw some examples as PNG files."""
    out = _required(options.out, "draw", "--out FOLDER")
    chosen = choose(track(_examples(options), "rows"), options.num_images, options.seed)
    paths = write_drawings(track(chosen, "drawings"), out)
    _say(f"{counted(len(paths), 'drawing')} in {out}")


def split(options: DataOptions) -> None:
    """Divide a source's rows into ``train.jsonl`` and ``test.jsonl``; rows about one image file stay together.

    The images for testing are those of the lowest hashes of a path beside the source, so that most of them stay so when
    the data grows, and all of them when it is moved.
    """
    out = _required(options.out, "split", "--out FOLDER")
    start = data.resolve(_required(options.source, "split", "SOURCE"))[1]
    files = {name: out / f"{name}.jsonl" for name in ("train", "test")}
    for file in files.values():
        if file.exists():
            raise DataError(f"{file} exists already; choose another folder or remove it")

    def key(example: Example) -> str:
        name = os.path.relpath(example.image, start) if isinstance(example.image, Path) else example.image_id
        return hashlib.sha256(f"{options.seed} {name}".encode(errors="surrogatepass")).hexdigest()

    keys = sorted({key(example) for example in track(_examples(options), "rows")})
    chosen = set(keys[: round(options.test * len(keys))])
    if not chosen or len(chosen) == len(keys):
        raise DataError(f"{options.source}: {counted(len(keys), 'image')} cannot be divided with --test {options.test}")
    for name, file in files.items():
        part = (example for example in _examples(options) if (key(example) in chosen) == (name == "test"))
        _say(f"{counted(WRITERS['jsonl'][1](file, part), 'row')} in {file}")


def convert(options: DataOptions) -> None:
    """Write any source in a format of :data:`~scenerl.data.writers.WRITERS`; images that are not files yet go to
    ``images/`` beside it."""
    suffix, write = WRITERS[options.to]
    out = _required(options.out, "convert", f"--out FILE{suffix}")
    if out.suffix != suffix:
        fitting = [f" (for {out.suffix}: --to {name})" for name, (end, _) in WRITERS.items() if end == out.suffix]
        raise DataError(f"--out {out}: --to {options.to} writes {suffix}{''.join(fitting)}; give a name that ends so")
    if out.exists():
        raise DataError(f"{out} exists already; choose another name or remove it")
    if options.vocabulary is not None:
        Vocabulary.read(options.vocabulary).require(_examples(options), options.source)
    chosen = (
        example
        for example in track(_examples(options), "rows")
        if not options.only or any(fnmatchcase(example.image_id, pattern) for pattern in options.only)
    )
    count = write(out, chosen)
    if not count:
        out.unlink()
        raise DataError(f"{options.source}: no image_id fits {', '.join(map(repr, options.only))}; nothing written")
    _say(f"{counted(count, 'row')} in {out}")


ACTIONS = {
    "make": make,
    "stats": stats,
    "triplets": triplets,
    "check": check,
    "draw": draw,
    "split": split,
    "convert": convert,
}
"""Action to function."""


def _examples(options: DataOptions) -> data.Examples:
    return data.load(_required(options.source, options.action, "SOURCE"), options.split, options.limit)


def _shown(problems: Iterable[Problem]) -> Iterator[Problem]:
    """The problems, printed as they come; of a kind the first 20, and at the end how many more there are."""
    console, repeats = Console(soft_wrap=True), Repeats()

    def show(problem: Problem) -> None:
        colour = "red" if problem.level == "error" else "yellow"
        console.print(Text.assemble((problem.level, colour), f" {problem.where}: {problem.message}"))

    for problem in problems:
        if repeats.add(problem):
            show(problem)
        yield problem
    for problem in repeats.left_out():
        show(problem)


def _required(value: T | None, action: str, name: str) -> T:
    if value is None:
        raise UserError(f"scenerl data {action} needs {name}")
    return value


def _write_json(path: Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(path, json.dumps(value, indent=1) + "\n")
    _say(f"wrote {path}")


def _say(line: str) -> None:
    Console(soft_wrap=True, highlight=False, markup=False).print(line)
