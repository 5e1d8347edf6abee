"""Metrics by a user's own functions, ``FILE.py:NAME``: each of one Comparison, as rewards are, averaged over images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from scenerl.errors import UserError
from scenerl.metrics import Pair
from scenerl.metrics.registry import is_registered
from scenerl.plugins import described, finite_number, is_own, load_function
from scenerl.rewards import Comparison, RewardOptions
from scenerl.types import Example, ParseResult

OwnMetric = Callable[[Comparison], float | None]


def own_metrics(names: Iterable[str]) -> dict[str, OwnMetric]:
    """The functions among some names of metrics, by the names under which they are shown.

    Raises:
        UserError: a file that cannot be used, or a name that is taken.
    """
    found: dict[str, OwnMetric] = {}
    for name in filter(is_own, names):
        shown = name.rpartition(":")[2]
        if is_registered(shown):
            raise UserError(f"{name}: {shown!r} is a metric of scenerl already; give the function another name")
        if shown in found:
            raise UserError(f"metric {shown!r} is given twice")
        found[shown] = _checked(name, load_function(name))
    return found


def _checked(name: str, own: OwnMetric) -> OwnMetric:
    def metric(comparison: Comparison) -> float | None:
        value = own(comparison)
        if value is None:
            return None
        if (number := finite_number(value)) is None:
            raise UserError(
                f"{name}: returned {value!r:.80} for one image; a metric is one finite number, or None where the image "
                "does not count"
            )
        return number

    return metric


def check_own(names: Iterable[str], example: Example, iou_threshold: float) -> None:
    """Call the functions among some names once with a perfect answer and once with a failed parse.

    Raises:
        UserError: one of them raises an error, or returns neither a finite number nor None.
    """
    for name in filter(is_own, names):
        metrics = own_metrics([name])
        for kind, result, text in (
            ("a perfect answer", ParseResult("ok", example.graph), "a perfect answer"),
            ("an answer that cannot be parsed", ParseResult("empty", None), ""),
        ):
            pair = Pair(example.image_id, result, example.graph, example.image_wh, text=text)
            try:
                measured([pair], metrics, iou_threshold)
            except UserError:
                raise
            except Exception as error:
                file = Path(name.rpartition(":")[0]).resolve()
                raise UserError(f"{name}: fails on {kind}: {described(error, file)}") from error


def measured(pairs: Sequence[Pair], metrics: Mapping[str, OwnMetric], iou_threshold: float) -> list[Pair]:
    """The pairs with the values of a user's metrics."""
    options = RewardOptions(iou_threshold=iou_threshold)
    found = []
    for pair in pairs:
        comparison = Comparison(pair.result, pair.target, pair.image_wh, options, pair.text)
        found.append(replace(pair, own={name: metric(comparison) for name, metric in metrics.items()}))
    return found
