"""Warns when a reward is constant over a window of steps, so that nothing is learnt from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from scenerl.types import FAILURES, ISSUES, ParseResult

_EXAMPLE_CHARS = 160

_ADVICE = {
    "no_answer": "check that the engine returns text",
    "empty": "the model stops at once: check the chat template, or start from an SFT checkpoint",
    "invalid_json": "the model does not know the format: start from an SFT checkpoint, or check --format",
    "wrong_schema": "the model writes another format: check --format and --envelope against its training",
    "truncated": "raise max_completion_length, use --format compact, or add a length reward",
}
GENERAL_ADVICE = (
    "sample at a higher temperature, start from a better SFT checkpoint, or give an easier reward of its kind more "
    "weight"
)


class RewardMonitor:
    """Collects the rewards of every step and warns once per window in which one was constant.

    Args:
        names: the rewards.
        window: how many steps a reward may stay constant.
        warn: receives the message.
    """

    def __init__(self, names: Iterable[str], window: int, warn: Callable[[str], None]):
        self.window = window
        self.warn = warn
        self._constant: dict[str, list[tuple[float, Counter]]] = {name: [] for name in names}
        """Of each reward the value and the problems of the latest steps in which it did not change."""
        self._examples: dict[str, str] = {}

    def add(self, step: int, batch: Sequence[tuple[str, ParseResult, dict[str, float]]]) -> None:
        """Add one step's completions: (text, parse result, rewards by name) each."""
        problems: Counter = Counter()
        for text, result, _ in batch:
            found = {issue.kind for issue in result.issues} if result.ok else {result.status}
            problems.update(found)
            self._examples |= dict.fromkeys(found, text)
        for name, steps in self._constant.items():
            values = {round(rewards[name], 9) for _, _, rewards in batch}
            if len(values) > 1 or (steps and steps[-1][0] not in values):
                steps.clear()
            if len(values) == 1:
                steps.append((values.pop(), problems))
            if len(steps) == self.window:
                self.warn(self._message(name, step, len(batch)))
                steps.clear()

    def _message(self, name: str, step: int, batch_size: int) -> str:
        value = self._constant[name][0][0]
        head = (
            f"step {step}: reward '{name}' was {value:g} for every completion of the last "
            f"{self.window} steps, so it teaches nothing."
        )
        if value >= 1:
            return f"{head} It is saturated: lower its weight, or remove it."
        problem, advice = "The completions parse, but it does not distinguish them", GENERAL_ADVICE
        if problems := sum((found for _, found in self._constant[name]), Counter()):
            kind, count = problems.most_common(1)[0]
            share = count / (self.window * batch_size)
            meaning = FAILURES.get(kind) or ISSUES[kind]
            example = ascii(self._examples[kind][:_EXAMPLE_CHARS])
            problem = f"Most common problem: {kind} in {share:.0%} of the completions ({meaning}), e.g. {example}"
            if share >= 0.5:
                advice = _ADVICE.get(kind, "look at samples.jsonl, and at the prompt against the model's training")
        return f"{head} {problem}. What to do: {advice}."
