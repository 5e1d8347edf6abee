"""What the scripts here share: the machine in words, Markdown tables, times of tasks that take turns, random graphs."""

from __future__ import annotations

import os
import platform
import random
import time
from collections.abc import Callable, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path

from scenerl.types import Relation, SceneGraph, SceneObject

IMAGE_WH = (800, 600)
LABELS = [f"class {index}" for index in range(12)]
PREDICATES = ["on", "near", "in", "under", "behind", "holding"]
GRAPH_REWARDS = ("format", "node_label", "node_box", "hard_recall", "relaxed_recall", "soft_recall")


def print_conditions(clock: str, packages: Sequence[str]) -> None:
    """Machine, what is measured, versions and date."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = named[0] if named else platform.processor() or platform.machine()
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    print(
        f"{processor}, {os.cpu_count()} cores; {clock}; Python {platform.python_version()}, {versions}; {date.today()}"
    )


def print_head(*names: str, left: int = 0) -> None:
    """The first two lines of a table; the first ``left`` columns are text."""
    print()
    print_row(*names)
    print_row(*(["---"] * left + ["---:"] * (len(names) - left)))


def print_row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def best_seconds(rounds: int, tasks: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Least wall time of each task over so many rounds, in which they take turns."""
    best = dict.fromkeys(tasks, float("inf"))
    for _ in range(rounds):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def random_graph(rng: random.Random, num_objects: int, num_relations: int) -> SceneGraph:
    objects = []
    for _ in range(num_objects):
        x, y, width, height = rng.randint(0, 600), rng.randint(0, 450), rng.randint(20, 200), rng.randint(20, 150)
        objects.append(SceneObject(rng.choice(LABELS), (float(x), float(y), float(x + width), float(y + height))))
    relations: dict[tuple[int, str, int], None] = {}
    while len(relations) < num_relations:
        subject, object_ = rng.sample(range(num_objects), 2)
        relations[subject, rng.choice(PREDICATES), object_] = None
    return SceneGraph(tuple(objects), tuple(Relation(*relation) for relation in relations))


def noisy(rng: random.Random, graph: SceneGraph) -> SceneGraph:
    """What a fair model says of it: boxes off by some pixels, a fifth of labels and predicates wrong, another order."""
    order = rng.sample(range(len(graph.objects)), len(graph.objects))
    place = {old: new for new, old in enumerate(order)}
    objects = []
    for old in order:
        item = graph.objects[old]
        x1, y1, x2, y2 = (coordinate + rng.randint(-8, 8) for coordinate in item.box)
        label = item.label if rng.random() < 0.8 else rng.choice(LABELS)
        objects.append(SceneObject(label, (max(x1, 0.0), max(y1, 0.0), x2, y2)))
    relations = {
        (place[edge.subject], edge.predicate if rng.random() < 0.8 else rng.choice(PREDICATES), place[edge.object])
        for edge in graph.relations
    }
    return SceneGraph(tuple(objects), tuple(Relation(*relation) for relation in sorted(relations)))


def pairs(count: int, num_objects: int, num_relations: int) -> list[tuple[SceneGraph, SceneGraph]]:
    rng = random.Random(0)
    targets = [random_graph(rng, num_objects, num_relations) for _ in range(count)]
    return [(noisy(rng, target), target) for target in targets]
