"""The fields of TRL's configuration classes, read from their source: to import TRL takes too long for that."""

from __future__ import annotations

import ast
import dataclasses
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from scenerl.config.options import Range

_ENUMS = ("transformers/trainer_utils.py", "transformers/training_args.py")
_FILES = ("transformers/training_args.py", "trl/trainer/base_config.py", "trl/trainer/{}_config.py")
_CLASSES = ("TrainingArguments", "_BaseConfig", "SFTConfig", "GRPOConfig")
_NAMES = {"Any": Any, "Literal": Literal}
_TRAINER = "trl/trainer/{}_trainer.py"
_CLOSED = (
    "importance_sampling_level", "loss_type", "multi_objective_aggregation", "scale_rewards",
    "vllm_importance_sampling_mode", "vllm_mode",
)  # fmt: skip
"""Fields of type text of which TRL's trainer knows some values only, many of them refused only when a step is done."""


_RANGES = {
    "beta": NonNegativeFloat,
    "gradient_accumulation_steps": PositiveInt,
    "max_completion_length": PositiveInt | None,
    "num_generations": Annotated[int, Range(ge=2)],
    "per_device_train_batch_size": PositiveInt,
    "temperature": PositiveFloat,
    "top_p": Annotated[float, Range(gt=0, le=1)],
}
"""Fields whose values TRL takes as they are, to end in the middle of a rollout or in nothing learnt."""


@cache
def fields_in_source(name: str) -> type | None:
    """A dataclass with the name, and the fields, of ``SFTConfig`` or ``GRPOConfig``.

    Transformers' enums are the Literal of their values here, texts of which the trainer knows some values only
    (:data:`_CLOSED`) likewise, other types that the source imports ``Any``, and defaults are None.

    Returns:
        None where TRL is not installed or keeps its classes elsewhere.
    """
    found: dict[str, Any] = {}
    method = name.removesuffix("Config").lower()
    try:
        names = _NAMES | {name: kind for file in _ENUMS for name, kind in _enums(_source(file)).items()}
        for file in _FILES:
            found |= _fields(_source(file.format(method)), names)
        narrower = _RANGES | _compared(_source(_TRAINER.format(method)))
        found |= {key: kind for key, kind in narrower.items() if key in found}
    except FileNotFoundError:
        return None
    return dataclasses.make_dataclass(name, [(key, kind, None) for key, kind in found.items()])


def _source(file: str) -> ast.Module:
    """The syntax tree of a file of an installed package; raises FileNotFoundError where there is none."""
    package, _, inside = file.partition("/")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(file)
    return ast.parse((Path(spec.origin).parent / inside).read_text(encoding="utf-8"))


def _enums(tree: ast.Module) -> dict[str, Any]:
    """Enums of texts to the Literals of their values."""
    classes = {node.name: node.body for node in tree.body if isinstance(node, ast.ClassDef)}
    values = {
        name: [text for line in body if isinstance(line, ast.Assign) for text in _texts(line.value)]
        for name, body in classes.items()
    }
    return {name: Literal[tuple(texts)] for name, texts in values.items() if texts}


def _texts(node: ast.expr) -> list[str]:
    """The texts that stand in an expression."""
    return [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def _compared(tree: ast.Module) -> dict[str, Any]:
    """The values with which a trainer compares the fields of :data:`_CLOSED`, and whatever else their types allow."""
    values: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Attribute) and node.left.attr in _CLOSED:
            values.setdefault(node.left.attr, set()).update(*map(_texts, node.comparators))
    kinds = {key: Literal[tuple(sorted(texts))] for key, texts in values.items() if texts}
    return {key: kind | bool if key == "scale_rewards" else kind for key, kind in kinds.items()}


def _fields(tree: ast.Module, names: dict[str, Any]) -> dict[str, Any]:
    return {
        line.target.id: _kind(line.annotation, names)
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name in _CLASSES
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
        if "init=False" not in ast.unparse(line)
    }


def _kind(annotation: ast.expr, names: dict[str, Any]) -> Any:
    try:
        return eval(ast.unparse(annotation), dict(names))  # of the installed package, which is run later anyway
    except NameError:
        return Any
