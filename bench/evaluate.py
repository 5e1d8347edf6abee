"""Speed of the evaluator, beside sgbench 1.0.0 and faster-coco-eval in the same run.

    OMP_NUM_THREADS=1 python bench/evaluate.py            # 5,000 images
    OMP_NUM_THREADS=1 python bench/evaluate.py --large    # 50,000 images of scene graphs as well
    OMP_NUM_THREADS=1 python bench/evaluate.py --smoke    # 20 images: that it runs, no figures worth keeping

Data are random, of VG150's shape (11 objects and 6 relations an image, 150 labels and 50 predicates with a long tail,
up to 100 predicted relations) and of COCO's (7 objects of 80 labels, up to 100 scored detections). Graphs are in memory
when the clock starts; the last part times the whole command, reading included. Times are wall time, a ratio is ours to
the peer's. Needs the packages sgbench and faster-coco-eval for the comparison.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import print_conditions, print_head, print_row

from scenerl.boxes import xyxy_to_xywh
from scenerl.metrics import MetricOptions, Pair, evaluate
from scenerl.metrics.arrays import Array, collect
from scenerl.metrics.recall import PredicateMeans, hit_targets, image_recall, rank
from scenerl.types import ParseResult, Relation, SceneGraph, SceneObject

NUM_LABELS, NUM_PREDICATES, KS = 150, 50, (20, 50, 100)


def long_tail(generator: np.random.Generator, size: int, count: int) -> Array:
    """``count`` numbers below ``size``, the n-th as common as 1 / n."""
    share = 1.0 / np.arange(1, size + 1)
    return generator.choice(size, count, p=share / share.sum())


def scene_graph_pairs(num_images: int, seed: int = 0) -> list[Pair]:
    """Images of VG150's shape. Predicted objects jitter the target's, about a third are others; of the target's
    relations about half are predicted."""
    generator = np.random.default_rng(seed)
    pairs = []
    for image in range(num_images):
        count = int(np.clip(generator.poisson(11), 2, 40))
        corner, size = generator.uniform(0, 380, (count, 2)), generator.uniform(20, 220, (count, 2))
        boxes = np.concatenate([corner, corner + size], axis=1)
        labels = long_tail(generator, NUM_LABELS, count)
        ends = generator.integers(0, count, (max(1, generator.poisson(6)), 2))
        predicates = long_tail(generator, NUM_PREDICATES, len(ends))
        true = {(int(a), int(p), int(b)) for (a, b), p in zip(ends, predicates, strict=True) if a != b}
        extra = int(generator.integers(2, 8))
        more = generator.uniform(0, 380, (extra, 2))
        guessed = np.concatenate([boxes + generator.normal(0, 8, boxes.shape), np.concatenate([more, more + 90], 1)])
        names = np.concatenate([labels, long_tail(generator, NUM_LABELS, extra)])
        total = count + extra
        wanted = int(generator.integers(10, 101))
        guesses = dict.fromkeys(entry for entry in true if generator.random() < 0.5)
        pairs_of_ends = generator.integers(0, total, (wanted, 2)).tolist()
        for (a, b), p in zip(pairs_of_ends, long_tail(generator, NUM_PREDICATES, wanted).tolist(), strict=True):
            guesses[a, p, b] = None
        order = generator.permutation(len(guesses))
        listed = list(guesses)
        target = build(labels, boxes, true)
        prediction = build(names, guessed, [listed[n] for n in order][:100])
        pairs.append(Pair(str(image), ParseResult("ok", prediction), target, (640, 640)))
    return pairs


def build(labels: Array, boxes: Array, relations, scores: Array | None = None) -> SceneGraph:
    scores = [None] * len(labels) if scores is None else scores.tolist()
    objects = (
        SceneObject(f"label {label}", tuple(box), score)
        for label, box, score in zip(labels.tolist(), boxes.tolist(), scores, strict=True)
    )
    return SceneGraph(tuple(objects), tuple(Relation(a, f"predicate {p}", b) for a, p, b in relations))


def detection_pairs(num_images: int, seed: int = 0) -> list[Pair]:
    """Images of COCO's shape."""
    generator = np.random.default_rng(seed)
    pairs = []
    for image in range(num_images):
        count = int(np.clip(generator.poisson(7), 1, 60))
        corner, size = generator.uniform(0, 400, (count, 2)), generator.uniform(10, 240, (count, 2))
        boxes, labels = np.concatenate([corner, corner + size], axis=1), long_tail(generator, 80, count)
        copies = generator.integers(0, count, int(generator.integers(20, 101)))
        guessed = boxes[copies] + generator.normal(0, 20, (len(copies), 4)) * (generator.random((len(copies), 1)) + 0.1)
        guessed[:, 2:] = np.maximum(guessed[:, 2:], guessed[:, :2] + 1)
        names = np.where(generator.random(len(copies)) < 0.8, labels[copies], long_tail(generator, 80, len(copies)))
        prediction = build(names, guessed, [], generator.random(len(copies)))
        pairs.append(Pair(str(image), ParseResult("ok", prediction), build(labels, boxes, []), (640, 640)))
    return pairs


def recall_family(pairs: list[Pair]) -> dict[str, float]:
    """R@K and mR@K, which sgbench has too, without intervals."""
    data = collect(pairs, MetricOptions())
    relations, target = data.relations, data.relations.target
    _, constrained = rank(relations.predicted, data.num_images, "scored")
    hits = {k: hit_targets(relations.fits, constrained, len(target), k) for k in KS}
    found = {}
    for k, hit_T in hits.items():
        recall_N, counts_N = image_recall(hit_T, target.image_R, data.num_images)
        found[f"R@{k}"] = recall_N.sum() / counts_N.sum()
    means = PredicateMeans(target.predicate_R, target.image_R, hits, data.num_images)
    found.update(zip([f"mR@{k}" for k in KS], means(np.ones((len(pairs), 1)))[:, 0], strict=True))
    return found


def sgbench_arrays(pairs: list[Pair]) -> list[tuple]:
    """What sgbench's functions take, one tuple an image; not part of its time."""

    def arrays(graph: SceneGraph) -> tuple[Array, Array, Array]:
        boxes = np.array([entry.box for entry in graph.objects])
        labels = np.array([int(entry.label.split()[1]) for entry in graph.objects])
        triplets = [[r.subject, r.object, int(r.predicate.split()[1])] for r in graph.relations]
        return boxes, labels, np.array(triplets, dtype=int).reshape(-1, 3)

    return [(*arrays(pair.result.graph), *arrays(pair.target)) for pair in pairs if pair.target.relations]


def sgbench_family(images: list[tuple]) -> dict[str, float]:
    import sgbench

    plain, mean = {k: [] for k in KS}, {k: [] for k in KS}
    for boxes, labels, triplets, true_boxes, true_labels, true_triplets in images:
        match = sgbench.match_instances(true_boxes, true_labels, boxes, labels)
        matched = sgbench.remap_triplets(match, triplets)
        for k in KS:
            plain[k].append(sgbench.recall(k, False, true_triplets, matched, NUM_PREDICATES))
            mean[k].append(sgbench.recall(k, True, true_triplets, matched, NUM_PREDICATES))
    found = {f"R@{k}": float(np.mean(values)) for k, values in plain.items()}
    return found | {f"mR@{k}": float(np.nanmean(np.stack(values), axis=0).mean()) for k, values in mean.items()}


def coco_rows(pairs: list[Pair]) -> tuple[dict, list[dict]]:
    """The ground truth and the detections in COCO's schema; not part of the evaluator's time."""
    annotations, found = [], []
    for image, pair in enumerate(pairs, start=1):
        for side, rows in ((pair.target, annotations), (pair.result.graph, found)):
            boxes = xyxy_to_xywh(np.array([entry.box for entry in side.objects])).tolist()
            for entry, box in zip(side.objects, boxes, strict=True):
                row = {"image_id": image, "category_id": int(entry.label.split()[1]) + 1, "bbox": box}
                rows.append(row | ({"score": entry.score} if side is pair.result.graph else {}))
    for number, row in enumerate(annotations, start=1):
        row |= {"id": number, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
    images = [{"id": n + 1, "width": 640, "height": 640, "file_name": f"{n}.jpg"} for n in range(len(pairs))]
    categories = [{"id": n + 1, "name": f"label {n}"} for n in range(80)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}, found


def coco_evaluator(truth: dict, found: list[dict]) -> dict[str, float]:
    from faster_coco_eval import COCO, COCOeval_faster

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(truth)
        evaluation = COCOeval_faster(coco, coco.loadRes(found), iouType="bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {"AP": float(evaluation.stats[0]), "AP50": float(evaluation.stats[1]), "AR100": float(evaluation.stats[8])}


def timed(work: Callable, *arguments, repeats: int = 1):
    """The result and the least time in seconds."""
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        result = work(*arguments)
        best = min(best, time.perf_counter() - start)
    return result, best


def memory() -> float:
    """Largest resident set of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def scene_graphs(num_images: int, compare: bool) -> float:
    """Seconds of all metrics with intervals, the last row."""
    pairs = scene_graph_pairs(num_images)
    num_predicted = sum(len(pair.result.graph.relations) for pair in pairs) / num_images
    before = memory()
    ours, seconds = timed(recall_family, pairs, repeats=3 if compare else 1)
    title = f"{num_images} images of scene graphs, {num_predicted:.0f} predicted relations each"
    print_head(title, "time", "per image", "ratio to sgbench", "R@50", left=1)
    slower = None
    if compare:
        peer, slower = timed(sgbench_family, sgbench_arrays(pairs), repeats=2)
        print_row("sgbench, R@K and mR@K", *times(slower, num_images), f"{peer['R@50']:.4f}")
    print_row("R@K and mR@K without intervals", *times(seconds, num_images, slower), f"{ours['R@50']:.4f}")
    for samples in (0, 1000):
        report, spent = timed(evaluate, pairs, MetricOptions(bootstrap_samples=samples))
        print_row(f"all {len(report.metrics)} metrics, {samples} resamples", *times(spent, num_images, slower), "")
    print(f"\nmemory: {memory():.0f} MB at most, {before:.0f} MB with the graphs alone")
    return spent


def times(seconds: float, num_images: int, peer: float | None = None) -> tuple[str, str, str]:
    """Cells: the time, per image, and its ratio to a peer's."""
    return f"{seconds:.2f} s", f"{1000 * seconds / num_images:.3f} ms", f"{seconds / peer:.2f}" if peer else ""


def detection(num_images: int) -> None:
    pairs = detection_pairs(num_images)
    num_predicted = sum(len(pair.result.graph.objects) for pair in pairs)
    truth, found = coco_rows(pairs)
    report, seconds = timed(evaluate, pairs, MetricOptions(task="det", bootstrap_samples=0))
    peer, slower = timed(coco_evaluator, truth, found)
    title = f"{num_images} images of {num_predicted} detections"
    print_head(title, "time", "per image", "ratio to faster-coco-eval", "AP", left=1)
    print_row("faster-coco-eval, AP family in three areas", *times(slower, num_images), f"{peer['AP']:.9f}")
    value = report.metrics["AP"].value
    print_row("all detection metrics, 0 resamples", *times(seconds, num_images, slower), f"{value:.9f}")
    _, seconds = timed(evaluate, pairs, MetricOptions(task="det"))
    print_row("all detection metrics, 1000 resamples", *times(seconds, num_images, slower), "")


def command(num_images: int) -> None:
    from scenerl.commands.eval import EvalOptions
    from scenerl.data.rows import example_to_row
    from scenerl.evaluate import run_eval
    from scenerl.types import Example

    pairs = scene_graph_pairs(num_images)
    with tempfile.TemporaryDirectory() as folder:
        data, predictions = Path(folder) / "data.jsonl", Path(folder) / "predictions.jsonl"
        with open(data, "w") as truth, open(predictions, "w") as answers:
            for pair in pairs:
                truth.write(json.dumps(example_to_row(Example(pair.image_id, 640, 640, pair.target))) + "\n")
                row = example_to_row(Example(pair.image_id, 640, 640, pair.result.graph))
                graph = {key: row[key] for key in ("objects", "relationships")}
                answers.write(json.dumps({"image_id": pair.image_id, "status": "ok", "graph": graph}) + "\n")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            options = EvalOptions(pred=predictions, data=str(data), out=Path(folder) / "metrics.json")
            _, seconds = timed(run_eval, options)
    print(f"\nthe command, reading included: {seconds:.2f} s for {num_images} images")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="50,000 images of scene graphs as well")
    parser.add_argument("--num_images", type=int, default=5000)
    parser.add_argument("--parts", nargs="*", default=["graphs", "detection", "command"])
    parser.add_argument("--smoke", action="store_true", help="20 images")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.num_images = 20
    print_conditions("wall time, one thread", ("numpy", "sgbench", "faster-coco-eval"))
    if "graphs" in arguments.parts:
        seconds = scene_graphs(arguments.num_images, compare=True)
        if arguments.large:
            print(
                f"\nten times the images: {scene_graphs(10 * arguments.num_images, compare=False) / seconds:.1f} times"
            )
    if "detection" in arguments.parts:
        detection(arguments.num_images)
    if "command" in arguments.parts:
        command(arguments.num_images)


if __name__ == "__main__":
    main()
