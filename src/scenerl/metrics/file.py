"""metrics.json of ``scenerl eval``, as the report and the model card read it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, FiniteFloat, NonNegativeInt, model_validator

from scenerl.errors import DataError
from scenerl.json_files import as_model, read_json

_LARGEST = 1e300


def is_number(value: object) -> bool:
    """Whether a value of a JSON file is a number that can be drawn: no NaN, infinity or whole number beyond a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def _number_or_none(value: object) -> object:
    return None if isinstance(value, int | float) and not is_number(value) else value


def _interval_or_none(value: object) -> object:
    return value if isinstance(value, list | tuple) and len(value) == 2 and all(map(is_number, value)) else None


def _numbers_only(value: object) -> object:
    return {name: count for name, count in value.items() if is_number(count)} if isinstance(value, dict) else value


Number = Annotated[FiniteFloat | None, BeforeValidator(_number_or_none)]
"""None where it is not available; other programs write NaN for that."""
Interval = tuple[FiniteFloat, FiniteFloat]
Section = BeforeValidator(lambda value: {} if value is None else value)


class MetricValue(BaseModel):
    """``value`` is None where the metric has no support, ``interval`` where it does not have two ends."""

    value: Number
    interval: Annotated[Interval | None, BeforeValidator(_interval_or_none)] = None


class PredicateRecall(BaseModel):
    """Recall of one predicate in [0, 1]."""

    recall: Number = None
    num_targets: Annotated[int | None, BeforeValidator(_number_or_none)] = None


class Reliability(BaseModel):
    """Mean confidence, accuracy and number of predictions of each bin, None in empty bins; ``ece`` is the expected
    calibration error."""

    ece: Number = None
    confidence: list[Number]
    accuracy: list[Number]
    counts: list[Annotated[NonNegativeInt | None, BeforeValidator(_number_or_none)]]

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
            if count and confidence is not None and accuracy is not None
        ]


class Metrics(BaseModel):
    """metrics.json of `scenerl eval`: one set of predictions against one ground truth.

    All but ``metrics`` may be missing.
    """

    metrics: dict[str, MetricValue]
    per_predicate: Annotated[dict[str, PredicateRecall], Section] = Field(default_factory=dict)
    failures: Annotated[dict[str, int] | None, BeforeValidator(_numbers_only)] = None
    options: Annotated[dict[str, Any], Section] = Field(default_factory=dict)
    counts: Annotated[dict[str, Any], Section] = Field(default_factory=dict)
    calibration: Annotated[dict[str, Reliability], Section] = Field(default_factory=dict)

    @property
    def known(self) -> dict[str, MetricValue]:
        """The metrics that have a value."""
        return {name: metric for name, metric in self.metrics.items() if metric.value is not None}


def models_in(path: Path) -> list[str]:
    """The models that a metrics.json is about; none where it is about a single one, without a name."""
    content = read_json(path, "metrics.json of `scenerl eval`")
    models = content.get("models") if isinstance(content, dict) else None
    return list(models) if isinstance(models, dict) else []


def read_metrics(path: Path, name: str) -> Metrics:
    """A metrics.json; of one about several models, the part of the model of that name.

    Raises:
        DataError: it cannot be read or is of another kind, or there is no such model.
    """
    content = read_json(path, "metrics.json of `scenerl eval`")
    models = content.get("models") if isinstance(content, dict) else None
    if not isinstance(models, dict):
        return as_model(Metrics, content, path)
    if not isinstance(models.get(name), dict):
        raise DataError(f"{path}: there is no model {name!r}; it has {', '.join(map(repr, models))}")
    return as_model(Metrics, {**models[name], "options": content.get("options", {})}, path)
