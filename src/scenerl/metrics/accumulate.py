"""A metric that accumulates predictions one by one and merges across processes, like those of torchmetrics."""

from __future__ import annotations

from typing import Any

from scenerl.errors import UserError
from scenerl.metrics.evaluation import Report, evaluate
from scenerl.metrics.protocols import MetricOptions, Pair
from scenerl.types import ParseResult, SceneGraph


class SceneGraphMetric:
    """Accumulates predictions and targets; :meth:`compute` evaluates all of them.

    The state pickles: metrics of several processes are gathered as they are and merged.

    Args:
        options: as for :func:`scenerl.metrics.evaluate`.
        **training: its further arguments, by name.

    >>> from scenerl.types import Relation, SceneObject
    >>> cat, mat = SceneObject("cat", (0, 0, 20, 20)), SceneObject("mat", (0, 10, 40, 40))
    >>> graph = SceneGraph((cat, mat), (Relation(0, "on", 1),))
    >>> first, second = (SceneGraphMetric(MetricOptions(bootstrap_samples=0)) for _ in range(2))
    >>> first.update("1", graph, graph)
    >>> second.update("2", None, graph)
    >>> first.merge(second)
    >>> first.compute().metrics["R@50"].value
    0.5
    """

    def __init__(self, options: MetricOptions | None = None, **training: Any) -> None:
        self.options, self.training = options, training
        self.pairs: dict[str, Pair] = {}

    def update(self, image_id: str, prediction: ParseResult | SceneGraph | None, target: SceneGraph) -> None:
        """Add an image. A graph is a prediction that parsed, None one that failed.

        Raises:
            UserError: the image was there already.
        """
        if prediction is None:
            prediction = ParseResult("no_answer", None)
        elif isinstance(prediction, SceneGraph):
            prediction = ParseResult("ok", prediction)
        self._add(Pair(image_id, prediction, target))

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
        return evaluate([self.pairs[image_id] for image_id in sorted(self.pairs)], self.options, **self.training)
