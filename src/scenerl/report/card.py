"""One image of the gallery with its ground truth and every stage's answer, as the JSON that the page's script draws.

`templates/gallery.js` draws a card when it comes into view, so that hundreds of images open as fast as one. What it
gets is bounded, and free of characters that cannot be shown.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from scenerl.data.images import open_image
from scenerl.errors import DataError
from scenerl.metrics.matches import Matches
from scenerl.report.answers import Answer
from scenerl.report.drawing import MAX_RELATIONS, drawn_objects, palette, rounded
from scenerl.report.text import ANSWER_LIMIT, short, truncated
from scenerl.types import ISSUES, Example, SceneGraph

IMAGE_BYTES = 24_000_000
ANSWER_CHARACTERS = 8_000_000
"""What all embedded images, and all raw answers, may take together: larger galleries have coarser images and shorter
answers, so that the page can still be opened."""

SIZES = ((640, 82), (640, 60), (400, 70), (400, 55), (400, 40), (400, 25))
"""Longest side in pixels and WebP quality of an embedded image, the best first."""
MAX_ISSUES = 20


def make_card(
    example: Example,
    answers: Sequence[tuple[Answer | None, Matches]],
    lacking: Sequence[Sequence[int]],
    num_cards: int = 1,
) -> tuple[str | None, dict[str, Any]]:
    """One image with its ground truth and answers: its picture as WebP in base64, None where it cannot be read, and the
    values that the script draws.

    The values: ``id``, ``wh``, ``problem`` (why there is no picture), ``query`` (requested labels), ``target`` and
    ``stages``. A target has ``objects``, ``relations`` and their numbers ``n`` (the lists are bounded, the numbers are
    not); a stage has the same and ``status``, ``found`` (objects that match), ``counts`` of relations by state, ``f1``
    of relations and of objects, ``issues``, ``answer`` and what is known of it.

    Objects are those of :func:`scenerl.report.drawing.drawn_objects`. A relation is ``[subject, predicate, object,
    state, score, votes]`` with numbers of objects from 0; in a target the last three are instead per stage 1 where it
    found the relation, and the numbers of the other targets that lack it.

    Args:
        example: the image and the ground truth that answers are matched with.
        answers: every stage's answer, None where it has none, and what of it matches.
        lacking: per relation of the ground truth, the numbers of the other targets that lack it.
        num_cards: how many cards share the page.
    """
    picture, problem = None, ""
    try:
        picture = encode_image(open_image(example), IMAGE_BYTES // num_cards)
    except DataError as error:
        # The folder says nothing to a reader elsewhere.
        folder = f"{example.image.parent}/" if isinstance(example.image, Path) else ""
        problem = short(str(error).replace(folder, "") if folder else str(error), 200)
    graphs = [example.graph, *(graph_of(answer) for answer, _ in answers)]
    colors = palette(item.label for graph in graphs for item in graph.objects)
    limit = max(500, min(ANSWER_LIMIT, ANSWER_CHARACTERS // (num_cards * max(1, len(answers)))))
    found_in = [matches.relations.found for _, matches in answers]
    target = {
        "objects": drawn_objects(example.graph, example.image_wh, colors),
        "relations": [
            [
                relation.subject,
                short(relation.predicate),
                relation.object,
                [int(found[n]) for found in found_in],
                list(lacking[n]),
            ]
            for n, relation in enumerate(example.graph.relations[:MAX_RELATIONS])
        ],
        "n": [len(example.graph.objects), len(example.graph.relations)],
    }
    stages = []
    for answer, matches in answers:
        votes = answer.votes("objects") if answer else ()
        matched = [target is not None for target in matches.objects.target]
        objects = drawn_objects(graph_of(answer), example.image_wh, colors, matched, votes)
        stages.append({"objects": objects, **_of_answer(answer, matches, limit)})
    return picture, {
        "id": short(example.image_id),
        "wh": list(example.image_wh),
        "problem": problem,
        "query": [short(label) for label in example.query or ()],
        "target": target,
        "stages": stages,
    }


def graph_of(answer: Answer | None) -> SceneGraph:
    """What an answer says; nothing where it is missing or failed."""
    return (answer and answer.result.graph) or SceneGraph()


def encode_image(image: Image.Image, max_bytes: int = 100_000, sizes: Sequence[tuple[int, int]] = SIZES) -> str:
    """An image as WebP in base64: the best of ``sizes`` that fits into ``max_bytes``, or the least."""
    image = image.convert("RGB")
    for side, quality in sizes:
        image.thumbnail((side, side))
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=quality, method=2)
        if buffer.tell() <= max_bytes:
            break
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _of_answer(answer: Answer | None, matches: Matches, limit: int) -> dict[str, Any]:
    # A repeated relation fits, but another one has its target.
    pairs = zip(matches.relations.target, matches.relations.fits, strict=True)
    states = ["hit" if target is not None else "repeat" if fits else "false" for target, fits in pairs]
    counts = {state: states.count(state) for state in ("hit", "repeat", "false")}
    values: dict[str, Any] = {
        "counts": {**counts, "miss": matches.relations.found.count(False)},
        "f1": [round(matches.relations.f1, 4), round(matches.objects.f1, 4)],
        "found": matches.objects.num_matched,
        "n": [len(matches.objects.target), len(states)],
    }
    if answer is None:
        return {**values, "status": "missing", "relations": []}
    issues, row = answer.result.issues, answer.row
    relations, votes = graph_of(answer).relations, answer.votes("relationships")
    values |= {
        "status": short(answer.result.status),
        "relations": [
            [relation.subject, short(relation.predicate), relation.object, state, rounded(relation.score), count]
            for relation, state, count in zip(relations[:MAX_RELATIONS], states, votes, strict=False)
        ],
        "issues": [
            [short(issue.kind), short(issue.where), short(issue.detail, 160), ISSUES.get(issue.kind, "")]
            for issue in issues[:MAX_ISSUES]
        ],
        "numIssues": len(issues),
        "tokens": answer.number("num_tokens"),
        "truncated": row.get("finish_reason") == "length",
        "answers": answer.number("answers"),
    }
    if isinstance(row.get("error"), str):
        values["error"] = short(row["error"], 200)
    if row.get("answer") is not None:
        text = row["answer"]
        values["answer"], values["note"] = truncated(text if isinstance(text, str) else repr(text), limit)
    return values
