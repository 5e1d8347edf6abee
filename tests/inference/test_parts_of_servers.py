"""Prediction in parts from a server that keeps to grammars as SGLang does, and what is told of its answers."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from inference.grammar_server import sglang
from scenerl.cli import main
from scenerl.config import load_yaml
from training.small_run import read_rows


@pytest.fixture
def command(base, rows, tmp_path):
    """Command lines of sampled constrained predictions with a closed vocabulary."""
    vocabulary = tmp_path / "vocabulary.json"
    vocabulary.write_text('{"objects": ["apple", "book"], "predicates": ["near"]}')

    def line(server, out, *more) -> list[str]:
        start = ["predict", "--engine", "openai", "--server", server.address, "--model", str(base), "--data", str(rows)]
        start += ["--out", str(out), "--constrain", "--vocabulary", str(vocabulary), "--tries", "3"]
        return [*start, "--temperature", "1", "--num_samples", "3", "--max_new_tokens", "150", *more]

    return line


@pytest.mark.parametrize("format", ["compact", "json"])
def test_parts_together_are_the_whole_and_the_summary_says_what_is_wrong(serve, command, tmp_path, capsys, format):
    server = serve(sglang(), kind="sglang")
    out, whole = tmp_path / "parts" / "p.jsonl", tmp_path / "whole.jsonl"
    for part in ("2/3", "1/3", "3/3"):
        assert main(command(server, out, "--format", format, "--shard", part)) == 0
    assert [len(read_rows(out.with_name(f"p.{k}-of-3.jsonl"))) for k in (1, 2, 3)] == [6, 6, 6]
    capsys.readouterr()
    assert main(command(server, out, "--format", format, "--gather", "3")) == 0
    told = capsys.readouterr().out.splitlines()
    rows = read_rows(out)
    assert [(row["image_id"], row["sample"]) for row in rows] == [(f"image-{k}", n) for k in range(6) for n in range(3)]
    assert main(command(server, whole, "--format", format, "--batch_size", "2")) == 0
    assert out.read_bytes() == whole.read_bytes()
    assert load_yaml(tmp_path / "parts" / "p.jsonl.yaml") == load_yaml(tmp_path / "whole.jsonl.yaml")

    # Answers with an object that were not cut off parse.
    whole_ones = [row for row in rows if row["finish_reason"] == "stop" and re.search("apple|book", row["answer"])]
    assert whole_ones and {row["status"] for row in whole_ones} == {"ok"}
    failed = [row for row in rows if row["status"] != "ok"]
    issues = Counter(kind for row in rows for kind in {issue["kind"] for issue in row["issues"]})
    assert issues["no_area"] and not issues["unknown_label"]  # beyond a grammar, and within
    assert told[0].startswith(f"{out}: 18 answers: {len(failed)} failed")
    assert f"{sum(map(bool, (row['issues'] for row in rows)))} with issues (" in told[0]
    assert all(f"{kind} {count}" in told[0] for kind, count in issues.items())
    assert told[1] == "A server holds answers to the grammar alone, which does not rule these out (docs/serving.md)"


def test_the_grammar_goes_in_the_field_that_sglang_reads(serve, command, tmp_path):
    server = serve(sglang(), kind="sglang")
    assert main(command(server, tmp_path / "out.jsonl")) == 0
    images = [body for body in server.bodies if body["messages"][0]["content"][1]["text"] != "Ready?"]
    assert len(images) == 18  # one answer a request: nothing tells which tokens are whose
    assert all("object ::= label" in body["ebnf"] and "structured_outputs" not in body for body in images)


@pytest.mark.parametrize(
    ("backend", "says"),
    [("none", "status 400: Grammar-based generation is not supported"), ("outlines", "status 400: Failed to compile ebnf")],
)
def test_a_server_without_a_backend_for_grammars_is_found_out(serve, command, tmp_path, capsys, backend, says):
    out = tmp_path / "out.jsonl"
    assert main(command(serve(sglang(backend), kind="sglang"), out)) == 2
    error = capsys.readouterr().err
    assert says in error
    assert not out.exists()
