"""One image of the gallery with its ground truth and every stage's answer, as the JSON that the page's script draws.

`templates/gallery.js` draws a card when it comes into view, so that hundreds of images open as fast as one. What it
reads is bounded, and free of characters that cannot be shown.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from scenerl.boxes import as_boxes, clip
from scenerl.data.images import open_image
from scenerl.errors import DataError
from scenerl.report.hits import FALSE, HIT, REPEAT, Hits, compare
from scenerl.report.predictions import Prediction
from scenerl.report.text import ANSWER_LIMIT, cut, short
from scenerl.types import ISSUES, Example, SceneGraph

IMAGE_SIDE = 400
"""Longest side of an embedded image, in pixels."""

IMAGE_BYTES = 24_000_000
ANSWER_CHARACTERS = 8_000_000
"""What all embedded images, and all raw answers, may take together: larger galleries have coarser images and shorter
answers, so that the page can still be opened."""

QUALITIES = (82, 70, 55, 40, 25)
MAX_BOXES, MAX_RELATIONS, MAX_ISSUES = 100, 60, 20
NUM_COLORS = 8


@dataclass(frozen=True, slots=True)
class Card:
    """One image. ``picture`` is its WebP in base64, None where it could not be read; ``values`` is what the script
    draws, see :func:`make_card`."""

    picture: str | None
    values: dict[str, Any]


def make_card(
    example: Example,
    predictions: Sequence[Prediction | None],
    other_targets: Sequence[SceneGraph | None] = (),
    num_cards: int = 1,
) -> Card:
    """One image with its ground truth and answers.

    The values: ``id``, ``wh``, ``problem`` (why there is no picture), ``query`` (labels asked for), ``target`` and
    ``stages``. A target has ``objects``, ``relations`` and their numbers ``n`` (the lists are bounded, the numbers are
    not); a stage has the same and ``status``, ``found`` (objects that match), ``counts`` of relations by state, ``f1``
    of relations and of objects, ``issues``, ``answer`` and what is known of it.

    An object is ``[label, colour, found, score, votes, x, y, width, height]``, clipped to the image and in its pixels,
    without the last four where nothing of the box is in the image. A relation is ``[subject, predicate, object, state,
    score, votes]`` with numbers of objects from 0; in a target the last three are instead per stage 1 where it found
    the relation, and the numbers of the other targets that lack it.

    Args:
        example: the image and the ground truth that hits are counted against.
        predictions: every stage's answer, None where it has none.
        other_targets: other annotations of the same image, None where they do not have it.
        num_cards: how many cards share the page.
    """
    picture, problem = None, ""
    try:
        picture = encode_image(open_image(example), IMAGE_BYTES // num_cards)
    except DataError as error:
        # The folder says nothing to a reader elsewhere.
        folder = f"{example.image.parent}/" if isinstance(example.image, Path) else ""
        problem = short(str(error).replace(folder, "") if folder else str(error), 200)
    empty = SceneGraph()
    graphs = [prediction.graph if prediction and prediction.graph else empty for prediction in predictions]
    hits = [compare(graph, example.graph) for graph in graphs]
    labels = dict.fromkeys(item.label for graph in (example.graph, *graphs) for item in graph.objects)
    colors = {label: place % NUM_COLORS for place, label in enumerate(labels)}
    limit = max(500, min(ANSWER_LIMIT, ANSWER_CHARACTERS // (num_cards * max(1, len(predictions)))))
    found_in = [compare(other, example.graph).found if other else None for other in other_targets]
    target = {
        "objects": _objects(example.graph, (), (), colors, example.image_wh),
        "relations": [
            [
                relation.subject,
                short(relation.predicate),
                relation.object,
                [int(hit.found[n]) for hit in hits],
                [other for other, found in enumerate(found_in) if found and not found[n]],
            ]
            for n, relation in enumerate(example.graph.relations[:MAX_RELATIONS])
        ],
        "n": [len(example.graph.objects), len(example.graph.relations)],
    }
    stages = [
        {
            "objects": _objects(
                graph, hit.objects, prediction.object_votes if prediction else (), colors, example.image_wh
            ),
            **_answer(prediction, hit, limit),
        }
        for prediction, graph, hit in zip(predictions, graphs, hits, strict=True)
    ]
    values = {
        "id": short(example.image_id),
        "wh": list(example.image_wh),
        "problem": problem,
        "query": [short(label) for label in example.query or ()],
        "target": target,
        "stages": stages,
    }
    return Card(picture, values)


def encode_image(image: Image.Image, max_bytes: int = 100_000) -> str:
    """An image as WebP in base64, its longest side at most IMAGE_SIDE pixels; the best of QUALITIES that fits into
    ``max_bytes``, or the least."""
    image = image.convert("RGB")
    image.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
    for quality in QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=quality, method=2)
        if buffer.tell() <= max_bytes:
            break
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _objects(
    graph: SceneGraph,
    found: Sequence[bool],
    votes: Sequence[int | None],
    colors: Mapping[str, int],
    image_wh: tuple[int, int],
) -> list[list]:
    clipped = clip(as_boxes([item.box for item in graph.objects]), image_wh).round(1).tolist()
    rows = []
    for n, (item, (x1, y1, x2, y2)) in enumerate(zip(graph.objects[:MAX_BOXES], clipped, strict=False)):
        row = [
            short(item.label),
            colors[item.label],
            int(found[n]) if found else 1,
            _score(item.score),
            votes[n] if votes else None,
        ]
        rows.append([*row, x1, y1, round(x2 - x1, 1), round(y2 - y1, 1)] if x2 > x1 and y2 > y1 else row)
    return rows


def _answer(prediction: Prediction | None, hits: Hits, limit: int) -> dict[str, Any]:
    counts = {state: hits.relations.count(state) for state in (HIT, REPEAT, FALSE)}
    counts["miss"] = len(hits.found) - sum(hits.found)
    values = {
        "counts": counts,
        "f1": [round(hits.f1(of_relations), 4) for of_relations in (True, False)],
        "found": sum(hits.objects),
        "n": [len(hits.objects), len(hits.relations)],
    }
    if prediction is None:
        return {**values, "status": "missing", "relations": []}
    graph = prediction.graph or SceneGraph()
    votes = prediction.relation_votes or (None,) * len(graph.relations)
    values |= {
        "status": short(prediction.status),
        "relations": [
            [relation.subject, short(relation.predicate), relation.object, state, _score(relation.score), count]
            for relation, state, count in zip(graph.relations[:MAX_RELATIONS], hits.relations, votes, strict=False)
        ],
        "issues": [
            [short(issue.kind), short(issue.where), short(issue.detail, 160), ISSUES.get(issue.kind, "")]
            for issue in prediction.issues[:MAX_ISSUES]
        ],
        "numIssues": len(prediction.issues),
        "tokens": prediction.num_tokens,
        "truncated": prediction.finish_reason == "length",
        "answers": prediction.num_answers,
    }
    if prediction.error is not None:
        values["error"] = short(prediction.error, 200)
    if prediction.answer is not None:
        values["answer"], values["note"] = cut(prediction.answer, limit)
    return values


def _score(score: float | None) -> float | None:
    return None if score is None else round(score, 3)
