"""``scenerl predict --engine openai`` as a user runs it, with a server that fails now and then, or for good."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import scenerl
from inference.grammar_server import sglang
from inference.loopback import WORD, free_port, logprobs_of, said
from scenerl.cli import main
from scenerl.config import load_yaml
from training.small_run import STYLE, read_rows

ANSWER = "apple 100 200 400 700\nbook 500 100 900 600\n\n1 left of 2\nend"


def question(body: dict) -> str:
    """Which image a request is about; empty for the question of the start."""
    picture, text = body["messages"][0]["content"]
    return "" if text["text"] == "Ready?" else hashlib.sha256(picture["image_url"]["url"].encode()).hexdigest()


def command(server, model, data, out, *more) -> list[str]:
    address = server if isinstance(server, str) else server.address
    words = ["predict", "--engine", "openai", "--server", address, "--model", str(model), "--data", str(data)]
    return [*words, "--out", str(out), "--tries", "3", "--timeout", "20", *more]


def failing(capsys, words) -> str:
    capsys.readouterr()
    assert main(words) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("scenerl: error: ")]
    return line.removeprefix("scenerl: error: ")


def test_every_kind_of_failure_on_the_way_and_all_answers_in_order(serve, folder, rows, tmp_path):
    failures = ["drop", "half", b"<html>", (500, "boom"), (429, "busy", {"Retry-After": "0"}), {"choices": []}]
    seen = Counter()

    def do(number, body):
        image = question(body)
        seen[image] += 1
        return said(ANSWER) if seen[image] > 1 or not image else failures[(len(seen) - 1) % 6]

    server = serve(do, models=(str(folder),))
    out = tmp_path / "out.jsonl"
    assert main(command(server, folder, rows, out, "--batch_size", "3")) == 0
    written = read_rows(out)
    assert [row["image_id"] for row in written] == [f"image-{k}" for k in range(6)]
    for row in written:
        assert (row["answer"], row["status"], row["num_tokens"], row["finish_reason"]) == (ANSWER, "ok", 7, "stop")
        assert [item["id"] for item in row["graph"]["objects"]] == ["apple.1", "book.2"]
        # [100, 200, 400, 700] of 1000, in an image 56 or 84 wide and 56 high
        assert row["graph"]["objects"][0]["bbox"] == [row["width"] / 10, 11.2, round(row["width"] * 0.4, 2), 39.2]
        assert row["input_wh"] == [row["width"], row["height"]]
    assert sorted(seen.values()) == [1, 2, 2, 2, 2, 2, 2]


def test_an_image_that_finally_fails_is_tried_again_by_the_next_run_and_no_other(serve, folder, rows, tmp_path, capsys):
    broken: set[str] = set()

    def do(number, body):
        image = question(body)
        if image and len(broken) < 2 and number % 2 == 0:
            broken.add(image)
        return (500, "out of order") if image in broken else said(ANSWER)

    server = serve(do)
    out = tmp_path / "out.jsonl"
    words = command(server, folder, rows, out, "--batch_size", "1")
    message = failing(capsys, words)
    start = f"{rows}: 2 of 6 images have no answer in {out}, the first: image 'image-"
    assert message.startswith(start) and message.endswith(f"': {server.address}: status 500: out of order")
    written = read_rows(out)
    assert len(written) == 6
    failed = [row for row in written if "error" in row]
    assert len(failed) == 2 and all("out of order" in row["error"] and row["status"] == "no_answer" for row in failed)

    server.close()
    healthy = serve(lambda number, body: said(ANSWER))
    assert main(command(healthy, folder, rows, out)) == 0  # another address is the same run
    assert {question(body) for body in healthy.bodies} - {""} == broken
    written = {row["image_id"]: row for row in read_rows(out)}
    assert len(written) == 6 and all(row["answer"] == ANSWER for row in written.values())


def test_an_image_with_malformed_replies_costs_no_other(serve, folder, rows, tmp_path, capsys):
    broken: set[str] = set()

    def do(number, body):
        image = question(body)
        if image and number > 1 and not broken:
            broken.add(image)
        return b"<html>Bad gateway</html>" if image in broken else said(ANSWER)

    server, out = serve(do), tmp_path / "out.jsonl"
    message = failing(capsys, command(server, folder, rows, out, "--batch_size", "1"))
    assert message.startswith(f"{rows}: 1 of 6 images have no answer in {out}, the first: image 'image-1': ")
    assert [row["status"] for row in read_rows(out)] == ["ok", "no_answer"] + ["ok"] * 4
    assert len(server.bodies) == 1 + 5 + 3  # the failing request is made three times


def test_a_server_that_goes_away_ends_the_run_and_the_next_goes_on(serve, folder, rows, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    servers = []

    def do(number, body):
        if number == 3:  # the question of the start and two images
            servers[0]._http.socket.close()
            return "drop"
        return said(ANSWER)

    servers.append(serve(do))
    message = failing(capsys, command(servers[0], folder, rows, out, "--batch_size", "1"))
    assert message.startswith(f"no server answers at {servers[0].address} ")
    kept = read_rows(out)
    assert 0 < len(kept) < 6 and not any("error" in row for row in kept)
    healthy = serve(lambda number, body: said(ANSWER))
    assert main(command(healthy, folder, rows, out)) == 0
    assert len(healthy.bodies) == 1 + 6 - len(kept)
    assert [row["image_id"] for row in read_rows(out)] == [f"image-{k}" for k in range(6)]


def test_constrained_answers(serve, folder, rows, tmp_path, capsys):
    """The grammar goes with every request; a server that pays no heed is found out before the first image."""

    def do(number, body):
        sent.append(body.get("structured_outputs", {}).get("grammar", ""))
        return said(ANSWER if question(body) else WORD)

    sent: list[str] = []
    out = tmp_path / "out.jsonl"
    assert main(command(serve(do), folder, rows, out, "--constrain")) == 0
    assert sum("object ::= label" in grammar for grammar in sent) == 6
    assert load_yaml(tmp_path / "out.jsonl.yaml")["constrain"] is True
    heedless = serve(lambda number, body: said(ANSWER))
    message = failing(capsys, command(heedless, folder, rows, tmp_path / "other.jsonl", "--constrain"))
    assert "ignores grammars: instead of 'qzjx' it says 'apple 100" in message
    assert not (tmp_path / "other.jsonl").exists()


def test_scores_from_a_server(serve, folder, rows, tmp_path):
    pieces = [character.encode() for character in ANSWER] + [b"<|im_end|>"]
    server = serve(lambda number, body: said(ANSWER, logprobs=logprobs_of(pieces, -0.25)))
    out = tmp_path / "out.jsonl"
    assert main(command(server, folder, rows, out, "--logprobs", "--limit", "1")) == 0
    [row] = read_rows(out)
    assert row["logprobs"] == [-0.25] * len(ANSWER)
    [apple, book] = row["graph"]["objects"]
    assert apple["logprobs"]["label"] == -0.25 * len("apple") and book["logprobs"]["label"] == -0.25 * len("book")


def test_the_file_beside_the_predictions_says_what_answers_depend_on(
    serve, folder, base, rows, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret")
    server = serve(lambda number, body: said(ANSWER))
    out = tmp_path / "out.jsonl"
    words = command(server, "m", rows, out, "--checkpoint", str(folder))
    assert main(words) == 0
    assert server.headers[0]["authorization"] == "Bearer s3cret"
    text = (tmp_path / "out.jsonl.yaml").read_text()
    assert "s3cret" not in text and server.address not in text and "s3cret" not in out.read_text()
    fingerprint = load_yaml(tmp_path / "out.jsonl.yaml")
    assert (fingerprint["engine"], fingerprint["model"], fingerprint["weights"]) == ("openai", "m", None)
    assert fingerprint["output_format"]["format"] == STYLE.format and fingerprint["output_format"]["step"] == STYLE.step
    assert main([*words, "--batch_size", "2", "--timeout", "9", "--tries", "9"]) == 0
    for more, key in [
        (["--seed", "1"], "seed (0 there, 1 now)"),
        (["--model", "other"], "model ('m' there, 'other' now)"),
        (["--checkpoint", str(base)], f"checkpoint ('{folder}' there, '{base}' now), weights (None there, "),
        (["--format", "json"], "format (None there, 'json' now), output_format.format ('compact' there, 'json' now)"),
    ]:
        assert f"belongs to another run; differing: {key}" in failing(capsys, [*words, *more])
    in_process = ["predict", "--model", str(base), "--data", str(rows), "--out", str(out), "--device", "cpu"]
    assert "engine ('openai' there, 'hf' now)" in failing(capsys, in_process)


def test_without_the_checkpoint_its_family_will_do(serve, rows, tmp_path):
    server = serve(lambda number, body: said(ANSWER))
    out = tmp_path / "out.jsonl"
    more = ["--family", "qwen2_vl", "--format", "compact", "--limit", "2"]
    assert main(command(server, "m", rows, out, *more)) == 0
    assert [(row["status"], row["frame"], row["input_wh"]) for row in read_rows(out)] == [("ok", "norm1000", None)] * 2
    assert "logit_bias" not in server.bodies[-1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--model", "sft"], "'sft' is no folder and no hub name (owner/name), so its prompt format is not known"),
        (["--family", "gpt"], "family: unknown model_type 'gpt'; allowed: qwen2_vl"),
        (["--family", "qwen2_vl", "--checkpoint", "."], "give --checkpoint or --family, not both"),
        (["--family", "qwen2_5_vl"], "family qwen2_5_vl: its boxes are in pixels of the resized input"),
        (["--family", "qwen2_vl", "--max_pixels", "9999"], "max_pixels: without the processor (--checkpoint)"),
        (["--server", "localhost:8000"], "server 'localhost:8000': not an address"),
        (["--checkpoint", "nowhere"], "'nowhere' is no folder and no hub name"),
        (["--engine", "hf", "--family", "qwen2_vl"], "family: names what a server runs; it goes with --engine openai"),
        (["--tries", "0"], "tries: '0': should be greater than 0"),
    ],
)
def test_options_that_cannot_be(folder, rows, tmp_path, capsys, more, message):
    out = tmp_path / "out.jsonl"
    assert message in failing(capsys, [*command("http://127.0.0.1:9", folder, rows, out), *more])
    assert list(tmp_path.iterdir()) == []


def test_the_old_file_stays_when_there_is_no_server(serve, folder, rows, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    assert main(command(serve(lambda number, body: said(ANSWER)), folder, rows, out)) == 0
    before = out.read_bytes()
    nowhere = f"http://127.0.0.1:{free_port()}"
    assert "no server answers at" in failing(capsys, command(nowhere, folder, rows, out, "--fresh"))
    assert out.read_bytes() == before


def test_an_adapter_without_a_processor_has_that_of_its_base(serve, folder, rows, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(folder)})
    )
    server = serve(lambda number, body: said(ANSWER))
    out = tmp_path / "out.jsonl"
    assert main(command(server, "m", rows, out, "--checkpoint", str(adapter), "--limit", "1")) == 0
    [row] = read_rows(out)
    assert row["answer"] == ANSWER and row["input_wh"]


def test_no_model_is_loaded(serve, base, rows, tmp_path, monkeypatch):
    from transformers import PreTrainedModel

    def refuse(*args, **kwargs):
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", refuse)
    server = serve(lambda number, body: said(ANSWER))
    assert main(command(server, base, rows, tmp_path / "out.jsonl", "--limit", "1")) == 0


def test_no_more_requests_at_a_time_than_given(serve, folder, rows, tmp_path):
    lock, under_way, most = threading.Lock(), 0, 0

    def do(number, body):
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.05)
        with lock:
            under_way -= 1
        return said(ANSWER)

    assert main(command(serve(do), folder, rows, tmp_path / "out.jsonl", "--batch_size", "2")) == 0
    assert most == 2


def test_one_process_at_a_time_writes_a_file_and_ctrl_c_ends_it_at_once(serve, folder, rows, tmp_path, capsys):
    """However long the server takes to answer."""
    waiting = threading.Event()

    def do(number, body):
        if number < 3:  # the request of the start and two images
            return said(ANSWER)
        waiting.set()
        return "late"

    out = tmp_path / "out.jsonl"
    words = command(serve(do), folder, rows, out, "--batch_size", "1")
    start = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "  # a job in the background
    start += "from scenerl.cli import main; sys.exit(main(sys.argv[1:]))"  # is started with the signal ignored
    environment = {**os.environ, "PYTHONPATH": str(Path(scenerl.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen([sys.executable, "-c", start, *words], env=environment, stdout=subprocess.PIPE)
    assert waiting.wait(200), first.poll()
    before = out.with_name("out.jsonl.yaml").read_bytes()
    for more in ([], ["--fresh", "--seed", "7"], ["--gather", "2"]):
        assert f"{out}: another process is writing it; wait for it, give each its" in failing(capsys, [*words, *more])
    merging = [*words, "--merge", "--num_samples", "2", "--temperature", "1"]  # it would replace the file, too
    assert f"{out}: another process is writing it" in failing(capsys, merging)
    assert out.with_name("out.jsonl.yaml").read_bytes() == before
    first.send_signal(signal.SIGINT)
    printed, _ = first.communicate(timeout=15)
    assert first.returncode == 130 and printed == b""
    kept = read_rows(out)
    assert [row["image_id"] for row in kept] == ["image-0", "image-1"][: len(kept)]
    capsys.readouterr()
    assert main(command(serve(lambda number, body: said(ANSWER)), folder, rows, out)) == 0
    assert capsys.readouterr().out == f"{out}: 6 answers: 0 failed, 0 with issues\n"
    assert [row["image_id"] for row in read_rows(out)] == [f"image-{k}" for k in range(6)]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.yaml"]


# answers that keep to a grammar and to nothing else, as SGLang gives them


@pytest.fixture
def sampled(base, rows, tmp_path):
    """Command lines of sampled constrained predictions with a closed vocabulary."""
    vocabulary = tmp_path / "vocabulary.json"
    vocabulary.write_text('{"objects": ["apple", "book"], "predicates": ["near"]}')

    def line(server, out, *more) -> list[str]:
        start = ["predict", "--engine", "openai", "--server", server.address, "--model", str(base), "--data", str(rows)]
        start += ["--out", str(out), "--constrain", "--vocabulary", str(vocabulary), "--tries", "3"]
        return [*start, "--temperature", "1", "--num_samples", "3", "--max_new_tokens", "150", *more]

    return line


@pytest.mark.parametrize("format", ["compact", "json"])
def test_parts_together_are_the_whole_and_the_summary_says_what_is_wrong(serve, sampled, tmp_path, capsys, format):
    server = serve(sglang(), kind="sglang")
    out, whole = tmp_path / "parts" / "p.jsonl", tmp_path / "whole.jsonl"
    for part in ("2/3", "1/3", "3/3"):
        assert main(sampled(server, out, "--format", format, "--shard", part)) == 0
    assert [len(read_rows(out.with_name(f"p.{k}-of-3.jsonl"))) for k in (1, 2, 3)] == [6, 6, 6]
    capsys.readouterr()
    assert main(sampled(server, out, "--format", format, "--gather", "3")) == 0
    printed = capsys.readouterr().out.splitlines()
    rows = read_rows(out)
    assert [(row["image_id"], row["sample"]) for row in rows] == [(f"image-{k}", n) for k in range(6) for n in range(3)]
    assert main(sampled(server, whole, "--format", format, "--batch_size", "2")) == 0
    assert out.read_bytes() == whole.read_bytes()
    assert load_yaml(tmp_path / "parts" / "p.jsonl.yaml") == load_yaml(tmp_path / "whole.jsonl.yaml")

    # Answers with an object that were not cut off parse.
    whole_ones = [row for row in rows if row["finish_reason"] == "stop" and re.search("apple|book", row["answer"])]
    assert whole_ones and {row["status"] for row in whole_ones} == {"ok"}
    failed = [row for row in rows if row["status"] != "ok"]
    issues = Counter(kind for row in rows for kind in {issue["kind"] for issue in row["issues"]})
    assert issues and not issues["unknown_label"]  # beyond a grammar, and within
    assert printed[0].startswith(f"{out}: 18 answers: {len(failed)} failed")
    assert f"{sum(map(bool, (row['issues'] for row in rows)))} with issues (" in printed[0]
    assert all(f"{kind} {count}" in printed[0] for kind, count in issues.items())
    assert printed[1] == "A server holds answers to the grammar alone, which does not rule these out (docs/serving.md)"


def test_the_grammar_goes_in_the_field_that_sglang_reads(serve, sampled, tmp_path):
    server = serve(sglang(), kind="sglang")
    assert main(sampled(server, tmp_path / "out.jsonl")) == 0
    images = [body for body in server.bodies if body["messages"][0]["content"][1]["text"] != "Ready?"]
    assert len(images) == 18  # one answer a request: nothing tells which tokens are whose
    assert all("object ::= label" in body["ebnf"] and "structured_outputs" not in body for body in images)


@pytest.mark.parametrize(
    ("backend", "says"),
    [
        ("none", "status 400: Grammar-based generation is not supported"),
        ("outlines", "status 400: Failed to compile ebnf"),
    ],
)
def test_a_server_without_a_backend_for_grammars_is_found_out(serve, sampled, tmp_path, capsys, backend, says):
    out = tmp_path / "out.jsonl"
    assert main(sampled(serve(sglang(backend), kind="sglang"), out)) == 2
    error = capsys.readouterr().err
    assert says in error
    assert not out.exists()
