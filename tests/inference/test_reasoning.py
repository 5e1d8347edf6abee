"""Answers with reasoning before them, from the server to the report: it is kept and shown, and counts for nothing."""

from __future__ import annotations

import json

import pytest

from inference.loopback import logprobs_of, said
from scenerl.cli import main
from scenerl.config import load_yaml
from training.small_run import read_rows, write_rows

REASONING = 'A <b>book</b> & an apple.\n<script>alert("x")</script>'
GRAPH = "apple 0 0 500 1000\nbook 500 0 1000 1000\n\n1 left of 2\nend"
BOXES = '[{"bbox_2d": [0, 0, 500, 1000], "label": "apple"}]'


def in_template(answer: str) -> str:
    return f"<think>\n{REASONING}\n</think>\n<answer>\n{answer}\n</answer>"


@pytest.fixture(params=["compact", "detections"])
def case(request, rows, tmp_path):
    """(options of predict, data, the answer without its template, task)"""
    if request.param == "compact":
        return ["--format", "compact"], rows, GRAPH, "sgdet"
    detection = [
        {
            **{key: row[key] for key in ("image_id", "width", "height")},
            "file_name": str(rows.parent / "images" / row["file_name"]),
            "query": ["apple", "dog"],
            "detections": [{"label": "apple", "bbox_2d": [0, 0, row["width"] // 2, row["height"]]}],
        }
        for row in read_rows(rows)
    ]
    return ["--format", "detections"], write_rows(tmp_path / "det.jsonl", detection), BOXES, "det"


def test_from_a_server_to_the_report(serve, case, base, tmp_path):
    options, data, inside, task = case
    answer = in_template(inside)

    def do(number, body):
        questions.append(body["messages"][0]["content"][1]["text"])
        # the third image's reasoning never ends, the fourth has none
        said_now = {3: answer.partition("</think>")[0], 4: inside}.get(number, answer)
        pieces = [*(character.encode() for character in said_now), b"<|im_end|>"]
        return said(said_now, logprobs=logprobs_of(pieces, -0.25))

    questions: list[str] = []
    out, metrics, report = (tmp_path / name for name in ("out.jsonl", "metrics.json", "report.html"))
    words = ["--engine", "openai", "--server", serve(do).address, "--model", str(base), "--batch_size", "1"]
    words += ["--data", str(data), "--out", str(out), "--envelope", "think", "--logprobs", *options]
    assert main(["predict", *words]) == 0
    assert load_yaml(tmp_path / "out.jsonl.yaml")["output_format"]["template"] == "think"
    assert all("<think>" in text and "<answer>" in text for text in questions[1:])
    rows = read_rows(out)
    assert [row["status"] for row in rows] == ["ok", "ok", "truncated", "ok", "ok", "ok"]
    assert rows[0]["answer"] == answer and not any(row["issues"] for row in rows)
    apple = rows[0]["graph"]["objects"][0]
    assert (apple["id"], apple["bbox"]) == ("apple.1", [0, 0, 28, 56])
    assert apple["logprobs"]["label"] == -0.25 * len("apple")  # those of the answer, not of the reasoning

    assert main(["eval", str(out), "--data", str(data), "--task", task, "--out", str(metrics)]) == 0
    assert json.loads(metrics.read_text())["metrics"]["failure_rate"]["value"] == pytest.approx(1 / 6)
    files = ["--predictions", f"A={out}", "--metrics", f"A={metrics}", "--out", str(report)]
    assert main(["report", "--data", str(data), *files]) == 0
    page = report.read_text()
    assert "<b>book</b>" not in page and '<script>alert("x")' not in page
    cards = json.loads(page.partition('id="gallery-data">')[2].partition("</script>")[0])["cards"]
    assert cards[0]["stages"][0]["answer"] == answer


def test_held_to_its_form(case, base, tmp_path):
    options, data, _, _ = case
    out = tmp_path / "out.jsonl"
    words = ["--model", str(base), "--data", str(data), "--out", str(out), "--device", "cpu", "--max_new_tokens", "80"]
    words += ["--constrain", "--envelope", "think", "--limit", "2", "--temperature", "1", "--num_samples", "4"]
    assert main(["predict", *words, *options]) == 0
    rows = read_rows(out)
    assert len(rows) == 8
    for row in rows:
        assert (row["status"], row["issues"], row["finish_reason"]) == ("ok", [], "stop")
        assert row["answer"].startswith("<think>") and row["answer"].endswith("</answer>")
