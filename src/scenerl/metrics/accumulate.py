"""Metrics that accumulate predictions one by one and merge across processes, like those of torchmetrics."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from scenerl.errors import UserError
from scenerl.metrics.evaluation import evaluate
from scenerl.metrics.protocols import MetricOptions, Pair, Triplet
from scenerl.metrics.report import Report
from scenerl.types import ParseResult, SceneGraph


class SceneGraphMetric:
    """Accumulates predictions and targets; :meth:`compute` evaluates all of them.

    The state is the list of pairs, which pickles: metrics of several processes are gathered as they are and merged.

    Args:
        options, training_triplets, predicate_counts: as for :func:`scenerl.metrics.evaluate`.

    >>> from scenerl.types import Relation, SceneObject
    >>> cat, mat = SceneObject("cat", (0, 0, 20, 20)), SceneObject("mat", (0, 10, 40, 40))
    >>> graph = SceneGraph((cat, mat), (Relation(0, "on", 1),))
    >>> first, second = (SceneGraphMetric(MetricOptions(bootstrap_samples=0)) for _ in range(2))
    >>> first.update("1", graph, graph)
    >>> second.update("2", None, graph)
    >>> first.merge(second)
    >>> first.compute().metrics["R@50"].value, len(first)
    (0.5, 2)
    """

    def __init__(
        self,
        options: MetricOptions | None = None,
        training_triplets: Collection[Triplet] | None = None,
        predicate_counts: Mapping[str, int] | None = None,
    ) -> None:
        self.options = options or MetricOptions()
        self.training_triplets = training_triplets
        self.predicate_counts = predicate_counts
        self.pairs: dict[str, Pair] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def update(
        self,
        image_id: str,
        prediction: ParseResult | SceneGraph | None,
        target: SceneGraph,
        image_wh: tuple[int, int] = (0, 0),
    ) -> None:
        """Add an image. A graph is a prediction that parsed, None one that failed.

        Raises:
            UserError: the image was there already.
        """
        if prediction is None:
            prediction = ParseResult("no_answer", None)
        elif isinstance(prediction, SceneGraph):
            prediction = ParseResult("ok", prediction)
        self._add(Pair(image_id, prediction, target, image_wh))

    def merge(self, *others: SceneGraphMetric) -> None:
        """Add what others accumulated.

        Raises:
            UserError: an image that is there already.
        """
        for other in others:
            for pair in other.pairs.values():
                self._add(pair)

    def _add(self, pair: Pair) -> None:
        if pair.image_id in self.pairs:
            raise UserError(f"the image {pair.image_id!r} was added already")
        self.pairs[pair.image_id] = pair

    def compute(self) -> Report:
        """The report over everything added, in the order of image ids: the number of processes does not matter."""
        pairs = [self.pairs[image_id] for image_id in sorted(self.pairs)]
        return evaluate(pairs, self.options, self.training_triplets, self.predicate_counts)

    def reset(self) -> None:
        """Forget everything that was added."""
        self.pairs.clear()
