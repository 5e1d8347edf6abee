"""Large JSON files in bounded memory: the elements of their top-level lists, one at a time.

psg.json and COCO's instances are one JSON object of some hundred megabytes each; read whole, they take several times
that as Python objects. Here the text goes through a window that holds one element, and each element is decoded by the
standard library, at its speed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from scenerl.types import DataError

MAX_ELEMENT = 64 * 2**20
"""Longest element that is read, in characters; a longer one is a file of another kind."""

_CHUNK = 2**20
_WHITE = " \t\n\r"
_decode = json.JSONDecoder().raw_decode


def iter_lists(path: Path | str, keys: Collection[str], expected: str) -> Iterator[tuple[str, Any]]:
    """Key and element, for every element of the lists that a JSON object holds under ``keys``, in the file's order.

    Args:
        path: the file, in UTF-8.
        keys: the top-level keys; all else is skipped.
        expected: what the file should hold, for messages.

    Raises:
        DataError: the file cannot be read, is not JSON, is no object, or what stands under a key is no list. It comes
            when the place is reached, so that elements may have been yielded before.
    """
    with _scanner(path, expected) as scanner:
        for key in scanner.members():
            if key in keys:
                for element in scanner.elements():
                    yield key, element
            else:
                scanner.skip()
        scanner.end()


def iter_list(path: Path | str, expected: str) -> Iterator[Any]:
    """The elements of a file that holds one JSON list. Arguments and errors as for :func:`iter_lists`."""
    with _scanner(path, expected) as scanner:
        yield from scanner.elements()
        scanner.end()


def read_members(path: Path | str, keys: Collection[str], expected: str) -> dict[str, Any]:
    """The values under some top-level keys of a JSON object, as far as they are there; all else is skipped.

    Arguments and errors as for :func:`iter_lists`.
    """
    found = {}
    with _scanner(path, expected) as scanner:
        for key in scanner.members():
            if key in keys:
                found[key] = scanner.value()
            else:
                scanner.skip()
        scanner.end()
    return found


def starts_with(path: Path | str, expected: str) -> str:
    """The first character of a JSON file that is not white space: ``{`` or ``[``, say; empty for an empty file."""
    with _scanner(path, expected) as scanner:
        return scanner.peek()


@contextmanager
def _scanner(path: Path | str, expected: str) -> Iterator[_Scanner]:
    scanner = None
    try:
        with open(path, encoding="utf-8-sig") as file:
            scanner = _Scanner(file)
            yield scanner
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected {expected}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        where = f" after character {scanner.base + scanner.at}" if scanner else ""
        raise DataError(f"{path}: not JSON{where} ({reason}); expected {expected}") from error


class _Scanner:
    """A window on JSON text. ``at`` is the place in the window, ``base`` the window's place in the file."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._done = False
        self.at = 0
        self.base = 0

    def peek(self) -> str:
        """The next character that is not white space, empty at the end."""
        while True:
            while self.at < len(self._text):
                if self._text[self.at] not in _WHITE:
                    return self._text[self.at]
                self.at += 1
            if self._done:
                return ""
            self._more()

    def value(self) -> Any:
        """The next value, whole."""
        self.peek()
        while True:
            try:
                value, end = _decode(self._text, self.at)
                # A number may go on beyond the window: 1 as 12, as 1.5, as 1e+5.
                if end + 2 < len(self._text) or self._done:
                    self.at = end
                    return value
            except json.JSONDecodeError:
                if self._done:
                    raise
            if len(self._text) - self.at > MAX_ELEMENT:
                raise ValueError(f"an element is longer than {MAX_ELEMENT} characters, or broken")
            self._more()

    def elements(self) -> Iterator[Any]:
        """The elements of the list that comes next."""
        for _ in self._items("[", "]"):
            yield self.value()

    def members(self) -> Iterator[str]:
        """The keys of the object that comes next; the caller takes or skips the value of each."""
        for _ in self._items("{", "}"):
            key = self.value() if self.peek() == '"' else None
            if key is None:
                raise ValueError("a key is missing")
            self._take(":")
            yield key

    def skip(self) -> None:
        """Pass over the next value, element by element where it has some."""
        opening = self.peek()
        if opening == "[":
            for _ in self.elements():
                pass
        elif opening == "{":
            for _ in self.members():
                self.value()
        else:
            self.value()

    def end(self) -> None:
        """Nothing may follow."""
        if self.peek():
            raise ValueError("something follows the end")

    def _items(self, opening: str, closing: str) -> Iterator[None]:
        """Stops before each item of a list or object, which the caller takes."""
        self._take(opening)
        if self.peek() != closing:
            yield
            while self.peek() == ",":
                self.at += 1
                yield
        self._take(closing)

    def _take(self, wanted: str) -> None:
        if self.peek() != wanted:
            raise ValueError(f"{wanted!r} is missing")
        self.at += 1

    def _more(self) -> None:
        """Read on. As much again as is kept, so that a long element is not decoded over and over."""
        kept = self._text[self.at :]
        wanted = max(_CHUNK, len(kept))
        part = self._file.read(wanted)
        self._done = len(part) < wanted
        self.base += self.at
        self._text, self.at = kept + part, 0
