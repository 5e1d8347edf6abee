"""Two routes to one quantity agree: the commands, the trainer's rewards, raw answers and parsed rows."""

from __future__ import annotations

import json
import random

import pytest

from scenerl.answers import OutputFormat
from scenerl.answers.dialogue import Conversation
from scenerl.commands.eval import EvalOptions
from scenerl.commands.score import ScoreOptions
from scenerl.data.rows import example_to_row
from scenerl.evaluate import run_eval
from scenerl.inference.engine import Reply
from scenerl.metrics import MetricOptions, Pair, evaluate, matches_of
from scenerl.predictions.row import prediction_row
from scenerl.rewards import REWARDS, Comparison, RewardOptions
from scenerl.score import run_score
from scenerl.types import Example, Relation, SceneGraph, SceneObject

LABELS = ("dog", "cat", "lamp", "tree")
PREDICATES = ("on", "near")
SIZE = (400, 300)


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_jsonl(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def box(rng):
    x, y = rng.randrange(300), rng.randrange(200)
    return (float(x), float(y), float(x + rng.randrange(10, 100)), float(y + rng.randrange(10, 100)))


def examples(rng, task, count=25):
    """Ground truth; the query of a detection example has some of the labels only, and every second one a crowd."""
    made = []
    for n in range(count):
        query = tuple(rng.sample(LABELS, 2)) if task == "detections" else None
        objects = tuple(SceneObject(rng.choice(query or LABELS), box(rng)) for _ in range(rng.randrange(4)))
        pairs = [(a, b) for a in range(len(objects)) for b in range(len(objects)) if a != b]
        chosen = rng.sample(pairs, min(len(pairs), 2)) if task == "json" else []
        relations = tuple(Relation(a, rng.choice(PREDICATES), b) for a, b in chosen)
        crowds = (SceneObject(query[0], (0.0, 0.0, 250.0, 200.0)),) if query and n % 2 else ()
        made.append(Example(str(n), *SIZE, SceneGraph(objects, relations), query=query, crowds=crowds))
    return made


def answer(rng, example, task):
    """A text with other labels, boxes without area, prose or a missing end."""
    objects = [(rng.choice([item.label, item.label, *LABELS, "ufo"]), list(item.box)) for item in example.graph.objects]
    objects += [(rng.choice(LABELS), list(box(rng))) for _ in range(rng.randrange(3))]
    if rng.random() < 0.2:
        objects.append((rng.choice(LABELS), [5, 5, 5, 5]))
    if task == "detections":
        value = [{"bbox_2d": found, "label": label} for label, found in objects]
    else:
        ids = [f"{label}.{n}" for n, (label, _) in enumerate(objects, 1)]
        edges = [(rng.choice(ids), rng.choice(PREDICATES), rng.choice(ids)) for _ in range(3 if ids else 0)]
        value = {
            "objects": [{"id": name, "bbox": found} for name, (_, found) in zip(ids, objects, strict=True)],
            "relationships": [dict(zip(("subject", "predicate", "object"), edge, strict=True)) for edge in edges],
        }
    text = json.dumps(value)
    return rng.choice([text, text, text, f"Here: {text}", text[:-2], "None", ""])


@pytest.fixture(params=["json", "detections"])
def task(request):
    return request.param


@pytest.fixture
def cases(task):
    rng = random.Random(0)
    return [(example, answer(rng, example, task)) for example in examples(rng, task, 40)]


def test_a_query_is_the_closed_vocabulary_of_its_row(tmp_path):
    """As in training: a label outside the query is an issue and no detection."""
    row = {
        "image_id": "1", "width": 100, "height": 100, "query": ["dog", "cat"],
        "detections": [{"label": "dog", "bbox_2d": [0, 0, 50, 50]}],
        "answer": '[{"bbox_2d": [0, 0, 50, 50], "label": "dog"}, {"bbox_2d": [9, 9, 70, 70], "label": "lamp"}]',
    }  # fmt: skip
    rows, out = write_jsonl(tmp_path / "rows.jsonl", [row]), tmp_path / "out.jsonl"
    run_score(ScoreOptions(rows=rows, out=out, format="detections", frame="pixels"))
    (scored,) = read_jsonl(out)
    assert [issue["kind"] for issue in scored["issues"]] == ["unknown_label"]
    assert scored["rewards"]["format"] == 0
    metrics = tmp_path / "metrics.json"
    run_eval(
        EvalOptions(
            pred=rows, data=str(rows), out=metrics, format="detections", frame="pixels", task="det", resamples=0
        )
    )
    assert json.loads(metrics.read_text())["issues"] == {"unknown_label": 1}


@pytest.mark.parametrize("strict", [False, True])
def test_score_pays_what_the_trainer_pays(tmp_path, task, cases, strict):
    rewards = pytest.importorskip("scenerl.training.rewards")
    output_format = OutputFormat(task, box_format="pixels")
    rows = [{**example_to_row(example), "answer": text, "num_tokens": 3} for example, text in cases]
    out = tmp_path / "scores.jsonl"
    options = ScoreOptions(
        rows=write_jsonl(tmp_path / "rows.jsonl", rows), out=out, format=task, frame="pixels", rewards=list(REWARDS),
        strict=strict,
    )  # fmt: skip
    run_score(options)
    conventions = RewardOptions(strict_format=strict)
    batch = rewards.RewardBatch(
        list(REWARDS), [example for example, _ in cases], Conversation(output_format), conventions, stop_ids=[2]
    )
    completions = [[{"role": "assistant", "content": text}] for _, text in cases]
    token_ids, numbers = [[1, 1, 2]] * len(cases), list(range(len(cases)))
    paid = {function.__name__: function(completions, token_ids, numbers) for function in batch.functions()}
    for n, row in enumerate(read_jsonl(out)):
        assert row["rewards"] == {name: values[n] for name, values in paid.items()}, cases[n]


def test_the_rewards_of_an_image_are_its_metrics():
    conversation, rng = Conversation(OutputFormat("detections", box_format="pixels")), random.Random(1)
    without_crowd, num_compared = 0, 0
    for example in examples(rng, "detections", 150):
        text = answer(rng, example, "detections")
        result = conversation.parse(text, example)
        pair = Pair(example.image_id, result, example.graph, example.image_wh, example.crowds, example.query)
        metrics = evaluate([pair], MetricOptions(task="det", bootstrap_samples=0)).metrics
        comparison = Comparison.of(result, example)
        if not result.ok or not example.graph.objects:
            continue
        assert REWARDS["ap"](comparison) == pytest.approx(metrics["AP"].value, abs=1e-9), text
        assert REWARDS["ap50"](comparison) == pytest.approx(metrics["AP50"].value, abs=1e-9), text
        if comparison.num_counted_objects:
            matched = 1 - REWARDS["hallucination"](comparison)
            for name in ("object_precision", "greedy_precision"):
                assert matched == pytest.approx(metrics[name].value), (name, text)
        assert matches_of(pair).objects.num_predicted == comparison.num_counted_objects
        plain = Comparison(result, example.graph, example.image_wh)
        without_crowd += any(REWARDS[name](plain) != REWARDS[name](comparison) for name in ("ap", "hallucination"))
        num_compared += 1
    assert num_compared > 60 and without_crowd > 2  # crowds make a difference


def test_raw_answers_and_the_rows_of_predict_evaluate_alike(tmp_path, task, cases):
    conversation = Conversation(OutputFormat(task, box_format="pixels"))
    data = write_jsonl(tmp_path / "data.jsonl", [example_to_row(example) for example, _ in cases])
    parsed = [
        prediction_row(
            example, conversation.parse(text, example), Reply(text, 3, "stop"), conversation.output_format, None
        )
        for example, text in cases
    ]
    raw = [{"image_id": example.image_id, "answer": text} for example, text in cases]
    found = []
    for name, rows in (("raw", raw), ("parsed", parsed)):
        out = tmp_path / f"{name}.json"
        pred = write_jsonl(tmp_path / f"{name}.jsonl", rows)
        run_eval(
            EvalOptions(
                pred=pred, data=str(data), out=out, format=task, frame="pixels", resamples=20,
                task="det" if task == "detections" else None,
            )
        )  # fmt: skip
        found.append(json.loads(out.read_text()))
    for key in ("metrics", "failures", "issues", "counts", "per_predicate"):
        assert found[0][key] == found[1][key], key
    assert found[0]["issues"]
