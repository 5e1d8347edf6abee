"""Prediction by several processes or machines: each answers every n-th batch into a file of its own; gathered later."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from scenerl.data.jsonl import why_no_json
from scenerl.errors import UserError
from scenerl.files import only_writer
from scenerl.inference.batches import Batch
from scenerl.inference.marks import Mark, differing, mark_path, write_mark
from scenerl.inference.tally import Outcome
from scenerl.predictions.counts import AnswerCounts
from scenerl.types import Example

_RANKS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))
"""Variables in which torchrun and accelerate, and srun, tell a process its number and how many there are."""


@dataclass(frozen=True)
class Shard:
    """Part ``number`` of ``count``, counted from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``2/4``, or ``auto``: what torchrun, accelerate or srun tell this process.

        Raises:
            UserError: it is neither, a number is out of range, or nobody told this process anything.
        """
        if text == "auto":
            for rank, size in _RANKS:
                number, count = os.environ.get(rank, ""), os.environ.get(size, "")
                if number.isdecimal() and count.isdecimal() and int(number) < int(count):
                    return cls(int(number) + 1, int(count))
            names = ", ".join(f"{rank} and {size}" for rank, size in _RANKS)
            raise UserError(f"shard: auto needs variables of torchrun, accelerate or srun ({names}); give i/n")
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        shard = cls(*map(int, found.groups())) if found else None
        if shard is None or not 1 <= shard.number <= shard.count:
            raise UserError(f"shard: {text!r} is not a part of a whole; allowed: auto, 1/4, 2/4, 3/4, 4/4 and the like")
        return shard

    def path(self, out: Path) -> Path:
        """The file of this part: ``predictions.2-of-4.jsonl``."""
        return out.with_name(f"{out.stem}.{self.number}-of-{self.count}{out.suffix}")

    def of(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """This part's batches; they keep the seeds that they have in the whole, so their answers are the same."""
        return islice(batches, self.number - 1, None, self.count)

    def num_images(self, total: int, batch_size: int) -> int:
        """How many of ``total`` images are this part's."""
        starts = range((self.number - 1) * batch_size, total, self.count * batch_size)
        return sum(min(batch_size, total - start) for start in starts)


def gather(out: Path, count: int, examples: Iterable[Example], num_samples: int, mark: Mark) -> Outcome:
    """Write ``out`` with its mark: the rows of all parts, as one process would have written them.

    Args:
        mark: what the whole run is; each part's differs by its ``shard`` only.

    Returns:
        What became of the answers.

    Raises:
        UserError: a part is missing, of another run, unfinished or being written, or holds a row twice or one of no
            image; names it.
    """
    parts = [Shard(number, count) for number in range(1, count + 1)]
    paths = [part.path(out) for part in parts]
    _check_parts(parts, paths, mark)
    counts, problems = AnswerCounts(), []
    draft = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    with ExitStack() as stack:
        stack.enter_context(only_writer(*paths))
        stack.callback(draft.unlink, missing_ok=True)
        rows = _rows_of(paths)
        files = [stack.enter_context(path.open("rb")) for path in paths]
        with draft.open("wb") as written:
            for example in examples:
                for sample in range(num_samples):
                    place = rows.pop((example.image_id, sample), None)
                    if place is None:
                        raise UserError(_unfinished(example, parts, paths))
                    files[place[0]].seek(place[1])
                    line = files[place[0]].read(place[2])
                    row = json.loads(line)
                    counts.add(row)
                    problems += [row["error"]] if "error" in row and sample == 0 else []
                    written.write(line)
            if rows:
                (image_id, _), place = next(iter(rows.items()))
                raise UserError(f"{paths[place[0]]}: image_id {image_id!r} is of no image of the data set")
            written.flush()
            os.fsync(written.fileno())
        out.unlink(missing_ok=True)  # so that no old rows ever stand beside the new mark, nor the new ones without it
        write_mark(out, mark)
        os.replace(draft, out)
    return Outcome(counts, problems)


def _check_parts(parts: list[Shard], paths: list[Path], mark: Mark) -> None:
    missing = [f"{path.name} (--shard {part})" for part, path in zip(parts, paths, strict=True) if not path.is_file()]
    if missing:
        raise UserError(f"{paths[0].parent}: missing {', '.join(missing)}")
    for part, path in zip(parts, paths, strict=True):
        if not mark_path(path).is_file():
            raise UserError(f"{path}: was not written by predict")
        if keys := differing(path, {**mark, "shard": str(part)}):
            raise UserError(f"{path}: belongs to another run; differing: {keys}")


def _rows_of(paths: list[Path]) -> dict[tuple[str, int], tuple[int, int, int]]:
    """(image_id, sample) to (number of the file, offset, length in bytes)."""
    rows: dict[tuple[str, int], tuple[int, int, int]] = {}
    for index, path in enumerate(paths):
        offset = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n"):  # else cut off by a kill: that image has no row yet
                    try:
                        row = json.loads(line)
                        key = row["image_id"], row.get("sample", 0)
                        earlier = rows.get(key)
                    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                        raise UserError(f"{path}, row {number}: not a prediction row ({why_no_json(error)})") from error
                    if earlier:
                        where = f"is in {paths[earlier[0]]} already"
                        raise UserError(f"{path}, row {number}: image_id {key[0]!r}, sample {key[1]}, {where}")
                    rows[key] = (index, offset, len(line))
                offset += len(line)
    return rows


def _unfinished(example: Example, parts: list[Shard], paths: list[Path]) -> str:
    names = ", ".join(f"--shard {part}" for part in parts)
    return (
        f"{paths[0].parent}: image_id {example.image_id!r} has no answer in any of {len(paths)} files; a part is not "
        f"finished: run it again ({names})"
    )
