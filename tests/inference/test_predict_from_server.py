"""``scenerl predict --engine openai`` as a user runs it, with a server that fails now and then, or for good."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

import pytest

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
    failures = ["drop", "half", (408, "late"), (500, "boom"), (429, "busy", {"Retry-After": "0"}), (503, "closed")]
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
    assert message.startswith(start) and message.endswith(
        f"': {server.address}: status 500: out of order"
    )
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
    assert "does not keep to grammars: told to say 'qzjx' it says 'apple 100" in message
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
    ("more", "told"),
    [
        (["--model", "sft"], "'sft' is no folder and no hub name (owner/name), so its prompt format is not known"),
        (["--family", "gpt"], "family: unknown model_type 'gpt'; allowed: qwen2_vl"),
        (["--family", "qwen2_vl", "--checkpoint", "."], "give --checkpoint or --family, not both"),
        (["--family", "qwen2_5_vl"], "family qwen2_5_vl: its boxes are in pixels of the resized input"),
        (["--family", "qwen2_vl", "--max_pixels", "9999"], "max_pixels: without the processor (--checkpoint)"),
        (["--server", "localhost:8000"], "server 'localhost:8000': not an address"),
        (["--checkpoint", "nowhere"], "'nowhere' is no folder and no hub name"),
        (["--engine", "hf", "--family", "qwen2_vl"], "family: names what a server runs; it goes with --engine openai"),
        (["--tries", "0"], "tries: 0 is out of range"),
    ],
)
def test_options_that_cannot_be(folder, rows, tmp_path, capsys, more, told):
    out = tmp_path / "out.jsonl"
    assert told in failing(capsys, [*command("http://127.0.0.1:9", folder, rows, out), *more])
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
