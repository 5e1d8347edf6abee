"""What a file is that is no JSON in UTF-8, by its first bytes: said in one line instead of an error for every row."""

from __future__ import annotations

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
    """What is wrong with a file that begins so, as the rest of a sentence about it; None where it may be JSON.

    >>> foreign_kind(b"\\x1f\\x8b\\x08\\x00")
    'is compressed with gzip; unpack it first'
    """
    for start, name in _COMPRESSED.items():
        if head.startswith(start):
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
