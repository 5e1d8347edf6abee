"""The gold checks: ground truth written as an answer and parsed back loses nothing but rounding and scores perfectly.

Rounding is the frame's: a coordinate moves by at most half a unit (a whole one where a side would vanish). So the exact
scores are checked against the ground truth as the frame holds it, and the scores that do not depend on the last unit
against the ground truth itself.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.published_folders import VG150_IMAGES, write_psg, write_vcoco, write_vg150
from scenerl import data
from scenerl.answers import OutputFormat, parse_answer, write_answer
from scenerl.box_formats import BOX_FORMATS, extent_wh
from scenerl.commands.eval import EvalOptions
from scenerl.commands.score import ScoreOptions
from scenerl.data.inspect.statistics import Statistics
from scenerl.data.rows import example_to_row
from scenerl.evaluate import run_eval
from scenerl.metrics import MetricOptions, Pair, evaluate
from scenerl.rewards import REWARDS, Comparison, RewardOptions
from scenerl.score import run_score
from scenerl.types import Example, ParseResult, Relation, SceneGraph, SceneObject

REAL = Path(__file__).parents[2] / "shared" / "data" / "real" / "scene_graphs.jsonl"
INPUT_WH = (476, 364)  # a resized input as Qwen2.5-VL has them, of another aspect ratio than the images

BEST = {"repetition": 0.0, "hallucination": 0.0}
"""Rewards whose best value is not 1: the first is a penalty, the second a share to keep low."""


def hand_made() -> list[Example]:
    """What could go wrong on the way: no objects, no relations, twins, labels with dots, digits and other scripts,
    boxes at the edges and of a single pixel, several predicates for one pair, an image of odd size."""
    twins = (SceneObject("cup", (1, 2, 9, 12)), SceneObject("cup", (1, 2, 9, 12)), SceneObject("cup", (2, 2, 9, 12)))
    labels = ("st. bernard", "v1.2", "route 66", "人", "l'été", 'a "b"', "back\\slash", "{x}", "end", "none", "<b>")
    strange = tuple(SceneObject(label, (n, n, n + 5, n + 6)) for n, label in enumerate(labels))
    edges = (
        SceneObject("all", (0, 0, 37, 1001)),
        SceneObject("dot", (36, 1000, 37, 1001)),
        SceneObject("line", (0, 500, 37, 501)),
    )
    chain = tuple(Relation(n, f"in front of {n}", n + 1) for n in range(len(labels) - 1))
    pair = (Relation(0, "on", 1), Relation(0, "has", 1), Relation(1, "on", 0))
    return [
        Example("empty", 64, 48, SceneGraph()),
        Example("alone", 64, 48, SceneGraph((SceneObject("dog", (3, 4, 50, 40)),))),
        Example("twins", 64, 48, SceneGraph(twins, (Relation(0, "by", 1), Relation(1, "by", 0), Relation(2, "by", 0)))),
        Example("strange", 64, 48, SceneGraph(strange, chain)),
        Example("edges", 37, 1001, SceneGraph(edges, pair)),
    ]


def hub_examples() -> list[Example]:
    """R1-SGG's hub schema, in a Parquet file as the hub has them."""
    datasets = pytest.importorskip("datasets", reason="hub data needs datasets")
    pytest.importorskip("pyarrow", reason="hub data needs pyarrow")
    buffer = io.BytesIO()
    Image.new("RGB", (640, 480)).save(buffer, "PNG")
    objects = [{"id": "man.1", "bbox": [12, 30, 300, 470]}, {"id": "wave.2", "bbox": [0, 200, 640, 480]}]
    relations = [{"subject": "man.1", "predicate": "on", "object": "wave.2"}]
    table = datasets.Dataset.from_dict(
        {
            "image_id": ["1", "2"],
            "image": [{"bytes": buffer.getvalue(), "path": None}] * 2,
            "objects": [json.dumps(objects)] * 2,
            "relationships": [json.dumps(relations), "[]"],
        }
    ).cast_column("image", datasets.Image())
    with tempfile.TemporaryDirectory() as folder:
        table.to_parquet(Path(folder) / "train-00000-of-00001.parquet")
        return list(data.load(folder))


def published(name: str) -> list[Example]:
    """A published set in its own schema, as the tests of its reader write it."""
    if name == "vg150":
        pytest.importorskip("h5py", reason="vg150 needs h5py")
    with tempfile.TemporaryDirectory() as folder:
        source = f"{name}:{WRITERS[name](Path(folder))}"
        return list(data.load(source, split="test"))


def real_photos() -> list[Example]:
    if not REAL.is_file():
        pytest.skip(f"there are no real photos at {REAL}")
    return list(data.load(REAL))


def synthetic(split: str) -> list[Example]:
    return list(data.load("synthetic:count=40,seed=11", split=split))


WRITERS = {"vg150": lambda folder: write_vg150(folder, VG150_IMAGES), "psg": write_psg, "vcoco": write_vcoco}

SETS: dict[str, Callable[[], list[Example]]] = {
    "hand made": hand_made,
    "synthetic sparse": lambda: synthetic("sparse"),
    "synthetic complete": lambda: synthetic("complete"),
    "hub": hub_examples,
    "vg150": lambda: published("vg150"),
    "psg": lambda: published("psg"),
    "vcoco": lambda: published("vcoco"),
    "real photos": real_photos,
}


@cache
def load_set(name: str) -> list[Example]:
    return SETS[name]()


def examples_for(name: str, fmt: str) -> list[Example]:
    """The examples as the format can hold them: detections have no relations, and ask for all labels and an absent
    one."""
    examples = load_set(name)
    if fmt != "detections":
        return examples
    return [
        dataclasses.replace(
            example,
            graph=SceneGraph(example.graph.objects),
            query=(*dict.fromkeys(found.label for found in example.graph.objects), "unicorn"),
        )
        for example in examples
    ]


def output_format_for(examples: list[Example], closed: bool, **changes) -> OutputFormat:
    if closed:
        names = Statistics.of(examples).as_dict()
        changes |= {"objects": tuple(names["objects"]), "predicates": tuple(names["predicates"])}
    return OutputFormat(**changes)


def round_trip(example: Example, output_format: OutputFormat) -> tuple[str, ParseResult]:
    text = write_answer(example.graph, output_format, example.image_wh, INPUT_WH)
    return text, parse_answer(text, output_format, example.image_wh, INPUT_WH, strict=True)


STYLES = [
    pytest.param(fmt, template, box_format, id=f"{fmt}-{template}-{box_format}")
    for fmt, template, box_format in itertools.product(
        ("json", "compact", "detections"), ("plain", "think"), BOX_FORMATS
    )
]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(("fmt", "template", "box_format"), STYLES)
def test_nothing_is_lost_but_rounding(name, fmt, template, box_format):
    examples = examples_for(name, fmt)
    output_format = output_format_for(examples, closed=True, format=fmt, template=template, box_format=box_format)
    for example in examples:
        text, result = round_trip(example, output_format)
        assert (result.status, result.issues, result.in_template) == ("ok", (), True), (example.image_id, text)
        graph = result.graph
        assert [found.label for found in graph.objects] == [found.label for found in example.graph.objects]
        assert graph.relations == example.graph.relations
        unit = 1e-4 if box_format == "norm1" else 1.0
        unit_wh = np.array(example.image_wh) / np.array(extent_wh(box_format, example.image_wh, INPUT_WH)) * unit
        for found, target in zip(graph.objects, example.graph.objects, strict=True):
            moved = np.abs(np.subtract(found.box, target.box)).reshape(2, 2) / unit_wh
            for axis in range(2):
                wide = (target.box[2 + axis] - target.box[axis]) / unit_wh[axis] >= 1
                assert moved[:, axis].max() <= (0.5 if wide else 1.0) + 1e-6
        # What has been rounded once is not moved again.
        assert write_answer(graph, output_format, example.image_wh, INPUT_WH) == text


def rewards_of(comparison: Comparison) -> dict[str, float]:
    return {name: reward(comparison) for name, reward in REWARDS.items()}


def expected_rewards(example: Example) -> dict[str, float]:
    """1, but for the penalties; an object that is annotated twice with the same box counts as a repetition."""
    expected = {name: BEST.get(name, 1.0) for name in REWARDS}
    objects = [(found.label, found.box) for found in example.graph.objects]
    relations = [
        (objects[relation.subject], relation.predicate, objects[relation.object])
        for relation in example.graph.relations
    ]
    parts = objects + relations
    expected["repetition"] = len(set(parts)) / len(parts) - 1 if parts else 0.0
    return expected


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(("fmt", "template", "box_format"), STYLES)
@pytest.mark.parametrize("one_to_one", [False, True])
def test_every_reward_is_perfect(name, fmt, template, box_format, one_to_one):
    examples = examples_for(name, fmt)
    output_format = output_format_for(examples, closed=False, format=fmt, template=template, box_format=box_format)
    weights = {"on": 3.0, "by": 0.5}
    options = RewardOptions(one_to_one=one_to_one, predicate_weights=weights, strict_format=True)
    for example in examples:
        text, result = round_trip(example, output_format)
        held = dataclasses.replace(example, graph=result.graph)
        # cosine_length falls from 1 with the length of a right answer; at no length at all it is 1.
        got = rewards_of(Comparison(result, held.graph, held.image_wh, options, text, num_tokens=0))
        assert got == pytest.approx(expected_rewards(held), abs=1e-12), example.image_id
        assert 0.5 <= REWARDS["cosine_length"](Comparison(result, held.graph, held.image_wh, options, text)) <= 1.0


@pytest.mark.parametrize("name", ["synthetic sparse", "synthetic complete", "real photos"])
@pytest.mark.parametrize("fmt", ["json", "compact"])
def test_rewards_against_the_unrounded_ground_truth(name, fmt):
    """On the 0-1000 frame, relations still count in full, and boxes agree to within their rounding."""
    examples = examples_for(name, fmt)
    output_format = output_format_for(examples, closed=False, format=fmt, box_format="norm1000")
    for example in examples:
        text, result = round_trip(example, output_format)
        got = rewards_of(Comparison(result, example.graph, example.image_wh, None, text, num_tokens=0))
        for reward in (
            "format",
            "hard_recall",
            "relaxed_recall",
            "soft_recall",
            "triplet_f1",
            "triplet_f_beta",
            "triplet_precision",
            "predicate_weighted_recall",
            "box_count",
            "node_label",
            "ap50",
        ):
            assert got[reward] == pytest.approx(1.0, abs=1e-12), (example.image_id, reward)
        assert got["hallucination"] == 0.0
        assert got["node_box"] > 0.97 and got["weighted_sum"] > 0.9


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("fmt", ["json", "compact", "detections"])
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(MetricOptions(bootstrap_samples=0), id="default"),
        pytest.param(MetricOptions(bootstrap_samples=0, hits="one_to_one"), id="one to one"),
        pytest.param(MetricOptions(bootstrap_samples=0, plus_one=True), id="plus one"),
    ],
)
def test_every_metric_is_perfect(name, fmt, options):
    examples = examples_for(name, fmt)
    output_format = output_format_for(examples, closed=True, format=fmt)
    task = "det" if fmt == "detections" else "sgdet"
    options = dataclasses.replace(options, task=task)
    pairs = []
    for example in examples:
        _, result = round_trip(example, output_format)
        pairs.append(Pair(example.image_id, result, result.graph, example.image_wh))
    relations = [len(example.graph.relations) for example in examples]
    report = evaluate(pairs, options, training_triplets=())
    assert report.metrics["failure_rate"].value == 0.0
    assert report.failures == dict.fromkeys(report.failures, 0)
    perfect = set(report.metrics) - {"failure_rate"}
    for metric in sorted(perfect):
        value = report.metrics[metric].value
        if metric.endswith("hallucination"):
            assert value == 0.0
        elif metric == "relations_per_image":
            assert value == pytest.approx(sum(relations) / len(examples))
        elif metric == "objects_per_image":
            assert value == pytest.approx(sum(len(example.graph.objects) for example in examples) / len(examples))
        elif metric.startswith("NMS-"):
            assert 0.9 < value <= 1.0 + 1e-12  # of two labels on one box, one goes by definition
        elif metric.startswith("duplicate"):
            assert value >= 0.0  # twins in the annotations are duplicates
        elif metric in ("R@20", "wR@20", "ng-R@20", "zR@20"):
            # A list of 20 cannot hold the relations of an image that has more.
            ideal = np.mean([min(20, count) / count for count in relations if count])
            assert value == pytest.approx(ideal)
        elif metric.endswith(("@20", "@50")) and max(relations) > 20:
            assert 0.5 < value <= 1.0
        else:
            assert value == pytest.approx(1.0, abs=1e-12), metric


def test_intervals_of_perfect_answers_have_no_width():
    examples = load_set("synthetic complete")
    pairs = [
        Pair(
            example.image_id,
            round_trip(example, OutputFormat())[1],
            round_trip(example, OutputFormat())[1].graph,
            example.image_wh,
        )
        for example in examples
    ]
    report = evaluate(pairs, MetricOptions(bootstrap_samples=50))
    for metric in ("Recall", "mRecall", "R@50", "mR@50", "triplet_f1", "AP", "AP50", "F1_mean"):
        assert report.metrics[metric].interval == pytest.approx((1.0, 1.0))


# All answers here have equal scores, and of those the order of emission decides by definition.
ORDERED_METRICS = ("AP", "AP50", "AP75", "NMS-AP", "NMS-AP50", "NMS-AP75", "NMS-AR100")
ORDERED_REWARDS = ("ap", "ap50", "od_length")
FIRST_OF_LIST = ("iou",)  # judges the first box


@pytest.mark.parametrize("scored", [False, True])
@pytest.mark.parametrize("task", ["sgdet", "det"])
def test_metrics_do_not_ask_in_which_order_objects_and_relations_come(task, scored):
    rng = random.Random(5)
    pairs, shuffled = [], []
    for example in load_set("synthetic complete"):
        target, answer = example.graph, spoiled(example.graph)
        if scored:
            objects = [found._replace(score=rng.random()) for found in answer.objects]
            answer = dataclasses.replace(answer, objects=tuple(objects))
        pairs.append(Pair(example.image_id, ParseResult("ok", answer), target, example.image_wh))
        result = ParseResult("ok", reordered(answer, rng))
        shuffled.append(Pair(example.image_id, result, reordered(target, rng), example.image_wh))
    options = MetricOptions(bootstrap_samples=0, task=task)
    before, after = evaluate(pairs, options).metrics, evaluate(shuffled, options).metrics
    assert 0.3 < before["AP"].value < 0.9
    for metric in before:
        if metric.startswith("wR@"):  # counts places in the list, also among equal scores
            continue
        if scored or metric not in ORDERED_METRICS:
            assert after[metric].value == pytest.approx(before[metric].value, abs=1e-12), metric


@pytest.mark.parametrize("name", ["synthetic complete", "hand made"])
def test_rewards_do_not_ask_in_which_order_objects_and_relations_come(name):
    rng = random.Random(6)
    for example in load_set(name):
        for answer in (example.graph, spoiled(example.graph)):
            before = rewards_of(Comparison(ParseResult("ok", answer), example.graph, example.image_wh, num_tokens=9))
            for _ in range(3):
                result = ParseResult("ok", reordered(answer, rng))
                target = reordered(example.graph, rng)
                after = rewards_of(Comparison(result, target, example.image_wh, num_tokens=9))
                for reward, value in before.items():
                    if reward in FIRST_OF_LIST:
                        continue
                    if answer is example.graph or reward not in ORDERED_REWARDS:
                        assert after[reward] == pytest.approx(value, abs=1e-12), reward


def spoiled(graph: SceneGraph) -> SceneGraph:
    """An imperfect answer: the first object moved away, the last relation left out."""
    objects = tuple(
        found._replace(box=tuple(value + 500 for value in found.box)) if n == 0 else found
        for n, found in enumerate(graph.objects)
    )
    return SceneGraph(objects, graph.relations[:-1])


def reordered(graph: SceneGraph, rng: random.Random) -> SceneGraph:
    order = rng.sample(range(len(graph.objects)), len(graph.objects))
    place = {old: new for new, old in enumerate(order)}
    relations = [
        Relation(place[relation.subject], relation.predicate, place[relation.object]) for relation in graph.relations
    ]
    rng.shuffle(relations)
    return SceneGraph(tuple(graph.objects[old] for old in order), tuple(relations))


@pytest.mark.parametrize("name", ["synthetic complete", "hand made", "hub"])
def test_names_of_ids_do_not_matter(name):
    """Any distinct numbers behind the labels do."""
    rng = random.Random(7)
    for example in load_set(name):
        text = write_answer(example.graph, OutputFormat(), example.image_wh)
        answer = json.loads(text)
        numbers = rng.sample(range(1000), len(answer["objects"]))
        new = {
            entry["id"]: f"{entry['id'].rpartition('.')[0]}.{number}"
            for entry, number in zip(answer["objects"], numbers, strict=True)
        }
        renamed = {
            "objects": [{**entry, "id": new[entry["id"]]} for entry in answer["objects"]],
            "relationships": [
                {**entry, "subject": new[entry["subject"]], "object": new[entry["object"]]}
                for entry in answer["relationships"]
            ],
        }
        output_format = OutputFormat()
        before = parse_answer(text, output_format, example.image_wh, strict=True)
        after = parse_answer(json.dumps(renamed), output_format, example.image_wh, strict=True)
        assert before == after and before.ok


@pytest.mark.parametrize("name", ["synthetic complete", "hub", "real photos"])
@pytest.mark.parametrize("fmt", ["json", "compact", "detections"])
def test_the_commands_say_so_too(name, fmt, tmp_path, capsys):
    """From data rows through `score` and `eval`, as a user would go; in pixels, where whole numbers lose nothing."""
    examples = examples_for(name, fmt)
    output_format = OutputFormat(format=fmt, box_format="pixels")
    rows = []
    for example in examples:
        graph = round_trip(example, output_format)[1].graph
        row = example_to_row(dataclasses.replace(example, graph=graph, image=None))
        rows.append({**row, "answer": write_answer(graph, output_format, example.image_wh)})
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = tmp_path / "scores.jsonl"
    run_score(ScoreOptions(rows=path, out=scores, format=fmt, frame="pixels"))
    scored = [json.loads(line) for line in scores.read_text().splitlines()]
    assert [row["image_id"] for row in scored] == [example.image_id for example in examples]
    for row in scored:
        assert row["status"] == "ok" and row["issues"] == []
        for reward, value in row["rewards"].items():
            if reward not in ("cosine_length", "repetition"):
                assert value == pytest.approx(BEST.get(reward, 1.0), abs=1e-12), reward
    metrics = tmp_path / "metrics.json"
    run_eval(
        EvalOptions(
            pred=path,
            data=str(path),
            out=metrics,
            format=fmt,
            frame="pixels",
            resamples=20,
            task="det" if fmt == "detections" else "sgdet",
        )
    )
    capsys.readouterr()
    values = json.loads(metrics.read_text())["metrics"]
    names = ["AP", "AP50", "object_f1", "greedy_recall"]
    names += [] if fmt == "detections" else ["Recall", "mRecall", "R@100", "triplet_f1"]
    assert {key: values[key]["value"] for key in names} == pytest.approx(dict.fromkeys(names, 1.0))


def test_the_sets_hold_what_they_are_meant_to():
    """Guards the checks above: a set that lost its relations would pass them."""
    counts = Counter(
        {
            name: sum(len(example.graph.relations) for example in load_set(name))
            for name in ("hand made", "synthetic sparse", "synthetic complete")
        }
    )
    assert counts["hand made"] == 16
    assert 0 < counts["synthetic sparse"] < counts["synthetic complete"]
