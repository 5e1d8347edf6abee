"""What goes into an evaluation: one pair per image, the conventions as options, and published protocols by name.

A protocol says how numbers were computed, not how a model was trained. Adding one takes an entry in :data:`PROTOCOLS`
and a row in docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scenerl.errors import UserError
from scenerl.types import ParseResult, SceneGraph, SceneObject

Triplet = tuple[str, str, str]

CHOICES = {
    "task": ("sgdet", "sgcls", "predcls", "det"),
    "hits": ("one_to_many", "one_to_one", "best_target"),
    "graph_constraint": ("scored", "always", "never"),
    "ties": ("emission", "expected"),
    "failed": ("empty", "skipped", "skipped_in_means", "skipped_if_empty"),
    "f1_average": ("micro", "classes"),
}
"""Field of :class:`MetricOptions` to its values; docs/metrics.md says what they mean."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One image: the parsed answer and the ground truth. Boxes in pixels of the original image.

    ``crowds`` are regions that hold many objects of a class (COCO's ``iscrowd``): a prediction on one is neither right
    nor wrong in COCO's metrics. ``query`` holds the requested labels, where there were some.
    """

    image_id: str
    result: ParseResult
    target: SceneGraph
    image_wh: tuple[int, int] = (0, 0)
    crowds: tuple[SceneObject, ...] = ()
    query: tuple[str, ...] | None = None


@dataclass(frozen=True)
class MetricOptions:
    """The conventions of an evaluation. The defaults are those of docs/metrics.md.

    Args:
        task: this and the other words: see :data:`CHOICES`.
        ks: the K of R@K, ng-R@K, mR@K, zR@K and their like.
        iou_threshold: least IoU of a match, inclusive.
        plus_one: add one pixel to widths and heights in the IoU of matches, as evaluators descended from Motifs do.
            COCO's metrics never do.
        hits: of recall. Precision and F1 are always one to one, of the hits that ``best_target`` leaves.
        graph_constraint: of recall.
        ties: of recall. AP follows the order of emission, as COCO's does.
        failed: how images count whose answer could not be parsed.
        absent_predicates_as_zero: count predicates without a target as recall 0 in mR@K and mRecall; needs
            ``predicates``.
        predicates: the predicate vocabulary, or None.
        group_bounds: fewest training relations of a predicate of the body and of the head, for the means over head,
            body and tail; None cuts the predicates into thirds by training frequency.
        f1_average: of F1@0.5, F1@0.95 and F1_mean.
        filtered: COCO filtered (VLM-R1): leave out, per image, categories with more than 10 target boxes, and the
            predictions of these categories. Detection only.
        bootstrap_samples: resamples for the 95 % intervals; 0 for none.
        seed: seed of the resampling.

    Raises:
        UserError: a value that is not allowed.
    """

    task: str = "sgdet"
    ks: tuple[int, ...] = (20, 50, 100)
    iou_threshold: float = 0.5
    plus_one: bool = False
    hits: str = "one_to_many"
    graph_constraint: str = "scored"
    ties: str = "emission"
    failed: str = "empty"
    absent_predicates_as_zero: bool = False
    predicates: tuple[str, ...] | None = None
    group_bounds: tuple[int, int] | None = None
    f1_average: str = "micro"
    filtered: bool = False
    bootstrap_samples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"unknown {name} {getattr(self, name)!r}; allowed: {', '.join(allowed)}")
        if not self.ks or any(k < 1 for k in self.ks):
            raise UserError(f"ks must be positive whole numbers, got {self.ks}")
        if not 0.0 < self.iou_threshold <= 1.0:
            raise UserError(f"iou_threshold must be above 0 and at most 1, got {self.iou_threshold}")
        if self.bootstrap_samples < 0:
            raise UserError(f"bootstrap_samples must not be negative, got {self.bootstrap_samples}")
        if self.absent_predicates_as_zero and not self.predicates:
            raise UserError("absent_predicates_as_zero needs the predicate vocabulary (predicates)")
        if self.hits == "one_to_one" and self.ties == "expected":
            raise UserError("ties 'expected' is not defined for hits 'one_to_one'; allowed there: emission")
        if self.filtered and self.task != "det":
            raise UserError(f"filtered is for task 'det', not {self.task!r}")
        if self.group_bounds is not None and not 0 < self.group_bounds[0] < self.group_bounds[1]:
            raise UserError(f"group_bounds must be two rising positive numbers, got {self.group_bounds}")

    @property
    def box_offset(self) -> float:
        """What the IoU of matches adds to widths and heights."""
        return 1.0 if self.plus_one else 0.0


@dataclass(frozen=True)
class Protocol:
    """Conventions that a publication's numbers follow.

    Attributes:
        tasks: the tasks it is defined for, the first being its default.
        settings: fields of :class:`MetricOptions` that differ from their defaults.
        differs: what remains different, in a sentence, or nothing.
    """

    source: str
    tasks: tuple[str, ...]
    settings: Mapping[str, object]
    differs: str = ""


_GRAPH_TASKS = ("sgdet", "sgcls", "predcls")

PROTOCOLS: dict[str, Protocol] = {
    "r1-sgg": Protocol(
        source="R1-SGG, arXiv 2504.13617: failure rate, AP50, Recall and mRecall over all predicted relations",
        tasks=_GRAPH_TASKS,
        settings={"plus_one": True, "graph_constraint": "never", "absent_predicates_as_zero": True},
        differs="its evaluator fills failed images with uninitialised boxes, here they are empty; relations of objects "
        "that do not exist and boxes without area are failures here, as the paper says, but not in its code; its R and "
        "mR leave out images that have objects but no usable relation",
    ),
    "motifs": Protocol(
        source="Neural Motifs, arXiv 1711.06640, and Scene-Graph-Benchmark, arXiv 2002.11949: R@K, ng-R@K, mR@K, zR@K",
        tasks=_GRAPH_TASKS,
        settings={
            "plus_one": True,
            "graph_constraint": "always",
            "failed": "skipped_if_empty",
            "absent_predicates_as_zero": True,
        },
    ),
    "sgbench": Protocol(
        source="sgbench 1.0.0 (Lorenz et al. 2024): R@K, mR@K, InstR",
        tasks=("sgdet",),
        settings={"hits": "best_target", "graph_constraint": "always", "failed": "skipped_in_means"},
        differs="it has no mR at all when a predicate of the vocabulary has no target; here such predicates are left "
        "out",
    ),
    "rex-omni": Protocol(
        source="Rex-Omni, arXiv 2510.12798: F1 at IoU 0.5, 0.95 and the mean over .50:.95, no scores needed",
        tasks=("det",),
        settings={"f1_average": "classes"},
        differs="its released evaluator, which averages F1 over classes too, gives other numbers: it takes "
        "precision at the rank of the last true positive, averages IoU levels within a class before it leaves zeros "
        "out, and gives a class without a true positive the precision of the class before",
    ),
    "ovdeval": Protocol(
        source="OVDEval, arXiv 2308.13177: NMS-AP",
        tasks=("det",),
        settings={},
        differs="of equal scores its sort leaves open which box stays; here the one of highest IoU, then the first. "
        "It takes a match with the annotation of id 0 for none",
    ),
    "coco": Protocol(
        source="COCO, arXiv 1405.0312: AP .50:.05:.95",
        tasks=("det",),
        settings={},
    ),
}


def protocol(name: str) -> Protocol:
    """A protocol by its name.

    Raises:
        UserError: an unknown name.

    >>> protocol("motifs").settings["plus_one"]
    True
    """
    if name not in PROTOCOLS:
        raise UserError(f"unknown protocol {name!r}; allowed: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
