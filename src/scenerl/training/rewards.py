"""Our rewards as GRPOTrainer's functions: each completion is parsed and compared once, however many rewards there are.

TRL calls one function per reward with the same list of completions. The first call scores the whole batch; the others
read their column. Weights are TRL's ``reward_weights``; no weight is applied here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import TrainerState

from scenerl.answers.dialogue import Conversation
from scenerl.rewards import Comparison, Reward, RewardOptions, select_rewards
from scenerl.training.logs import truncate_log
from scenerl.training.reward_monitor import RewardMonitor
from scenerl.types import FAILURES, Example, ParseResult


@dataclass(frozen=True, slots=True)
class _Scored:
    """One completion: its parse result and the rewards that apply to it, by name."""

    example: Example
    text: str
    result: ParseResult
    rewards: dict[str, float]


@dataclass(eq=False)
class RewardBatch:
    """Scores batches of completions and hands out one function per reward.

    Args:
        names: rewards from :data:`scenerl.rewards.REWARDS`, in the order of TRL's weights; or rewards by name.
        examples: the training set; the ``row`` column holds their indices.
        conversation: parses the completions.
        options: conventions of the rewards.
        stop_ids: tokens that end a completion; one without is truncated.
        monitor: receives every batch's rewards; None: constant rewards are not reported.
        samples_path: JSONL file for samples of completions with their rewards; None for none.
        sample_every: steps between samples.
        applying: gives those that apply to an example, by its index; the others are None for it. None: all apply.

    Raises:
        UserError: a name is no reward, or given twice.
    """

    names: Iterable[str] | Mapping[str, Reward]
    examples: Sequence[Example]
    conversation: Conversation
    options: RewardOptions
    stop_ids: Collection[int]
    monitor: RewardMonitor | None = None
    samples_path: Path | None = None
    sample_every: int = 10
    applying: Callable[[int], Mapping[str, Reward]] | None = None

    def __post_init__(self) -> None:
        self.rewards = self.names if isinstance(self.names, Mapping) else select_rewards(self.names)
        self._completions: object = None
        self._scored: list[_Scored] = []
        self._last_step: int | None = None

    def functions(self) -> list[Callable]:
        """One function per reward, named as the reward, for GRPOTrainer's ``reward_funcs``."""
        return [self._function(name) for name in self.rewards]

    def _function(self, name: str) -> Callable:
        def reward(completions, completion_ids, row, log_metric=None, trainer_state=None, **_) -> list[float | None]:
            if completions is not self._completions:  # the first reward of a batch does the work of all
                self._scored = self._score(completions, completion_ids, row)
                self._completions = completions
                self._report(log_metric, trainer_state)
            return [scored.rewards.get(name) for scored in self._scored]

        reward.__name__ = name
        return reward

    def _score(self, completions, completion_ids, rows) -> list[_Scored]:
        scored = []
        for completion, ids, row in zip(completions, completion_ids, rows, strict=True):
            example = self.examples[row]
            text = completion[-1]["content"]
            truncated = not ids or ids[-1] not in self.stop_ids
            result = self.conversation.parse(text, example, truncated=truncated, strict=self.options.strict_format)
            pair = Comparison.of(result, example, self.options, text, len(ids))
            own = self.rewards if self.applying is None else self.applying(row)
            values = {name: reward(pair) for name, reward in own.items()}
            scored.append(_Scored(example, text, result, values))
        return scored

    def _report(self, log_metric: Callable | None, state: TrainerState | None) -> None:
        if log_metric:
            for name, value in scene_metrics([scored.result for scored in self._scored]).items():
                log_metric(name, value)
        if state is not None and not state.is_world_process_zero:
            return
        step = 1 + (state.global_step if state else 0)  # the step that learns from these completions, as logs count
        if self.monitor:
            self.monitor.add(step, [(scored.text, scored.result, scored.rewards) for scored in self._scored])
        if self.samples_path and self.sample_every:
            if self._last_step is None:  # a resumed run writes later rows again
                truncate_log(self.samples_path, step)
                self._last_step = step - 1
            # rollouts may serve several steps, so that not every step has one
            if (step - 1) // self.sample_every != (self._last_step - 1) // self.sample_every:
                self._write_samples(step)
            self._last_step = step

    def _write_samples(self, step: int) -> None:
        """Every completion of the batch's first prompt, with its rewards."""
        first = self._scored[0].example.image_id
        with self.samples_path.open("a", encoding="utf-8") as file:
            for scored in self._scored:
                if scored.example.image_id != first:
                    continue
                row = {
                    "step": step,
                    "image_id": first,
                    "answer": scored.text,
                    "status": scored.result.status,
                    "issues": [issue.kind for issue in scored.result.issues],
                    "rewards": {name: round(value, 6) for name, value in scored.rewards.items()},
                }
                file.write(json.dumps(row) + "\n")


def scene_metrics(results: Sequence[ParseResult]) -> dict[str, float]:
    """Statistics of a batch of parse results, for the training log.

    Returns:
        ``scene/failure_rate`` (failed parses), ``scene/failures/<name>`` for each kind,
        ``scene/issues_per_answer``, and ``scene/objects_per_image`` and ``scene/relations_per_image``, in which a
        failed parse counts as empty.
    """
    count = len(results)
    statuses = Counter(result.status for result in results)
    metrics = {f"scene/failures/{name}": statuses[name] / count for name in FAILURES}
    metrics["scene/failure_rate"] = 1 - statuses["ok"] / count
    metrics["scene/issues_per_answer"] = sum(len(result.issues) for result in results) / count
    graphs = [result.graph for result in results if result.graph is not None]
    metrics["scene/objects_per_image"] = sum(len(graph.objects) for graph in graphs) / count
    metrics["scene/relations_per_image"] = sum(len(graph.relations) for graph in graphs) / count
    return metrics
