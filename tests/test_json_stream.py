"""Streamed JSON reads as the standard library reads it whole, wherever the window ends; errors name file and place."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenerl import json_stream
from scenerl.json_stream import iter_list, iter_lists, read_members, starts_with
from scenerl.types import DataError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(params=[1, 2, 7, 2**20])
def window(request, monkeypatch):
    """Windows of every size: each character may be the last of one."""
    monkeypatch.setattr(json_stream, "_CHUNK", request.param)


@pytest.fixture
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("json") / "file.json"


@given(values=st.lists(VALUES, max_size=4), indent=st.sampled_from([None, 1]), size=st.sampled_from([1, 3, 64]))
def test_lists_read_as_they_were_written(tmp_path_factory, values, indent, size):
    path = tmp_path_factory.getbasetemp() / "list.json"
    path.write_text(json.dumps(values, indent=indent, ensure_ascii=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", size)
        assert list(iter_list(path, "a list")) == values


def test_parts_of_an_object(file, window):
    file.write_text('  {"a" : [1, {"b": [2]}, 34], "skip": {"x": [[]], "y": 5}, "n": 12, "c": [], "s": "]}"}  ')
    assert list(iter_lists(file, {"a", "c"}, "x")) == [("a", 1), ("a", {"b": [2]}), ("a", 34)]
    assert read_members(file, {"n", "s", "nothing"}, "x") == {"n": 12, "s": "]}"}
    assert starts_with(file, "x") == "{"


def test_empty_ones(file, window):
    file.write_text("[]")
    assert list(iter_list(file, "x")) == []
    file.write_text("{}")
    assert list(iter_lists(file, {"a"}, "x")) == [] and read_members(file, {"a"}, "x") == {}
    file.write_text("")
    assert starts_with(file, "x") == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "[1]",
        '{"a": [1, 2',
        '{"a": [1, 2]',
        '{"a": [1 2]}',
        '{"a": [1,]}',
        '{"a": [1]} x',
        '{"a": [1]}{}',
        '{"a" [1]}',
        '{1: 2, "a": []}',
        '{"a": 5}',
        '{"a": {"b": 1}}',
        '{"a": [tru]}',
        '{"b": "unfinished',
        '{"b": [' + "[" * 100_000,
    ],
)
def test_broken_files(file, text, window):
    file.write_text(text)
    with pytest.raises(DataError, match=r"file\.json: not JSON.*; expected rows"):
        list(iter_lists(file, {"a"}, "rows"))


def test_what_is_no_text_or_not_there(file):
    with pytest.raises(DataError, match="cannot be read .*; expected rows"):
        list(iter_list(file, "rows"))
    file.write_bytes(b'["\xff"]')
    with pytest.raises(DataError, match=r"file\.json: not JSON .*utf-8"):
        list(iter_list(file, "rows"))


def test_the_place_of_an_error_is_named(file, window):
    file.write_text("[" + "10, " * 1000 + "x]")
    with pytest.raises(DataError, match="after character 4001 "):
        list(iter_list(file, "rows"))


def test_no_more_than_an_element_is_held(file, monkeypatch):
    """An element without end is given up long before the file's."""
    monkeypatch.setattr(json_stream, "_CHUNK", 10)
    monkeypatch.setattr(json_stream, "MAX_ELEMENT", 1000)
    file.write_text('["' + "x" * 10_000 + '"]')
    with pytest.raises(DataError, match="longer than 1000 characters"):
        list(iter_list(file, "rows"))
    file.write_text("[" + ", ".join(["7"] * 10_000) + "]")
    assert sum(iter_list(file, "rows")) == 70_000


def test_elements_come_before_the_file_is_read_on(file):
    file.write_text("[" + "1, " * 2_000_000 + "broken]")
    stream = iter_list(file, "rows")
    assert [next(stream) for _ in range(5)] == [1] * 5
