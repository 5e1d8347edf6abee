"""R1-SGG's outputs: a folder with a JSON file per image, and the file that its script gathers from them.

Per image: ``{"image_id", "response": text, "box_scale": [w, h], ...}``, boxes in units of ``box_scale``. Gathered, by
``src/sgg_gather_preds.py``: ``{image_id: {"boxes": [xyxy in pixels], "labels": [number], "scores", "names": ["jean.3"],
"names_target": ["jean"], "relation_tuples": [["jean", box, "shirt", box, "on"]], "graph": {"all_node_pairs": [[subject,
object]], "all_relation": [one-hot, 0 is background]}}}``. ``names`` are the ids that the model wrote and
``names_target`` the labels that they were mapped to. Its older versions write neither ``names_target`` nor
``relation_tuples``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from scenerl.answers.elements import excerpt, label_of
from scenerl.data.ground_truth import Names
from scenerl.data.instances import tidy_id
from scenerl.data.records import four_finite
from scenerl.errors import DataError, counted
from scenerl.json_files import read_json
from scenerl.predictions.contents import NumberedGraph, Predictions, RawPrediction, part, places
from scenerl.predictions.row import decode_score
from scenerl.types import ParseResult

_FAILED = ["unknown"]
"""What stands in ``names`` of an image whose answer the script could not use; its one box is uninitialised memory."""


def read(path: Path, names: Names) -> Predictions:
    """Either form; ``names.predicates`` (a vocabulary in VG150's order) name the predicates of an old gathered file."""
    return (_folder(path) if path.is_dir() else _gathered(path, names)).require_some()


def _folder(path: Path) -> Predictions:
    predictions = Predictions(path)
    files = sorted(path.glob("*.json"))
    if not files:
        raise DataError(f"{path} holds no *.json; a folder of predictions is R1-SGG's, with a JSON file per image")
    for file in files:
        try:
            value = read_json(file, "an R1-SGG result")
        except DataError:
            predictions.notes.add("broken_rows", file.name)
            continue
        image_id = tidy_id(value.get("image_id")) if isinstance(value, Mapping) else None
        if image_id is None or "response" not in value:
            predictions.notes.add("unnamed_rows", file.name)
            continue
        scale = value.get("box_scale") or [1000.0, 1000.0]
        # Qwen2-VL's scale is 1000 x 1000, Qwen2.5-VL's the size of the resized input: one box format covers both.
        row = {"answer": value["response"], "frame": "resized", "input_wh": scale}
        predictions.add(image_id, RawPrediction(str(file), row=row))
    return predictions


def _gathered(path: Path, names: Names) -> Predictions:
    value = read_json(path, "R1-SGG's gathered predictions: a JSON object of image ids")
    if not isinstance(value, Mapping):
        raise DataError(f"{path}: expected R1-SGG's gathered predictions, a JSON object, found {excerpt(value)}")
    predictions = Predictions(path)
    for image_id, entry in value.items():
        where = f"{path}: {excerpt(image_id)}"
        result = _result(entry, where, names, predictions)
        predictions.add(" ".join(str(image_id).split()), RawPrediction(where, result=result))
    return predictions


def _result(entry: object, where: str, names: Names, predictions: Predictions) -> ParseResult:
    """One image of a gathered file."""
    boxes, ids = part(entry, "boxes", list, where), part(entry, "names", list, where)
    labels = part(entry, "names_target", list, where, [label_of(str(text)) for text in ids])
    scores = part(entry, "scores", list, where, [])
    for key, listed in (("names", ids), ("names_target", labels)):
        if len(listed) != len(boxes):
            raise DataError(f"{where}: {counted(len(boxes), 'box')} but {len(listed)} {key}; they belong together")
    if ids == _FAILED and not entry.get("relation_tuples"):
        return ParseResult("no_answer", None)
    graph = NumberedGraph()
    # Its scores are all 1, which says nothing: such objects stay without.
    informative = len(set(map(str, scores))) > 1
    for n, (raw, label) in enumerate(zip(boxes, labels, strict=True)):
        box = four_finite(raw)
        if box is None:
            predictions.notes.add("bad_boxes", f"{where}, boxes[{n}]")
            continue
        score = decode_score(scores[n], where, predictions.notes) if informative and n < len(scores) else None
        graph.add_object(n, str(label), box, score)
    for n, (subject, predicate, object_) in enumerate(_relations(entry, ids, labels, where, names)):
        if not graph.add_relation(subject, predicate, object_):
            predictions.notes.add("lost_relations", f"{where}, relation {n}")
    return ParseResult("ok", graph.graph())


def _relations(
    entry: Mapping, ids: list, labels: list, where: str, names: Names
) -> list[tuple[int | None, str, int | None]]:
    """Number of the subject, predicate and number of the object of each relation; None where no object fits."""
    graph = part(entry, "graph", dict, where, {})
    pairs = part(graph, "all_node_pairs", list, where, [])
    ends = [places(pair, 2, f"{where}, all_node_pairs[{n}]") for n, pair in enumerate(pairs)]
    tuples = entry.get("relation_tuples")
    if tuples is None:
        one_hot = part(graph, "all_relation", list, where, [])
        if len(one_hot) != len(ends):
            raise DataError(
                f"{where}: {len(ends)} all_node_pairs but {len(one_hot)} all_relation; they belong together"
            )
        return [
            (subject, _predicate(row, f"{where}, all_relation[{n}]", names), object_)
            for n, ((subject, object_), row) in enumerate(zip(ends, one_hot, strict=True))
        ]
    if not isinstance(tuples, list) or not all(isinstance(item, list) and len(item) == 5 for item in tuples):
        raise DataError(f"{where}: 'relation_tuples' must be a list of [label, box, label, box, predicate]")
    if len(ends) == len(tuples):
        return [(subject, str(item[4]), object_) for (subject, object_), item in zip(ends, tuples, strict=True)]
    # Without the pairs: by label, or id, and box.
    number: dict[str, int] = {}
    for n, (box, label, object_id) in enumerate(zip(entry["boxes"], labels, ids, strict=True)):
        number.setdefault(str((object_id, box)), n)
        number.setdefault(str((label, box)), n)
    return [
        (number.get(str((s, s_box))), str(name), number.get(str((o, o_box)))) for s, s_box, o, o_box, name in tuples
    ]


def _predicate(row: object, where: str, names: Names) -> str:
    """The name behind a one-hot row."""
    if not names.predicates:
        raise DataError(f"{where}: predicates are numbers; name them with --vocabulary FILE.json in the file's order")
    if not isinstance(row, list) or not row or not all(type(entry) in (int, float) for entry in row):
        raise DataError(f"{where} must be a list of numbers, found {excerpt(row)}")
    number = row.index(max(row)) - 1
    if not 0 <= number < len(names.predicates):
        raise DataError(f"{where}: predicate {number + 1} is beyond the vocabulary's {len(names.predicates)}")
    return names.predicates[number]
