"""One answer beside its target: everything that rewards look at, computed when first asked for and then shared."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from scenerl.boxes import as_boxes, giou_matrix, iou_matrix, l1_matrix
from scenerl.matching import hungarian
from scenerl.rewards.average_precision import average_precisions
from scenerl.rewards.options import RewardOptions
from scenerl.similarity import similarity_matrix
from scenerl.types import Box, ParseResult, SceneGraph

Array = np.ndarray
ObjectKey = tuple[Box, str]

# Boxes are cut here before any arithmetic: model text may say 1e308, whose area is infinite.
_FARTHEST = 1e9


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
    """

    def __init__(
        self,
        result: ParseResult,
        target: SceneGraph,
        image_wh: tuple[float, float],
        options: RewardOptions | None = None,
        text: str | None = None,
        num_tokens: int | None = None,
    ) -> None:
        self.result = result
        self.failed = not result.ok
        self.predicted = SceneGraph() if result.graph is None else result.graph
        self.target = target
        self.image_wh = image_wh
        self.options = options or RewardOptions()
        self.text = text
        self.num_tokens = num_tokens

    # Objects

    @cached_property
    def predicted_keys(self) -> list[ObjectKey]:
        """What a predicted object is, whatever its place in the list."""
        return [(item.box, item.label) for item in self.predicted.objects]

    @cached_property
    def target_keys(self) -> list[ObjectKey]:
        """What a target object is, whatever its place in the list."""
        return [(item.box, item.label) for item in self.target.objects]

    @cached_property
    def _boxes_N4(self) -> Array:
        boxes = as_boxes([item.box for item in self.predicted.objects])
        return boxes.clip(-_FARTHEST, _FARTHEST)

    @cached_property
    def _boxes_M4(self) -> Array:
        return as_boxes([item.box for item in self.target.objects])

    @cached_property
    def _iou_NM(self) -> Array:
        return iou_matrix(self._boxes_N4, self._boxes_M4)

    @cached_property
    def iou(self) -> list[list[float]]:
        """IoU of predicted object n and target object m at ``iou[n][m]``."""
        return self._iou_NM.tolist()

    @cached_property
    def _similarity_NM(self) -> Array:
        predicted, targets = self.predicted.objects, self.target.objects
        return similarity_matrix(
            self.options.similarity, [item.label for item in predicted], [item.label for item in targets]
        )

    @cached_property
    def similarity(self) -> list[list[float]]:
        """Label similarity of predicted object n and target object m at ``similarity[n][m]``."""
        return self._similarity_NM.tolist()

    @cached_property
    def l1(self) -> list[list[float]]:
        """Sum of absolute coordinate differences, boxes scaled to [0, 1] by the image's size, at ``l1[n][m]``."""
        return self._l1_NM.tolist()

    @cached_property
    def _l1_NM(self) -> Array:
        size = np.array([*self.image_wh, *self.image_wh], dtype=np.float64)
        return l1_matrix(self._boxes_N4 / size, self._boxes_M4 / size)

    @cached_property
    def node_match(self) -> list[tuple[int, int]]:
        """Hungarian match of objects: (predicted, target) index pairs, min(N, M) of them.

        The cost of a pair is (1 - label similarity) + 2 (1 - GIoU) + 5 L1, L1 as in :attr:`l1`.
        """
        if not self.predicted.objects or not self.target.objects:
            return []
        # Less the constant 1 + 2, which every pair has.
        cost_NM = 5.0 * self._l1_NM - self._similarity_NM - 2.0 * giou_matrix(self._boxes_N4, self._boxes_M4)
        # Rows and columns in an order of their own, so that equal costs do not fall to whoever was listed first.
        rows = sorted(range(len(self.predicted_keys)), key=self.predicted_keys.__getitem__)
        columns = sorted(range(len(self.target_keys)), key=self.target_keys.__getitem__)
        matched_rows, matched_columns = hungarian(cost_NM.take(rows, axis=0).take(columns, axis=1))
        return [(rows[n], columns[m]) for n, m in zip(matched_rows.tolist(), matched_columns.tolist(), strict=True)]

    @cached_property
    def detection_match(self) -> list[tuple[int, int]]:
        """Greedy match of objects with equal labels: (predicted, target) index pairs.

        Of all pairs with equal labels and IoU at the threshold or above, the one with the highest IoU is matched first,
        then the highest of the rest, and so on.
        """
        threshold, iou = self.options.iou_threshold, self.iou
        targets_of: dict[str, list[int]] = {}
        for m, (_, label) in enumerate(self.target_keys):
            targets_of.setdefault(label, []).append(m)
        pairs = []
        for n, (box, label) in enumerate(self.predicted_keys):
            row = iou[n]
            for m in targets_of.get(label, ()):
                if row[m] >= threshold:
                    pairs.append((-row[m], box, self.target_keys[m], n, m))
        pairs.sort()
        taken_n, taken_m, match = set(), set(), []
        for *_, n, m in pairs:
            if n not in taken_n and m not in taken_m:
                taken_n.add(n)
                taken_m.add(m)
                match.append((n, m))
        return match

    @cached_property
    def average_precisions(self) -> list[float]:
        """AP at each of COCO's ten IoU thresholds; follows the order of emission. Needs a target object."""
        return average_precisions(
            self.iou,
            [item.label for item in self.predicted.objects],
            [item.label for item in self.target.objects],
        )

    # Relations

    @cached_property
    def candidates(self) -> list[list[int]]:
        """For each target relation, the predicted relations whose subject and object boxes both pass the IoU gate."""
        if not self.predicted.relations or not self.target.relations:
            return [[] for _ in self.target.relations]
        by_subject: dict[int, list[tuple[int, int]]] = {}
        for r, relation in enumerate(self.predicted.relations):
            by_subject.setdefault(relation.subject, []).append((relation.object, r))
        near: list[set[int]] = [set() for _ in self.target.objects]
        close_n, close_m = np.nonzero(self._iou_NM >= self.options.iou_threshold)
        for n, m in zip(close_n.tolist(), close_m.tolist(), strict=True):
            near[m].add(n)
        found = []
        for relation in self.target.relations:
            near_object, group = near[relation.object], []
            for n in near[relation.subject]:
                for object_index, r in by_subject.get(n, ()):
                    if object_index in near_object:
                        group.append(r)
            found.append(group)
        return found

    @cached_property
    def hits(self) -> list[list[int]]:
        """For each target relation, the candidates whose three labels equal its own."""
        objects, relations = self.predicted.objects, self.predicted.relations
        found = []
        for wanted, candidates in zip(self.target.relations, self.candidates, strict=True):
            subject_label, predicate, object_label = self.target.triplet(wanted)
            group = []
            for r in candidates:
                relation = relations[r]
                if relation.predicate == predicate and objects[relation.subject].label == subject_label:
                    if objects[relation.object].label == object_label:
                        group.append(r)
            found.append(group)
        return found

    @cached_property
    def triplet_match(self) -> list[tuple[int, int]]:
        """A largest one-to-one match of hits: (predicted, target) relation index pairs."""
        single = [(hits[0], t) for t, hits in enumerate(self.hits) if hits]
        if all(len(hits) <= 1 for hits in self.hits) and len({r for r, _ in single}) == len(single):
            return single  # nearly every answer: no two targets and no two predictions compete
        return self.assign_relations(self.hits, [[1.0] * len(hits) for hits in self.hits])

    def assign_relations(self, candidates: list[list[int]], values: list[list[float]]) -> list[tuple[int, int]]:
        """One-to-one match of predicted and target relations with the largest total value.

        Args:
            candidates: for each target relation, predicted relation indices. values: what each is worth, above 0.

        Returns:
            (predicted, target) relation index pairs.
        """
        rows = sorted({r for group in candidates for r in group})
        row_of = {r: row for row, r in enumerate(rows)}
        value_RT = np.zeros((len(rows), len(candidates)))
        for t, (group, worth) in enumerate(zip(candidates, values, strict=True)):
            for r, value in zip(group, worth, strict=True):
                value_RT[row_of[r], t] = value
        matched = zip(*(indices.tolist() for indices in hungarian(-value_RT)), strict=True)
        return [(rows[row], t) for row, t in matched if value_RT[row, t] > 0.0]
