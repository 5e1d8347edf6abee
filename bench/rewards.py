"""Rewards per second, and the average precision of a completion against pycocotools' and faster-coco-eval's.

    OMP_NUM_THREADS=1 python bench/rewards.py [--rounds 200] [--completions 64] [--smoke]

Needs the package and pycocotools (`pip install -e .[test]`), no torch. It takes about half a minute on one core. Every
figure is the least wall time of many rounds over the same completions, so that other work on the machine does not
count; the two sides of a ratio take turns in one run. Nothing is kept between rounds: each builds its comparisons anew.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Callable

import numpy as np
from common import GRAPH_REWARDS, IMAGE_WH, LABELS, best_seconds, pairs, print_conditions, print_head, print_row
from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from scenerl.answers import OutputFormat, parse_answer, write_answer
from scenerl.rewards import REWARDS, Comparison, RewardOptions
from scenerl.types import ParseResult, SceneGraph

DETECTION_REWARDS = ("ap", "ap50", "od_length")


def reward_task(compared, names, options: RewardOptions | None = None) -> Callable[[], list]:
    functions = [REWARDS[name] for name in names]

    def task() -> list[list[float]]:
        values = []
        for result, target, text in compared:
            comparison = Comparison(result, target, IMAGE_WH, options, text)
            values.append([function(comparison) for function in functions])
        return values

    return task


def coco_ap(predicted: SceneGraph, target: SceneGraph, coco: type, evaluator: Callable) -> tuple[float, float]:
    """AP and AP50 of one completion the usual way: two tables of annotations, an evaluator, its precision array."""
    label_id = {label: index for index, label in enumerate(LABELS, start=1)}

    def annotations(graph: SceneGraph) -> list[dict]:
        entries = []
        for index, item in enumerate(graph.objects, start=1):
            x1, y1, x2, y2 = item.box
            entries.append(
                {
                    "id": index,
                    "image_id": 1,
                    "category_id": label_id[item.label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                    "score": 1.0,
                }
            )
        return entries

    truth = coco()
    truth.dataset = {
        "images": [{"id": 1, "width": IMAGE_WH[0], "height": IMAGE_WH[1]}],
        "categories": [{"id": index, "name": label} for label, index in label_id.items()],
        "annotations": annotations(target),
    }
    truth.createIndex()
    evaluation = evaluator(truth, truth.loadRes(annotations(predicted)), "bbox")
    # Only what the figure needs: the labels of the target, one range of areas, COCO's limit of detections.
    evaluation.params.catIds = sorted({label_id[item.label] for item in target.objects})
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.params.maxDets = [100]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return float(np.mean(precision)), float(np.mean(precision[0]))


def coco_task(compared, coco: type, evaluator: Callable) -> Callable[[], list]:
    def task() -> list[tuple[float, float]]:
        with contextlib.redirect_stdout(io.StringIO()):
            return [coco_ap(result.graph, target, coco, evaluator) for result, target, _ in compared]

    return task


def faster(truth, results, kind):
    return COCOeval_faster(truth, results, kind, print_function=lambda *_: None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200, help="rounds of the rewards; the evaluators take a tenth")
    parser.add_argument("--completions", type=int, default=64, help="different completions per round")
    parser.add_argument("--smoke", action="store_true", help="a round of two: that it runs, no figures worth keeping")
    options = parser.parse_args()
    if options.smoke:
        options.rounds, options.completions = 1, 2

    output_format = OutputFormat(box_format="pixels")
    graphs = pairs(options.completions, 12, 8)
    texts = [write_answer(predicted, output_format, IMAGE_WH) for predicted, _ in graphs]
    compact = OutputFormat(box_format="pixels", format="compact")
    compact_texts = [write_answer(predicted, compact, IMAGE_WH) for predicted, _ in graphs]
    answers = [
        (parse_answer(text, output_format, IMAGE_WH), target, text)
        for text, (_, target) in zip(texts, graphs, strict=True)
    ]
    detections = [(ParseResult("ok", predicted), target, "") for predicted, target in pairs(options.completions, 6, 0)]
    alike = {frozenset((a, b)): 0.5 for a, b in zip(LABELS, LABELS[1:], strict=False)}
    soft = RewardOptions(similarity=lambda a, b: 1.0 if a == b else alike.get(frozenset((a, b)), 0.0))

    tasks = {
        "six": reward_task(answers, GRAPH_REWARDS),
        "six, soft": reward_task(answers, GRAPH_REWARDS, soft),
        "all": reward_task(answers, REWARDS),
        "json": lambda: [parse_answer(text, output_format, IMAGE_WH) for text in texts],
        "compact": lambda: [parse_answer(text, compact, IMAGE_WH) for text in compact_texts],
        "detection": reward_task(detections, DETECTION_REWARDS),
    }
    evaluators = {
        "pycocotools": coco_task(detections, COCO, COCOeval),
        "faster-coco-eval": coco_task(detections, FasterCOCO, faster),
    }
    ours = np.array(tasks["detection"]())[:, :2]
    for name, task in evaluators.items():
        difference = float(np.abs(ours - task()).max())
        if difference > 1e-9:
            sys.exit(f"AP differs from {name} by {difference}")

    best = best_seconds(options.rounds, tasks)
    # Few rounds for the slow side, and in each of them as many of ours as make both sides run about as long.
    peers = best_seconds(
        max(options.rounds // 10, 1), {**evaluators, "ours": lambda: [tasks["detection"]() for _ in range(10)]}
    )
    micro = {name: seconds / options.completions * 1e6 for name, seconds in best.items()}
    print_conditions("wall time, one thread", ("numpy", "scipy", "pycocotools", "faster-coco-eval"))
    print_head("per completion", "time", "per second", left=1)
    rows = {
        "six scene-graph rewards, 12 objects and 8 relations": "six",
        "the same with a similarity of labels": "six, soft",
        f"all {len(REWARDS)} rewards": "all",
        "parsing its JSON": "json",
        "parsing its compact form": "compact",
        "AP, AP50 and od_length, 6 boxes": "detection",
    }
    for title, name in rows.items():
        print_row(title, f"{micro[name]:.0f} µs", f"{1e6 / micro[name]:,.0f}")
    print_head("AP and AP50, 6 boxes", "time", "ours is faster", left=1)
    own = peers["ours"] / 10
    print_row("ours, od_length too", f"{own / options.completions * 1e6:.0f} µs", "")
    for name in evaluators:
        print_row(name, f"{peers[name] / options.completions * 1e6:,.0f} µs", f"{peers[name] / own:.0f} times")


if __name__ == "__main__":
    main()
