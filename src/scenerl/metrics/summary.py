"""All metrics of a data set in one report: value, interval, support, and every convention used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version

import numpy as np

from scenerl.metrics import bootstrap
from scenerl.metrics.average_precision import CocoFamily, coco_values, greedy_matches
from scenerl.metrics.candidates import Array, DataSet, Relations, collect
from scenerl.metrics.counts import Ratios, count_duplicates, matched_per_image, unmatched_per_image
from scenerl.metrics.failures import count_failures, count_issues, is_failed
from scenerl.metrics.options import MetricOptions, Pair, Triplet
from scenerl.metrics.recall import PredicateMeans, hit_targets, image_recall

FIXED_CONVENTIONS = {
    "scale": "0 to 1",
    "failed_answers": "count as empty predictions",
    "ranking": "by score, else order of emission; an element without a score has score 1",
    "precision_matching": "largest one-to-one matching, summed over images",
    "average_precision": "COCO, IoU .50:.05:.95, 101 recall points, all areas, 100 detections per image and class",
    "interval": "95 % percentile bootstrap over images",
}

_NO_SUPPORT = (
    ("zR@", "no target relation whose triplet is unseen in training"),
    ("R@", "no target relations"),
    ("ng-R@", "no target relations"),
    ("mR@", "no target relations"),
    ("Recall", "no target relations"),
    ("mRecall", "no target relations"),
    ("triplet_recall", "no target relations"),
    ("triplet_precision", "no predicted relations"),
    ("triplet_f1", "neither target nor predicted relations"),
    ("relation_hallucination", "no predicted relations"),
    ("object_precision", "no predicted objects"),
    ("object_hallucination", "no predicted objects"),
    ("greedy_precision", "no predicted objects"),
    ("object_recall", "no target objects"),
    ("greedy_recall", "no target objects"),
    ("AP", "no target objects"),
    ("AR", "no target objects"),
    ("object_f1", "neither target nor predicted objects"),
    ("F1", "neither target nor predicted objects"),
)
"""Start of a metric's name to why it may not exist."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One number. ``value`` is None exactly when there is no support, and ``note`` then says what is missing.

    ``support`` is what the metric divides by: images, predictions, targets, predicates or classes.
    """

    value: float | None
    interval: tuple[float, float] | None = None
    support: int = 0
    note: str | None = None

    def to_json(self) -> dict:
        interval = None if self.interval is None else list(self.interval)
        row = {"value": self.value, "interval": interval, "support": self.support}
        return row if self.note is None else {**row, "note": self.note}


@dataclass(frozen=True)
class Report:
    """What an evaluation found; :meth:`to_json` is the content of metrics.json."""

    metrics: dict[str, Metric]
    failures: dict[str, int]
    issues: dict[str, int]
    options: dict[str, object]
    counts: dict[str, int]
    per_predicate: dict[str, dict[str, float | int]]
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict:
        """Plain JSON values: ``metrics``, ``failures``, ``issues``, ``options``, ``counts``, ``per_predicate`` and
        ``warnings``. No NaN: a metric without support has value null and a note.
        """
        return {
            "metrics": {name: metric.to_json() for name, metric in self.metrics.items()},
            "failures": self.failures,
            "issues": self.issues,
            "options": self.options,
            "counts": self.counts,
            "per_predicate": self.per_predicate,
            "warnings": self.warnings,
        }


def evaluate(
    pairs: Sequence[Pair], options: MetricOptions | None = None, training_triplets: Collection[Triplet] | None = None
) -> Report:
    """Every metric of the task over a data set.

    Args:
        pairs: one per image, in the order of the data set (AP of answers without scores depends on it). An answer that
            failed or is missing must be there as a failed result; it counts as an empty prediction.
        options: the conventions; by default those of docs/metrics.md.
        training_triplets: label triplets of the training data; zR@K is computed when they are given.

    Returns:
        The report; every value in [0, 1], except the counts per image.

    Raises:
        ValueError: two pairs with the same image id.
    """
    options = options or MetricOptions()
    doubled = [image_id for image_id, count in Counter(pair.image_id for pair in pairs).items() if count > 1]
    if doubled:
        raise ValueError(f"{len(doubled)} image ids occur more than once, the first is {doubled[0]!r}")
    # A set of plain tuples, whatever was given: membership is asked once per target relation.
    seen = None if training_triplets is None else {tuple(triplet) for triplet in training_triplets}
    data = collect(pairs, options, seen)
    results = [pair.result for pair in pairs]

    ratios = Ratios()
    ratios.add("failure_rate", np.array([is_failed(result) for result in results], dtype=float))
    predicate_means = None
    if options.task == "sgdet":
        predicate_means = _add_recalls(ratios, data, options)
        _add_precision(ratios, "triplet", data.relations, data.num_images)
    _add_precision(ratios, "object", data.objects, data.num_images)
    hit_TP = greedy_matches(data.objects)
    _add_greedy(ratios, data, hit_TP)
    _add_density(ratios, data, pairs, options)
    families: list[bootstrap.Family] = [ratios, CocoFamily(data.objects, hit_TP)]
    if predicate_means is not None:
        families.append(predicate_means)

    value = bootstrap.values(families, data.num_images) if pairs else {}
    value.update(coco_values(data.objects, data.num_images))
    interval = bootstrap.intervals(families, data.num_images, options.bootstrap_samples, options.seed)
    support: dict[str, int] = {}
    for family in families:
        support.update(zip(family.names, map(int, family.support), strict=True))
    return Report(
        metrics={name: _metric(name, value, interval, support) for name in _order(options, support)},
        failures=count_failures(results),
        issues=count_issues(results),
        options=_describe(options, seen),
        counts=_counts(data, pairs, options),
        per_predicate=_per_predicate(predicate_means, data.relations, data.num_images),
    )


def _add_recalls(ratios: Ratios, data: DataSet, options: MetricOptions) -> PredicateMeans:
    relations, num_images = data.relations, data.num_images
    recalls = {"Recall": hit_targets(relations, relations.rank_P, np.inf, options.hits)}
    for k in options.ks:
        recalls[f"R@{k}"] = hit_targets(relations, relations.pair_rank_P, k, options.hits)
        recalls[f"ng-R@{k}"] = hit_targets(relations, relations.rank_P, k, options.hits)
    for name, hit_T in recalls.items():
        ratios.add(name, *image_recall(hit_T, relations.image_T, num_images))
    if relations.unseen_T is not None:
        unseen = relations.unseen_T
        for k in options.ks:
            hit_T = recalls[f"R@{k}"][unseen]
            ratios.add(f"zR@{k}", *image_recall(hit_T, relations.image_T[unseen], num_images))
    means = {"mRecall": recalls["Recall"], **{f"mR@{k}": recalls[f"R@{k}"] for k in options.ks}}
    vocabulary = None
    if options.absent_predicates_as_zero:
        vocabulary = len(set(options.predicates) | _target_predicates(relations))
    return PredicateMeans(relations, means, num_images, vocabulary)


def _add_precision(ratios: Ratios, name: str, side, num_images: int) -> None:
    """Micro precision, recall, F1 and hallucination of ``side``, the data set's objects or relations."""
    predicted, target = _per_image(side.image_P, num_images), _per_image(side.image_T, num_images)
    matched = matched_per_image(side.hits, side.image_P, len(side.image_T), num_images)
    ratios.add(f"{name}_precision", matched, predicted)
    ratios.add(f"{name}_recall", matched, target)
    ratios.add(f"{name}_f1", 2 * matched, predicted + target)
    hallucination = "relation_hallucination" if name == "triplet" else f"{name}_hallucination"
    ratios.add(hallucination, unmatched_per_image(side.hits, side.image_P, num_images), predicted)


def _add_greedy(ratios: Ratios, data: DataSet, hit_TP: Array) -> None:
    objects, num_images = data.objects, data.num_images
    predicted, target = _per_image(objects.image_P, num_images), _per_image(objects.image_T, num_images)
    hits = [np.bincount(objects.image_P, weights=hit_P, minlength=num_images) for hit_P in hit_TP]
    ratios.add("greedy_precision", hits[0], predicted)
    ratios.add("greedy_recall", hits[0], target)
    ratios.add("F1@0.5", 2 * hits[0], predicted + target)
    ratios.add("F1@0.95", 2 * hits[-1], predicted + target)
    # All thresholds divide by the same number, so their mean is a ratio too.
    ratios.add("F1_mean", 2 * np.mean(hits, axis=0), predicted + target)


def _add_density(ratios: Ratios, data: DataSet, pairs: Sequence[Pair], options: MetricOptions) -> None:
    repeats = [
        count_duplicates(pair.result.graph, options.iou_threshold, options.box_offset) if pair.result.graph else (0, 0)
        for pair in pairs
    ]
    # The parser has dropped literal repetitions already; the model emitted them all the same.
    dropped = [sum(issue.kind == "duplicate_relation" for issue in pair.result.issues) for pair in pairs]
    if options.task == "sgdet":
        ratios.add("relations_per_image", _per_image(data.relations.image_P, data.num_images))
        ratios.add("duplicates_per_image", np.array([repeat[1] for repeat in repeats]) + np.array(dropped))
    ratios.add("objects_per_image", _per_image(data.objects.image_P, data.num_images))
    ratios.add("duplicate_objects_per_image", np.array([repeat[0] for repeat in repeats]))


def _per_image(image: Array, num_images: int) -> Array:
    return np.bincount(image, minlength=num_images).astype(float)


def _target_predicates(relations: Relations) -> set[str]:
    return {relations.predicates[index] for index in np.unique(relations.predicate_T).tolist()}


def _order(options: MetricOptions, known: Collection[str]) -> list[str]:
    """Metric names as a reader wants them: recall never stands without precision and density after it."""
    per_k = [f"{kind}@{k}" for kind in ("R", "ng-R", "mR", "zR") for k in options.ks]
    names = ["failure_rate", "Recall", "mRecall", *per_k]
    names += [f"triplet_{part}" for part in ("precision", "recall", "f1")]
    names += ["relations_per_image", "duplicates_per_image", "relation_hallucination"]
    names += [f"object_{part}" for part in ("precision", "recall", "f1")]
    names += ["objects_per_image", "duplicate_objects_per_image", "object_hallucination"]
    names += ["AP", "AP50", "AP75", "AR100", "greedy_precision", "greedy_recall", "F1@0.5", "F1@0.95", "F1_mean"]
    return [name for name in dict.fromkeys(names) if name in known]


def _metric(
    name: str, value: dict[str, float], interval: dict[str, tuple[float, float]], support: dict[str, int]
) -> Metric:
    if name in value:
        return Metric(value[name], interval.get(name), support[name])
    return Metric(None, None, 0, next((why for start, why in _NO_SUPPORT if name.startswith(start)), "no images"))


def _describe(options: MetricOptions, seen: set[Triplet] | None) -> dict[str, object]:
    described = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(options).items()}
    described["training_triplets"] = None if seen is None else len(seen)
    described["coco_evaluator"] = f"faster-coco-eval {version('faster-coco-eval')}"
    return {**described, **FIXED_CONVENTIONS}


def _counts(data: DataSet, pairs: Sequence[Pair], options: MetricOptions) -> dict[str, int]:
    relations, objects = data.relations, data.objects
    counts = {
        "images": data.num_images,
        "failed_answers": sum(is_failed(pair.result) for pair in pairs),
        "target_objects": len(objects.image_T),
        "predicted_objects": len(objects.image_P),
        "classes": len(np.unique(objects.label_T)),
    }
    if options.task == "sgdet":
        present = _target_predicates(relations)
        # Without a vocabulary only predicates that somebody used are known.
        absent = set(options.predicates or relations.predicates) - present
        counts |= {
            "images_with_relations": len(np.unique(relations.image_T)),
            "target_relations": len(relations.image_T),
            "predicted_relations": len(relations.image_P),
            "predicates": len(present),
            "absent_predicates": len(absent),
        }
        if relations.unseen_T is not None:
            counts["unseen_target_relations"] = int(relations.unseen_T.sum())
    return counts


def _per_predicate(
    means: PredicateMeans | None, relations: Relations, num_images: int
) -> dict[str, dict[str, float | int]]:
    """Per predicate with targets, the commonest first: recall at all predictions and at each K (averaged over images,
    as mRecall and mR@K average them), number of targets and of images.
    """
    if means is None or not num_images:
        return {}
    ones = np.ones((num_images, 1))
    columns = {name: means.per_predicate(name, ones)[:, 0].tolist() for name in means.names}
    targets = np.bincount(relations.predicate_T, minlength=len(relations.predicates))
    images = means.occurs.getnnz(axis=1)
    table = {}
    for row in sorted(range(len(means.present)), key=lambda row: -targets[means.present[row]]):
        index = means.present[row]
        entry: dict[str, float | int] = {"recall": columns["mRecall"][row]}
        entry |= {name[1:]: column[row] for name, column in columns.items() if name != "mRecall"}
        entry |= {"num_targets": int(targets[index]), "num_images": int(images[row])}
        table[relations.predicates[index]] = entry
    return table
