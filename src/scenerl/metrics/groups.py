"""All metrics of a task in groups: functions of image weights, for values, intervals and comparisons alike."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scenerl.metrics.arrays import Array, DataSet, collect, per_image
from scenerl.metrics.bootstrap import MetricGroup
from scenerl.metrics.detection import ClassF1, CocoMetrics, add_accuracy, add_greedy, greedy_matches, kept_by_nms
from scenerl.metrics.precision import RatioMetrics, add_absent, add_density, add_precision
from scenerl.metrics.protocols import MetricOptions, Pair, Triplet
from scenerl.metrics.recall import PredicateMeans, RecallsWithF1, hit_targets, image_recall, rank, weighted_hits
from scenerl.predicate_groups import predicate_groups
from scenerl.types import INVALID_ISSUES, ParseResult

PROVIDED_TASKS = ("sgcls", "predcls")


@dataclass(frozen=True)
class AllMetrics:
    """The metrics of one evaluation, a :class:`~scenerl.metrics.bootstrap.MetricGroup` over all images.

    Attributes:
        failed: the failure rate, over all images.
        groups: all others, over the images that count.
        data: the images that count. ``kept``: their indices.
        scores_N: one number for each of them that says how well it was answered: F1 of triplets (det: of objects), 1
            where nothing is there and nothing was predicted.
        means: recall by predicate; None in detection.
        long_tail: suffix of a metric's name (``_head``, ``_body``, ``_tail``) to indices of its predicates.
    """

    failed: RatioMetrics
    groups: tuple[MetricGroup, ...]
    data: DataSet
    kept: Array
    scores_N: Array
    means: PredicateMeans | None
    long_tail: dict[str, Array]

    @property
    def names(self) -> list[str]:
        return [name for group in (self.failed, *self.groups) for name in group.names]

    @property
    def support(self) -> Array:
        return np.concatenate([group.support for group in (self.failed, *self.groups)])

    def __call__(self, weights_NB: Array) -> Array:
        kept_NB = weights_NB if len(self.kept) == len(weights_NB) else weights_NB[self.kept]
        return np.concatenate([self.failed(weights_NB), *(group(kept_NB) for group in self.groups)])


def is_failed(result: ParseResult) -> bool:
    """Whether the failure rate counts this answer: it could not be parsed, or an object or relation in it is invalid
    (:data:`~scenerl.types.INVALID_ISSUES`).

    Source: R1-SGG (arXiv 2504.13617): not JSON, a key missing, or an invalid object or relation.
    """
    return not result.ok or any(issue.kind in INVALID_ISSUES for issue in result.issues)


def build(
    pairs: Sequence[Pair],
    options: MetricOptions,
    training_triplets: Collection[Triplet] | None = None,
    predicate_counts: Mapping[str, int] | None = None,
) -> AllMetrics:
    """All metrics of the options' task over a data set. Arguments as for :func:`scenerl.metrics.evaluate`."""
    # A set of plain tuples: membership is tested once per target relation.
    seen = None if training_triplets is None else {tuple(triplet) for triplet in training_triplets}
    kept = np.flatnonzero([_counts(pair, options) for pair in pairs])
    chosen = [pairs[n] for n in kept]
    data = collect(chosen, options, seen)
    ratios, groups = RatioMetrics(), []
    means, long_tail = None, {}
    if options.task != "det":
        long_tail = _long_tail(data.relations.predicates, predicate_counts, options.group_bounds)
        means = _add_recalls(ratios, data, chosen, options, long_tail)
        groups.append(RecallsWithF1(means, {f"R@{k}": ratios.rows[f"R@{k}"] for k in options.ks}))
        if options.task in PROVIDED_TASKS:
            _add_pair_accuracy(ratios, data, options)
        add_precision(ratios, data, of_relations=True)
        _add_instance_recall(ratios, data)
    add_precision(ratios, data, of_relations=False)
    matches = greedy_matches(data.objects)
    groups.append(CocoMetrics(data.objects, matches, data.num_images))
    add_greedy(ratios, data.objects, matches, data.dropped_objects_N, micro_f1=options.f1_average == "micro")
    if options.f1_average == "classes":
        groups.append(ClassF1(data.objects, matches, data.num_images))
    if options.task == "det":
        thinned = data.objects.select(kept_by_nms(data.objects))
        groups.append(CocoMetrics(thinned, greedy_matches(thinned), data.num_images, prefix="NMS-"))
        add_absent(ratios, chosen)
        add_accuracy(ratios, chosen)
    add_density(ratios, data, options)
    groups.append(ratios)
    failed = RatioMetrics()
    failed.add("failure_rate", np.array([is_failed(pair.result) for pair in pairs], dtype=float))
    numerator, denominator = ratios.rows["object_f1" if options.task == "det" else "triplet_f1"]
    scores = np.divide(numerator, denominator, out=np.ones(len(kept)), where=denominator > 0)
    return AllMetrics(failed, tuple(groups), data, kept, scores, means, long_tail)


def _counts(pair: Pair, options: MetricOptions) -> bool:
    if options.failed == "skipped":
        return pair.result.ok
    if options.failed == "skipped_if_empty":
        graph = pair.result.graph
        return graph is not None and bool(graph.objects if options.task == "det" else graph.relations)
    return True


def _long_tail(
    predicates: Sequence[str], counts: Mapping[str, int] | None, bounds: tuple[int, int] | None
) -> dict[str, Array]:
    if not counts:
        return {}
    groups = predicate_groups({**dict.fromkeys(predicates, 0), **counts}, bounds)
    place = {name: index for index, name in enumerate(predicates)}
    return {
        f"_{group}": np.array(sorted(place[name] for name in members if name in place), dtype=np.int64)
        for group, members in groups.items()
    }


def _add_recalls(
    ratios: RatioMetrics, data: DataSet, pairs: Sequence[Pair], options: MetricOptions, long_tail: dict[str, Array]
) -> PredicateMeans:
    relations, num_images = data.relations, data.num_images
    image_T, num_targets = relations.target.image_R, len(relations.target)
    free, constrained = rank(relations.predicted, num_images, options.graph_constraint)
    rules = {"hits": options.hits, "ties": options.ties}
    recalls = {"Recall": hit_targets(relations.fits, free, num_targets, np.inf, **rules)}
    for k in options.ks:
        recalls[f"R@{k}"] = hit_targets(relations.fits, constrained, num_targets, k, **rules)
        recalls[f"ng-R@{k}"] = hit_targets(relations.fits, free, num_targets, k, **rules)
    for name, hit_T in recalls.items():
        ratios.add(name, *image_recall(hit_T, image_T, num_images))
    for k in options.ks:
        phrases = hit_targets(relations.phrase_fits, constrained, num_targets, k, **rules)
        ratios.add(f"PhrR@{k}", *image_recall(phrases, image_T, num_images))
        weighted_N = weighted_hits(relations.fits, constrained, relations.predicted.image_R, num_images, k)
        total_N = per_image(image_T, num_images)
        ratios.add(f"wR@{k}", weighted_N / np.maximum(total_N, 1) * (total_N > 0), total_N > 0)
        found_Q = hit_targets(relations.pair_fits, constrained, len(relations.image_Q), k, **rules)
        ratios.add(f"PairR@{k}", *image_recall(found_Q, relations.image_Q, num_images))
    if (unseen := relations.unseen_T) is not None:
        for k in options.ks:
            ratios.add(f"zR@{k}", *image_recall(recalls[f"R@{k}"][unseen], image_T[unseen], num_images))
    means = {name.replace("R", "mR"): hit_T for name, hit_T in recalls.items()}
    vocabulary = None
    if options.absent_predicates_as_zero:
        vocabulary = len(set(options.predicates) | target_predicates(data))
    counted = None
    if options.failed == "skipped_in_means":
        counted = np.array([pair.result.ok for pair in pairs], dtype=float)
    return PredicateMeans(relations.target.predicate_R, image_T, means, num_images, counted, vocabulary, long_tail)


def _add_pair_accuracy(ratios: RatioMetrics, data: DataSet, options: MetricOptions) -> None:
    """A@K: of all target relations, the share that is hit by those of the top K predictions whose pair of objects some
    target relation has.

    Objects are the provided ones, so a pair is known by its two boxes. Source: SGG-Benchmark's SGPairAccuracy.
    """
    relations, objects = data.relations, data.objects
    sides = []
    for found, columns in ((relations.predicted, objects.predicted), (relations.target, objects.target)):
        boxes = columns.box_O[found.subject_R], columns.box_O[found.object_R]
        sides.append(np.column_stack([found.image_R, *boxes]).reshape(-1, 9))
    number = np.unique(np.concatenate(sides), axis=0, return_inverse=True)[1].ravel()
    of_target_P = np.isin(number[: len(sides[0])], number[len(sides[0]) :])
    _, constrained = rank(relations.predicted, data.num_images, options.graph_constraint)
    fits = relations.fits.select(of_target_P[relations.fits.prediction_C])
    image_T = relations.target.image_R
    for k in options.ks:
        hit = np.unique(fits.target_C[constrained.rank_R[fits.prediction_C] < k])
        hits_N, total_N = per_image(image_T[hit], data.num_images), per_image(image_T, data.num_images)
        ratios.add(f"A@{k}", hits_N, total_N)


def target_predicates(data: DataSet) -> set[str]:
    """Names of the predicates that some target has."""
    relations = data.relations
    return {relations.predicates[index] for index in np.unique(relations.target.predicate_R).tolist()}


def _add_instance_recall(ratios: RatioMetrics, data: DataSet) -> None:
    """sgbench's InstR: over images with a target relation, the share of target objects that some prediction fits."""
    image_T = data.objects.target.image_O
    hit_T = np.zeros(len(image_T))
    hit_T[data.objects.fits.target_C] = 1.0
    recall_N, counts_N = image_recall(hit_T, image_T, data.num_images)
    related_N = per_image(data.relations.target.image_R, data.num_images) > 0
    ratios.add("InstR", recall_N * related_N, counts_N * related_N)
