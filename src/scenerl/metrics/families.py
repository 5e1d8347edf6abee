"""All metrics of a task as families: functions of image weights, for values, intervals and comparisons alike."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from scenerl.metrics.absent import add_absent
from scenerl.metrics.average_precision import CocoFamily, Matches, greedy_matches
from scenerl.metrics.bootstrap import Family, Subset
from scenerl.metrics.candidates import DataSet, Objects, collect
from scenerl.metrics.class_f1 import LEVELS, ClassF1
from scenerl.metrics.columns import Array
from scenerl.metrics.counts import Ratios, duplicates, matched_per_image, unmatched_per_image
from scenerl.metrics.failures import is_failed
from scenerl.metrics.nms import kept_by_nms
from scenerl.metrics.options import MetricOptions, Pair, Triplet
from scenerl.metrics.recall import PredicateMeans, hit_targets, image_recall
from scenerl.predicate_groups import predicate_groups


@dataclass(frozen=True)
class Families:
    """The metrics of one evaluation. ``families`` take weights of all images; ``data`` holds those that count.

    ``scores_N`` is one number per counted image that says how well it was answered: F1 of triplets (det: of objects).
    """

    families: tuple[Family, ...]
    data: DataSet
    kept: Array
    means: PredicateMeans | None
    groups: dict[str, Array] = field(default_factory=dict)
    scores_N: Array | None = None


def build(
    pairs: Sequence[Pair],
    options: MetricOptions,
    seen: Collection[Triplet] | None,
    predicate_counts: Mapping[str, int] | None,
) -> Families:
    """All metrics of the options' task over a data set. Arguments as for :func:`scenerl.metrics.evaluate`."""
    kept = np.flatnonzero([_counts(pair, options) for pair in pairs])
    chosen = [pairs[n] for n in kept]
    data = collect(chosen, options, seen)
    ratios, families = Ratios(), []
    means, groups = None, {}
    if options.task != "det":
        groups = _groups(data.relations.predicates, predicate_counts, options.group_bounds)
        means = _add_recalls(ratios, data, chosen, options, groups)
        families.append(means)
        _add_precision(ratios, "triplet", data.relations.hits, data.relations, data.num_images)
        _add_instance_recall(ratios, data)
    _add_precision(ratios, "object", data.objects.hits, data.objects, data.num_images)
    matches = greedy_matches(data.objects)
    families += _detection(ratios, data, matches, options)
    _add_density(ratios, data, chosen, options)
    if options.task == "det":
        add_absent(ratios, chosen)
    families.append(ratios)
    if len(kept) < len(pairs):
        families = [Subset(family, kept) for family in families]
    failed = Ratios()
    failed.add("failure_rate", np.array([is_failed(pair.result) for pair in pairs], dtype=float))
    numerator, denominator = ratios.rows["object_f1" if options.task == "det" else "triplet_f1"]
    # An image where nothing is and nothing was predicted is answered well.
    scores = np.divide(numerator, denominator, out=np.ones(len(kept)), where=denominator > 0)
    return Families((failed, *families), data, kept, means, groups, scores)


def _groups(
    predicates: Sequence[str], counts: Mapping[str, int] | None, bounds: tuple[int, int] | None
) -> dict[str, Array]:
    """Suffix of a metric's name (``_head``, ``_body``, ``_tail``) to indices of its predicates; none without counts."""
    if not counts:
        return {}
    groups = predicate_groups({**dict.fromkeys(predicates, 0), **counts}, bounds)
    place = {name: index for index, name in enumerate(predicates)}
    return {
        f"_{group}": np.array(sorted(place[name] for name in members if name in place), dtype=np.int64)
        for group, members in groups.items()
    }


def _counts(pair: Pair, options: MetricOptions) -> bool:
    if options.failed == "skipped":
        return pair.result.ok
    if options.failed == "skipped_if_empty":
        graph = pair.result.graph
        return graph is not None and bool(graph.objects if options.task == "det" else graph.relations)
    return True


def _add_recalls(
    ratios: Ratios, data: DataSet, pairs: Sequence[Pair], options: MetricOptions, groups: dict[str, Array]
) -> PredicateMeans:
    relations, num_images, num_targets = data.relations, data.num_images, len(data.relations.image_T)
    free, constrained = relations.free, relations.constrained
    rules = {"hits": options.hits, "ties": options.ties}
    recalls = {"Recall": hit_targets(relations.hits, free, num_targets, np.inf, **rules)}
    for k in options.ks:
        recalls[f"R@{k}"] = hit_targets(relations.hits, constrained, num_targets, k, **rules)
        recalls[f"ng-R@{k}"] = hit_targets(relations.hits, free, num_targets, k, **rules)
    for name, hit_T in recalls.items():
        ratios.add(name, *image_recall(hit_T, relations.image_T, num_images))
    for k in options.ks:
        phrases = hit_targets(relations.phrase_hits, constrained, num_targets, k, **rules)
        ratios.add(f"PhrR@{k}", *image_recall(phrases, relations.image_T, num_images))
        found_Q = hit_targets(relations.pair_hits, constrained, len(relations.image_Q), k, **rules)
        ratios.add(f"PairR@{k}", *image_recall(found_Q, relations.image_Q, num_images))
    if relations.unseen_T is not None:
        unseen = relations.unseen_T
        for k in options.ks:
            hit_T = recalls[f"R@{k}"][unseen]
            ratios.add(f"zR@{k}", *image_recall(hit_T, relations.image_T[unseen], num_images))
    means = {"mRecall": recalls["Recall"]}
    for k in options.ks:
        means |= {f"mR@{k}": recalls[f"R@{k}"], f"ng-mR@{k}": recalls[f"ng-R@{k}"]}
    vocabulary = None
    if options.absent_predicates_as_zero:
        vocabulary = len(set(options.predicates) | target_predicates(data))
    counted = None
    if options.failed == "skipped_in_means":
        counted = np.array([pair.result.ok for pair in pairs], dtype=float)
    return PredicateMeans(relations.predicate_T, relations.image_T, means, num_images, counted, vocabulary, groups)


def target_predicates(data: DataSet) -> set[str]:
    """Names of the predicates that some target has."""
    return {data.relations.predicates[index] for index in np.unique(data.relations.predicate_T).tolist()}


def _add_precision(ratios: Ratios, name: str, hits, side, num_images: int) -> None:
    """Micro precision, recall, F1 and hallucination of ``side``, the data set's objects or relations."""
    predicted, target = _per_image(side.image_P, num_images), _per_image(side.image_T, num_images)
    matched = matched_per_image(hits, side.image_P, len(side.image_T), num_images)
    ratios.add(f"{name}_precision", matched, predicted)
    ratios.add(f"{name}_recall", matched, target)
    ratios.add(f"{name}_f1", 2 * matched, predicted + target)
    hallucination = "relation_hallucination" if name == "triplet" else f"{name}_hallucination"
    ratios.add(hallucination, unmatched_per_image(hits, side.image_P, num_images), predicted)


def _add_instance_recall(ratios: Ratios, data: DataSet) -> None:
    """sgbench's InstR: over images with a target relation, the share of target objects that some prediction fits."""
    objects = data.objects
    hit_T = np.zeros(len(objects.image_T))
    hit_T[objects.hits.target_C] = 1.0
    recall_N, counts_N = image_recall(hit_T, objects.image_T, data.num_images)
    related_N = np.bincount(data.relations.image_T, minlength=data.num_images) > 0
    ratios.add("InstR", recall_N * related_N, counts_N * related_N)


def _detection(ratios: Ratios, data: DataSet, matches: Matches, options: MetricOptions) -> list[Family]:
    objects, num_images = data.objects, data.num_images
    families: list[Family] = [CocoFamily(objects, matches)]
    target = _per_image(objects.image_T, num_images)
    hits = [np.bincount(objects.image_P[hit_P], minlength=num_images) for hit_P in matches.hit_LP]
    counted = [_per_image(objects.image_P[~ignored_P], num_images) for ignored_P in matches.ignored_LP]
    ratios.add("greedy_precision", hits[0], counted[0])
    ratios.add("greedy_recall", hits[0], target)
    if options.f1_average == "classes":
        families.append(ClassF1(objects, matches, num_images))
    else:
        for name, levels in LEVELS.items():
            divisor = np.mean([counted[level] for level in levels], axis=0) + target
            ratios.add(name, 2 * np.mean([hits[level] for level in levels], axis=0), divisor)
    if options.task == "det":
        kept_P = kept_by_nms(objects)
        thinned: Objects = objects.select(kept_P)
        families.append(CocoFamily(thinned, greedy_matches(thinned), prefix="NMS-"))
    return families


def _add_density(ratios: Ratios, data: DataSet, pairs: Sequence[Pair], options: MetricOptions) -> None:
    num_images = data.num_images
    repeated_O, repeated_R = duplicates(
        data.predicted, data.predicted_relations, options.iou_threshold, options.box_offset
    )
    if options.task != "det":
        # The parser has dropped literal repetitions already; the model emitted them all the same.
        dropped = [sum(issue.kind == "duplicate_relation" for issue in pair.result.issues) for pair in pairs]
        ratios.add("relations_per_image", _per_image(data.relations.image_P, num_images))
        ratios.add("duplicates_per_image", _per_image(data.relations.image_P[repeated_R], num_images) + dropped)
    ratios.add("objects_per_image", _per_image(data.objects.image_P, num_images))
    ratios.add("duplicate_objects_per_image", _per_image(data.objects.image_P[repeated_O], num_images))


def _per_image(image: Array, num_images: int) -> Array:
    return np.bincount(image, minlength=num_images).astype(float)
