"""All metrics of a data set in one report: value, interval, support, and every convention used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict

import numpy as np

from scenerl.errors import UserError
from scenerl.metrics import bootstrap
from scenerl.metrics.confidence import calibration
from scenerl.metrics.failures import count_failures, count_issues, is_failed
from scenerl.metrics.families import Families, build, target_predicates
from scenerl.metrics.options import MetricOptions, Pair, Triplet
from scenerl.metrics.registry import ordered, spec
from scenerl.metrics.report import Metric, Report

FIXED_CONVENTIONS = {
    "scale": "0 to 1",
    "ranking": "by score, else order of emission; an element without a score has score 1",
    "precision_matching": "largest one-to-one matching, summed over images",
    "average_precision": "COCO, IoU .50:.05:.95, 101 recall points, all areas, 100 detections per image and class",
    "interval": "95 % percentile bootstrap over images",
}


def evaluate(
    pairs: Sequence[Pair],
    options: MetricOptions | None = None,
    training_triplets: Collection[Triplet] | None = None,
    predicate_counts: Mapping[str, int] | None = None,
) -> Report:
    """Every metric of the task over a data set.

    Args:
        pairs: one per image, in the order of the data set (AP of answers without scores depends on it). An answer that
            failed or is missing must be there as a failed result; it counts as an empty prediction unless the options
            say otherwise.
        options: the conventions; by default those of docs/metrics.md.
        training_triplets: label triplets of the training data; zR@K is computed when they are given.
        predicate_counts: number of training relations per predicate; means over head, body and tail are computed when
            they are given.

    Returns:
        The report; every value in [0, 1], except the counts per image.

    Raises:
        UserError: two pairs with the same image id.

    >>> from scenerl.types import ParseResult, Relation, SceneGraph, SceneObject
    >>> cat, mat = SceneObject("cat", (0, 0, 20, 20)), SceneObject("mat", (0, 10, 40, 40))
    >>> target = SceneGraph((cat, mat), (Relation(0, "on", 1), Relation(1, "under", 0)))
    >>> answer = SceneGraph((cat, mat), (Relation(0, "on", 1),))
    >>> report = evaluate([Pair("1", ParseResult("ok", answer), target)], MetricOptions(bootstrap_samples=0))
    >>> report.metrics["R@20"].value, report.metrics["triplet_precision"].value
    (0.5, 1.0)
    """
    options = options or MetricOptions()
    check_ids(pairs)
    # A set of plain tuples, whatever was given: membership is asked once per target relation.
    seen = None if training_triplets is None else {tuple(triplet) for triplet in training_triplets}
    built = build(pairs, options, seen, predicate_counts)
    results = [pair.result for pair in pairs]
    value = bootstrap.values(built.families, len(pairs)) if pairs else {}
    interval = bootstrap.intervals(built.families, len(pairs), options.bootstrap_samples, options.seed)
    support = supports(built)
    return Report(
        metrics={
            name: Metric(value[name], interval.get(name), support[name])
            if name in value
            else Metric(None, None, 0, spec(name).why_missing)
            for name in ordered(support)
        },
        failures=count_failures(results),
        issues=count_issues(results),
        options=_describe(options, seen, predicate_counts),
        counts=_counts(built, pairs, options),
        per_predicate=_per_predicate(built, predicate_counts),
        calibration={name: curve.to_json() for name, curve in calibration(built).items()},
    )


def check_ids(pairs: Sequence[Pair]) -> None:
    """Refuse two pairs of one image.

    Raises:
        UserError: names the first image id that occurs more than once.
    """
    doubled = [image_id for image_id, count in Counter(pair.image_id for pair in pairs).items() if count > 1]
    if doubled:
        raise UserError(f"{len(doubled)} image ids occur more than once, the first is {doubled[0]!r}")


def supports(built: Families) -> dict[str, int]:
    """Metric name to what it divides by.

    Raises:
        KeyError: a metric that is not registered; it would be missing from every table.
    """
    found: dict[str, int] = {}
    for family in built.families:
        found.update(zip(family.names, map(int, family.support), strict=True))
    for name in found:
        spec(name)
    return found


def _describe(
    options: MetricOptions, seen: set[Triplet] | None, predicate_counts: Mapping[str, int] | None
) -> dict[str, object]:
    described = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(options).items()}
    described["training_triplets"] = None if seen is None else len(seen)
    described["training_relations"] = None if predicate_counts is None else sum(predicate_counts.values())
    return {**described, **FIXED_CONVENTIONS}


def _counts(built: Families, pairs: Sequence[Pair], options: MetricOptions) -> dict[str, int]:
    relations, objects = built.data.relations, built.data.objects
    counts = {
        "images": len(pairs),
        "skipped_images": len(pairs) - len(built.kept),
        "failed_answers": sum(is_failed(pair.result) for pair in pairs),
        "target_objects": len(objects.image_T),
        "predicted_objects": len(objects.image_P),
        "classes": len(np.unique(objects.label_T)),
    }
    if options.task != "det":
        present = target_predicates(built.data)
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


def _per_predicate(built: Families, predicate_counts: Mapping[str, int] | None) -> dict[str, dict[str, object]]:
    """Per predicate with targets, the commonest first: recall at all predictions and at each K (averaged over images,
    as mRecall and mR@K average them), number of targets and of images, and with training counts its group.
    """
    means, relations, num_images = built.means, built.data.relations, built.data.num_images
    if means is None or not num_images:
        return {}
    ones = np.ones((num_images, 1))
    columns = {name: means.per_predicate(name, ones)[:, 0].tolist() for name in means.metrics}
    targets = np.bincount(relations.predicate_T, minlength=len(relations.predicates))
    images = means.occurs.getnnz(axis=1)
    table = {}
    for row in sorted(range(len(means.present)), key=lambda row: -targets[means.present[row]]):
        index = means.present[row]
        entry: dict[str, object] = {"recall": columns["mRecall"][row]}
        # mR@20 and ng-mR@20 are means of what a single predicate calls R@20 and ng-R@20.
        entry |= {name.replace("mR@", "R@"): column[row] for name, column in columns.items() if name != "mRecall"}
        entry |= {"num_targets": int(targets[index]), "num_images": int(images[row])}
        if built.groups:
            entry["group"] = next(name[1:] for name, members in built.groups.items() if index in members)
            entry["num_training"] = int((predicate_counts or {}).get(relations.predicates[index], 0))
        table[relations.predicates[index]] = entry
    return table
