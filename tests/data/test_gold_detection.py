"""The gold checks of the detection sets: their ground truth, written as an answer, scores perfectly everywhere."""

from __future__ import annotations

import dataclasses

import pytest

from data.detection_folders import write_coco, write_d3, write_ovdeval, write_vlmr1
from scenerl import data
from scenerl.answers import OutputFormat, build_prompt, parse_answer, write_answer
from scenerl.metrics import MetricOptions, Pair, evaluate
from scenerl.rewards import REWARDS, Comparison

SOURCES = {
    "coco": lambda folder: f"coco:{write_coco(folder)}",
    "coco, sampled": lambda folder: f"coco:{write_coco(folder)},query=sampled,negatives=2",
    "d3": lambda folder: f"d3:{write_d3(folder)},negatives=2",
    "ovdeval": lambda folder: f"ovdeval:{write_ovdeval(folder)}",
    "vlmr1_jsonl": lambda folder: f"vlmr1_jsonl:{write_vlmr1(folder)}",
    "synthetic_detection": lambda folder: "synthetic_detection:count=20",
}
PERFECT = ("format", "ap", "ap50", "od_length", "weighted_sum", "node_label", "node_box")
# Not NMS-AP: where one box has two labels, as it may have here, it keeps one of them.
ONE = ("AP", "AP50", "greedy_precision", "greedy_recall", "F1_mean", "object_f1")


@pytest.fixture(params=SOURCES)
def examples(request, tmp_path):
    return list(data.load(SOURCES[request.param](tmp_path)))


@pytest.mark.parametrize("template", ["plain", "think"])
@pytest.mark.parametrize("box_format", ["pixels", "norm1000"])
def test_the_ground_truth_is_perfect(examples, template, box_format):
    pairs = []
    for example in examples:
        output_format = OutputFormat("detections", template, objects=example.query, box_format=box_format)
        text = write_answer(example.graph, output_format, example.image_wh)
        result = parse_answer(text, output_format, example.image_wh, strict=True)
        assert [found.label for found in result.graph.objects] == [found.label for found in example.graph.objects]
        assert all(label in build_prompt(output_format, example.query) for label in example.query)
        comparison = Comparison(result, result.graph, image_wh=example.image_wh, text=text)
        assert {name: REWARDS[name](comparison) for name in PERFECT} == pytest.approx(dict.fromkeys(PERFECT, 1.0))
        pairs.append(Pair(example.image_id, result, result.graph, example.image_wh, query=example.query))
    metrics = evaluate(pairs, MetricOptions(task="det", bootstrap_samples=0)).metrics
    assert {name: metrics[name].value for name in ONE} == pytest.approx(dict.fromkeys(ONE, 1.0))
    assert metrics["absent_boxes_per_image"].value == metrics["absent_answered"].value == 0


def test_a_box_for_an_absent_label_costs_only_what_looks_at_it(examples):
    for example in examples:
        absent = [label for label in example.query if label not in {found.label for found in example.graph.objects}]
        if not absent or not example.graph.objects:
            continue
        extra = example.graph.objects[0]._replace(label=absent[0])
        graph = dataclasses.replace(example.graph, objects=(*example.graph.objects, extra))
        output_format = OutputFormat("detections", objects=example.query, box_format="pixels")
        result = parse_answer(write_answer(graph, output_format, example.image_wh), output_format, example.image_wh)
        target = dataclasses.replace(graph, objects=result.graph.objects[:-1])
        comparison = Comparison(result, target, image_wh=example.image_wh)
        count = len(target.objects)
        assert REWARDS["ap"](comparison) == pytest.approx(1)  # blind to labels that the target lacks, as COCO is
        assert REWARDS["od_length"](comparison) == pytest.approx(count / (count + 1))
