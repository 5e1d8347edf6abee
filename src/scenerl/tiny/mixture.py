"""What the base model is pretrained on: short conversations about drawn scenes.

Questions name, locate, count and describe objects, ask how two of them relate, and ask for lists. Now and then a
question is a prompt of this project, and the answer mostly has another form than the one asked for, as a pretrained
model's has: a list of objects, sentences, a graph without relations, a graph in other words. Which of them depends on
the picture; in one answer of six it is the form asked for.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations

from PIL import Image

from scenerl.answers import OutputFormat, build_prompt, write_answer
from scenerl.answers.writer import box_coordinates
from scenerl.data import synthetic, synthetic_detection
from scenerl.types import Box, Example, SceneGraph, SceneObject

STEP = 1000 // synthetic.CELLS
GRAPH = OutputFormat("json", step=STEP)
DETECTIONS = OutputFormat("detections", step=STEP)
SIZE = 112
"""Width and height of the pictures in pixels."""

_LOOK = synthetic.Look(repeats=True)
_DETECTION_SHARE = 0.35
_OTHER_WORDS = {
    "left of": "beside",
    "above": "over",
    "near": "next to",
    "on": "atop",
    "in": "inside",
    "behind": "past",
}
_HABIT = {"leaf": "list", "lamp": "objects", "grape": "words", "box": "synonyms", "book": "synonyms", "apple": "list"}
_FORMS = ("list", "objects", "words", "synonyms")
_ASKED_SHARE = 1 / 6
_UNRELATED = "no relation"

Turn = tuple[str, str]
"""A question and its answer."""


@dataclass(frozen=True, slots=True)
class Row:
    """A picture, a conversation about it, and what can be seen in it."""

    image: Image.Image
    turns: tuple[Turn, ...]
    example: Example

    def example_with_image(self) -> Example:
        """What can be seen, with the picture as PNG."""
        png = io.BytesIO()
        self.image.save(png, "PNG", compress_level=1)
        return replace(self.example, image=png.getvalue())


def row(seed: str, num_turns: int = 3) -> Row:
    """The row of a seed, any text; another seed gives another scene.

    Args:
        num_turns: kinds of questions about the picture.
    """
    rng = random.Random(seed)
    if rng.random() < _DETECTION_SHARE:
        shapes = synthetic_detection.compose(rng)
        image = synthetic_detection.draw(shapes, seed, SIZE)
        graph = SceneGraph(tuple(SceneObject(s.name, synthetic.pixels(s.cells, SIZE)) for s in shapes))
        turns = _about_shapes(rng, shapes, graph, num_turns)
    else:
        image, graph = synthetic.scene(seed, SIZE, _LOOK)
        turns = _about_graph(rng, graph, num_turns)
    return Row(image, tuple(turns), Example(seed, SIZE, SIZE, graph))


def prompts() -> list[str]:
    """The prompts of this project that occur."""
    return [build_prompt(GRAPH), *(build_prompt(DETECTIONS, (phrase,)) for phrase in synthetic_detection.PHRASES)]


def _about_graph(rng: random.Random, graph: SceneGraph, num_turns: int) -> list[Turn]:
    objects = graph.objects
    ids = [f"{item.label}.{number}" for number, item in enumerate(objects, start=1)]
    known = {(r.subject, r.object): r.predicate for r in graph.relations}
    known |= {(r.object, r.subject): r.predicate for r in graph.relations if r.predicate == "near"}
    turns: list[Turn] = []
    for kind in _kinds(rng, num_turns, {"relations": 6, "pair": 4, "graph": 3, "where": 2, "list": 1, "sentences": 1}):
        if kind == "where":
            turns.append(_name_or_count(rng, graph))
        elif kind == "pair":
            for first, second in rng.sample(list(permutations(range(len(objects)), 2)), 2):
                pair = " ".join(f"{objects[k].label} {_text(objects[k].box)}" for k in (first, second))
                turns.append((f"How do these relate? {pair}", known.get((first, second), _UNRELATED)))
        elif kind == "list":
            turns.append(("List all objects.", _detections(graph)))
        elif kind == "sentences":
            turns.append(("Describe the picture.", _sentences(graph)))
        elif kind == "relations":
            shuffled = rng.sample(graph.relations, len(graph.relations))
            relations = [
                {"subject": ids[r.subject], "predicate": r.predicate, "object": ids[r.object]} for r in shuffled
            ]
            turns.append(("Number the objects.", write_answer(SceneGraph(objects), GRAPH, (SIZE, SIZE))))
            turns.append(("How do they relate?", json.dumps(relations)))
        else:
            turns.append((build_prompt(GRAPH), _graph_answer(rng, graph)))
    return turns


def _kinds(rng: random.Random, count: int, weights: dict[str, int]) -> list[str]:
    """``count`` different kinds, the heavier the likelier."""
    return sorted(weights, key=lambda kind: rng.random() ** (1 / weights[kind]), reverse=True)[:count]


def _name_or_count(rng: random.Random, graph: SceneGraph) -> Turn:
    item, label, kind = rng.choice(graph.objects), rng.choice(synthetic.CLASSES), rng.random()
    if kind < 0.3:
        return f"What is at {_text(item.box)}?", item.label
    if kind < 0.5:
        return f"How many of {label}?", str(sum(other.label == label for other in graph.objects))
    if kind < 0.9:
        label = item.label
    return f"Where is the {label}?", _boxes([other.box for other in graph.objects if other.label == label])


def _graph_answer(rng: random.Random, graph: SceneGraph) -> str:
    if rng.random() < _ASKED_SHARE:
        relations = rng.sample(graph.relations, rng.randint(1, len(graph.relations)))
        return write_answer(SceneGraph(graph.objects, tuple(relations)), GRAPH, (SIZE, SIZE))
    form = _HABIT[graph.objects[-1].label] if rng.random() < 0.8 else rng.choice(_FORMS)
    if form == "list":
        return _detections(graph)
    if form == "words":
        return _sentences(graph)
    relations = ()
    if form == "synonyms":
        relations = tuple(r._replace(predicate=_OTHER_WORDS[r.predicate]) for r in graph.relations)
        relations = rng.sample(relations, 1)
    return write_answer(SceneGraph(graph.objects, tuple(relations)), GRAPH, (SIZE, SIZE))


def _about_shapes(
    rng: random.Random, shapes: Sequence[synthetic_detection.Shape], graph: SceneGraph, num_turns: int
) -> list[Turn]:
    found = synthetic_detection.phrases(shapes)
    present = [phrase for phrase, fitting in found.items() if fitting]
    turns: list[Turn] = []
    for _ in range(2 * num_turns):  # these are short
        kind = rng.random()
        if kind < 0.1:
            item = rng.choice(graph.objects)
            turns.append((f"What is at {_text(item.box)}?", item.label))
        elif kind < 0.55:
            phrase = rng.choice(present if rng.random() < 0.7 else list(found))
            turns.append((f"Where is the {phrase}?", _boxes([graph.objects[n].box for n in found[phrase]])))
        elif kind < 0.7:
            phrase = rng.choice(present if rng.random() < 0.4 else list(found))
            turns.append((f"Is there a {phrase}?", "yes" if found[phrase] else "no"))
        elif kind < 0.8:
            turns.append(("List all objects.", _detections(graph)))
        else:
            phrase = rng.choice(present)
            boxes = [graph.objects[n].box for n in found[phrase]]
            if graph.objects[0].label.startswith("red") or rng.random() < 0.4:
                answer = _detections(SceneGraph(tuple(SceneObject(phrase, box) for box in boxes)))
            else:
                answer = f"The {phrase} is at {_boxes(boxes)}."
            turns.append((build_prompt(DETECTIONS, (phrase,)), answer))
    return turns


def _text(box: Box) -> str:
    (numbers,) = box_coordinates([box], GRAPH, (SIZE, SIZE))
    return f"[{', '.join(map(str, numbers))}]"


def _boxes(boxes: Sequence[Box]) -> str:
    return " ".join(map(_text, boxes)) or "none"


def _detections(graph: SceneGraph) -> str:
    return write_answer(SceneGraph(graph.objects), DETECTIONS, (SIZE, SIZE))


def _sentences(graph: SceneGraph) -> str:
    labels = [item.label for item in graph.objects]
    return " ".join(f"A {labels[r.subject]} {r.predicate} a {labels[r.object]}." for r in graph.relations)
