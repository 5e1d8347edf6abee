"""A run folder as a demo would leave it, made up: drawn shapes, answers spoiled on purpose, invented training logs."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

from PIL import Image, ImageDraw

LABELS = ("circle", "square", "triangle", "star", "cross", "ring")
COLORS = ("#c0392b", "#2471a3", "#1e8449", "#b7950b", "#7d3c98", "#ba4a00")
PREDICATES = ("left of", "above", "larger than", "overlapping", "inside", "aligned with")
COUNTS = {"left of": 5210, "above": 2904, "larger than": 1377, "overlapping": 512, "inside": 166, "aligned with": 41}
SPARSE, COMPLETE = "sparse annotations", "complete annotations"
STAGES = {  # name: share of objects kept, share of relations kept, false relations, share of failed answers
    "Base": (0.25, 0.05, 3, 0.5),
    "SFT": (0.9, 0.35, 0.2, 0.02),
    "SFT + RL": (0.95, 0.75, 1.1, 0.0),
}
HOSTILE = (
    '<script>alert("x")</script><img src=x onerror=alert(1)>" onclick="alert(2)\' {{ 7*7 }} '
    "\u202eesrever \x00\x1b]0;x\x07 \ud800"
)


def build_run(folder: Path, num_images: int = 24, seed: int = 0, side: int = 224, steps: int = 160) -> Path:
    """Write a run folder with report.json, two targets, three stages and everything they need; gives the folder."""
    rng = random.Random(seed)
    images = folder / "data" / "images"
    images.mkdir(parents=True)
    complete, sparse, answers = [], [], {name: [] for name in STAGES}
    for number in range(num_images):
        row = make_scene(rng, images / f"{number:03d}.png", side)
        complete.append(row)
        sparse.append({**row, "relationships": [r for r in row["relationships"] if rng.random() < 0.5]})
        for name, habits in STAGES.items():
            answers[name].append(make_prediction(rng, row, *habits))
    write_rows(folder / "data" / "test.jsonl", sparse)
    write_rows(folder / "data" / "test_complete.jsonl", complete)
    stages = []
    for index, name in enumerate(STAGES):
        slug = ("base", "sft", "rl")[index]
        write_rows(folder / "predictions" / f"{slug}.jsonl", answers[name])
        stage = {"name": name, "predictions": f"predictions/{slug}.jsonl", "metrics": {}}
        for target, short, offset in ((SPARSE, "sparse", 0.06), (COMPLETE, "complete", 0.0)):
            path = f"metrics/{slug}.{short}.json"
            write_json(folder / path, make_metrics(index, offset, answers[name]))
            stage["metrics"][target] = path
        if index:
            write_rows(folder / slug / "log.jsonl", make_log(rng, is_rl=index == 2, steps=steps))
            stage["log"] = f"{slug}/log.jsonl"
        stages.append(stage)
    write_json(
        folder / "report.json",
        {
            "title": "Demo: shapes with half of their relations annotated",
            "targets": [
                {"name": SPARSE, "path": "data/test.jsonl"},
                {"name": COMPLETE, "path": "data/test_complete.jsonl"},
            ],
            "stages": stages,
            "predicate_counts": COUNTS,
        },
    )
    return folder


def make_scene(rng: random.Random, path: Path, side: int) -> dict:
    """Draw two to four shapes and give their data row, all relations annotated."""
    image = Image.new("RGB", (side, side), rng.choice(("#f3efe6", "#dfe8ee", "#e9e4f0", "#27303a")))
    draw = ImageDraw.Draw(image)
    objects = []
    for number in range(rng.randint(2, 4)):
        kind = rng.randrange(len(LABELS))
        size = rng.randint(side // 6, side // 3)
        x, y = rng.randint(2, side - size - 2), rng.randint(2, side - size - 2)
        draw_shape(draw, kind, (x, y, x + size, y + size))
        objects.append({"id": f"{LABELS[kind]}.{number + 1}", "bbox": [x, y, x + size, y + size]})
    image.save(path)
    relations = []
    for a in objects:
        for b in objects:
            predicate = rng.choices(PREDICATES, list(COUNTS.values()))[0]
            if a is not b and rng.random() < 0.6:
                relations.append({"subject": a["id"], "predicate": predicate, "object": b["id"]})
    return {
        "image_id": f"scene-{path.stem}",
        "file_name": path.name,
        "width": side,
        "height": side,
        "objects": objects,
        "relationships": relations,
    }


def draw_shape(draw: ImageDraw.ImageDraw, kind: int, box: tuple[int, int, int, int]) -> None:
    x1, y1, x2, y2 = box
    middle, size, color = (x1 + x2) / 2, x2 - x1, COLORS[kind]
    if LABELS[kind] == "circle":
        draw.ellipse(box, fill=color)
    elif LABELS[kind] == "square":
        draw.rectangle(box, fill=color)
    elif LABELS[kind] == "triangle":
        draw.polygon([(middle, y1), (x2, y2), (x1, y2)], fill=color)
    elif LABELS[kind] == "star":
        center = (y1 + y2) / 2
        draw.polygon(
            [
                (
                    middle + size / 2 * (1 if i % 2 == 0 else 0.45) * math.sin(i * math.pi / 5),
                    center - size / 2 * (1 if i % 2 == 0 else 0.45) * math.cos(i * math.pi / 5),
                )
                for i in range(10)
            ],
            fill=color,
        )
    elif LABELS[kind] == "cross":
        third = size / 3
        draw.rectangle((x1 + third, y1, x2 - third, y2), fill=color)
        draw.rectangle((x1, y1 + third, x2, y2 - third), fill=color)
    else:
        draw.ellipse(box, outline=color, width=max(4, size // 5))


def make_prediction(
    rng: random.Random, row: dict, objects: float, relations: float, false: float, failed: float
) -> dict:
    """A prediction row that finds these shares of the truth, and now and then something that is not there."""
    graph = {"objects": [], "relationships": []}
    for item in row["objects"]:
        if rng.random() < objects:
            graph["objects"].append({"id": item["id"], "bbox": [v + rng.uniform(-5, 5) for v in item["bbox"]]})
        elif rng.random() < 0.6:
            x, y = rng.uniform(0, row["width"] / 2), rng.uniform(0, row["height"] / 2)
            graph["objects"].append({"id": item["id"], "bbox": [x, y, x + row["width"] / 2.5, y + row["height"] / 3]})
    ids = [item["id"] for item in graph["objects"]]
    graph["relationships"] = [
        dict(r) for r in row["relationships"] if r["subject"] in ids and r["object"] in ids and rng.random() < relations
    ]
    while len(ids) > 1 and rng.random() < false / (1 + false):
        a, b = rng.sample(ids, 2)
        graph["relationships"].append({"subject": a, "predicate": rng.choice(PREDICATES), "object": b})
    answer, status, issues = json.dumps(graph), "ok", []
    if rng.random() < failed:
        status = rng.choice(("invalid_json", "truncated", "wrong_schema"))
        answer, graph = answer[: len(answer) * 2 // 3], None
    elif rng.random() < 0.25 and false > 0.5:
        issues = [{"kind": "dangling_relation", "where": "relationships[3]", "detail": "star.9 left of circle.1"}]
    return {
        "image_id": row["image_id"],
        "file_name": row["file_name"],
        "width": row["width"],
        "height": row["height"],
        "answer": answer,
        "status": status,
        "issues": issues,
        "graph": graph,
        "frame": "norm1000",
        "input_wh": [112, 112],
        "num_tokens": len(answer) // 4,
        "finish_reason": "length" if status == "truncated" else "stop",
        "sample": 0,
    }


def make_metrics(level: int, offset: float, predictions: list[dict]) -> dict:
    """A metrics.json whose values rise with ``level`` (0 to 2)."""
    failures: dict[str, int] = {}
    for row in predictions:
        if row["status"] != "ok":
            failures[row["status"]] = failures.get(row["status"], 0) + 1
    shares = {
        "failure_rate": sum(failures.values()) / len(predictions),
        "Recall": (0.011, 0.302, 0.451)[level] + offset,
        "mRecall": (0.006, 0.211, 0.334)[level] + offset,
        "R@20": (0.011, 0.302, 0.447)[level] + offset,
        "R@50": (0.011, 0.302, 0.451)[level] + offset,
        "mR@50": (0.006, 0.211, 0.334)[level] + offset,
        "triplet_precision": (0.04, 0.43, 0.448)[level] - offset / 2,
        "triplet_recall": (0.011, 0.302, 0.451)[level],
        "triplet_f1": (0.017, 0.353, 0.45)[level],
        "AP": (0.03, 0.51, 0.55)[level],
        "AP50": (0.081, 0.744, 0.781)[level],
        "object_precision": (0.15, 0.84, 0.86)[level],
    }
    values = {name: {"value": v, "interval": [max(v - 0.028, 0), min(v + 0.031, 1)]} for name, v in shares.items()}
    values["relations_per_image"] = {
        "value": (3.1, 1.7, 3.3)[level],
        "interval": [(2.8, 1.6, 3.1)[level], (3.4, 1.8, 3.5)[level]],
    }
    values["zR@50"] = {"value": None, "interval": None}
    recalls = {p: max(0.0, (0.03, 0.5, 0.62)[level] - (0.02, 0.1, 0.06)[level] * i) for i, p in enumerate(PREDICATES)}
    return {
        "metrics": values,
        "failures": failures,
        "counts": {"images": len(predictions), "target_relations": 812},
        "options": {"iou_threshold": 0.5, "plus_one": False, "ks": [20, 50, 100]},
        "per_predicate": {p: {"recall": r, "num_targets": max(2, COUNTS[p] // 40)} for p, r in recalls.items()},
    }


def make_log(rng: random.Random, is_rl: bool, steps: int) -> list[dict]:
    """Lines as TRL's trainers log them."""
    rows = []
    for step in range(1, steps + 1):
        share = 1 - math.exp(-3 * step / steps)

        def noisy(value: float, spread: float = 0.03) -> float:
            return value + rng.gauss(0, spread)

        if is_rl:
            rows.append(
                {
                    "step": step,
                    "epoch": step / steps,
                    "loss": noisy(0, 0.01),
                    "reward": noisy(1.4 + 0.9 * share, 0.12),
                    "reward_std": noisy(0.5 - 0.2 * share),
                    "rewards/format/mean": min(1, noisy(0.93 + 0.06 * share, 0.01)),
                    "rewards/format/std": 0.1,
                    "rewards/triplet_f1/mean": noisy(0.31 + 0.2 * share),
                    "kl": 0.0,
                    "rewards/node_box/mean": noisy(0.7 + 0.1 * share, 0.02),
                    "entropy": noisy(0.5 - 0.25 * share),
                    "completions/mean_length": noisy(58 + 24 * share, 3),
                    "scene/relations_per_image": noisy(1.6 + 1.8 * share, 0.2),
                    "scene/failures/truncated": max(0.0, noisy(0.03 - 0.03 * share, 0.01)),
                    "scene/failures/empty": 0.0,
                    "learning_rate": 1e-4 * (1 - step / steps),
                    "grad_norm": noisy(1.2, 0.3),
                }
            )
        elif step % 5 == 0:
            rows.append(
                {
                    "step": step,
                    "loss": noisy(3.2 - 2.7 * share, 0.06),
                    "mean_token_accuracy": noisy(0.3 + 0.6 * share, 0.01),
                    "entropy": noisy(2.5 - 2 * share, 0.04),
                    "learning_rate": 0.02,
                    "grad_norm": noisy(0.8, 0.1),
                }
            )
    rows.append({"train_runtime": 180.2, "train_loss": 0.9, "step": steps})
    return rows


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def make_hostile(path: Path, end: str) -> None:
    """Rows of predictions whose texts try to become markup, one of them with a closing tag; the first has failed."""
    ids, box = (f"{HOSTILE}.1", f"{end}<b>{HOSTILE}.2"), [10, 10, 50, 50]
    said = {
        "answer": HOSTILE,
        "status": "ok",
        "finish_reason": HOSTILE,
        "issues": [{"kind": HOSTILE, "where": HOSTILE, "detail": HOSTILE}],
        "graph": {
            "objects": [{"id": name, "bbox": box} for name in ids],
            "relationships": [{"subject": ids[0], "predicate": HOSTILE, "object": ids[1]}],
        },
    }
    first, *rows = [{**row, **said} for row in rows_of(path)]
    write_rows(path, [{**first, "status": "empty", "graph": None, "error": HOSTILE}, *rows])


def write_rows(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="ascii")


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="ascii")
