"""The same answers from ``transformers serve``, a real server, as in this process."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

import scenerl
from inference.lively import save_lively
from inference.loopback import free_port
from inference.real_server import running
from scenerl.cli import main
from training.small_run import read_rows

pytestmark = [
    pytest.mark.timeout(900),  # a busy machine takes minutes to start a server
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("fastapi", "uvicorn", "openai")),
        reason="transformers serve needs fastapi, uvicorn and openai",
    ),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory, examples):
    return save_lively(tmp_path_factory.mktemp("lively") / "checkpoint", examples)


@pytest.fixture(scope="module")
def address(model, tmp_path_factory):
    port = free_port()
    script = str(Path(__file__).with_name("serve_transformers.py"))
    log = tmp_path_factory.mktemp("server") / "log.txt"
    path = str(Path(scenerl.__file__).parents[1])
    with running([sys.executable, script, str(model), str(port)], port, log, PYTHONPATH=path):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def predict(model, rows, tmp_path):
    """Runs the command; gives its exit status and rows."""

    def run(*more):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        words = ["predict", "--model", str(model), "--data", str(rows), "--out", str(out), "--max_new_tokens", "24"]
        status = main([*words, *more])
        return status, read_rows(out) if out.exists() else []

    return run


def test_greedy_answers_are_those_of_this_process(address, predict, capsys):
    """It takes white space off the ends of an answer; everything else is equal."""
    _, here = predict("--device", "cpu", "--dtype", "float32")
    status, there = predict("--engine", "openai", "--server", address)
    assert status == 0 and len({row["answer"] for row in there}) > 3
    assert {row["finish_reason"] for row in there} == {"stop", "length"}
    for ours, theirs in zip(here, there, strict=True):
        assert theirs["answer"] == ours["answer"].strip()
        assert [theirs[key] for key in ("image_id", "input_wh", "frame", "finish_reason")] == [
            ours[key] for key in ("image_id", "input_wh", "frame", "finish_reason")
        ]
    assert "read a prompt as" not in capsys.readouterr().err


def test_samples_differ_and_images_too(address, predict):
    more = ["--num_samples", "2", "--temperature", "1", "--limit", "3"]
    status, rows = predict("--engine", "openai", "--server", address, *more)
    assert status == 0 and len({row["answer"] for row in rows}) == 6


def test_parts_together_are_what_one_process_gets(address, predict, tmp_path):
    server = ["--engine", "openai", "--server", address, "--out", str(tmp_path / "parts" / "p.jsonl")]
    assert [predict(*server, "--shard", f"{k}/2")[0] for k in (1, 2)] == [0, 0]
    assert predict(*server, "--gather", "2")[0] == 0
    _, whole = predict("--engine", "openai", "--server", address)
    assert read_rows(tmp_path / "parts" / "p.jsonl") == whole


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--logprobs"], "transformers serve gives no log-probabilities; leave out --logprobs"),
        (["--model", "nobody/nothing", "--checkpoint", "MODEL"], "requested 'nobody/nothing'"),
    ],
)
def test_what_it_cannot_do_is_said(address, model, predict, capsys, more, message):
    more = [str(model) if word == "MODEL" else word for word in more]
    assert predict("--engine", "openai", "--server", address, *more) == (2, [])
    assert message in capsys.readouterr().err
