"""Work side by side: order, errors, ending early, and output whose lines begin with a name."""

from __future__ import annotations

import contextlib
import io
import os
import time
from pathlib import Path

import pytest

from scenerl.demo.processes import NamedLines, side_by_side


def work(folder: Path, name: str, kind: str = "") -> None:
    """Leave a file that says how many threads there are; fail or go on for long where that is asked for."""
    (folder / name).write_text(os.environ["OMP_NUM_THREADS"])
    if kind == "fails":
        raise ValueError(f"{name} cannot be done")
    if kind == "long":
        time.sleep(600)


def test_a_job_starts_when_what_it_needs_is_done(tmp_path):
    jobs = [(tmp_path, "third"), (tmp_path, "second"), (tmp_path, "first"), (tmp_path, "other")]
    needs = {"third": jobs[1], "second": jobs[2]}
    before = os.environ.get("OMP_NUM_THREADS")
    ended = [(job[1], error) for job, error in side_by_side(work, jobs, 2, 3, lambda job: needs.get(job[1]))]
    names = [name for name, _ in ended]
    assert sorted(names) == ["first", "other", "second", "third"]
    assert names.index("first") < names.index("second") < names.index("third")
    assert all(error is None for _, error in ended)
    assert [(tmp_path / name).read_text() for name in names] == ["3"] * 4
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_what_needs_a_failed_job_is_not_tried_and_the_rest_is(tmp_path):
    jobs = [(tmp_path, "bad", "fails"), (tmp_path, "after"), (tmp_path, "other")]
    ended = dict(side_by_side(work, jobs, 1, needs=lambda job: jobs[0] if job[1] == "after" else None))
    assert list(ended) == [jobs[0], jobs[2]]
    assert str(ended[jobs[0]]) == "bad cannot be done" and ended[jobs[2]] is None
    assert not (tmp_path / "after").exists()


def test_closed_early_it_ends_what_runs(tmp_path):
    jobs = [(tmp_path, "long", "long"), (tmp_path, "bad", "fails"), (tmp_path, "never")]
    started = time.monotonic()
    with pytest.raises(ValueError, match="bad cannot"), contextlib.closing(side_by_side(work, jobs, 2)) as ended:
        for _, error in ended:
            while not (tmp_path / "long").exists():
                time.sleep(0.05)
            raise error
    assert time.monotonic() - started < 300
    assert not (tmp_path / "never").exists()


def test_lines_begin_with_a_name_and_bars_leave_their_last_state():
    printed = io.StringIO()
    stream = NamedLines("rl   ", printed)
    stream.write("step 1")
    assert printed.getvalue() == ""
    stream.write(" of 2\n\nbar 10 %\rbar 100 %\nrest")
    assert printed.getvalue() == "rl   step 1 of 2\nrl   bar 100 %\n"
    assert not stream.isatty()
