"""What the page asks for: JSON of a stranger, checked into a value."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from scenerl.answers import OutputFormat
from scenerl.answers.formats import FORMATS
from scenerl.data.vocabulary import NAMED, Vocabulary
from scenerl.errors import UserError

TASKS = ("sgdet", "det")
VOCABULARIES = ("trained", "open", *NAMED, "own")
DEFAULT_TOKENS = 512
MAX_LABELS, MAX_LABEL, MAX_NAME = 1000, 100, 200


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one request may ask for."""

    max_new_tokens: int
    num_samples: int


@dataclass(frozen=True, slots=True)
class Ask:
    """One question about one image.

    Attributes:
        image: id of an uploaded image. name: what the image is called in the answer.
        model: name of a checkpoint.
        task: one of :data:`TASKS`; ``det`` needs ``labels``, the names to look for.
        vocabulary: one of :data:`VOCABULARIES`, for ``sgdet``: as the checkpoint was trained, any label, a named one,
            or ``objects`` and ``predicates`` (an empty one is open).
        constrain: only answers that can be read.
        num_samples: answers; one is greedy, several are sampled at ``temperature`` and merged.
    """

    image: str
    model: str
    name: str = "image"
    task: str = "sgdet"
    labels: tuple[str, ...] = ()
    vocabulary: str = "trained"
    objects: tuple[str, ...] = ()
    predicates: tuple[str, ...] = ()
    constrain: bool = False
    num_samples: int = 1
    temperature: float = 1.0
    max_new_tokens: int = DEFAULT_TOKENS
    seed: int = 0


def read_ask(value: Any, models: Collection[str], limits: Limits) -> Ask:
    """A checked question.

    Raises:
        UserError: a missing or unknown key, a value of the wrong type or out of range; says which and what is allowed.
    """
    if not isinstance(value, Mapping):
        raise UserError("the request must be a JSON object")
    known = {item.name: item.type for item in fields(Ask)}
    unknown = [key for key in value if key not in known]
    if unknown:
        raise UserError(f"unknown key {unknown[0]!r:.50}; allowed: {', '.join(known)}")
    for key in ("image", "model"):
        if key not in value:
            raise UserError(f"{key} is missing")
    value = {"max_new_tokens": min(DEFAULT_TOKENS, limits.max_new_tokens), **value}
    ask = Ask(**{key: _READ[known[key]](key, item) for key, item in value.items()})
    _one_of("model", ask.model, models)
    _one_of("task", ask.task, TASKS)
    _one_of("vocabulary", ask.vocabulary, VOCABULARIES)
    for key, low, high in (
        ("num_samples", 1, limits.num_samples),
        ("max_new_tokens", 1, limits.max_new_tokens),
        ("temperature", 0.01, 5),
        ("seed", 0, 2**31 - 1),
    ):
        if not low <= getattr(ask, key) <= high:
            raise UserError(f"{key} must be {low} to {high}")
    if ask.task == "det" and not ask.labels:
        raise UserError("detection needs the labels to look for")
    return ask


def output_format_of(ask: Ask, saved: OutputFormat | None, box_format: str) -> OutputFormat:
    """How the checkpoint is asked: as it was trained, but for what the question changes.

    Args:
        saved: the checkpoint's own style. frame: of the model family's boxes.
    """
    output_format = replace(
        saved or OutputFormat(), box_format=box_format, provided=None
    )  # an uploaded image has no annotated objects
    if ask.task == "det":
        return replace(output_format, format="detections")
    if not FORMATS[output_format.format].graph:
        output_format = replace(output_format, format="json")
    if ask.vocabulary == "trained":
        return output_format
    if ask.vocabulary in NAMED:
        named = Vocabulary.read(ask.vocabulary)
        return replace(output_format, objects=named.objects, predicates=named.predicates)
    own = ask.vocabulary == "own"
    return replace(output_format, objects=(own and ask.objects) or None, predicates=(own and ask.predicates) or None)


def _one_of(key: str, value: str, allowed: Collection[str]) -> None:
    if value not in allowed:
        raise UserError(f"{key}: {value!r:.80} is unknown; allowed: {', '.join(allowed)}")


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_NAME:
        raise UserError(f"{key} must be a text of at most {MAX_NAME} characters")
    return " ".join(value.split())


def _labels(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_LABELS:
        raise UserError(f"{key} must be a list of at most {MAX_LABELS} labels")
    if not all(isinstance(label, str) and len(label) <= MAX_LABEL for label in value):
        raise UserError(f"{key}: a label is a text of at most {MAX_LABEL} characters")
    return tuple(dict.fromkeys(label for item in value if (label := " ".join(item.split()))))


def _whole(key: str, value: Any) -> int:
    if type(value) is not int:
        raise UserError(f"{key} must be a whole number")
    return value


def _number(key: str, value: Any) -> float:
    if type(value) not in (int, float):
        raise UserError(f"{key} must be a number")
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits; what is too much is said with the range
        return math.inf


def _flag(key: str, value: Any) -> bool:
    if type(value) is not bool:
        raise UserError(f"{key} must be true or false")
    return value


_READ = {"str": _text, "tuple[str, ...]": _labels, "int": _whole, "float": _number, "bool": _flag}
"""Type of a field to the function that checks it."""
