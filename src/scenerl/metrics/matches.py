"""What matches what in single images, as the metrics count it: for galleries and other displays."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from scenerl.metrics.arrays import Array, Candidates, collect, one_to_one
from scenerl.metrics.precision import num_ignored
from scenerl.metrics.protocols import MetricOptions, Pair
from scenerl.metrics.provided_objects import provided_places
from scenerl.types import SceneGraph


@dataclass(frozen=True, slots=True)
class ElementMatches:
    """Matches of the predicted objects of an image, or of its predicted relations.

    Attributes:
        target: per predicted element its target in the one-to-one matching of precision and F1, or None.
        fits: per predicted element all targets that it fits, as recall counts them. An element that fits something but
            has no target of its own repeats another.
        num_predicted: what precision divides by. Elements that the parser dropped are among them; those that SGCls and
            PredCls leave out are not, nor objects on a crowd region that take no target.
        num_targets: number of targets.
    """

    target: tuple[int | None, ...]
    fits: tuple[tuple[int, ...], ...]
    num_predicted: int
    num_targets: int

    @property
    def num_matched(self) -> int:
        return sum(target is not None for target in self.target)

    @property
    def found(self) -> tuple[bool, ...]:
        """Per target whether any predicted element fits it."""
        found = {target for targets in self.fits for target in targets}
        return tuple(target in found for target in range(self.num_targets))

    @property
    def f1(self) -> float:
        """F1 of the image, as ``eval --compare`` scores it; 1 where nothing is there and nothing was predicted."""
        total = self.num_predicted + self.num_targets
        return 2 * self.num_matched / total if total else 1.0


@dataclass(frozen=True, slots=True)
class Matches:
    """What matches what in one image; indices are those of the pair's graphs."""

    objects: ElementMatches
    relations: ElementMatches


def matches_of(pair: Pair, options: MetricOptions | None = None) -> Matches:
    """The matches of one image under the options' conventions: what :func:`scenerl.metrics.evaluate` counts of it.

    In task ``det`` there are no relations. Predictions that SGCls and PredCls leave out, because they correspond to no
    provided object, match nothing. ``filtered`` and ``failed``, which leave out categories and images, play no part.

    >>> from scenerl.types import ParseResult, SceneObject
    >>> dog, cat = SceneObject("dog", (0, 0, 10, 10)), SceneObject("cat", (0, 0, 10, 10))
    >>> found = matches_of(Pair("1", ParseResult("ok", SceneGraph((cat, dog, dog))), SceneGraph((dog,))))
    >>> found.objects.target, found.objects.fits, found.objects.f1
    ((None, 0, None), ((), (0,), (0,)), 0.5)
    """
    options = dataclasses.replace(options or MetricOptions(), filtered=False)
    graph = pair.result.graph or SceneGraph()
    objects, relations = range(len(graph.objects)), range(len(graph.relations))
    if options.task in ("sgcls", "predcls"):
        objects = list(provided_places(graph, pair.target, options.task))
        relations = [r for r in relations if {graph.relations[r].subject, graph.relations[r].object} <= set(objects)]
    data = collect([pair], options)
    on_crowd_P = data.objects.crowd_P >= options.iou_threshold
    ignored_N = num_ignored(data.objects.predicted.image_O, data.objects.fits, on_crowd_P, 1)
    num_objects, num_targets = len(graph.objects), len(data.objects.target)
    found = _matches(data.objects.fits, objects, num_objects, num_targets, data.dropped_objects_N - ignored_N)
    if options.task == "det":
        return Matches(found, ElementMatches((), (), 0, 0))
    fits, num_targets = data.relations.fits, len(data.relations.target)
    return Matches(found, _matches(fits, relations, len(graph.relations), num_targets, data.dropped_relations_N))


def _matches(
    fits: Candidates, kept: Sequence[int], num_elements: int, num_targets: int, more_N: Array
) -> ElementMatches:
    """``kept`` are the indices of the elements that ``fits`` numbers; ``more_N``: how many more predictions count."""
    target: list[int | None] = [None] * num_elements
    for prediction, matched in zip(*one_to_one(fits), strict=True):
        target[kept[prediction]] = int(matched)
    fitting: list[list[int]] = [[] for _ in range(num_elements)]
    for prediction, fitted in zip(fits.prediction_C.tolist(), fits.target_C.tolist(), strict=True):
        fitting[kept[prediction]].append(fitted)
    return ElementMatches(tuple(target), tuple(map(tuple, fitting)), len(kept) + int(more_N[0]), num_targets)
