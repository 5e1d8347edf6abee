"""Our own JSONL: one row per image, images in ``images/`` beside the file or named by absolute paths.

The rows are described and checked in :mod:`scenerl.data.rows`. Files are read row by row, in bounded memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from scenerl.answers.elements import excerpt
from scenerl.data.published import choose_split, refuse_split
from scenerl.data.records import Record
from scenerl.data.rows import read_row
from scenerl.errors import DataError, near_files
from scenerl.files import whole_file
from scenerl.json_files import decode, foreign_layout

MAX_ROW_BYTES = 64 * 2**20
"""Longest row that is read; a longer one is a file that is no JSONL."""


def read_jsonl(path: Path | str) -> Iterator[tuple[int, dict]]:
    """The rows of a JSONL file with their numbers, counted from 1; blank lines are counted and skipped.

    Raises:
        DataError: the file is missing or unreadable, or a row is not a JSON object; the message names file and row.
    """
    for number, row, error in read_rows(path):
        if error:
            raise DataError(f"{path}, row {number}: {error}")
        yield number, row


def read_rows(path: Path | str) -> Iterator[tuple[int, dict, str | None]]:
    """As :func:`read_jsonl`, with what is wrong with a row (or None) beside it, and reading goes on.

    Raises:
        DataError: the file is missing or unreadable, or no JSON lines at all.
    """
    for number, line in _lines(Path(path)):
        yield number, *_decode(line)


def read(argument: Path | str, split: str | None = None) -> Iterator[Record]:
    """Every row of a JSONL file, or of a folder's ``<split>.jsonl``, as a record; images are in ``images/`` beside it.

    A bad row is a record with errors, and reading goes on.

    Raises:
        DataError: the file is missing or unreadable, or there is no such split.
    """
    path = Path(argument)
    if path.is_dir():
        names = sorted(found.stem for found in path.glob("*.jsonl"))
        path /= f"{choose_split(split, names, path)}.jsonl"
    else:
        refuse_split(split, path)
    for number, row, error in read_rows(path):
        where = f"{path}, row {number}"
        yield Record(where, None, (error,)) if error else read_row(row, where, path.parent / "images")


def write_jsonl(path: Path | str, rows: Iterable[dict]) -> int:
    """Write rows as JSONL, whole or not at all: the file appears under its name when every row is written.

    Text is written in ASCII escapes, so that any string survives, lone surrogates included.

    Returns:
        The number of rows written.

    Raises:
        ValueError: a row holds NaN or an infinity.
    """
    count = 0
    with whole_file(path) as aside, open(aside, "w", encoding="ascii") as file:
        for row in rows:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            count += 1
    return count


def why_no_json(error: Exception) -> str:
    """What ``json.loads`` says of one line of a file: the row is named beside it, so that only the column is here."""
    # the decoder's message is bounded
    return f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that are not blank. Bytes, because text mode would stop at the first undecodable one."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; expected a JSONL file")
    try:
        with open(path, "rb") as file:
            number, is_first = 0, True
            while line := file.readline(MAX_ROW_BYTES + 1):
                number += 1
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")  # the byte order mark that some editors write
                if is_first and (kind := foreign_layout(line)):
                    raise DataError(f"{path} {kind}")
                if len(line) > MAX_ROW_BYTES:
                    raise DataError(f"{path}, row {number}: longer than {MAX_ROW_BYTES} bytes; is this a JSONL file?")
                if line.strip():
                    is_first = False
                    yield number, line.rstrip()
    except OSError as error:
        near = near_files(path) if isinstance(error, FileNotFoundError) else ""
        raise DataError(f"{path}: cannot be read ({error.strerror or error}){near}; expected a JSONL file") from error


def _decode(line: bytes) -> tuple[dict, str | None]:
    """The JSON object of a line, or what is wrong with the line."""
    try:
        row = decode(line)
    except UnicodeDecodeError as error:
        return {}, f"not UTF-8 text at byte {error.start}: {excerpt(line[error.start : error.start + 20])}"
    except RecursionError:
        return {}, f"nested too deeply: {excerpt(line[:80])}"
    except ValueError as error:
        return {}, f"not JSON ({why_no_json(error)}): {excerpt(line.decode('utf-8'))}"
    if not isinstance(row, dict):
        return {}, f"a row must be a JSON object, found {excerpt(row)}"
    return row, None
