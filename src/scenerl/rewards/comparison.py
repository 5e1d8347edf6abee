"""One answer beside its target: everything that rewards look at, computed on first use and then shared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from operator import eq

import numpy as np

from scenerl.boxes import as_boxes, giou_matrix, iou_and_union, l1_matrix, share_inside
from scenerl.matching import hungarian
from scenerl.rewards.average_precision import average_precisions
from scenerl.rewards.options import RewardOptions
from scenerl.similarity import similarity_matrix
from scenerl.types import Box, Example, ParseResult, SceneGraph, SceneObject

Array = np.ndarray
ObjectKey = tuple[Box, str]

# Boxes are cut here before any arithmetic: model text may say 1e308, whose area is infinite.
_FARTHEST = 1e9


class _shared:
    """``functools.cached_property`` without its lock, which costs Python 3.11 more than many of the values here."""

    def __init__(self, compute: Callable) -> None:
        self.compute = compute
        self.name = compute.__name__
        self.__doc__ = compute.__doc__

    def __get__(self, instance, owner=None):
        if instance is None:
            return self
        value = instance.__dict__[self.name] = self.compute(instance)
        return value


class Comparison:
    """A parsed answer beside its target.

    Nothing here depends on the order of objects or relations, except what says so: ties between matches are broken by
    labels and boxes, never by position.

    Args:
        result: the parsed answer; boxes in pixels of the original image.
        target: the ground truth, in the same pixels.
        image_wh: size of the original image in pixels.
        options: conventions.
        text: the answer's text, for `repetition` and `cosine_length`.
        num_tokens: length of the answer in tokens; None: its words and signs are counted instead.
        crowds: regions of the target that hold many objects of a label. Object rewards ignore predictions that lie on
            one and match nothing, as the metrics do.
    """

    def __init__(
        self,
        result: ParseResult,
        target: SceneGraph,
        image_wh: tuple[float, float],
        options: RewardOptions | None = None,
        text: str | None = None,
        num_tokens: int | None = None,
        crowds: Sequence[SceneObject] = (),
    ) -> None:
        self.result = result
        self.failed = not result.ok
        self.predicted = SceneGraph() if result.graph is None else result.graph
        self.target = target
        self.image_wh = image_wh
        self.options = options or RewardOptions()
        self.text = text
        self.num_tokens = num_tokens
        self.crowds = crowds

    @classmethod
    def of(
        cls,
        result: ParseResult,
        example: Example,
        options: RewardOptions | None = None,
        text: str | None = None,
        num_tokens: int | None = None,
    ) -> Comparison:
        """A parsed answer beside the ground truth of its example."""
        return cls(result, example.graph, example.image_wh, options, text, num_tokens, example.crowds)

    @_shared
    def num_predicted_objects(self) -> int:
        """Predicted objects, with those that the parser dropped: they match nothing."""
        return len(self.predicted.objects) + (self.result.num_dropped_objects if self.result.issues else 0)

    @_shared
    def num_predicted_relations(self) -> int:
        """Predicted relations, with those that the parser dropped: they match nothing."""
        return len(self.predicted.relations) + (self.result.num_dropped_relations if self.result.issues else 0)

    # Objects

    @_shared
    def keys(self) -> tuple[list[ObjectKey], list[ObjectKey]]:
        """What the predicted objects are, and the target's, whatever their places in the lists."""
        return tuple([(item.box, item.label) for item in graph.objects] for graph in (self.predicted, self.target))

    @_shared
    def order(self) -> tuple[list[int], list[int]]:
        """Predicted objects and targets sorted by :attr:`keys`: an order that no listing can change."""
        return tuple(sorted(range(len(keys)), key=keys.__getitem__) for keys in self.keys)

    @_shared
    def duplicates(self) -> tuple[list[int], list[int]]:
        """For each predicted object, and for each target, the first one with the same label and box, usually itself."""
        return tuple(map(_first_equal, self.keys, self.order))

    @_shared
    def _boxes(self) -> tuple[Array, Array]:
        """Boxes of predicted (N, 4) and target objects (M, 4)."""
        predicted, targets = self.keys
        boxes = as_boxes([box for box, _ in predicted + targets])
        boxes[: len(predicted)].clip(-_FARTHEST, _FARTHEST, out=boxes[: len(predicted)])
        return boxes[: len(predicted)], boxes[len(predicted) :]

    @_shared
    def _iou_and_union_NM(self) -> tuple[Array, Array]:
        return iou_and_union(*self._boxes)

    @_shared
    def iou(self) -> list[list[float]]:
        """IoU of predicted object n and target object m at ``iou[n][m]``."""
        return self._iou_and_union_NM[0].tolist()

    @_shared
    def _similarity_NM(self) -> Array:
        labels = ([label for _, label in keys] for keys in self.keys)
        return similarity_matrix(self.options.similarity, *labels)

    @_shared
    def similarity(self) -> Callable[[int, int], float]:
        """``similarity(n, m)``: label similarity of predicted object n and target object m."""
        return self._similarity_NM.item

    @_shared
    def _l1_NM(self) -> Array:
        size = np.array([*self.image_wh, *self.image_wh], dtype=np.float64)
        predicted, targets = self._boxes
        return l1_matrix(predicted / size, targets / size)

    @_shared
    def l1(self) -> Callable[[int, int], float]:
        """``l1(n, m)``: sum of absolute coordinate differences, boxes scaled to [0, 1] by the image's size."""
        return self._l1_NM.item

    @_shared
    def node_match(self) -> list[tuple[int, int]]:
        """Hungarian match of objects: (predicted, target) index pairs, min(N, M) of them.

        The cost of a pair is (1 - label similarity) + 2 (1 - GIoU) + 5 L1, L1 as in :attr:`l1`.
        """
        if not self.predicted.objects or not self.target.objects:
            return []
        # Less the constant 1 + 2, which every pair has.
        cost_NM = 5.0 * self._l1_NM
        cost_NM -= self._similarity_NM
        cost_NM -= 2.0 * giou_matrix(*self._boxes, self._iou_and_union_NM)
        # Rows and columns in an order of their own, so that equal costs do not fall to whoever was listed first.
        rows, columns = self.order
        matched_rows, matched_columns = hungarian(cost_NM.take(rows, axis=0).take(columns, axis=1))
        return [(rows[n], columns[m]) for n, m in zip(matched_rows.tolist(), matched_columns.tolist(), strict=True)]

    @_shared
    def detection_match(self) -> list[tuple[int, int]]:
        """Greedy match of objects with equal labels: (predicted, target) index pairs.

        Of all pairs with equal labels and IoU at the threshold or above, the one with the highest IoU is matched first,
        then the highest of the rest, and so on.
        """
        threshold, iou = self.options.iou_threshold, self.iou
        predicted, targets = self.keys
        targets_of: dict[str, list[int]] = {}
        for m, (_, label) in enumerate(targets):
            targets_of.setdefault(label, []).append(m)
        pairs = []
        for n, (box, label) in enumerate(predicted):
            row = iou[n]
            near = [m for m in targets_of.get(label, ()) if row[m] >= threshold]
            pairs += [(-row[m], box, targets[m], n, m) for m in near]
        pairs.sort()
        taken_n, taken_m, match = set(), set(), []
        for *_, n, m in pairs:
            if n not in taken_n and m not in taken_m:
                taken_n.add(n)
                taken_m.add(m)
                match.append((n, m))
        return match

    @_shared
    def _on_crowd(self) -> list[float]:
        """Per predicted object the share of its area that lies on a crowd region of its label."""
        labels = [label for _, label in self.keys[0]]
        pairs = [
            (n, m) for m, crowd in enumerate(self.crowds) for n, label in enumerate(labels) if label == crowd.label
        ]
        if not pairs:
            return [0.0] * len(labels)
        return share_inside(self._boxes[0], as_boxes([crowd.box for crowd in self.crowds]), *np.array(pairs).T).tolist()

    @_shared
    def ignored(self) -> set[int]:
        """The predicted objects that are neither right nor wrong: they lie on a crowd region, for at least the IoU
        threshold's share of their area, and are not in :attr:`detection_match`."""
        near = {n for n, share in enumerate(self._on_crowd) if share >= self.options.iou_threshold}
        return near.difference(n for n, _ in self.detection_match) if near else near

    @_shared
    def num_counted_objects(self) -> int:
        """:attr:`num_predicted_objects` without those that are :attr:`ignored`."""
        return self.num_predicted_objects - len(self.ignored)

    @_shared
    def average_precisions(self) -> list[float]:
        """AP at each of COCO's ten IoU thresholds; follows the order of emission. Needs a target object."""
        labels = ([label for _, label in keys] for keys in self.keys)
        return average_precisions(self.iou, *labels, self._on_crowd)

    # Relations

    @_shared
    def candidates(self) -> list[list[int]]:
        """For each target relation, the predicted relations whose subject and object boxes both pass the IoU gate."""
        if not self.predicted.relations or not self.target.relations:
            return [[] for _ in self.target.relations]
        near = (self._iou_and_union_NM[0] >= self.options.iou_threshold).T.tolist()
        ends = [(r, edge.subject, edge.object) for r, edge in enumerate(self.predicted.relations)]
        found = []
        for wanted in self.target.relations:
            near_subject, near_object = near[wanted.subject], near[wanted.object]
            found.append([r for r, s, o in ends if near_subject[s] and near_object[o]])
        return found

    @_shared
    def fits(self) -> list[list[int]]:
        """For each target relation, the candidates whose three labels equal its own."""
        if not self.predicted.relations or not self.target.relations:
            return [[] for _ in self.target.relations]
        predicted, targets = self.keys
        named: dict[tuple[str, str, str], list[tuple[int, int, int]]] = {}
        for r, edge in enumerate(self.predicted.relations):
            s, o = edge.subject, edge.object
            named.setdefault((predicted[s][1], edge.predicate, predicted[o][1]), []).append((r, s, o))
        iou, threshold = self.iou, self.options.iou_threshold
        found = []
        for edge in self.target.relations:
            subject, object_ = edge.subject, edge.object
            alike = named.get((targets[subject][1], edge.predicate, targets[object_][1]), ())
            found.append([r for r, s, o in alike if iou[s][subject] >= threshold and iou[o][object_] >= threshold])
        return found

    @_shared
    def triplet_match(self) -> list[tuple[int, int]]:
        """A largest one-to-one matching of :attr:`fits`: (predicted, target) relation index pairs."""
        single = [(fitting[0], t) for t, fitting in enumerate(self.fits) if fitting]
        if all(len(fitting) <= 1 for fitting in self.fits) and len({r for r, _ in single}) == len(single):
            return single  # nearly every answer: no two targets and no two predictions compete
        return assign_relations([dict.fromkeys(fitting, 1.0) for fitting in self.fits])


def assign_relations(values: list[dict[int, float]]) -> list[tuple[int, int]]:
    """One-to-one match of predicted and target relations with the largest total value.

    Args:
        values: for each target relation, the predicted relations that may be matched to it and their values, above 0.

    Returns:
        (predicted, target) relation index pairs.
    """
    rows = sorted({r for own in values for r in own})
    row_of = {r: row for row, r in enumerate(rows)}
    value_RT = np.zeros((len(rows), len(values)))
    for t, own in enumerate(values):
        for r, value in own.items():
            value_RT[row_of[r], t] = value
    matched = zip(*(indices.tolist() for indices in hungarian(-value_RT)), strict=True)
    return [(rows[row], t) for row, t in matched if value_RT[row, t] > 0.0]


def _first_equal(keys: list[ObjectKey], order: list[int]) -> list[int]:
    """For each object the index of the first one with the same key; ``order`` sorts the keys and is stable."""
    firsts = list(range(len(keys)))
    ranked = [keys[index] for index in order]
    if any(map(eq, ranked, ranked[1:])):
        for before, after in pairwise(order):
            if keys[before] == keys[after]:
                firsts[after] = firsts[before]
    return firsts
