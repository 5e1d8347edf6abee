"""Prediction rows as the report needs them: the parsed graph, and what there is to say about the raw answer."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenerl.data.jsonl import read_jsonl
from scenerl.data.rows import label_of
from scenerl.errors import UserError
from scenerl.types import Issue, Relation, SceneGraph, SceneObject


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer about one image. ``graph`` is None exactly when ``status`` is not ``ok``.

    ``error`` says why the image could not be read. A graph that was merged from ``num_answers`` answers has votes, one
    for each object and relation.
    """

    image_id: str
    status: str
    graph: SceneGraph | None
    issues: tuple[Issue, ...] = ()
    answer: str | None = None
    num_tokens: int | None = None
    finish_reason: str | None = None
    error: str | None = None
    num_answers: int | None = None
    object_votes: tuple[int | None, ...] = ()
    relation_votes: tuple[int | None, ...] = ()


def image_id_of(row: Mapping) -> str:
    """A row's image id as text, its white space tidied as data rows have it."""
    return " ".join(str(row.get("image_id")).split())


def read_outline(path: Path) -> Iterator[tuple[str, str, tuple[str, ...], int]]:
    """Image id, status, kinds of issues and the number of answers merged (0: none) of every image's first answer,
    without keeping the rows in memory.

    Raises:
        UserError: a row is not as ``scenerl predict`` writes it; the message names file and row.
    """
    for _, row, where in _first_samples(path):
        kinds = tuple(issue.kind for issue in _issues(row, where))
        yield row["image_id"], row["status"], kinds, _count(row, "answers") or 0


def read_predictions(path: Path, image_ids: Collection[str]) -> dict[str, Prediction]:
    """The first answer for each of these images, where there is one.

    Raises:
        UserError: a row is not as ``scenerl predict`` writes it; the message names file and row.
    """
    return {prediction.image_id: prediction for prediction in stream_predictions(path, image_ids)}


def stream_predictions(path: Path, image_ids: Collection[str]) -> Iterator[Prediction]:
    """:func:`read_predictions` one by one, in the order of the file."""
    wanted = set(image_ids)
    for _, row, where in _first_samples(path):
        if row["image_id"] not in wanted:
            continue
        graph = read_graph(row.get("graph"), where) if row["status"] == "ok" else None
        answer = row.get("answer")
        yield Prediction(
            image_id=row["image_id"],
            status=row["status"],
            graph=graph,
            issues=_issues(row, where),
            answer=answer if answer is None or isinstance(answer, str) else repr(answer),
            num_tokens=_count(row, "num_tokens"),
            finish_reason=row["finish_reason"] if isinstance(row.get("finish_reason"), str) else None,
            error=row["error"] if isinstance(row.get("error"), str) else None,
            num_answers=_count(row, "answers"),
            object_votes=tuple(_count(item, "votes") for item in row["graph"].get("objects") or ()) if graph else (),
            relation_votes=(
                tuple(_count(item, "votes") for item in row["graph"].get("relationships") or ()) if graph else ()
            ),
        )


def read_graph(value: Any, where: str) -> SceneGraph:
    """The graph of a prediction row; boxes are pixels of the original image and may leave it.

    Raises:
        UserError: it is not as ``scenerl predict`` writes it; the message starts with ``where``.
    """
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: graph is {type(value).__name__}; an answer with status ok has an object there")
    objects, index = [], {}
    for n, item in enumerate(_list(value, "objects", where)):
        try:
            object_id, box = item["id"], tuple(float(number) for number in item["bbox"])
            objects.append(SceneObject(label_of(object_id), box, _score(item)))
            index[object_id] = n
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{where}: graph.objects[{n}] needs an 'id' and a 'bbox' of numbers ({error})") from None
        if len(box) != 4 or not all(map(math.isfinite, box)):
            raise UserError(f"{where}: graph.objects[{n}] has a bbox that is not four finite numbers")
    relations = []
    for n, item in enumerate(_list(value, "relationships", where)):
        try:
            relation = Relation(index[item["subject"]], str(item["predicate"]), index[item["object"]], _score(item))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{where}: graph.relationships[{n}] names no object that is there ({error})") from None
        relations.append(relation)
    return SceneGraph(tuple(objects), tuple(relations))


def _first_samples(path: Path) -> Iterator[tuple[int, dict, str]]:
    seen = set()
    for number, row in read_jsonl(path):
        where = f"{path}, row {number}"
        for key in ("image_id", "status"):
            if key not in row:
                raise UserError(f"{where}: the key {key!r} is missing; the report reads what `scenerl predict` writes")
        if not isinstance(row["status"], str):
            raise UserError(f"{where}: status is not a text")
        row["image_id"] = image_id_of(row)
        if row["image_id"] not in seen:
            seen.add(row["image_id"])
            yield number, row, where


def _issues(row: Mapping, where: str) -> tuple[Issue, ...]:
    issues = []
    for n, item in enumerate(_list(row, "issues", where)):
        if not isinstance(item, Mapping) or not isinstance(item.get("kind"), str):
            raise UserError(f"{where}: issues[{n}] has no 'kind'")
        issues.append(Issue(item["kind"], str(item.get("where", "")), str(item.get("detail", ""))))
    return tuple(issues)


def _list(row: Mapping, key: str, where: str) -> list:
    value = row.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise UserError(f"{where}: {key} is {type(value).__name__}; allowed: a list")
    return value


def _score(item: Mapping) -> float | None:
    """A score that is not finite tells nothing and is left out."""
    score = item.get("score")
    return None if score is None or not math.isfinite(float(score)) else float(score)


def _count(item: Mapping, key: str) -> int | None:
    value = item.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
