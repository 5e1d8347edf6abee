"""The table of engines in docs/cluster.md: it is that of the results, and no cell claims more than was run."""

from __future__ import annotations

import json

from engines import table


def test_the_page_shows_the_results():
    page = table.PAGE.read_text(encoding="utf-8")
    assert table.update(page, json.loads(table.RESULTS.read_text())) == page


def test_a_cell_stands_for_all_cases_of_its_test(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "version", lambda name: "1.0+cpu")
    path = tmp_path / "results.json"
    outcomes = {
        ("ddp", "test_starts"): {"sft": "tested", "grpo": "tested"},
        ("ddp", "test_saves"): {"sft": "tested", "grpo": None},
        ("ddp", "test_resumes"): {"sft": "tested", "grpo": "failed"},
        ("ddp", "test_constrained"): {"ddp": "refused, tested"},
    }
    table.write_results(path, outcomes)
    found = json.loads(path.read_text())["ddp"]
    assert found["cells"] == {"starts": "tested on CPU", "constrained": "refused, tested on CPU"}
    assert found["versions"]["torch"] == "1.0"
    table.write_results(path, {("ddp", "test_starts"): {"sft": "failed", "grpo": None}})
    results = json.loads(path.read_text())
    assert results["ddp"]["cells"] == {"constrained": "refused, tested on CPU"}
    text = table.render(results)
    row = next(line for line in text.splitlines() if line.startswith("| DDP |"))
    assert row.split("|")[2:-1] == [" not tested "] * 9 + [" refused, tested on CPU "]
    assert "| engine | starts | trains to the same loss |" in text and "DDP: 2" in text
