"""All metrics of a data set, or of several, in one report: value, interval, support, and every convention used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace

import numpy as np

from scenerl.errors import UserError
from scenerl.metrics import bootstrap
from scenerl.metrics.arrays import Array
from scenerl.metrics.calibration import calibration
from scenerl.metrics.groups import AllMetrics, build, is_failed, target_predicates
from scenerl.metrics.protocols import MetricOptions, Pair, Triplet
from scenerl.metrics.registry import ordered, spec, spec_or_plain

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
        return {key: value for key, value in asdict(self).items() if key != "note" or value is not None}


@dataclass(frozen=True)
class Report:
    """What an evaluation found; :meth:`to_json` is the content of metrics.json."""

    metrics: dict[str, Metric]
    failures: dict[str, int]
    issues: dict[str, int]
    options: dict[str, object]
    counts: dict[str, int]
    per_predicate: dict[str, dict[str, object]]
    warnings: list[str] = field(default_factory=list)
    calibration: dict[str, dict] = field(default_factory=dict)
    mapped: dict[str, object] = field(default_factory=dict)

    def to_json(self) -> dict:
        """Plain JSON values under the names of the fields; ``calibration`` and ``mapped`` only where there are some.
        No NaN: a metric without support has value null and a note."""
        content = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        content["metrics"] = {name: metric.to_json() for name, metric in self.metrics.items()}
        return {key: value for key, value in content.items() if value or key not in ("calibration", "mapped")}


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
        training_triplets: label triplets of the training data; with them zR@K is computed.
        predicate_counts: number of training relations per predicate; with them means over head, body and tail are
            computed.

    Returns:
        The report; every value in [0, 1], except the counts per image and wR@K.

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
    return evaluate_drawn(pairs, options or MetricOptions(), training_triplets, predicate_counts)[0]


def evaluate_drawn(
    pairs: Sequence[Pair],
    options: MetricOptions,
    training_triplets: Collection[Triplet] | None = None,
    predicate_counts: Mapping[str, int] | None = None,
) -> tuple[Report, dict[str, Array]]:
    """As :func:`evaluate`, with the values of every metric over the resampled images beside the report."""
    check_ids(pairs)
    built = build(pairs, options, training_triplets, predicate_counts)
    value = bootstrap.values(built, len(pairs))
    drawn = bootstrap.samples(built, len(pairs), options.bootstrap_samples, options.seed)
    support = dict(zip(built.names, built.support.astype(int).tolist(), strict=True))
    metrics = {}
    for name in ordered(support):
        is_own = bool(pairs) and name in pairs[0].own
        about = spec_or_plain(name) if is_own else spec(name)  # any other that is not registered is an error
        if name in value:
            interval = bootstrap.interval(drawn[name]) if drawn else None
            metrics[name] = Metric(value[name], interval, support[name])
        else:
            metrics[name] = Metric(None, note=about.why_missing)
    results = [pair.result for pair in pairs]
    report = Report(
        metrics=metrics,
        failures=dict(Counter(result.status for result in results if not result.ok).most_common()),
        issues=dict(Counter(issue.kind for result in results for issue in result.issues).most_common()),
        options=_describe(options, training_triplets, predicate_counts),
        counts=_counts(built, pairs, options),
        per_predicate=_per_predicate(built, predicate_counts),
        calibration=calibration(built.data),
    )
    return report, drawn


def evaluate_subsets(subsets: Mapping[str, Sequence[Pair]], options: MetricOptions) -> Report:
    """Every subset by itself (``NMS-AP/color``) and the means over subsets (``NMS-AP``), as OVDEval reports them.

    The interval of a mean resamples the images of every subset; a subset in which a metric has no support is left out
    of its mean.

    Args:
        subsets: name to pairs.
        options: the conventions; the same for all.
    """
    evaluated = [evaluate_drawn(pairs, options) for pairs in subsets.values()]
    reports = [report for report, _ in evaluated]
    metrics: dict[str, Metric] = {}
    for name in AVERAGED:
        known = [(report, drawn) for report, drawn in evaluated if report.metrics[name].value is not None]
        if not known:
            metrics[name] = reports[0].metrics[name]
            continue
        mean = float(np.mean([report.metrics[name].value for report, _ in known]))
        interval = None
        if options.bootstrap_samples:
            interval = bootstrap.interval(np.mean([drawn[name] for _, drawn in known], axis=0))
        metrics[name] = Metric(mean, interval, len(known))
    for subset, report in zip(subsets, reports, strict=True):
        metrics |= {f"{name}/{subset}": report.metrics[name] for name in AVERAGED}
    return replace(
        reports[0],
        metrics=metrics,
        failures=_total(report.failures for report in reports),
        issues=_total(report.issues for report in reports),
        counts={**_total(report.counts for report in reports), "subsets": len(reports)},
        calibration={},
    )


def _total(tables: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for table in tables:
        total.update(table)
    return dict(total)


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


def _counts(built: AllMetrics, pairs: Sequence[Pair], options: MetricOptions) -> dict[str, int]:
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


def _per_predicate(built: AllMetrics, predicate_counts: Mapping[str, int] | None) -> dict[str, dict[str, object]]:
    """Per predicate with targets, the commonest first: recall at all predictions and at each K (averaged over images,
    as mRecall and mR@K average them), number of targets and of images, and with training counts its group.
    """
    means, relations, num_images = built.means, built.data.relations, built.data.num_images
    if means is None or not num_images:
        return {}
    ones = np.ones((num_images, 1))
    columns = {name: means.per_predicate(name, ones)[:, 0].tolist() for name in means.metrics}
    targets = np.bincount(relations.target.predicate_R, minlength=len(relations.predicates))
    images = (means.occurs @ ones)[:, 0]
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
