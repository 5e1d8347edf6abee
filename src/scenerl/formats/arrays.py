"""Scene-Graph-Benchmark's results as arrays: ``custom_prediction.json`` with ``custom_data_info.json`` beside it.

Predictions: ``{"0": {"bbox": [xyxy], "bbox_labels", "bbox_scores", "rel_pairs", "rel_labels", "rel_scores",
"rel_all_scores"?}}``, sorted by score. The info file holds ``idx_to_files``, ``ind_to_classes`` and
``ind_to_predicates``, whose entry 0 is the background. An ``.npz`` of the same keys is read too: rows of all images one
after another, ``bbox_image`` and ``rel_image`` with each row's place in ``image_id``, and the two lists of names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from scenerl.data.rows import DataError, excerpt
from scenerl.formats.files import LAST, GraphBuilder, box_of, part, score_of
from scenerl.formats.predictions import Entry, Names, Predictions
from scenerl.json_files import read_json
from scenerl.types import ParseResult

INFO = "custom_data_info.json"
KEYS = ("bbox", "bbox_labels", "bbox_scores", "rel_pairs", "rel_labels", "rel_scores")
TOP = 100
"""Relations without the graph constraint that are kept of ``rel_all_scores``, as the benchmark's own evaluator does."""


def read(path: Path, names: Names) -> Predictions:
    """Either file. A relation's score is the product of its own and of both objects', as the benchmark ranks them.

    With ``rel_all_scores`` (a score per predicate, 0 the background) the 100 best predicates of all pairs are read,
    which ng-R@K needs; else one predicate per pair.

    Raises:
        DataError: the file is not of the schema.
    """
    predictions = Predictions(path)
    for image_id, entry, classes, predicates in _images(path):
        where = f"{path}: image {excerpt(image_id)}"
        lists = {key: part(entry, key, list, where) for key in KEYS}
        every = entry.get("rel_all_scores")
        graph, scores = GraphBuilder(), {}
        for n, (raw, label) in enumerate(zip(lists["bbox"], lists["bbox_labels"], strict=False)):
            box = box_of(raw)
            if box is None:
                predictions.note("bad_boxes", f"{where}, bbox[{n}]")
                continue
            scores[n] = score_of(lists["bbox_scores"][n], predictions, where)
            graph.add_object(n, _name(classes, label, where), box, scores[n])
        found = []
        for n, (subject, object_) in enumerate(map(tuple, lists["rel_pairs"])):
            if subject not in scores or object_ not in scores:
                continue
            ends = scores[subject], scores[object_]
            if isinstance(every, list):
                found += [(_product(*ends, s), subject, p, object_) for p, s in enumerate(every[n]) if p > 0]
            else:
                score = score_of(lists["rel_scores"][n], predictions, where)
                found.append((_product(*ends, score), subject, lists["rel_labels"][n], object_))
        found.sort(key=lambda item: -item[0])
        for score, subject, predicate, object_ in found[: TOP if isinstance(every, list) else None]:
            graph.add_relation(subject, _name(predicates, predicate, where), object_, score)
        predictions.add(image_id, Entry(where, result=ParseResult("ok", graph.graph())))
    return predictions.close()


def _images(path: Path) -> Iterator[tuple[str, Mapping, list, list]]:
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in ("image_id", "ind_to_classes", "ind_to_predicates") if key not in archive]
            if missing:
                raise DataError(f"{path}: lacks {', '.join(missing)}")
            yield from _from_npz(dict(archive))
        return
    value = read_json(path, "Scene-Graph-Benchmark's custom_prediction.json")
    info = read_json(path.with_name(INFO), "the names that belong to custom_prediction.json")
    classes, predicates = (
        part(info, key, list, str(path.with_name(INFO))) for key in ("ind_to_classes", "ind_to_predicates")
    )
    files = part(info, "idx_to_files", list, str(path.with_name(INFO)))
    if not isinstance(value, Mapping):
        raise DataError(f"{path}: expected a JSON object of images, found {excerpt(value)}")
    for index, entry in value.items():
        if not str(index).isdecimal() or int(index) >= len(files):
            raise DataError(f"{path}: image {excerpt(index)} is not in idx_to_files ({len(files)} files)")
        yield PurePosixPath(str(files[int(index)])).stem, entry, classes, predicates


def _from_npz(archive: Mapping[str, np.ndarray]) -> Iterator[tuple[str, Mapping, list, list]]:
    """Flat arrays: ``bbox_image`` and ``rel_image`` hold the index into ``image_id`` of each object and relation."""
    classes, predicates = archive["ind_to_classes"].tolist(), archive["ind_to_predicates"].tolist()
    for n, image_id in enumerate(archive["image_id"].tolist()):
        objects, relations = archive["bbox_image"] == n, archive["rel_image"] == n
        entry = {key: archive[key][objects if key.startswith("bbox") else relations].tolist() for key in KEYS}
        if "rel_all_scores" in archive:
            entry["rel_all_scores"] = archive["rel_all_scores"][relations].tolist()
        yield str(image_id), entry, classes, predicates


def _product(*scores: float | None) -> float:
    """The product of scores; where one is missing or no number, the last place."""
    return LAST if any(score is None or score == LAST for score in scores) else float(np.prod(scores))


def _name(listed: list, number: object, where: str) -> str:
    if not isinstance(number, int) or not 0 <= number < len(listed):
        raise DataError(f"{where}: number {excerpt(number)} is beyond the {len(listed)} names")
    return str(listed[number])
