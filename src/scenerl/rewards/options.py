"""The conventions of the rewards, and how the values of a recipe become them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scenerl.errors import UserError
from scenerl.json_files import read_json
from scenerl.similarity import Similarity, build_similarity, exact

if TYPE_CHECKING:
    from scenerl.commands.groups import RewardFlags

MAX_BETA = 1000
"""There `triplet_f_beta` is recall to a millionth; the square of a much larger number is infinite."""

_MAX_COUNT = 10**15


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardOptions:
    """Conventions of the rewards; the defaults are the papers'.

    Attributes:
        similarity: how labels compare in `node_label`, `relaxed_recall`, `soft_recall` and the node matching.
        iou_threshold: two boxes agree from this IoU on, inclusive.
        one_to_one: in the recall rewards a predicted relation serves one target only.
        beta: weight of recall in `triplet_f_beta`.
        predicate_weights: weight of a target relation by its predicate, for `predicate_weighted_recall`; None: all 1.
            A predicate that is not in it weighs as much as the heaviest.
        strict_format: any issue makes the whole output a failure, and `format` pays nothing without the template.
        cosine_max_tokens: answer length at which `cosine_length` stops changing.
        cosine_correct: `cosine_length` takes an answer as correct from this `weighted_sum` on.
    """

    similarity: Similarity = exact
    iou_threshold: float = 0.5
    one_to_one: bool = False
    beta: float = 1.0
    predicate_weights: Mapping[str, float] | None = None
    strict_format: bool = False
    cosine_max_tokens: int = 1024
    cosine_correct: float = 0.7

    def __post_init__(self) -> None:
        if not 0.0 < self.iou_threshold <= 1.0:
            raise UserError(f"iou_threshold is {self.iou_threshold}; allowed: above 0, at most 1")
        if not 0.0 < self.beta <= MAX_BETA:
            raise UserError(f"beta of triplet_f_beta is {self.beta}; allowed: above 0, at most {MAX_BETA}")
        if self.cosine_max_tokens < 1:
            raise UserError(f"cosine_max_tokens is {self.cosine_max_tokens}; allowed: 1 or more")
        for predicate, weight in (self.predicate_weights or {}).items():
            if not 0.0 < weight < float("inf"):
                raise UserError(f"predicate_weights: the weight of {predicate!r} is {weight}; allowed: above 0")


def reward_options_of(options: RewardFlags) -> RewardOptions:
    """The conventions that the command line or the recipe of `grpo` or `score` sets.

    Raises:
        UserError: a value that is not allowed, or a file that cannot be used.
    """
    weights = None
    if options.predicate_counts is not None:
        weights = inverse_frequency_weights(read_predicate_counts(options.predicate_counts))
    return RewardOptions(
        similarity=build_similarity(options.similarity),
        iou_threshold=options.iou_threshold,
        one_to_one=options.one_to_one,
        beta=options.f_beta,
        predicate_weights=weights,
        strict_format=options.strict,
        cosine_max_tokens=options.cosine_max_tokens,
        cosine_correct=options.cosine_correct,
    )


def read_predicate_counts(path: Path) -> dict[str, int]:
    """How often the training set has each predicate, from a JSON file.

    The file holds ``{predicate: count}``, or that under the key ``predicate_counts``, as `scenerl data triplets` writes
    it.

    Raises:
        UserError: the file cannot be read or holds anything else.
    """
    value = read_json(path, "predicate counts: {predicate: count}")
    if isinstance(value, dict) and isinstance(value.get("predicate_counts"), dict):
        value = value["predicate_counts"]
    if not isinstance(value, dict):
        raise UserError(f"predicate counts {path}: expected {{predicate: count}}")
    try:
        inverse_frequency_weights(value)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return value


def inverse_frequency_weights(counts: Mapping[str, int], power: float = 0.5) -> dict[str, float]:
    """Weight of each predicate from how often the training set has it: ``count ** -power``, the commonest at 1.

    ``power`` 1 makes all predicates equal in total, 0 makes all relations equal; 0.5 lies between.

    Raises:
        UserError: no predicates, or a count below 1.

    >>> inverse_frequency_weights({"on": 400, "riding": 4})
    {'on': 1.0, 'riding': 10.0}
    """
    if not counts:
        raise UserError("predicate counts are empty; give the count of every predicate of the training set")
    for predicate, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= _MAX_COUNT:
            raise UserError(f"predicate counts: {predicate!r} has {count!r:.80}; allowed: whole numbers from 1 on")
    commonest = max(counts.values())
    return {predicate: (commonest / count) ** power for predicate, count in counts.items()}
