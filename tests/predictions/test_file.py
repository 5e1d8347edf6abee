"""The file of predictions holds whole rows only, each once, whatever happens to the process or the disk."""

from __future__ import annotations

import json
import resource

import pytest

from scenerl.answers import OutputFormat
from scenerl.inference.engine import Reply
from scenerl.predictions.counts import AnswerCounts
from scenerl.predictions.file import PredictionFile
from scenerl.predictions.row import error_row, prediction_row
from scenerl.types import Example, ParseResult, SceneGraph, SceneObject
from training.small_run import read_rows

FORMAT = OutputFormat(box_format="norm1000")
GRAPH = SceneGraph((SceneObject("dog", (0, 1.23456, 10, 20)),))


def row(name: str, sample: int = 0) -> dict:
    reply = Reply("dog 0 0 100 200\nend", 7, "stop")
    return prediction_row(
        Example(name, 101, 57, SceneGraph()), ParseResult("ok", GRAPH), reply, FORMAT, (112, 56), sample
    )


def test_a_row_is_in_the_file_when_it_is_appended(tmp_path):
    path = tmp_path / "new" / "out.jsonl"
    with PredictionFile(path) as file:
        for name in ("a", "b\u2028\n\ud800", "c"):
            file.append(row(name))
            assert read_rows(path)[-1] == row(name)
    with PredictionFile(path) as file:
        assert file.done == {("a", 0), ("b\u2028\n\ud800", 0), ("c", 0)}
        file.append(row("a", sample=1))
    assert [(r["image_id"], r["sample"]) for r in read_rows(path)][-1] == ("a", 1)


def test_a_last_row_that_was_cut_off_anywhere_is_dropped(tmp_path):
    path = tmp_path / "out.jsonl"
    with PredictionFile(path) as file:
        file.append(row("a"))
        first = path.stat().st_size
        file.append(row("b"))
    whole = path.read_bytes()
    for length in range(first, len(whole)):
        path.write_bytes(whole[:length])
        with PredictionFile(path) as file:
            assert file.done == {("a", 0)}
            assert path.read_bytes() == whole[:first]
    with PredictionFile(path) as file:
        file.append(row("b"))
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[]",
        "7",
        "null",
        "{}",
        '{"image_id": []}',
        "[" * 100_000,
        "\x00\x00",
        '{"image_id": "a", "status": []}',
        '{"image_id": "a", "issues": [7]}',
    ],
)
def test_a_row_that_is_no_prediction_is_named(tmp_path, line):
    path = tmp_path / "out.jsonl"
    before = f"{json.dumps(row('a'))}\n{line}\n{json.dumps(row('b'))}\n"
    path.write_text(before)
    with pytest.raises(ValueError, match=r"out.jsonl, row 2: not a prediction row"):
        PredictionFile(path)
    assert path.read_text() == before


def test_a_limit_on_the_size_of_files_leaves_whole_rows(tmp_path):
    """The same as a full disk: a row is written in part, and the rest is refused."""
    path = tmp_path / "out.jsonl"
    size = len(json.dumps(row("a"))) + 1
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with PredictionFile(path) as file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 * size + size // 2, hard))
        try:
            for name in "abc":
                file.append(row(name))
            with pytest.raises(ValueError, match=r"cannot write \(File too large\); 3 rows so far kept"):
                file.append(row("d"))
            assert read_rows(path) == [row(name) for name in "abc"]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        file.append(row("e"))  # there is room again
    assert read_rows(path) == [row(name) for name in "abce"]


def test_rows_of_images_that_can_be_read_now_are_taken_out(tmp_path):
    path = tmp_path / "out.jsonl"
    with PredictionFile(path) as file:
        file.append(row("a"))
        for name, sample in (("b", 0), ("b", 1), ("d", 0)):
            file.append(error_row(Example(name, 5, 5, SceneGraph()), FORMAT, sample, "gone"))
        file.append(row("c"))
        assert file.failed == set()  # those of this run are not tried again
    with PredictionFile(path) as file:
        assert file.failed == {"b", "d"} and file.counts.unanswered == 3
        file.forget({"b"})
        assert file.failed == {"d"} and file.done == {("a", 0), ("c", 0), ("d", 0)}
        assert (file.counts.answers, file.counts.unanswered) == (2, 1)
        file.append(row("b"))
    assert [(r["image_id"], "error" in r) for r in read_rows(path)] == [
        ("a", False), ("d", True), ("c", False), ("b", False)
    ]  # fmt: skip
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]


def test_what_became_of_the_answers_in_one_line():
    counts = AnswerCounts()
    issue = {"kind": "no_area", "where": "line 1", "detail": ""}
    for status, issues in (
        ("ok", []),
        ("ok", [issue, issue, {**issue, "kind": "dangling_relation"}]),
        ("ok", [issue]),
        ("truncated", []),
    ):
        counts.add({"status": status, "issues": issues})
    assert str(counts) == "4 answers: 1 failed (truncated 1), 2 with issues (no_area 2, dangling_relation 1)"
    assert not counts.is_clean
    clean = AnswerCounts()
    clean.add({"status": "ok", "issues": []})
    clean.add({"status": "no_answer", "issues": [], "error": "no such file"})
    assert clean.is_clean and str(clean) == "1 answer: 0 failed, 0 with issues"
