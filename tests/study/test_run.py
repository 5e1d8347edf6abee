"""``scenerl study`` from the command line: what it leaves, going on, refusing, failing."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="the study needs the extra train")

from scenerl import cli

NAME = "graphs_100"


def study(folder: Path, *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of ``scenerl study --smoke`` with one experiment in ``folder``."""
    printed, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
        code = cli.main(["study", "--smoke", "--out", str(folder), "--only", NAME, "--seeds", "1", *words])
    return code, printed.getvalue(), errors.getvalue()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study") / "out"
    code, printed, errors = study(folder)
    assert code == 0, errors
    assert "1 experiment, 1 at a time" in printed and "1 of 1" in printed
    return folder


def files_of(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.json*") if path.is_file()}


def test_it_leaves_models_metrics_page_and_figures(whole):
    run = whole / NAME / "0"
    for model in ("sft", "hard_recall", "f1", "precision"):
        assert (run / model / "model.safetensors").is_file()
        found = json.loads((run / "metrics" / f"{model}.complete.json").read_text())["metrics"]
        assert {"Recall", "triplet_f1", "mRecall_tail", "relations_per_image"} <= found.keys()
        assert "zR@50" in json.loads((run / "metrics" / f"{model}.triplets.json").read_text())["metrics"]
    page = (whole / "claims.md").read_text(encoding="utf-8")
    assert "not measured" in page and "| 1.0 | Hard Recall |" in page
    for figure in (whole / "claims").glob("*.svg"):
        assert figure.read_text(encoding="utf-8").lstrip().startswith("<svg")
    assert (whole / "claims" / "density_recall.svg").is_file()


def test_a_second_run_keeps_everything_and_the_notes(whole):
    page = whole / "claims.md"
    page.write_text(
        page.read_text(encoding="utf-8").replace("<!-- notes density -->\n", "<!-- notes density -->\nWhy: because.\n"),
        encoding="utf-8",
    )
    before = files_of(whole)
    code, printed, _ = study(whole)
    assert code == 0 and "of 1" not in printed
    assert files_of(whole) == before
    assert page.read_text(encoding="utf-8").count("Why: because.\n") == 1


def test_a_lost_number_alone_is_measured_again(whole):
    lost = whole / NAME / "0" / "metrics" / "f1.sparse.json"
    kept = json.loads(lost.read_text())["metrics"]["Recall"]
    lost.unlink()
    models = {path: stamp for path, stamp in files_of(whole).items() if path.parent.parent.name == "0"}
    del models[next(path for path in models if path.name == "f1.complete.json")]
    assert study(whole)[0] == 0
    assert json.loads(lost.read_text())["metrics"]["Recall"] == kept
    after = files_of(whole)
    assert all(after[path] == stamp for path, stamp in models.items() if "model" in path.name or "log" in path.name)


def test_another_study_in_the_folder_is_refused(whole):
    config = whole / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("num_test: 4", "num_test: 5", 1))
    try:
        code, _, errors = study(whole)
        assert code == 2
        assert "belongs to another run; differing: experiments" in errors and "--fresh" in errors
        assert len(errors.strip().splitlines()) == 1
    finally:
        config.write_text(text)


def test_an_unknown_experiment_is_named(tmp_path):
    code, _, errors = study(tmp_path / "new", "--only", "graphs")
    assert code == 2 and "'graphs' is no experiment; allowed: graphs_100" in errors
    assert not (tmp_path / "new").exists()


def test_a_failed_experiment_is_named_and_the_log_says_why(whole, tmp_path):
    folder = tmp_path / "failing"
    (folder / NAME / "0").mkdir(parents=True)
    (folder / "config.yaml").write_text((whole / "config.yaml").read_text())
    (folder / NAME / "0" / "data").write_text("in the way")
    code, printed, errors = study(folder)
    assert code == 2 and f"failed: {folder / NAME / '0'}" in errors
    assert "Traceback" in (folder / NAME / "0" / "output.log").read_text()
    assert (folder / "claims.md").is_file()


@pytest.mark.slow
def test_killed_it_leaves_no_process_and_goes_on(whole, tmp_path):
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "scenerl", "study", "--smoke", "--out", str(out), "--only", NAME, "--seeds", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    sft = out / NAME / "0" / "sft" / "done.json"
    deadline = time.monotonic() + 240
    while not sft.is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(3)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 0)
        pytest.fail("a process of the study is left")
    stamp = sft.stat().st_mtime_ns
    assert study(out)[0] == 0
    assert sft.stat().st_mtime_ns == stamp
    for name in ("sft.complete.json", "f1.complete.json"):
        paths = (folder / NAME / "0" / "metrics" / name for folder in (out, whole))
        first, second = (json.loads(path.read_text())["metrics"] for path in paths)
        assert first == second
