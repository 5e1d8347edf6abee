"""All metrics of a data set, or of several, in one report: value, interval, support, and every convention used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np

from scenerl.errors import UserError
from scenerl.metrics import bootstrap
from scenerl.metrics.calibration import calibration
from scenerl.metrics.groups import MetricGroups, build, target_predicates
from scenerl.metrics.protocols import MetricOptions, Pair, Triplet
from scenerl.metrics.registry import ordered, spec
from scenerl.metrics.report import Metric, Report, count_failures, count_issues, is_failed

FIXED_CONVENTIONS = {
    "scale": "0 to 1",
    "ranking": "by score, else order of emission; an element without a score has score 1",
    "precision_matching": "largest one-to-one matching, summed over images",
    "average_precision": "COCO, IoU .50:.05:.95, 101 recall points, all areas, 100 detections per image and class; "
    "of equal scores the one of the first image id, then the first emitted",
    "dropped_elements": "count as predictions that match nothing in precision, F1 and hallucination",
    "interval": "95 % percentile bootstrap over images",
}

AVERAGED = ("AP", "AP50", "NMS-AP", "NMS-AP50", "greedy_precision", "greedy_recall")
"""What :func:`evaluate_subsets` reports."""


def evaluate(
    pairs: Sequence[Pair],
    options: MetricOptions | None = None,
    training_triplets: Collection[Triplet] | None = None,
    predicate_counts: Mapping[str, int] | None = None,
) -> Report:
    """Every metric of the task over a data set.

    Args:
        pairs: one per image. An answer that failed or is missing must be there as a failed result; it counts as an
            empty prediction unless the options say otherwise.
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
    built = build(pairs, options, training_triplets, predicate_counts)
    results = [pair.result for pair in pairs]
    value = bootstrap.values(built.groups, len(pairs)) if pairs else {}
    interval = bootstrap.intervals(built.groups, len(pairs), options.bootstrap_samples, options.seed)
    support = {name: int(size) for group in built.groups for name, size in zip(group.names, group.support, strict=True)}
    specs = {name: spec(name) for name in ordered(support)}  # a metric that is not registered is an error
    return Report(
        metrics={
            name: Metric(value[name], interval.get(name), support[name])
            if name in value
            else Metric(None, None, 0, about.why_missing)
            for name, about in specs.items()
        },
        failures=count_failures(results),
        issues=count_issues(results),
        options=_describe(options, training_triplets, predicate_counts),
        counts=_counts(built, pairs, options),
        per_predicate=_per_predicate(built, predicate_counts),
        calibration={name: curve.to_json() for name, curve in calibration(built.data).items()},
    )


def evaluate_subsets(subsets: Mapping[str, Sequence[Pair]], options: MetricOptions) -> Report:
    """Every subset by itself (``NMS-AP/color``) and the means over subsets (``NMS-AP``), as OVDEval reports them.

    The interval of a mean resamples the images of every subset; a subset in which a metric has no support is left out
    of its mean.

    Args:
        subsets: name to pairs.
        options: the conventions; the same for all.
    """
    reports = {name: evaluate(pairs, options) for name, pairs in subsets.items()}
    drawn = {}
    if options.bootstrap_samples:
        for name, pairs in subsets.items():
            groups = build(pairs, options).groups
            drawn[name] = bootstrap.samples(groups, len(pairs), options.bootstrap_samples, options.seed)
    metrics: dict[str, Metric] = {}
    for metric in AVERAGED:
        known = [name for name in reports if reports[name].metrics[metric].value is not None]
        if not known:
            metrics[metric] = next(iter(reports.values())).metrics[metric]
            continue
        samples = np.array([drawn[name][metric] for name in known]) if drawn else np.zeros((0, 0))
        metrics[metric] = Metric(
            float(np.mean([reports[name].metrics[metric].value for name in known])),
            bootstrap.interval(samples.mean(axis=0)) if len(samples) else None,
            len(known),
        )
    for name, report in reports.items():
        metrics |= {f"{metric}/{name}": report.metrics[metric] for metric in AVERAGED}
    first = next(iter(reports.values()))

    def total(key: str) -> dict[str, int]:
        tables = [getattr(report, key) for report in reports.values()]
        names = dict.fromkeys(name for table in tables for name in table)
        return {name: sum(table.get(name, 0) for table in tables) for name in names}

    return replace(
        first,
        metrics=metrics,
        failures=total("failures"),
        issues=total("issues"),
        counts={**total("counts"), "subsets": len(reports)},
        calibration={},
    )


def check_ids(pairs: Sequence[Pair]) -> None:
    """Refuse two pairs of one image.

    Raises:
        UserError: names the first image id that occurs more than once.
    """
    doubled = [image_id for image_id, count in Counter(pair.image_id for pair in pairs).items() if count > 1]
    if doubled:
        raise UserError(f"{len(doubled)} image ids occur more than once, the first is {doubled[0]!r}")


def _describe(
    options: MetricOptions, seen: Collection[Triplet] | None, predicate_counts: Mapping[str, int] | None
) -> dict[str, object]:
    described = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(options).items()}
    described["training_triplets"] = None if seen is None else len({tuple(triplet) for triplet in seen})
    described["training_relations"] = None if predicate_counts is None else sum(predicate_counts.values())
    return {**described, **FIXED_CONVENTIONS}


def _counts(built: MetricGroups, pairs: Sequence[Pair], options: MetricOptions) -> dict[str, int]:
    relations, objects = built.data.relations, built.data.objects
    counts = {
        "images": len(pairs),
        "skipped_images": len(pairs) - len(built.kept),
        "failed_answers": sum(is_failed(pair.result) for pair in pairs),
        "target_objects": len(objects.target),
        "predicted_objects": len(objects.predicted),
        "classes": len(np.unique(objects.target.label_O)),
    }
    if options.task != "det":
        present = target_predicates(built.data)
        # Without a vocabulary only predicates that somebody used are known.
        absent = set(options.predicates or relations.predicates) - present
        counts |= {
            "images_with_relations": len(np.unique(relations.target.image_R)),
            "target_relations": len(relations.target),
            "predicted_relations": len(relations.predicted),
            "predicates": len(present),
            "absent_predicates": len(absent),
        }
        if relations.unseen_T is not None:
            counts["unseen_target_relations"] = int(relations.unseen_T.sum())
    return counts


def _per_predicate(built: MetricGroups, predicate_counts: Mapping[str, int] | None) -> dict[str, dict[str, object]]:
    """Per predicate with targets, the commonest first: recall at all predictions and at each K (averaged over images,
    as mRecall and mR@K average them), number of targets and of images, and with training counts its group.
    """
    means, relations, num_images = built.means, built.data.relations, built.data.num_images
    if means is None or not num_images:
        return {}
    ones = np.ones((num_images, 1))
    columns = {name: means.per_predicate(name, ones)[:, 0].tolist() for name in means.metrics}
    targets = np.bincount(relations.target.predicate_R, minlength=len(relations.predicates))
    images = means.occurs.getnnz(axis=1)
    table = {}
    for row in sorted(range(len(means.present)), key=lambda row: -targets[means.present[row]]):
        index = means.present[row]
        entry: dict[str, object] = {"recall": columns["mRecall"][row]}
        # mR@20 and ng-mR@20 are means of what a single predicate calls R@20 and ng-R@20.
        entry |= {name.replace("mR@", "R@"): column[row] for name, column in columns.items() if name != "mRecall"}
        entry |= {"num_targets": int(targets[index]), "num_images": int(images[row])}
        if built.long_tail:
            entry["group"] = next(name[1:] for name, members in built.long_tail.items() if index in members)
            entry["num_training"] = int((predicate_counts or {}).get(relations.predicates[index], 0))
        table[relations.predicates[index]] = entry
    return table
