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

from scenerl.errors import UserError, counted
from scenerl.files import only_writer, whole_file
from scenerl.inference.batches import Batch
from scenerl.inference.fingerprint import Fingerprint
from scenerl.predictions.counts import AnswerCounts
from scenerl.predictions.file import whole_rows
from scenerl.types import Example

_RANKS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))
"""Variables in which torchrun and accelerate, and srun, give a process its number and how many there are."""


@dataclass(frozen=True)
class Shard:
    """Part ``number`` of ``count``, counted from 1."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``2/4``, or ``auto``: as torchrun, accelerate or srun number this process.

        Raises:
            UserError: it is neither, a number is out of range, or this process has no number.
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


def gather(
    out: Path, count: int, examples: Iterable[Example], num_samples: int, fingerprint: Fingerprint
) -> tuple[AnswerCounts, list[str]]:
    """Write ``out`` with its fingerprint: the rows of all parts, as one process would have written them.

    Args:
        fingerprint: of the whole run; each part's differs by its ``shard`` only.

    Returns:
        The counts of the answers, and a message for each image without one.

    Raises:
        UserError: a part is missing, of another run, unfinished or being written, or holds a row twice or one of no
            image; names it.
    """
    parts = [Shard(number, count) for number in range(1, count + 1)]
    paths = [part.path(out) for part in parts]
    missing = [f"{path.name} (--shard {part})" for part, path in zip(parts, paths, strict=True) if not path.is_file()]
    if missing:
        raise UserError(f"{out.parent}: missing {', '.join(missing)}")
    for part, path in zip(parts, paths, strict=True):
        fingerprint.of_shard(part).check(path, advice="")
    counts, problems = AnswerCounts(), []
    with only_writer(*paths), ExitStack() as stack, whole_file(out) as draft:
        files = [stack.enter_context(path.open("rb")) for path in paths]
        places = _find_rows(paths)
        with draft.open("wb") as written:
            for example in examples:
                for sample in range(num_samples):
                    if (place := places.pop((example.image_id, sample), None)) is None:
                        raise UserError(
                            f"{out.parent}: image_id {example.image_id!r} has no answer in any of "
                            f"{counted(count, 'file')}; a part is not finished: run it again "
                            f"({', '.join(f'--shard {part}' for part in parts)})"
                        )
                    index, offset = place
                    files[index].seek(offset)
                    line = files[index].readline()
                    row = json.loads(line)
                    counts.add(row)
                    problems += [row["error"]] if "error" in row and sample == 0 else []
                    written.write(line)
        for (image_id, _), (index, _) in places.items():
            raise UserError(f"{paths[index]}: image_id {image_id!r} is of no image of the data set")
        out.unlink(missing_ok=True)  # so that no old rows ever stand beside the new fingerprint, nor new ones without
        fingerprint.write(out)
    return counts, problems


def _find_rows(paths: list[Path]) -> dict[tuple[str, int], tuple[int, int]]:
    """(image_id, sample) to (number of the file, offset of the row in bytes)."""
    rows: dict[tuple[str, int], tuple[int, int]] = {}
    for index, path in enumerate(paths):
        offset = 0
        for number, (line, row) in enumerate(whole_rows(path), start=1):
            key = row["image_id"], row.get("sample", 0)
            if earlier := rows.get(key):
                place = f"is in {paths[earlier[0]]} already"
                raise UserError(f"{path}, row {number}: image_id {key[0]!r}, sample {key[1]}, {place}")
            rows[key] = (index, offset)
            offset += len(line)
    return rows
