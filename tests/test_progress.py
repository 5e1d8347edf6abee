"""The bar of long work: it counts what is taken, changes nothing, and keeps out of what is not for the terminal."""

from __future__ import annotations

import sys

import pytest

from scenerl import progress
from scenerl.progress import track


@pytest.mark.parametrize("force", ["", "1"], ids=["no terminal", "terminal"])
def test_items_come_one_by_one_and_errors_go_through(force, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", force)
    taken = []

    def items():
        for number in range(5):
            taken.append(number)
            yield number
        raise KeyError("broken")

    tracked = track(items(), "rows")
    assert next(tracked) == 0 and taken == [0]
    with pytest.raises(KeyError, match="broken"):
        list(tracked)
    assert taken == [0, 1, 2, 3, 4]


def test_standard_output_stays_what_it_was(capsys, monkeypatch):
    """rich sends what is printed under a bar to the bar's stream, so that rows would not reach a file."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(progress, "_SECONDS", 0)
    for number in track(range(3), "counted", 3):
        print(f"row {number}")
        print(f"warning {number}", file=sys.stderr)
    shown = capsys.readouterr()
    assert shown.out == "row 0\nrow 1\nrow 2\n"
    assert "warning 2" in shown.err and "counted" in shown.err and "3/3" in shown.err


def test_logs_get_a_line_now_and_then(capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    clock = iter([0, 10, 40, 50, 80])  # seconds: at the start, and after each of four batches
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock))
    with progress.progress_bar("predict", 1000) as advance:
        for _ in range(4):
            advance(5)
    assert capsys.readouterr().err.splitlines() == [
        "predict: 10 of 1000, 0.25 a second, 1.1 h left",
        "predict: 20 of 1000, 0.25 a second, 1.1 h left",
    ]


def test_short_work_shows_nothing_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setattr(progress, "_SECONDS", 0)
    assert list(track(range(3), "counted")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
