"""Reading JSON files: whole, or the elements of their top-level lists one at a time, with errors that name the file.

``orjson`` reads whole files; what it refuses goes to slower readers, which accept NaN and lone surrogates or say what
is wrong. Files above :data:`WHOLE_BYTES` (psg.json, COCO's training instances) would take gigabytes as Python objects:
``ijson`` reads them as events, of which one element at a time is put together here. (Its own ``items`` keeps the path
to every open bracket, so that 30,000 of them in a row take more than two gigabytes.)
"""

from __future__ import annotations

import codecs
import gc
import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from itertools import islice
from mmap import ACCESS_READ, mmap
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

import ijson
import orjson
from pydantic import BaseModel, ValidationError

from scenerl.errors import DataError, near_files

Model = TypeVar("Model", bound=BaseModel)

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}
_UTF_16 = (b"\xff\xfe", b"\xfe\xff", b"{\x00", b"[\x00", b"\x00{", b"\x00[")
"""Byte order marks, and brackets where there is none; one of UTF-32 begins in the same way."""


def foreign_kind(head: bytes) -> str | None:
    """What is wrong with a file that begins so, as the rest of a sentence about it; None where it may be JSON."""
    if name := next((name for start, name in _COMPRESSED.items() if head.startswith(start)), None):
        return f"is compressed with {name}; unpack it first"
    if head.startswith(b"PAR1"):
        return "is a Parquet file, not JSON"
    if head.startswith(_UTF_16):
        return "is text in UTF-16 or UTF-32; save it as UTF-8 first"
    return None


def foreign_layout(first_line: bytes) -> str | None:
    """As :func:`foreign_kind`, for a file of JSON lines of which this is the first line that is not blank."""
    line = first_line.strip()
    if line.startswith(b"[") and line[1:].lstrip()[:1] in (b"", b"{"):
        return "is one JSON array; expected one JSON object per line, without brackets and commas around it"
    if line == b"{":
        return "holds a JSON object that goes over several lines; expected one object per line"
    return foreign_kind(line)


def read_json(path: Path | str, expected: str) -> Any:
    """The value in a JSON file.

    Args:
        path: the file, in UTF-8.
        expected: what it should hold, for the message.

    Raises:
        DataError: it cannot be read, or is not JSON.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        near = near_files(path) if isinstance(error, FileNotFoundError) else ""
        raise DataError(f"{path}: cannot be read ({error.strerror}){near}; expected {expected}") from error
    if kind := foreign_kind(content):
        raise DataError(f"{path} {kind}; expected {expected}")
    try:
        with collector_paused():
            return decode(content.removeprefix(codecs.BOM_UTF8))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); expected {expected}") from error


def read_as(model: type[Model], path: Path) -> Model:
    """A JSON file as a pydantic model; the start of the model's docstring says what the file should hold.

    Raises:
        DataError: it cannot be read, is not JSON or not of that kind; names the file, the place and what is wrong.
    """
    return as_model(model, read_json(path, (model.__doc__ or "").split(":")[0].replace("``", "")), path)


def as_model(model: type[Model], value: object, path: Path) -> Model:
    """A value of a JSON file as a pydantic model.

    Raises:
        DataError: it is not of that kind; names the file, the place and what is wrong.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: {f'{place}: ' if place else ''}{first['msg']}") from None


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the garbage collector, which takes half the time of reading a large file, from running meanwhile."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def decode(text: bytes) -> Any:
    """The value of a JSON text in UTF-8, by ``orjson``, or by the standard library if ``orjson`` refuses it.

    Raises:
        ValueError, RecursionError: it is no JSON, as the standard library says.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text.decode("utf-8"))


def _whole(path: Path | str) -> Any:
    """The value in a file of at most :data:`WHOLE_BYTES`; None where it is larger or has to be read as events, which
    also tells what is wrong with it."""
    try:
        with open(path, "rb") as file:
            content = file.read(WHOLE_BYTES + 1)
        with collector_paused():
            return None if len(content) > WHOLE_BYTES else decode(content.removeprefix(codecs.BOM_UTF8))
    except (OSError, ValueError, RecursionError):
        return None


WHOLE_BYTES = 2**27
"""Largest file that is read whole where its elements are wanted one at a time."""
MAX_VALUES = 2**24
"""Values, keys and brackets that one element may have; one of more is a file of another kind."""
MAX_DEPTH = 100
"""Lists and objects in one another that one element may have."""
_NOT_A_NUMBER = re.compile(r"[:,\[]\s*-?(?:NaN|Infinity)\b")
_HEAD = 16  # bytes that tell what kind of file it is
_STEP = {"start_map": 1, "start_array": 1, "end_map": -1, "end_array": -1}

Events = Iterator[tuple[str, Any]]
"""What ``ijson.basic_parse`` yields: the kind of each bracket, key and value of the text, and what it holds."""


def iter_lists(path: Path | str, keys: Collection[str], expected: str) -> Iterator[tuple[str, Any]]:
    """Key and element, for every element of the lists that a JSON object holds under ``keys``, in the file's order.

    Args:
        path: the file, in UTF-8.
        keys: the top-level keys; all else is skipped.
        expected: what the file should hold, for messages.

    Raises:
        DataError: the file cannot be read, is not JSON (above :data:`WHOLE_BYTES`, NaN is not), is no object, or
            what stands under a key is no list. It comes when the place is reached, so that elements may have been
            yielded before.
    """
    value = _whole(path)
    if isinstance(value, dict) and all(isinstance(value.get(key, []), list) for key in keys):
        yield from ((key, element) for key, elements in value.items() if key in keys for element in elements)
    else:
        yield from _streamed_lists(path, keys, expected)


def iter_list(path: Path | str, expected: str) -> Iterator[Any]:
    """The elements of a file that holds one JSON list. Arguments and errors as for :func:`iter_lists`."""
    value = _whole(path)
    if isinstance(value, list):
        yield from value
        return
    with _events(path, expected) as events:
        yield from _elements(events, "no JSON list")
        for _ in events:
            pass  # there is none; asking for it reads what follows the end


def read_members(path: Path | str, keys: Collection[str], expected: str) -> dict[str, Any]:
    """The values under some top-level keys of a JSON object, as far as they are there; all else is skipped.

    Arguments and errors as for :func:`iter_lists`.
    """
    value = _whole(path)
    if isinstance(value, dict):
        return {key: value[key] for key in keys if key in value}
    with _events(path, expected) as events:
        return {key: _value(*next(events), events) for key in _members(events, keys)}


def first_element(path: Path | str, keys: Collection[str], expected: str) -> tuple[str, Any] | None:
    """The first of what :func:`iter_lists` yields, without reading on from there; None where there is nothing."""
    try:
        return next(_streamed_lists(path, keys, expected), None)
    except DataError:
        return next(iter_lists(path, keys, expected), None)  # accepts more


def first_member(path: Path | str, expected: str) -> tuple[str, Any] | None:
    """The first key of the JSON object in a file, and its value, without reading on; None of an empty one."""
    with _events(path, expected) as events:
        return next(((key, _value(*next(events), events)) for key in _members(events)), None)


def first_of_list(path: Path | str, expected: str) -> Any:
    """The first element of the JSON list in a file, without reading on; None of an empty one."""
    with _events(path, expected) as events:
        return next(_elements(events, "no JSON list"), None)


def mentions(path: Path | str, key: str) -> bool:
    """Whether a key, in quotes, stands anywhere in a file that is not empty: a look that costs no parsing."""
    with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        return content.find(json.dumps(key).encode()) >= 0


def is_object(path: Path | str, expected: str) -> bool:
    """Whether a JSON file holds an object, as far as its beginning says. Errors as for :func:`iter_lists`."""
    with _events(path, expected) as events:
        return next(events)[0] == "start_map"


def _streamed_lists(path: Path | str, keys: Collection[str], expected: str) -> Iterator[tuple[str, Any]]:
    with _events(path, expected) as events:
        for key in _members(events, keys):
            for element in _elements(events, f"no list under {key!r}"):
                yield key, element


@contextmanager
def _events(path: Path | str, expected: str) -> Iterator[Events]:
    """The events of a file; what goes wrong while they are taken becomes a DataError."""
    place = ""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
            if kind := foreign_kind(head):
                raise DataError(f"{path} {kind}; expected {expected}")
            file.seek(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
            try:
                yield ijson.basic_parse(file, use_float=True)
            except (ijson.JSONError, ValueError):
                place = f" in its first {file.tell()} bytes"
                raise
    except DataError:
        raise
    except OSError as error:
        near = near_files(path) if isinstance(error, FileNotFoundError) else ""
        raise DataError(f"{path}: cannot be read ({error.strerror}){near}; expected {expected}") from error
    except (ijson.JSONError, ValueError) as error:
        # The library's message is a line that says what, one of the text there, one that points at it; where that text
        # is no UTF-8, all of it is a bytes object's repr.
        what, near, *_ = [*re.split(r"\n|\\n", str(error).removeprefix("b'")), ""]
        reason = f"{what} near {near.strip()}" if near.strip() else what
        if _NOT_A_NUMBER.search(near) and Path(path).stat().st_size > WHOLE_BYTES:
            raise DataError(
                f"{path}: NaN and Infinity are not read in a file of more than {WHOLE_BYTES >> 20} MiB; write null in "
                rf"their place: sed -E 's/([:,[] *)-?(NaN|Infinity)\b/\1null/g' {quote(str(path))} > NEW_FILE"
            ) from error
        raise DataError(f"{path}: not JSON as expected{place} ({reason}); expected {expected}") from error


def _members(events: Events, keys: Collection[str] | None = None) -> Iterator[str]:
    """The keys of the object that comes next, and of the file; the caller takes the value of each.

    Args:
        keys: those that are wanted, by default all; the values of others are passed over.
    """
    if next(events)[0] != "start_map":
        raise ValueError("no JSON object")
    for event, key in events:
        if event == "end_map":
            continue  # asking for the next event reads what follows the end
        if keys is None or key in keys:
            yield key
        else:
            depth = 0
            while depth := depth + _STEP.get(next(events)[0], 0):
                pass


def _elements(events: Events, wrong: str) -> Iterator[Any]:
    """The elements of the list that comes next; ``wrong`` says that none does."""
    if next(events)[0] != "start_array":
        raise ValueError(wrong)
    for event, value in events:
        if event == "end_array":
            return
        yield _value(event, value, events)


def _value(event: str, value: Any, events: Events) -> Any:
    """The value that begins with an event, whole."""
    if event not in _STEP:
        return value
    builder = ijson.ObjectBuilder()
    builder.event(event, value)
    depth = 1
    for event, value in islice(events, MAX_VALUES):
        builder.event(event, value)
        depth += _STEP.get(event, 0)
        if depth == 0:
            return builder.value
        if depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} lists and objects in one another")
    raise ValueError(f"an element of more than {MAX_VALUES} values")
