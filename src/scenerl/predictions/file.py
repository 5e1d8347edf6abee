"""The file that ``predict`` writes: rows appended one by one, valid after a kill or a full disk, never doubled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Set
from pathlib import Path

from scenerl.data.jsonl import why_no_json
from scenerl.errors import UserError, counted
from scenerl.files import whole_file
from scenerl.predictions.counts import AnswerCounts


class PredictionFile:
    """Append-only JSONL of predictions, for one writer at a time (:func:`scenerl.files.only_writer`).

    Opening it drops a last row that was cut off by a kill, and notes which (image_id, sample) are there. A row that
    cannot be written whole (a full disk) is removed again, so that the file stays valid.

    Attributes:
        done: (image_id, sample) of every row.
        failed: image ids whose rows hold an error instead of an answer since before the file was opened.
        counts: of answers, failures and issues.

    Raises:
        UserError: it holds a row, other than a cut-off last one, that is no prediction; names file and row.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab", buffering=0)
        try:
            self._begin()
            self.failed: set[str] = set()
            for line, row in whole_rows(self.path, "; use --fresh or another --out"):
                self._note(line, row)
                if "error" in row:
                    self.failed.add(row["image_id"])
            self._file.truncate(self._size)
        except BaseException:
            self._file.close()
            raise

    def _begin(self) -> None:
        self.done: set[tuple[str, int]] = set()
        self.counts = AnswerCounts()
        self._size = 0

    def _note(self, line: bytes, row: dict) -> None:
        self.done.add((row["image_id"], row.get("sample", 0)))
        self.counts.add(row)
        self._size += len(line)

    def append(self, row: dict) -> None:
        """Write one row; on return it is in the file.

        Raises:
            UserError: the disk is full or the file cannot be written; earlier rows are kept.
        """
        line = (json.dumps(row) + "\n").encode()
        try:
            view = memoryview(line)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            self._file.truncate(self._size)
            raise UserError(
                f"{self.path}: cannot write ({error.strerror}); {counted(len(self.done), 'row')} so far kept, "
                "the same command goes on from there"
            ) from error
        self._note(line, row)

    def forget(self, image_ids: Set[str]) -> None:
        """Remove all rows of some images. The file is written anew, whole or not at all, once for all of them.

        Raises:
            OSError: the disk is full; the file is as it was.
        """
        with whole_file(self.path) as draft:
            with draft.open("wb") as file:
                self._begin()
                for line, row in whole_rows(self.path, "; use --fresh or another --out"):
                    if row["image_id"] not in image_ids:
                        file.write(line)
                        self._note(line, row)
            self._file.close()
        self._file = self.path.open("ab", buffering=0)
        self.failed = self.failed - image_ids

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> PredictionFile:
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()


def whole_rows(path: Path, advice: str = "") -> Iterator[tuple[bytes, dict]]:
    """The lines of a file of predictions with what they hold, up to one that a kill cut off.

    Raises:
        UserError: a row is no prediction; names file and row, and ends with the advice.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
                hash((row["image_id"], row.get("sample", 0)))
                AnswerCounts().add(row)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise UserError(f"{path}, row {number}: not a prediction row ({why_no_json(error)}){advice}") from error
            yield line, row
