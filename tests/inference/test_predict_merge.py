"""``predict --merge``: the answers stay, and OUT holds one merged row per image."""

from __future__ import annotations

import pytest

from scenerl.cli import main
from scenerl.predictions.merge import merge_graphs
from scenerl.predictions.notes import Notes
from scenerl.predictions.row import decode_graph
from training.small_run import read_rows

SAMPLED = ["--max_new_tokens", "6", "--device", "cpu", "--temperature", "1", "--num_samples", "3"]


def command(base, rows, out, *more) -> list[str]:
    return ["predict", "--model", str(base), "--data", str(rows), "--out", str(out), *more]


def test_merged_rows_beside_the_answers(base, rows, tmp_path):
    out = tmp_path / "merged.jsonl"
    words = command(base, rows, out, *SAMPLED, "--merge")
    assert main(words) == 0
    merged, samples = read_rows(out), read_rows(tmp_path / "merged.samples.jsonl")
    assert [row["image_id"] for row in samples] == [row["image_id"] for row in merged for _ in range(3)]
    for place, row in enumerate(merged):
        graphs = [
            decode_graph(item["graph"], "", Notes(out)) if item["graph"] else None for item in samples[3 * place :][:3]
        ]
        expected = merge_graphs(graphs)
        assert (row["answers"], row["failed"]) == (3, graphs.count(None))
        assert (row["graph"] is None) == (expected is None)
        if expected:
            assert decode_graph(row["graph"], "", Notes(out)) == expected.graph
    before = out.read_bytes()
    out.unlink()
    assert main(words) == 0 and out.read_bytes() == before


def test_a_file_of_another_run_stays(base, rows, tmp_path, capsys):
    out = tmp_path / "predictions.jsonl"
    assert main(command(base, rows, out, *SAMPLED)) == 0
    before = out.read_bytes()
    assert main(command(base, rows, out, *SAMPLED, "--merge")) == 2
    assert "belongs to another run; differing: merge" in capsys.readouterr().err
    assert out.read_bytes() == before and not (tmp_path / "predictions.samples.jsonl").exists()


@pytest.mark.parametrize("more", [[], ["--temperature", "1"]])
def test_one_answer_cannot_be_merged(base, rows, tmp_path, capsys, more):
    assert main(command(base, rows, tmp_path / "p.jsonl", "--merge", *more)) == 2
    assert "merge: one output cannot be merged" in capsys.readouterr().err
