"""What goes into an evaluation: one pair per image, and the conventions as named options."""

from __future__ import annotations

from dataclasses import dataclass

from scenerl.types import ParseResult, SceneGraph

Triplet = tuple[str, str, str]

TASKS = {
    "sgdet": "scene graphs: every metric",
    "det": "detection: objects only",
}
HITS = {
    "one_to_many": "a prediction may hit several targets; each target counts once (Motifs and its descendants)",
    "one_to_one": "a prediction hits one target at most (a maximum matching of the top K with the targets)",
}
GRAPH_CONSTRAINTS = {
    "scored": "where relations have scores, only the best predicate of each (subject, object) pair counts; in answers "
    "without scores every relation is a statement of its own, and counts",
    "always": "only the best predicate of each pair counts, the first emitted where there are no scores",
    "never": "every relation counts: R@K is then ng-R@K",
}


@dataclass(frozen=True, slots=True)
class Pair:
    """One image: what the answer turned out to be, and the ground truth. Boxes in pixels of the original image."""

    image_id: str
    result: ParseResult
    target: SceneGraph
    image_wh: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class MetricOptions:
    """The conventions of an evaluation. The defaults are those of docs/metrics.md.

    Args:
        task: a name from :data:`TASKS`.
        ks: the K of R@K, ng-R@K, mR@K and zR@K.
        iou_threshold: least IoU of a hit, inclusive.
        plus_one: add one pixel to widths and heights in the IoU of relation and object hits, as evaluators descended
            from Motifs do. The COCO family never does.
        hits: a name from :data:`HITS`; for the recall family. Precision and F1 are always one to one.
        graph_constraint: a name from :data:`GRAPH_CONSTRAINTS`; for R@K, mR@K and zR@K.
        absent_predicates_as_zero: count predicates without a target as recall 0 in mR@K and mRecall; needs
            ``predicates``.
        predicates: the predicate vocabulary, or None.
        bootstrap_samples: resamples for the 95 % intervals; 0 for none.
        seed: seed of the resampling.

    Raises:
        ValueError: a value that is not allowed.
    """

    task: str = "sgdet"
    ks: tuple[int, ...] = (20, 50, 100)
    iou_threshold: float = 0.5
    plus_one: bool = False
    hits: str = "one_to_many"
    graph_constraint: str = "scored"
    absent_predicates_as_zero: bool = False
    predicates: tuple[str, ...] | None = None
    bootstrap_samples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("task", TASKS), ("hits", HITS), ("graph_constraint", GRAPH_CONSTRAINTS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; allowed: {', '.join(allowed)}")
        if not self.ks or any(k < 1 for k in self.ks):
            raise ValueError(f"ks must be positive whole numbers, got {self.ks}")
        if not 0.0 < self.iou_threshold <= 1.0:
            raise ValueError(f"iou_threshold must be above 0 and at most 1, got {self.iou_threshold}")
        if self.bootstrap_samples < 0:
            raise ValueError(f"bootstrap_samples must not be negative, got {self.bootstrap_samples}")
        if self.absent_predicates_as_zero and not self.predicates:
            raise ValueError("absent_predicates_as_zero needs the predicate vocabulary (predicates)")

    @property
    def box_offset(self) -> float:
        """What the IoU of hits adds to widths and heights."""
        return 1.0 if self.plus_one else 0.0
