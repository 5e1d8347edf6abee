"""JSONL files: whatever is in them, each row is read or refused with its number."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os

import pytest

from scenerl.data import jsonl
from scenerl.data.jsonl import read, read_jsonl, read_rows, write_jsonl
from scenerl.errors import DataError

ROW = {"image_id": "a", "width": 10, "height": 10, "objects": [], "relationships": []}


def test_rows_are_numbered_with_blank_lines_and_byte_order_mark(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n  \r\n{"a": "\xc3\xa4"}\r\n{"a": 3}')
    assert list(read_jsonl(path)) == [(1, {"a": 1}), (4, {"a": "ä"}), (5, {"a": 3})]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "not JSON"),
        (b'{"a": 1} x', "not JSON"),
        (b"[1]", "a row must be a JSON object, found [1]"),
        (b"null", "a row must be a JSON object, found None"),
        (b'{"a": "\xff"}', "not UTF-8 text at byte 7"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not JSON"),
        (b"x" * 10_000_000, "not JSON"),
    ],
)
def test_bad_row_names_file_and_row_and_the_rest_is_read(tmp_path, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join([json.dumps(ROW).encode(), line, json.dumps({**ROW, "image_id": "b"}).encode()]))
    with pytest.raises(DataError) as caught:
        list(read_jsonl(path))
    assert str(caught.value).startswith(f"{path}, row 2: {message}")
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)
    records = list(read(path))
    assert [record.example and record.example.image_id for record in records] == ["a", None, "b"]
    assert records[1].errors[0].startswith(message)
    with pytest.raises(DataError, match="row 2"):
        next(record.unwrap() for record in read(path) if record.errors)


def test_a_row_is_named_once_with_its_column(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n  {"a": 1, b}\n')
    with pytest.raises(DataError) as caught:
        list(read_jsonl(path))
    assert str(caught.value).startswith(f"{path}, row 2: not JSON (")
    assert ", column 12): " in str(caught.value) and "line 1" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b'{"a": 1}\n'), "is compressed with gzip; unpack it first"),
        (bz2.compress(b'{"a": 1}\n'), "is compressed with bzip2; unpack it first"),
        (lzma.compress(b'{"a": 1}\n'), "is compressed with xz; unpack it first"),
        ('{"a": 1}\n'.encode("utf-16"), "is text in UTF-16 or UTF-32; save it as UTF-8 first"),
        ('{"a": 1}\n'.encode("utf-32"), "is text in UTF-16 or UTF-32; save it as UTF-8 first"),
        ('{"a": 1}\n'.encode("utf-16-le"), "is text in UTF-16 or UTF-32; save it as UTF-8 first"),
        ('{"a": 1}\n'.encode("utf-16-be"), "is text in UTF-16 or UTF-32; save it as UTF-8 first"),
        (b"PAR1\x15\x04\n", "is a Parquet file, not JSON"),
        (json.dumps([ROW, ROW]).encode(), "is one JSON array; expected one JSON object per line"),
        (b"\n" + json.dumps([ROW, ROW], indent=1).encode(), "is one JSON array; expected one JSON object per line"),
        (
            b"\xef\xbb\xbf" + json.dumps([ROW], indent=1).encode(),
            "is one JSON array; expected one JSON object per line",
        ),
        (json.dumps(ROW, indent=1).encode(), "holds a JSON object that goes over several lines"),
    ],
    ids=[
        "gzip",
        "bzip2",
        "xz",
        "utf16",
        "utf32",
        "utf16le",
        "utf16be",
        "parquet",
        "array",
        "array2",
        "array3",
        "object",
    ],
)
def test_a_file_of_another_kind_is_one_error(tmp_path, content, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    for reading in (read_rows, read):
        with pytest.raises(DataError) as caught:
            list(reading(path))
        assert str(caught.value).startswith(f"{path} {message}")


def test_a_bracket_further_down_is_a_bad_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('[1]\n{"a": 1}\n[{}]\n{\n')
    assert [wrong is None for _, _, wrong in read_rows(path)] == [False, True, False, False]


def test_nesting_at_any_depth_is_refused_or_excerpted(tmp_path):
    path = tmp_path / "rows.jsonl"
    for depth in (10, 900, *range(960, 1000), 5000):
        path.write_text(json.dumps({**ROW, "objects": "X"}).replace('"X"', "[" * depth + "]" * depth))
        (record,) = read(path)
        assert record.example is None and len(record.errors[0]) < 300


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(DataError, match=r"none\.jsonl: cannot be read \(No such file or directory\)"):
        list(read_jsonl(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="is a folder; expected a JSONL file"):
        list(read_jsonl(tmp_path))


def test_endless_row(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "MAX_ROW_BYTES", 1000)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + b" " * 5000)
    with pytest.raises(DataError, match="row 2: longer than 1000 bytes"):
        list(read_jsonl(path))


def test_images_stand_beside_the_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{**ROW, "file_name": "a.png"}])
    assert next(read(path)).example.image == tmp_path / "images" / "a.png"


def test_written_rows_read_back(tmp_path):
    rows = [{"text": "ä\ud800\u2028\n", "n": 1.5}, {}]
    assert write_jsonl(tmp_path / "new" / "rows.jsonl", rows) == 2
    assert [row for _, row in read_jsonl(tmp_path / "new" / "rows.jsonl")] == rows


def test_a_broken_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"a": 1}])

    def rows():
        yield {"a": 2}
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write_jsonl(path, rows())
    with pytest.raises(ValueError, match="JSON"):
        write_jsonl(path, [{"a": float("nan")}])
    assert list(read_jsonl(path)) == [(1, {"a": 1})]
    assert os.listdir(tmp_path) == ["rows.jsonl"]


def test_the_file_of_a_split(tmp_path):
    with pytest.raises(DataError, match="needs a split; allowed: none, no such file there"):
        list(read(tmp_path))
    write_jsonl(tmp_path / "train.jsonl", [ROW])
    assert next(read(tmp_path)).where == f"{tmp_path / 'train.jsonl'}, row 1"
    write_jsonl(tmp_path / "test.jsonl", [ROW])
    assert next(read(tmp_path, "test")).where == f"{tmp_path / 'test.jsonl'}, row 1"
    with pytest.raises(DataError, match="needs a split; allowed: test, train"):
        list(read(tmp_path))
    with pytest.raises(DataError, match="has no split 'val'; allowed: test, train"):
        list(read(tmp_path, "val"))
