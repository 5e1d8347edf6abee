"""One function behind the rewards of other trainers: it agrees with `score` and the trainer, and the examples run."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
import threading
import types
import urllib.request
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from scenerl.answers import OutputFormat, write_answer
from scenerl.answers.dialogue import Conversation
from scenerl.data import synthetic
from scenerl.data.rows import example_to_row
from scenerl.errors import UserError
from scenerl.rewards import REWARDS, score_text
from scenerl.score import score_row
from scenerl.types import Example

EXAMPLES = Path(__file__).parents[2] / "examples"
ROW = {
    "image_id": "1", "width": 100, "height": 100,
    "objects": [{"id": "dog.1", "bbox": [10, 10, 50, 50]}, {"id": "mat.2", "bbox": [0, 40, 100, 80]}],
    "relationships": [{"subject": "dog.1", "predicate": "on", "object": "mat.2"}],
}  # fmt: skip
RIGHT = json.dumps(
    {
        "objects": [{"id": "dog.1", "bbox": [100, 100, 500, 500]}, {"id": "mat.2", "bbox": [0, 400, 1000, 800]}],
        "relationships": [{"subject": "dog.1", "predicate": "on", "object": "mat.2"}],
    }
)
TARGET = json.dumps(ROW)
ANSWERS, VALUES = [RIGHT, "no scene graph"], [4.5, 0.0]  # 0.5 + 1 + 3, and a failed parse


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("format", ["json", "compact"])
def test_it_agrees_with_score(format):
    rng = random.Random(0)
    output_format = OutputFormat(format, step=10)
    for number in range(20):
        _, graph = synthetic.scene(f"target-{number}")
        _, other = synthetic.scene(f"target-{number + rng.randrange(2)}")
        example = Example(str(number), 112, 112, graph)
        answer = write_answer(other, output_format, (112, 112), None)[: rng.choice([None, None, 40])]
        row = example_to_row(example) | {"answer": answer}
        expected = score_row(row, "row", Conversation(output_format)).output["rewards"]
        for target in (example, row, json.dumps(row)):
            assert score_text(answer, target, list(REWARDS), output_format) == {
                "score": pytest.approx(sum(expected.values())), **expected
            }  # fmt: skip


def test_weights_and_what_is_cut_off():
    assert score_text(RIGHT, ROW, {"hard_recall": 2.0, "hallucination": -1}) == {
        "score": 2.0, "hard_recall": 1.0, "hallucination": 0.0
    }  # fmt: skip
    assert score_text(RIGHT[:-5], ROW, ["format"], truncated=True)["score"] == 0
    assert score_text(None, ROW, ["format"])["score"] == 0


@pytest.mark.parametrize(
    "target, said",
    [("{", "the target is no JSON"), ("[1]", "must be a JSON object"), ({"width": 5}, "the key 'height' is missing")],
)
def test_a_target_that_cannot_be_used_is_named(target, said):
    with pytest.raises(UserError, match=said):
        score_text(RIGHT, target, ["format"])
    with pytest.raises(UserError, match="unknown reward 'recall'"):
        score_text(RIGHT, ROW, ["recall"])


def test_verl():
    """Called with these names by verl's reward managers; of a dictionary, `score` is the reward."""
    compute_score = load("verl_reward").compute_score
    found = [compute_score(data_source="vg", solution_str=text, ground_truth=TARGET, extra_info={}) for text in ANSWERS]
    assert [row["score"] for row in found] == VALUES and found[0]["hard_recall"] == 1


@pytest.mark.parametrize("package", ["swift.rewards", "swift.plugin"])
def test_ms_swift(package, monkeypatch):
    """The plugin registers a class that is called with the completions and the columns of the data set."""
    for name in ("swift", package):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules[package].ORM, sys.modules[package].orms = type("ORM", (), {}), {}
    load("ms_swift_plugin")
    reward = sys.modules[package].orms["scenerl"]()
    assert reward(ANSWERS, solution=[TARGET] * 2, messages=[[], []]) == VALUES


def test_openrlhf():
    pytest.importorskip("torch")
    module = load("openrlhf_reward")
    prompt = f"<|image_pad|>What? As JSON: {ANSWERS[0]}<|im_end|>\n<|im_start|>assistant\n"
    queries = [f"{'<|image_pad|>' * 15}{prompt}{text}<|im_end|>\n" for text in ANSWERS]
    found = module.reward_func(queries, [prompt] * 2, [TARGET] * 2)
    assert found["rewards"].tolist() == VALUES and set(found["extra_logs"]) == set(module.REWARDS)
    server = ThreadingHTTPServer(("127.0.0.1", 0), module.Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        body = {"query": queries, "prompts": [prompt] * 2, "labels": [TARGET] * 2}
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.server_port}/reward", json.dumps(body).encode(), {"Content-Type": "text/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            assert json.load(reply) == {"rewards": VALUES}
    finally:
        server.shutdown()
        server.server_close()


def test_trl(tmp_path):
    pytest.importorskip("trl")
    trainer = load("trl_grpo").main(1, str(tmp_path))
    logged = trainer.state.log_history[0]
    assert 0 <= logged["rewards/scene_reward/mean"] <= 4.5
