"""JSON read whole or streamed is what the standard library reads; errors name the file and what it should hold."""

from __future__ import annotations

import gzip
import json
import subprocess
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenerl import json_files
from scenerl.errors import DataError
from scenerl.json_files import first_element, is_object, iter_list, iter_lists, read_json, read_members

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(1 - 2**63, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(params=[0, json_files.WHOLE_BYTES], ids=["streamed", "whole"])
def file(request, tmp_path, monkeypatch):
    monkeypatch.setattr(json_files, "WHOLE_BYTES", request.param)
    return tmp_path / "file.json"


@pytest.fixture
def streamed(tmp_path, monkeypatch):
    monkeypatch.setattr(json_files, "WHOLE_BYTES", 0)
    return tmp_path / "file.json"


@given(values=st.lists(VALUES, max_size=4), indent=st.sampled_from([None, 1]), before=st.sampled_from(["", "\ufeff"]))
def test_lists_read_as_they_were_written(tmp_path_factory, values, indent, before):
    path = tmp_path_factory.getbasetemp() / "list.json"
    path.write_text(before + json.dumps(values, indent=indent, ensure_ascii=False), encoding="utf-8")
    for whole_bytes in (0, json_files.WHOLE_BYTES):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(json_files, "WHOLE_BYTES", whole_bytes)
            found = list(iter_list(path, "a list"))
        assert found == values and repr(found) == repr(values)  # 1 is not 1.0
    assert repr(read_json(path, "a list")) == repr(values)


def test_parts_of_an_object(file):
    file.write_text('  {"a" : [1, {"b": [2]}, 34], "skip": {"a": [[]], "y": 5}, "n": 12, "c": [], "s": "]}"}  ')
    assert list(iter_lists(file, {"a", "c"}, "x")) == [("a", 1), ("a", {"b": [2]}), ("a", 34)]
    assert read_members(file, {"n", "s", "nothing"}, "x") == {"n": 12, "s": "]}"}
    assert first_element(file, {"c", "a"}, "x") == ("a", 1) and first_element(file, {"c"}, "x") is None
    assert is_object(file, "x")


def test_empty_ones(file):
    file.write_text("[]")
    assert list(iter_list(file, "x")) == [] and not is_object(file, "x")
    file.write_text("{}")
    assert list(iter_lists(file, {"a"}, "x")) == [] and read_members(file, {"a"}, "x") == {}
    file.write_text("")
    with pytest.raises(DataError, match="not JSON .*; expected x"):
        is_object(file, "x")


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
        '{"a": {"item": 1}}',
        '{"a": [tru]}',
        '{"b": "unfinished',
        '{"b": [' + "[" * 100_000,
        '{"a": [' + "[" * 100_000 + "]" * 100_000 + "]}",
    ],
)
def test_broken_files(file, text):
    file.write_text(text)
    with pytest.raises(
        DataError, match=r"file\.json: not JSON as expected in its first \d+ bytes \(.+\); expected rows$"
    ):
        list(iter_lists(file, {"a"}, "rows"))


def test_nan_as_python_writes_it(tmp_path):
    path = tmp_path / "file.json"
    path.write_text('{"b": NaN, "a": [{"c": NaN, "d": -Infinity}, 2]}')
    (_, first), second = iter_lists(path, {"a"}, "rows")
    assert first["c"] != first["c"] and first["d"] == float("-inf") and second == ("a", 2)
    assert first_element(path, {"a"}, "rows")[1].keys() == {"c", "d"}
    path.write_text('{"a": [NaN')
    with pytest.raises(DataError, match="not JSON as expected"):
        first_element(path, {"a"}, "rows")


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "[1,  Infinity]"])
def test_nan_in_a_file_that_is_too_large_to_be_read_whole_says_how_to_be_rid_of_it(tmp_path, monkeypatch, value):
    monkeypatch.setattr(json_files, "WHOLE_BYTES", 0)
    path = tmp_path / "my file.json"
    path.write_text(f'{{"a": [{{"b": "NaN"}}, {{"b": {value}, "c": "is: NaNny"}}]}}')
    with pytest.raises(DataError, match="NaN and Infinity are not read .*; write null in their place: ") as error:
        list(iter_lists(path, {"a"}, "rows"))
    command = str(error.value).partition("place: ")[2].replace("NEW_FILE", f"'{tmp_path}/new.json'")
    subprocess.run(command, shell=True, check=True)
    null = json.loads(value.replace("NaN", "null").replace("-Infinity", "null").replace("Infinity", "null"))
    assert list(iter_lists(tmp_path / "new.json", {"a"}, "rows"))[1] == ("a", {"b": null, "c": "is: NaNny"})


def test_what_is_no_text_or_not_there(file):
    with pytest.raises(DataError, match="cannot be read .*; expected rows"):
        list(iter_list(file, "rows"))
    file.write_bytes(b'["\xff"]')
    with pytest.raises(
        DataError, match=r"file\.json: not JSON .*\(lexical error: invalid bytes in UTF8 string\. near .*xff"
    ):
        list(iter_list(file, "rows"))


def test_the_place_of_an_error_is_named(file):
    """To a piece of what is read at a time."""
    file.write_text("[" + "10, " * 50_000 + "x," + " 10," * 50_000)
    with pytest.raises(DataError, match=rf"in its first {4 * 2**16} bytes \(lexical error: .* near 10, .* 10, x, 10, "):
        list(iter_list(file, "rows"))


def test_a_streamed_element_is_bounded(streamed, monkeypatch):
    file = streamed
    monkeypatch.setattr(json_files, "MAX_VALUES", 10)
    monkeypatch.setattr(json_files, "MAX_DEPTH", 3)
    file.write_text(
        "[" + ", ".join(["[1, 2, 3, 4, 5, 6, 7, 8, 9]"] * 1000) + "]"
    )  # the bracket that ends it is the 10th
    assert sum(map(sum, iter_list(file, "rows"))) == 45_000
    file.write_text("[[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]]")
    with pytest.raises(DataError, match="more than 10 values"):
        list(iter_list(file, "rows"))
    file.write_text("[[[[]]]]")
    assert list(iter_list(file, "rows")) == [[[[]]]]
    file.write_text("[[[[[]]]]]")
    with pytest.raises(DataError, match="more than 3 lists"):
        list(iter_list(file, "rows"))


def test_streamed_elements_come_before_the_file_is_read_on(streamed):
    file = streamed
    file.write_text("[" + "1, " * 2_000_000 + "broken]")
    tracemalloc.start()
    try:
        stream = iter_list(file, "rows")
        assert [next(stream) for _ in range(5)] == [1] * 5
        stream.close()
        assert tracemalloc.get_traced_memory()[1] < 2**22  # the file has six million bytes
    finally:
        tracemalloc.stop()


def test_a_file_of_another_kind_is_named(tmp_path):
    path = tmp_path / "file.json"
    for content, message in {
        gzip.compress(b"[1]"): r"file\.json is compressed with gzip; unpack it first; expected rows$",
        "[1]".encode("utf-16"): r"file\.json is text in UTF-16 or UTF-32; save it as UTF-8 first; expected rows$",
    }.items():
        path.write_bytes(content)
        for reading in (read_json, lambda *asked: list(iter_list(*asked))):
            with pytest.raises(DataError, match=message):
                reading(path, "rows")


def test_a_byte_order_mark_is_passed_over(tmp_path):
    path = tmp_path / "file.json"
    path.write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(path, "rows") == list(iter_list(path, "rows")) == [1]


def test_what_only_the_standard_library_reads(file):
    file.write_text('[NaN, "\\ud800"]')
    number, text = read_json(file, "x")
    assert number != number and text == "\ud800"
