"""Warns when a reward is constant over a window of rollouts, so that nothing is learnt from it."""

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
        window: how many rollouts a reward may stay constant.
        warn: receives the message.
    """

    def __init__(self, names: Iterable[str], window: int, warn: Callable[[str], None]):
        self.window = window
        self.warn = warn
        self._constant: dict[str, list[tuple[float, Counter]]] = {name: [] for name in names}
        """Of each reward the value and the problems of the latest rollouts in which it did not change."""
        self._examples: dict[str, str] = {}

    def add(self, step: int, batch: Sequence[tuple[str, ParseResult, dict[str, float]]]) -> None:
        """Add one step's completions: (text, parse result, rewards that apply by name) each."""
        problems = []
        for text, result, _ in batch:
            problems.append({issue.kind for issue in result.issues} if result.ok else {result.status})
            self._examples |= dict.fromkeys(problems[-1], text)
        for name, rollouts in self._constant.items():
            rewarded = [(found, own[name]) for found, (_, _, own) in zip(problems, batch, strict=True) if name in own]
            if not rewarded:  # of a mixture, no completion that it applies to
                continue
            values = {round(value, 9) for _, value in rewarded}
            if len(values) > 1 or (rollouts and rollouts[-1][0] not in values):
                rollouts.clear()
            if len(values) == 1:
                rollouts.append((values.pop(), Counter(kind for found, _ in rewarded for kind in found)))
            if len(rollouts) == self.window:
                self.warn(self._message(name, step, len(rewarded)))
                rollouts.clear()

    def _message(self, name: str, step: int, batch_size: int) -> str:
        value = self._constant[name][0][0]
        head = (
            f"step {step}: reward '{name}' was {value:g} for every completion of the last "
            f"{self.window} rollouts, so it teaches nothing."
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
