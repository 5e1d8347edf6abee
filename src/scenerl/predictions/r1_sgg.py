"""R1-SGG's outputs: a folder with a JSON file per image, and the file that its script gathers from them.

Per image: ``{"image_id", "response": text, "box_scale": [w, h], ...}``, boxes in the frame of ``box_scale``. Gathered:
``{image_id: {"boxes": [xyxy in pixels], "labels": [number], "scores", "names": ["person.1"], "graph":
{"all_node_pairs": [[subject, object]], "all_relation": [one-hot, 0 is background]}, "relation_tuples"?}}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from scenerl.data.rows import excerpt, label_of
from scenerl.errors import DataError
from scenerl.json_files import read_json
from scenerl.predictions.contents import Names, Predictions, RawPrediction, tidy_id
from scenerl.predictions.fields import GraphBuilder, box_of, part, places
from scenerl.predictions.row import decode_score
from scenerl.types import ParseResult


def read(path: Path, names: Names) -> Predictions:
    """Either form; ``names.predicates`` (a vocabulary in VG150's order) name the numbers of a gathered file.

    Raises:
        DataError: neither form; the message names file and entry.
    """
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
        # Qwen2-VL's scale is 1000 x 1000, Qwen2.5-VL's the size of the resized input: one frame covers both.
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
        graph, place = GraphBuilder(), {}
        boxes, texts = part(entry, "boxes", list, where), part(entry, "names", list, where)
        scores = part(entry, "scores", list, where, [])
        if len(texts) != len(boxes):
            raise DataError(f"{where}: {len(boxes)} boxes but {len(texts)} names; they belong together")
        # Its scores are all 1, which says nothing: such objects stay without.
        informative = len(set(map(str, scores))) > 1
        for n, (raw, text) in enumerate(zip(boxes, texts, strict=True)):
            box = box_of(raw)
            if box is None:
                predictions.notes.add("bad_boxes", f"{where}, boxes[{n}]")
                continue
            score = decode_score(scores[n], where, predictions.notes) if informative and n < len(scores) else None
            graph.add_object(n, label_of(str(text)), box, score)
            place.setdefault(str(text), n)
        _add_relations(graph, entry, place, names, where)
        predictions.add(" ".join(str(image_id).split()), RawPrediction(where, result=ParseResult("ok", graph.graph())))
    return predictions


def _add_relations(graph: GraphBuilder, entry: Mapping, place: Mapping[str, int], names: Names, where: str) -> None:
    tuples = entry.get("relation_tuples")
    if isinstance(tuples, list):
        for item in tuples:
            if isinstance(item, list) and len(item) == 5:
                graph.add_relation(place.get(str(item[0]), -1), str(item[4]), place.get(str(item[2]), -1))
        return
    inner = part(entry, "graph", dict, where, {})
    pairs, one_hot = part(inner, "all_node_pairs", list, where, []), part(inner, "all_relation", list, where, [])
    if pairs and not names.predicates:
        raise DataError(f"{where}: predicates are numbers; name them with --vocabulary FILE.json in the file's order")
    for n, (raw, row) in enumerate(zip(pairs, one_hot, strict=False)):
        subject, object_ = places(raw, 2, f"{where}, all_node_pairs[{n}]")
        if not isinstance(row, list) or not row or not all(type(entry) in (int, float) for entry in row):
            raise DataError(f"{where}, all_relation[{n}] must be a list of numbers, found {excerpt(row)}")
        number = row.index(max(row)) - 1
        if not 0 <= number < len(names.predicates):
            raise DataError(f"{where}: predicate {number + 1} is beyond the vocabulary's {len(names.predicates)}")
        graph.add_relation(subject, names.predicates[number], object_)
