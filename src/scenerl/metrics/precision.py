"""Precision, recall and F1, density, duplicates, hallucinations: what recall alone does not see."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scenerl.boxes import iou_of_pairs
from scenerl.metrics.arrays import (
    Array,
    Candidates,
    DataSet,
    ObjectColumns,
    RelationColumns,
    join,
    one_to_one,
    pairs_within,
    per_image,
    starts,
)
from scenerl.metrics.protocols import MetricOptions, Pair

_JOINED = 4_000_000  # steps of a search for repeated relations, which bounds memory


class RatioMetrics:
    """Metrics of the form sum over images of ``numerator`` / sum of ``denominator``; one row each.

    An average over images is one of them: its numerator is the image's value, its denominator 1 (0 where the image
    does not count).
    """

    def __init__(self) -> None:
        self.rows: dict[str, tuple[Array, Array]] = {}

    def add(self, name: str, numerator_N: Array, denominator_N: Array | float = 1.0) -> None:
        """Add a metric; without a denominator it is the mean over all images."""
        denominator_N = np.broadcast_to(denominator_N, len(numerator_N))
        self.rows[name] = (np.asarray(numerator_N, dtype=float), np.asarray(denominator_N, dtype=float))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.rows)

    @property
    def support(self) -> Array:
        """What each metric divides by."""
        return np.array([denominator.sum() for _, denominator in self.rows.values()])

    def __call__(self, weights_NB: Array) -> Array:
        """The metrics under image weights: (metrics, B), NaN where nothing is divided by."""
        numerator, denominator = (np.stack(rows) @ weights_NB for rows in zip(*self.rows.values(), strict=True))
        return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def add_precision(ratios: RatioMetrics, data: DataSet, of_relations: bool, iou_threshold: float) -> None:
    """Micro precision, recall, F1 and hallucination of relations or of objects.

    A largest one-to-one matching, so no order matters. Elements that the parser dropped count as predictions that fit
    nothing; objects that lie on a crowd region for at least ``iou_threshold`` and take no target do not count.
    """
    if of_relations:
        image_P, image_T = data.relations.predicted.image_R, data.relations.target.image_R
        fits, dropped_N, name, kind = data.relations.fits, data.dropped_relations_N, "triplet", "relation"
        on_crowd_P = np.zeros(len(image_P), dtype=bool)
    else:
        image_P, image_T = data.objects.predicted.image_O, data.objects.target.image_O
        fits, dropped_N, name, kind = data.objects.fits, data.dropped_objects_N, "object", "object"
        on_crowd_P = data.objects.crowd_P >= iou_threshold
    matched = per_image(image_P[one_to_one(fits)[0]], data.num_images)
    predicted, target = per_image(image_P, data.num_images) + dropped_N, per_image(image_T, data.num_images)
    predicted -= num_ignored(image_P, fits, on_crowd_P, data.num_images)
    ratios.add(f"{name}_precision", matched, predicted)
    ratios.add(f"{name}_recall", matched, target)
    ratios.add(f"{name}_f1", 2 * matched, predicted + target)
    # A repeated match is no hallucination.
    made_up_P = ~on_crowd_P
    made_up_P[fits.prediction_C] = False
    made_up_N = per_image(image_P[made_up_P], data.num_images) + dropped_N
    ratios.add(f"{kind}_hallucination", made_up_N - data.dropped_duplicates_N * of_relations, predicted)


def num_ignored(image_P: Array, fits: Candidates, on_crowd_P: Array, num_images: int) -> Array:
    """(N,) how many predictions of each image are neither right nor wrong: on a crowd region, and without a target.

    Of the largest one-to-one matchings that leave the fewest of the other predictions without a target.
    """
    if not on_crowd_P.any():
        return np.zeros(num_images)
    matched, others = (one_to_one(entry)[0] for entry in (fits, fits.select(~on_crowd_P[fits.prediction_C])))
    on_crowd_N, matched_N, others_N = (per_image(image_P[which], num_images) for which in (on_crowd_P, matched, others))
    return on_crowd_N - (matched_N - others_N)


def add_density(ratios: RatioMetrics, data: DataSet, options: MetricOptions) -> None:
    """Elements and duplicates per image."""
    objects, relations = data.objects.predicted, data.relations.predicted
    repeated_O, repeated_R = duplicates(objects, relations, options.iou_threshold, options.box_offset)
    if options.task != "det":
        ratios.add("relations_per_image", per_image(relations.image_R, data.num_images))
        # The parser has dropped literal repetitions already; the model emitted them all the same.
        repeated_N = per_image(relations.image_R[repeated_R], data.num_images) + data.dropped_duplicates_N
        ratios.add("duplicates_per_image", repeated_N)
    ratios.add("objects_per_image", per_image(objects.image_O, data.num_images))
    ratios.add("duplicate_objects_per_image", per_image(objects.image_O[repeated_O], data.num_images))


def add_absent(ratios: RatioMetrics, pairs: Sequence[Pair]) -> None:
    """Boxes for labels of the query that the image lacks, where some image has such labels.

    A label is absent where the target has neither a box nor a crowd of it. Against annotations that leave boxes out, a
    label may only seem absent.
    """
    queries = {pair.query: frozenset(pair.query or ()) for pair in pairs}  # often one for all images
    absent, boxes = [], []
    for pair in pairs:
        present = [found.label for found in (*pair.target.objects, *pair.crowds)]
        absent.append(queries[pair.query].difference(present))
        predicted = pair.result.graph.objects if pair.result.graph is not None else ()
        boxes.append([found.label for found in predicted if found.label in absent[-1]])
    if any(absent):
        ratios.add("absent_boxes_per_image", np.array([len(labels) for labels in boxes]))
        answered, requested = ([len(set(labels)) for labels in side] for side in (boxes, absent))
        ratios.add("absent_answered", np.array(answered), np.array(requested))


def duplicates(
    objects: ObjectColumns, relations: RelationColumns, iou_threshold: float = 0.5, offset: float = 0.0
) -> tuple[Array, Array]:
    """Which objects and relations repeat an earlier one of the same image.

    An object repeats another with the same label and an IoU of at least the threshold, a relation repeats another with
    the same predicate between repeated (or the same) subjects and objects: no target could tell them apart.

    Returns:
        (O,) bool and (R,) bool.
    """
    later, earlier = pairs_within(objects.keys)
    alike = iou_of_pairs(objects.box_O, objects.box_O, later, earlier, offset) >= iou_threshold
    repeated_O = np.zeros(len(objects), dtype=bool)
    repeated_O[later[alike]] = True
    return repeated_O, _repeated_relations(objects, relations, later[alike], earlier[alike])


def _repeated_relations(objects: ObjectColumns, relations: RelationColumns, later: Array, earlier: Array) -> Array:
    """Args: ``later`` and ``earlier`` are the pairs of objects that look the same.

    The first relation between each subject's look-alikes and an object is noted, then looked up for each object's
    look-alikes. That takes as many steps as the relations' ends have look-alikes, not a step per pair of relations.
    """
    itself = np.arange(len(objects))
    one, other = np.concatenate([itself, later, earlier]), np.concatenate([itself, earlier, later])
    repeated_R = np.zeros(len(relations), dtype=bool)
    for part in _parts(relations, np.bincount(one)):
        subject, predicate, object_ = relations.subject_R[part], relations.predicate_R[part], relations.object_R[part]

        def key(r: Array, subject: Array, object_: Array, predicate: Array = predicate) -> Array:
            return (predicate[r] * len(objects) + subject) * len(objects) + object_

        r, alike = join(subject, one)
        known, first = np.unique(key(r, other[alike], object_[r]), return_index=True)
        first = r[first]  # of equal keys the earliest relation
        r, alike = join(object_, one)
        wanted = key(r, subject[r], other[alike])
        place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        again = (known[place] == wanted) & (first[place] < r)
        repeated_R[part[r[again]]] = True
    return repeated_R


def _parts(relations: RelationColumns, alike_O: Array) -> list[Array]:
    """Indices of relations, those of an image together, in parts that bound the number of steps."""
    if not len(relations):
        return []
    load = np.cumsum(alike_O[relations.subject_R] + alike_O[relations.object_R]) // _JOINED
    first = np.flatnonzero(starts(relations.image_R))
    return np.split(np.arange(len(relations)), first[1:][np.diff(load[first]) > 0])
