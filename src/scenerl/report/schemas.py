"""The JSON files that a report is made of: ``report.json`` of a run folder and the metrics.json of ``scenerl eval``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, FiniteFloat, NonNegativeInt, ValidationError, model_validator

from scenerl.errors import UserError
from scenerl.json_files import read_json

Interval = tuple[FiniteFloat, FiniteFloat]


class MetricValue(BaseModel):
    """``value`` is None where the metric has no support."""

    value: FiniteFloat | None
    interval: Interval | None = None


class PredicateRecall(BaseModel):
    """Recall of one predicate in [0, 1]."""

    recall: FiniteFloat | None = None
    num_targets: int | None = None


class Reliability(BaseModel):
    """Mean confidence, accuracy and number of predictions of each bin, None in empty bins; ``ece`` is the expected
    calibration error."""

    ece: FiniteFloat | None = None
    confidence: list[FiniteFloat | None]
    accuracy: list[FiniteFloat | None]
    counts: list[NonNegativeInt]

    @model_validator(mode="after")
    def _equally_long(self) -> Reliability:
        if len({len(self.confidence), len(self.accuracy), len(self.counts)}) > 1:
            raise ValueError("confidence, accuracy and counts differ in length")
        return self

    @property
    def points(self) -> list[tuple[float, float, int]]:
        """(confidence, accuracy, count) of the bins that are not empty."""
        bins = zip(self.confidence, self.accuracy, self.counts, strict=True)
        return [
            (confidence, accuracy, count)
            for confidence, accuracy, count in bins
            if count and None not in (confidence, accuracy)
        ]


class Metrics(BaseModel):
    """metrics.json: what was found about one stage against one target. All but ``metrics`` may be missing."""

    metrics: dict[str, MetricValue]
    per_predicate: dict[str, PredicateRecall] = Field(default_factory=dict)
    failures: dict[str, int] | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    counts: dict[str, Any] = Field(default_factory=dict)
    calibration: dict[str, Reliability] = Field(default_factory=dict)

    @property
    def known(self) -> dict[str, MetricValue]:
        """The metrics that have a value."""
        return {name: metric for name, metric in self.metrics.items() if metric.value is not None}


def read_metrics(path: Path, name: str) -> Metrics:
    """The metrics.json of a stage; of one about several models, the part of the model of that name.

    Raises:
        UserError: as :func:`read_as`; there is no such model.
    """
    content = read_json(path, "metrics.json")
    models = content.get("models") if isinstance(content, dict) else None
    if not isinstance(models, dict):
        return read_as(Metrics, path)
    if name not in models:
        raise UserError(f"{path}: there is no model {name!r}; it has {', '.join(map(repr, models))}")
    return _validated(Metrics, {**models[name], "options": content.get("options", {})}, path)


Model = TypeVar("Model", bound=BaseModel)


def read_as(model: type[Model], path: Path) -> Model:
    """A JSON file of one of these kinds.

    Raises:
        UserError: it is not JSON or not of that kind; the message names the file, the place and what is wrong.
    """
    return _validated(model, read_json(path, (model.__doc__ or "").split(":")[0].strip("`.")), path)


def _validated(model: type[Model], content: object, path: Path) -> Model:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {f'{place}: ' if place else ''}{first['msg']}") from None
