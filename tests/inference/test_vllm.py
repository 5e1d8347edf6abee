"""Predictions from a real vLLM server on this machine: ``make test-vllm``."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

import scenerl
from inference.lively import save_lively
from inference.real_server import running_vllm
from scenerl.answers import GrammarSpec, OutputFormat
from scenerl.cli import main
from scenerl.data import load as load_data
from scenerl.inference.engine import Sampling
from scenerl.inference.server import ServerEngine
from scenerl.models.loading import Checkpoint, family_of
from training.small_run import read_rows, write_data, write_rows

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]

NAME = "lively"
NUM_IMAGES = 12
MODEL_LENGTH = 260
"""Tokens of a prompt and its answer together: an image of 256 tokens has no room."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"), NUM_IMAGES)


@pytest.fixture(scope="module")
def model(tmp_path_factory, rows):
    return save_lively(tmp_path_factory.mktemp("lively") / "checkpoint", list(load_data(rows)))


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    """The server's process and its address."""
    flags = ["--max-model-len", str(MODEL_LENGTH), "--max-num-seqs", "4"]
    with running_vllm(model, NAME, tmp_path_factory.mktemp("server") / "log.txt", *flags) as running:
        yield running


@pytest.fixture
def words(server, model, rows):
    """The command line of a prediction from the server."""

    def line(out, *more, data=rows) -> list[str]:
        start = ["predict", "--engine", "openai", "--server", server[1], "--model", NAME, "--checkpoint", str(model)]
        return [*start, "--data", str(data), "--out", str(out), "--max_new_tokens", "40", *more]

    return line


def failing(capsys, line) -> str:
    capsys.readouterr()
    assert main(line) == 2
    [message] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("scenerl: error: ")]
    return message.removeprefix("scenerl: error: ")


def test_greedy_answers_and_log_probabilities_are_those_of_this_process(words, model, rows, tmp_path, caplog):
    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    in_process = ["predict", "--model", str(model), "--data", str(rows), "--out", str(here), "--device", "cpu"]
    assert main([*in_process, "--dtype", "float32", "--max_new_tokens", "40", "--logprobs"]) == 0
    assert main(words(there, "--logprobs")) == 0
    ours, theirs = read_rows(here), read_rows(there)
    assert len({row["answer"] for row in theirs}) > 3 and {row["finish_reason"] for row in theirs} == {"stop", "length"}
    assert [set(row) for row in ours] == [set(row) for row in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert other["logprobs"] == pytest.approx(one["logprobs"], abs=1e-3)
        cut = one["answer"].rstrip("\ufffd")  # vLLM leaves out a character that the limit cut in two
        assert {**other, "logprobs": 0} == {**one, "answer": cut, "logprobs": 0}
    assert not [record for record in caplog.records if "read a prompt as" in record.getMessage()]


def test_sampled_answers_differ_and_come_again_with_their_seed(words, tmp_path):
    sampled = ["--temperature", "1", "--num_samples", "3", "--top_p", "0.9", "--top_k", "50"]
    first, again, other = (tmp_path / f"{name}.jsonl" for name in ("first", "again", "other"))
    assert main(words(first, *sampled, "--seed", "5")) == 0
    assert main(words(again, *sampled, "--seed", "5", "--batch_size", "3")) == 0
    assert main(words(other, *sampled, "--seed", "6")) == 0
    written = read_rows(first)
    assert [(row["image_id"], row["sample"]) for row in written] == [
        (f"image-{image}", sample) for image in range(NUM_IMAGES) for sample in range(3)
    ]
    assert len({row["answer"] for row in written}) > 2 * NUM_IMAGES
    assert read_rows(again) == written != read_rows(other)


def test_answers_keep_to_their_grammars(server, model):
    """A closed vocabulary and a grid, said again by a regular expression."""
    number = "(0|250|500|750|1000)"
    relation = r"[1-9]\d{0,3} near [1-9]\d{0,3}\n"
    body = rf"((apple|book) {number} {number} {number} {number}\n)*(\n({relation})*)?end"
    form = re.compile(rf"{body}|```(text)?\n{body}\n```")
    output_format = OutputFormat("compact", objects=("apple", "book"), predicates=("near",), step=250)
    family = family_of(model)
    checkpoint = Checkpoint(str(model), family, None, family.load_processor(model))
    sampling = Sampling(max_new_tokens=200, temperature=1.0, num_samples=4)
    prompt = [{"type": "image", "image": Image.new("RGB", (56, 56))}, {"type": "text", "text": "What is there?"}]
    engine = ServerEngine(server[1], NAME, sampling, checkpoint, constrain=True)
    try:
        answers = engine.answer(
            [[{"role": "user", "content": prompt}]] * 4, 1, [GrammarSpec(output_format, (1000, 1000))] * 4
        )
    finally:
        engine.close()
    replies = [reply for group in answers for reply in group]
    ended = [reply for reply in replies if reply.finish_reason == "stop"]
    assert len(replies) == 16 and ended
    assert [reply.text for reply in ended if not form.fullmatch(reply.text)] == []
    assert len({reply.text for reply in ended}) > 1


def test_killed_in_the_middle_and_run_again(words, tmp_path):
    """A real SIGKILL: no row is lost or doubled, and the rows are those of a run that nobody disturbed."""
    out, whole = tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"
    more = ["--temperature", "1", "--seed", "3", "--num_samples", "2", "--batch_size", "1"]
    assert main(words(whole, *more)) == 0
    environment = {**os.environ, "PYTHONPATH": str(Path(scenerl.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-m", "scenerl", *words(out, *more)], env=environment)
    while process.poll() is None and (not out.exists() or out.stat().st_size < 2000):
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    done = [line for line in out.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    assert 0 < len(done) < 2 * NUM_IMAGES
    assert main(words(out, *more)) == 0
    assert out.read_bytes() == whole.read_bytes() and out.read_bytes().startswith(b"".join(done))


def test_what_the_server_does_not_know_or_has_no_room_for(words, rows, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    assert "does not know the model 'nope' (status 404: " in (error := failing(capsys, words(out, "--model", "nope")))
    assert error.endswith("; it has 'lively'")
    message = failing(capsys, words(out, "--max_new_tokens", "4096"))
    assert f"at most {MODEL_LENGTH} tokens, so max_new_tokens 4096 leaves no room" in message
    assert not out.exists()

    (tmp_path / "images").mkdir()
    Image.new("RGB", (448, 448)).save(tmp_path / "images" / "large.png")
    large = {"image_id": "large", "file_name": "large.png", "width": 448, "height": 448, "objects": []}
    small = [{**row, "file_name": str(rows.parent / "images" / row["file_name"])} for row in read_rows(rows)[:3]]
    data = write_rows(tmp_path / "data.jsonl", [small[0], {**large, "relationships": []}, *small[1:]])
    message = failing(capsys, words(out, data=data))
    assert "1 of 4 images have no answer" in message and "status 400: " in message
    written = read_rows(out)
    assert [row["image_id"] for row in written] == ["image-0", "large", "image-1", "image-2"]
    assert ["error" in row for row in written] == [False, True, False, False]


def test_a_server_that_stands_still_and_one_that_is_gone(server, words, tmp_path, capsys):
    """The last test: it ends the server."""
    process, address = server
    out = tmp_path / "out.jsonl"
    assert main(words(out, "--limit", "2")) == 0
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        message = failing(capsys, words(tmp_path / "still.jsonl", "--timeout", "0.5", "--tries", "2"))
    finally:
        os.killpg(process.pid, signal.SIGCONT)
    assert message == f"{address}/v1: no answer within 0.5 s"
    assert main(words(tmp_path / "still.jsonl", "--limit", "2")) == 0
    assert read_rows(tmp_path / "still.jsonl") == read_rows(out)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    message = failing(capsys, words(tmp_path / "gone.jsonl", "--tries", "1"))
    assert message.startswith(f"no server answers at {address}/v1 ")
