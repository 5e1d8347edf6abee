"""Mixtures: shares of examples, prompts, answers and rewards of each source, and what can be wrong with one."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from scenerl import cli
from scenerl.answers import OutputFormat
from scenerl.answers.dialogue import Conversation
from scenerl.commands import parse
from scenerl.commands.sources import Source, sources_of
from scenerl.config import dump_yaml, load_yaml
from scenerl.errors import UserError
from scenerl.models.loading import family_named
from scenerl.rewards import RewardOptions
from scenerl.training import mixture, setup, validation
from scenerl.training.mixture import MixedConversation, Part, mix, output_format_of, rewards_of
from scenerl.training.reward_monitor import RewardMonitor
from scenerl.training.rewards import RewardBatch
from scenerl.types import ParseResult, SceneGraph
from training.small_run import QUICK, QUICK_GRPO, read_rows, words, write_rows

GRAPHS = Conversation(OutputFormat(format="compact", step=20))
BOXES = Conversation(OutputFormat(format="detections", step=20))


def examples_named(prefix: str, count: int) -> list[SimpleNamespace]:
    return [SimpleNamespace(image_id=f"{prefix}{number}") for number in range(count)]


def counts_of(mixed: mixture.Mixture) -> Counter:
    return Counter(example.image_id for example in mixed.examples)


def test_shares_are_as_weighted_and_every_example_occurs():
    parts = [Part("a", examples_named("a", 6), GRAPHS), Part("b", examples_named("b", 4), BOXES)]
    mixed = mix(parts, [1.0, 3.0], seed=0)
    # All six of a are a quarter of 24, so that b has 18: each of its four 4 times, and two once more.
    counts = counts_of(mixed)
    assert {name: counts[name] for name in counts if name[0] == "a"} == dict.fromkeys(
        ("a0", "a1", "a2", "a3", "a4", "a5"), 1
    )
    assert sorted(counts[f"b{number}"] for number in range(4)) == [4, 4, 5, 5]
    assert [example.image_id[0] for example in mixed.examples] == [parts[row].name for row in mixed.rows]
    assert mixed.rows != sorted(mixed.rows)
    assert mixed.describe() == "a: 6 examples, 25.0%, b: 4 examples, 75.0%"
    again, other = mix(parts, [1.0, 3.0], seed=0), mix(parts, [1.0, 3.0], seed=1)
    assert again.examples == mixed.examples and other.examples != mixed.examples
    whole = mix(parts, [None, None], seed=0)
    assert sorted(counts_of(whole).values()) == [1] * 10


def test_each_completion_gets_the_rewards_of_its_source(examples):
    """A perfect answer to each; the other source's reward is None for it, and no statistic of it."""
    a, b = examples[:2], [replace(example, query=("apple", "book")) for example in examples[2:4]]
    parts = [Part("graphs", a, GRAPHS, {"triplet_f1": 2.0}), Part("boxes", b, BOXES, {"format": 0.5, "ap50": 1.0})]
    mixed = mix(parts, [None, None], seed=0)
    conversation = MixedConversation(GRAPHS, parts)
    assert list(mixed.rewards) == ["graphs/triplet_f1", "boxes/format", "boxes/ap50"]
    assert mixed.reward_weights == [2.0, 0.5, 1.0]
    batch = RewardBatch(mixed.rewards, mixed.examples, conversation, RewardOptions(), [2], applying=mixed.rewards_of)
    texts = [conversation.completion(example)[0]["content"][0]["text"] for example in mixed.examples]
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    found = {
        reward.__name__: reward(completions, [[5, 2]] * len(texts), list(range(len(texts))))
        for reward in batch.functions()
    }
    is_graph = [row == 0 for row in mixed.rows]
    assert found["graphs/triplet_f1"] == [1.0 if graph else None for graph in is_graph]
    for name in ("boxes/format", "boxes/ap50"):
        assert found[name] == [None if graph else 1.0 for graph in is_graph]
    assert {text[0] for text, graph in zip(texts, is_graph, strict=True) if not graph} == {"["}
    assert conversation.prompt(a[0], None) == GRAPHS.prompt(a[0], None)
    assert conversation.prompt(b[0], None) == BOXES.prompt(b[0], None)


def test_a_constant_reward_is_seen_among_its_own_completions_only():
    said = []
    monitor = RewardMonitor(["a/x", "b/x"], 2, said.append)
    good, bad = ParseResult("ok", SceneGraph()), ParseResult("empty", None)
    for step in (1, 2, 3):
        batch = [("fine", good, {"a/x": 0.5}), ("fine", good, {"a/x": 0.25 * step})]
        monitor.add(step, batch + [("", bad, {"b/x": 0.0})] * (step != 2))
    (warning,) = said
    assert warning.startswith("step 3: reward 'b/x' was 0") and "empty in 100% of the completions" in warning


def test_a_source_has_a_format_of_its_own_or_that_of_the_run(tmp_path):
    vocabulary = tmp_path / "v.json"
    vocabulary.write_text('{"objects": ["cup"], "predicates": ["on"]}')
    line = ["--model", "m", "--data", "x.jsonl", "--out", "o", "--format", "compact", "--vocabulary", str(vocabulary)]
    options, _ = parse("sft", line)
    family = family_named("qwen2_vl")
    run = OutputFormat(format="compact", objects=("cup",), predicates=("on",), step=20)
    plain, detection, provided, closed = (
        output_format_of(Source(source="x", **own), options, run, family)
        for own in ({}, {"task": "det"}, {"task": "predcls"}, {"format": "json", "vocabulary": vocabulary})
    )
    assert plain == run
    assert (detection.format, detection.objects, detection.step, detection.task) == ("detections", None, 20, "det")
    assert (provided.format, provided.objects, provided.task) == ("compact", None, "predcls")
    assert (closed.format, closed.objects) == ("json", ("cup",))


@pytest.mark.parametrize(
    "data, said",
    [
        ([], "data: no source"),
        ([{"weight": 1}], "data, source 1: has no key 'source'"),
        (["a.jsonl", {"source": "b.jsonl", "wieght": 2}], "data, source 2: unknown key 'wieght' (did you mean weight"),
        ([{"source": "a.jsonl", "weight": 0}], "data, source 1: weight: 0: should be greater than 0"),
        ([{"source": "a.jsonl", "task": "detect"}], "data, source 1: task: 'detect'"),
        ([{"source": "a.jsonl", "weight": 1}, "b.jsonl"], "data: give every source a weight, or none"),
        (["x/a.jsonl", "y/a.jsonl"], "data: two sources are called 'a'; give each a name of its own"),
        ([{"source": "a.jsonl", "rewards": ["format"], "reward_weights": [1, 2]}, "b.jsonl"], "2 reward_weights for 1"),
    ],
)
def test_mistakes_in_a_mixture_are_found_when_options_are_read(data, said, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(dump_yaml({"model": "m", "out": "o", "data": data}))
    with pytest.raises(UserError, match=r".*") as raised:
        parse("grpo", ["--config", str(recipe)])
    assert said in str(raised.value)


def test_names_of_sources():
    named = {source.source: source.label for source in sources_of(
        ["a/train.jsonl", "hub:JosephZ/psg_train_sg", "d3:data/d3,negatives=8", "synthetic:count=8", "mine.py:read"]
    )}  # fmt: skip
    assert list(named.values()) == ["train", "psg_train_sg", "d3", "synthetic", "mine"]
    assert sources_of("one.jsonl") == [Source(source="one.jsonl")]


def test_rewards_of_relations_are_refused_for_detections():
    with pytest.raises(UserError, match="data: d3: hard_recall reward relations, which 'detections' has not"):
        rewards_of(Source(source="d3:data/d3"), OutputFormat(format="detections"), ["format", "hard_recall"], None)
    own = Source(source="d3:data/d3", rewards=["format", "ap"], reward_weights=[1, 2])
    assert rewards_of(own, OutputFormat(format="detections"), ["hard_recall"], [5.0]) == {"format": 1, "ap": 2}
    assert rewards_of(Source(source="x"), OutputFormat(), ["format"], [5.0]) == {"format": 5.0}
    with pytest.raises(UserError, match="unknown reward 'app'"):
        rewards_of(Source(source="x", rewards=["app"]), OutputFormat(), [], None)


@pytest.fixture
def recipe(base, rows, tmp_path):
    """Scene graphs, and the same images three times as often as detections."""
    boxes = []
    for row in read_rows(rows):
        found = [{"label": item["id"].partition(".")[0], "bbox_2d": item["bbox"]} for item in row["objects"]]
        shown = {key: row[key] for key in ("width", "height")} | {"image_id": f"d{row['image_id']}"}
        path = str(rows.parent / "images" / row["file_name"])
        boxes.append({**shown, "file_name": path, "query": ["apple", "book"], "detections": found})
    graphs = {"source": str(rows), "weight": 1, "rewards": ["format", "triplet_f1"], "reward_weights": [1, 3]}
    detections = {"source": str(write_rows(tmp_path / "boxes.jsonl", boxes)), "weight": 1, "task": "det"}
    path = tmp_path / "mixed.yaml"
    path.write_text(dump_yaml({"model": str(base), "data": [graphs, detections], "rewards": ["format", "ap50"]}))
    return path


def test_both_commands_train_on_a_mixture(recipe, rows, tmp_path):
    line = ["--config", str(recipe), "--eval_data", str(rows), "--eval_max_new_tokens", "8", "--out"]
    sft = ["sft", *line, str(tmp_path / "sft"), *words({**QUICK, "max_steps": 1}), "--eval_steps", "1"]
    content = recipe.read_text()
    run_level = content.index("\nrewards:")
    recipe.write_text(content[:run_level] + "\n")  # SFT has no rewards, but takes a source that has some
    assert cli.main(sft) == 0
    recipe.write_text(content)
    fields = {**QUICK_GRPO, "max_steps": 2, "per_device_train_batch_size": 8, "save_strategy": "steps", "save_steps": 1}
    out = tmp_path / "grpo"
    grpo = ["grpo", "--config", str(recipe), "--out", str(out), *words(fields), "--sample_log_every", "1"]
    assert cli.main(grpo) == 0
    log = [row for row in read_rows(out / "log.jsonl") if "loss" in row]
    names = ["train/format", "train/triplet_f1", "boxes/format", "boxes/ap50"]
    assert all(f"rewards/{name}/mean" in log[0] for name in names)
    for row in read_rows(out / "samples.jsonl"):
        prefixes = {name.partition("/")[0] for name in row["rewards"]}
        assert prefixes == ({"boxes"} if row["image_id"].startswith("d") else {"train"})
    before = (out / "log.jsonl").read_text()
    assert cli.main(grpo) == 0 and (out / "log.jsonl").read_text() == before  # nothing is left to do
    card = (out / "README.md").read_text()
    assert "train.jsonl, boxes.jsonl" in card and "{" not in card.split("## ")[0].split("---")[2]


def test_each_validation_source_is_judged_in_its_own_format(recipe, tmp_path, monkeypatch):
    """Perfect answers, of which those to the second image of detections fail; the metric to keep the best by is named.

    Read in the other source's format, none would be right.
    """

    def answers(trainer, held_out, examples):
        texts = []
        for example in examples:
            (part,) = held_out.conversation.completion(example)[0]["content"]
            texts.append("nonsense" if example.image_id == failing else part["text"])
        tokenizer = held_out.checkpoint.processor.tokenizer
        return [[*tokenizer(text).input_ids, tokenizer.eos_token_id] for text in texts]

    monkeypatch.setattr(validation, "_answers", answers)
    graphs, boxes = load_yaml(recipe)["data"]
    failing = read_rows(Path(boxes["source"]))[1]["image_id"]
    held_out = [{"source": graphs["source"], "name": "graphs"}, {**boxes, "limit": 4}]
    del held_out[1]["weight"]
    fields = {**QUICK, "max_steps": 2, "save_strategy": "steps", "save_steps": 1, "load_best_model_at_end": "true"}
    content = {"model": load_yaml(recipe)["model"], "data": graphs["source"], "eval_data": held_out}
    path = tmp_path / "validated.yaml"
    path.write_text(dump_yaml(content | {"metric_for_best_model": "boxes/AP50"}))
    out = tmp_path / "run"
    assert cli.main(["sft", "--config", str(path), "--out", str(out), *words(fields)]) == 0
    row = next(row for row in read_rows(out / "log.jsonl") if "eval_graphs/Recall" in row)
    assert row["eval_graphs/triplet_f1"] == row["eval_graphs/mRecall"] == 1 and row["eval_graphs/failure_rate"] == 0
    assert row["eval_boxes/failure_rate"] == 0.25 and 0 < row["eval_boxes/AP50"] < 1
    assert (row["eval_boxes/greedy_precision"], row["eval_boxes/greedy_recall"]) == (1, 0.75)
    assert not any(key in row for key in ("eval_failure_rate", "eval_boxes/triplet_f1", "eval_graphs/AP75"))
    state = json.loads((out / "checkpoint-2" / "trainer_state.json").read_text())
    assert (state["best_global_step"], state["best_metric"]) == (1, row["eval_boxes/AP50"])


@pytest.mark.parametrize(
    "metric, entry, said",
    [
        (
            "AP50",
            {},
            "'AP50' is no metric of the validation, which has several sources; allowed: graphs/AP50, boxes/AP50",
        ),
        ("triplet_f1", {}, "which has several sources; allowed: graphs/triplet_f1"),
        ("boxes/triplet_f1", {}, "metric_for_best_model: 'boxes/triplet_f1' is no metric of the validation"),
        ("boxes/AP50", {"weight": 2}, "eval_data, source 2: weight is of training data only"),
        ("boxes/AP50", {"rewards": ["ap"]}, "eval_data, source 2: rewards is of training data only"),
        ("boxes/AP50", {"name": "graphs"}, "eval_data: two sources are called 'graphs'"),
        ("boxes/AP50", {"sorce": "x"}, "eval_data, source 2: unknown key 'sorce'"),
    ],
)
def test_mistakes_in_validation_sources_are_found_before_training(recipe, tmp_path, capsys, metric, entry, said):
    graphs, boxes = load_yaml(recipe)["data"]
    held_out = [{"source": graphs["source"], "name": "graphs"}, {"source": boxes["source"], "task": "det", **entry}]
    content = {"model": load_yaml(recipe)["model"], "data": graphs["source"], "eval_data": held_out}
    path = tmp_path / "validated.yaml"
    path.write_text(dump_yaml(content | {"metric_for_best_model": metric}))
    assert cli.main(["sft", "--config", str(path), "--out", str(tmp_path / "run"), *words(QUICK)]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_run_that_goes_on_draws_the_same(recipe, tmp_path):
    """Which examples come at which step does not depend on a kill."""
    fields = {**QUICK_GRPO, "max_steps": 3, "save_strategy": "steps", "save_steps": 1}
    logs = {}
    for name in ("whole", "resumed"):
        out = tmp_path / name
        line = ["grpo", "--config", str(recipe), "--out", str(out), *words(fields), "--sample_log_every", "1"]
        assert cli.main(line) == 0
        if name == "resumed":
            shutil.rmtree(out / "checkpoint-3")
            assert cli.main(line) == 0
        logs[name] = read_rows(out / "samples.jsonl")
    assert logs["whole"] == logs["resumed"]


def test_an_empty_source_ends_the_run_before_the_model_is_loaded(base, rows, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(setup, "load", lambda *args, **kwargs: pytest.fail("the model was loaded"))
    (tmp_path / "empty.jsonl").write_text("")
    line = ["grpo", "--model", str(base), "--data", str(rows), str(tmp_path / "empty.jsonl"), *words(QUICK_GRPO)]
    assert cli.main([*line, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "empty.jsonl" in error.splitlines()[-1] and "empty" in error and not (tmp_path / "run").exists()
