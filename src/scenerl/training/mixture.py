"""Training on several sources, each with prompts, answers and rewards of its own.

The sources become one list of examples, so that batches, shuffling, shared prompts and resuming are as for one source.
A source's rewards are reward functions of their own, ``SOURCE/REWARD``, which give None to the completions of others:
TRL leaves these out of sums and logs.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from scenerl.answers import GrammarSpec, OutputFormat
from scenerl.answers.dialogue import Conversation, Size
from scenerl.answers.formats import FORMATS
from scenerl.commands.sources import Source
from scenerl.errors import UserError, counted
from scenerl.models.family import Family
from scenerl.models.output_formats import changed_by_options
from scenerl.rewards import RELATION_REWARDS, Reward, select_rewards
from scenerl.types import Example, ParseResult


@dataclass(frozen=True)
class Part:
    """The examples of one source, how they are prompted and read, and names and weights of its rewards."""

    name: str
    examples: Sequence[Example]
    conversation: Conversation
    rewards: Mapping[str, float] = field(default_factory=dict)


@dataclass(eq=False)
class Mixture:
    """Several sources as one training set.

    Attributes:
        parts: the sources.
        rows: for each row of the training set the number of its part.
        examples: of the rows; of one with a small share some come several times.
    """

    parts: Sequence[Part]
    rows: Sequence[int]
    examples: Sequence[Example]
    _rewards: list[dict[str, Reward]] = field(init=False)

    def __post_init__(self) -> None:
        chosen = [(part.name, select_rewards(part.rewards)) for part in self.parts]
        self._rewards = [{f"{name}/{own}": reward for own, reward in found.items()} for name, found in chosen]

    @property
    def rewards(self) -> dict[str, Reward]:
        """The rewards of all sources, as ``SOURCE/REWARD``."""
        return {name: reward for own in self._rewards for name, reward in own.items()}

    @property
    def reward_weights(self) -> list[float]:
        """The weight of each of :attr:`rewards`."""
        return [weight for part in self.parts for weight in part.rewards.values()]

    def rewards_of(self, row: int) -> Mapping[str, Reward]:
        """The rewards that apply to a row of the training set."""
        return self._rewards[self.rows[row]]

    def describe(self) -> str:
        """Names of the sources with their numbers of examples and shares, for the log."""
        return ", ".join(
            f"{part.name}: {counted(len(part.examples), 'example')}, {self.rows.count(number) / len(self.rows):.1%}"
            for number, part in enumerate(self.parts)
        )


def mix(parts: Sequence[Part], weights: Sequence[float | None], seed: int) -> Mixture:
    """A training set in which each source has its share, and every example occurs.

    The source that is largest for its share comes once; examples of the others are repeated, as evenly as possible.
    Without weights every example comes once. The order is shuffled.

    Args:
        weights: of the sources, in proportion to their shares; None in all of them for none.
        seed: of the order, and of the examples that come once more than others.
    """
    rng = random.Random(seed)
    sizes = [len(part.examples) for part in parts]
    counts = sizes
    if None not in weights:
        total = max(size / weight for size, weight in zip(sizes, weights, strict=True))
        counts = [max(size, round(total * weight)) for size, weight in zip(sizes, weights, strict=True)]
    places = []
    for number, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        own = [*range(size)] * (count // size) + sorted(rng.sample(range(size), count % size))
        places += [(number, place) for place in own]
    rng.shuffle(places)
    examples = [parts[number].examples[place] for number, place in places]
    return Mixture(parts, [number for number, _ in places], examples)


class MixedConversation:
    """The conversations of a mixture as one :class:`~scenerl.answers.dialogue.Conversation`: each example's own.

    Args:
        conversation: of the run's own options; its output format is saved with checkpoints.
        parts: whose examples are prompted and read.
    """

    def __init__(self, conversation: Conversation, parts: Sequence[Part]):
        self.output_format = conversation.output_format
        self._parts = parts  # keeps the examples, and so their ids
        self._of = {id(example): part.conversation for part in parts for example in part.examples}

    def prompt(self, example: Example, image) -> list[dict]:
        return self._of[id(example)].prompt(example, image)

    def completion(self, example: Example, reasoning: str = "empty", order: str = "annotated") -> list[dict]:
        return self._of[id(example)].completion(example, reasoning, order)

    def parse(self, answer: str | None, example: Example, truncated: bool = False, strict: bool = False) -> ParseResult:
        return self._of[id(example)].parse(answer, example, truncated=truncated, strict=strict)

    def input_wh(self, example: Example) -> Size | None:
        return self._of[id(example)].input_wh(example)

    def grammar_spec(self, example: Example) -> GrammarSpec:
        return self._of[id(example)].grammar_spec(example)


def output_format_of(source: Source, options, output_format: OutputFormat, family: Family) -> OutputFormat:
    """The output format of a source: that of the run, or its own.

    Args:
        options: of the command. output_format: of the run.

    Raises:
        UserError: settings that do not go together.
    """
    own = {"task": source.task, "format": source.format, "vocabulary": source.vocabulary}
    if not any(own.values()):
        return output_format
    if source.task or source.format:
        output_format = replace(output_format, objects=None, predicates=None, provided=None)
    else:
        own |= {"task": options.task, "format": options.format}
    return changed_by_options(output_format, replace(options, boxes=None, **own), family)


def rewards_of(
    source: Source, output_format: OutputFormat, names: Sequence[str], weights: Sequence[float] | None
) -> dict[str, float]:
    """Names and weights of a source's rewards: its own, or those given, of the command's options; 1 where none is said.

    Raises:
        UserError: an unknown reward, or one that does not apply to its answers.
    """
    if source.rewards:
        names, weights = source.rewards, source.reward_weights
    select_rewards(names)
    if not FORMATS[output_format.format].graph and (unfit := sorted(RELATION_REWARDS.intersection(names))):
        raise UserError(
            f"data: {source.label}: {', '.join(unfit)} reward relations, which {output_format.format!r} has not; give "
            "this source rewards of its own (rewards: […])"
        )
    return dict(zip(names, weights or [1.0] * len(names), strict=True))
