"""Which groups of completions a GRPO step learns from: a group whose rewards are all equal teaches nothing.

Three remedies, alone or together. Prompts are drawn again until enough groups have rewards that differ (dynamic
sampling: DAPO, arXiv 2503.14476, section 3.2). More groups are sampled than are learnt from, and those of the largest
spread are kept (``keep_top_group_ratio`` of R1-SGG's code, arXiv 2504.13617). Prompts that were solved are left out for
a while. Advantages, losses and what else TRL does with a rollout are of the groups that are kept.

All processes know all groups, so that they agree on every choice, and draws depend on seed and step only, so that a run
that goes on draws as it would have.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.utils import gather_object
from trl.data_utils import prepare_multimodal_messages
from trl.trainer.utils import nanstd

from scenerl.errors import UserError, counted
from scenerl.files import atomic_write_text
from scenerl.json_files import read_json
from scenerl.training.reward_monitor import GENERAL_ADVICE
from scenerl.training.shared_prefix.rollout import once_per_image

SOLVED_NAME = "rollout_solved.json"
"""File of a checkpoint."""


class Group(NamedTuple):
    """The completions of one prompt.

    Attributes:
        row: of the prompt in the data set.
        completions: of each its token ids, its messages, and its log-probabilities where an engine gives them.
        rewards: (G, K) before weights.
        totals: (G,) weighted sums.
        spread: how much the rewards differ; 0: not at all.
    """

    row: int
    completions: list[tuple]
    rewards: torch.Tensor
    totals: torch.Tensor
    spread: float


@dataclass
class SolvedPrompts:
    """A curriculum: a prompt that was solved several times in a row is left out for as many turns.

    Args:
        threshold: a prompt is solved when the weighted sum of rewards of all its completions is at least this.
        turns: of solved rows of the data set: how many times in a row, and for how many more turns they are left out.
    """

    threshold: float
    turns: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, group: Group) -> None:
        """Note how a group went."""
        times, _ = self.turns.pop(group.row, (0, 0))
        if group.totals.min() >= self.threshold:
            self.turns[group.row] = times + 1, times + 1

    def is_left_out(self, row: int) -> bool:
        return self.turns.get(row, (0, 0))[1] > 0

    def take_turn(self, row: int) -> bool:
        """Whether it is the turn of a row to be left out, which counts as a turn."""
        if not self.is_left_out(row):
            return False
        times, left = self.turns[row]
        self.turns[row] = times, left - 1
        return True


@dataclass
class GroupSampling:
    """How the groups of a rollout are chosen.

    Args:
        max_rounds: of dynamic sampling in a rollout; 1: prompts are sampled once, whatever comes of it.
        keep_top_ratio: share of the groups that are learnt from, those whose rewards differ most.
        solved: the prompts to leave out; None: none.
    """

    max_rounds: int = 1
    keep_top_ratio: float = 1.0
    solved: SolvedPrompts | None = None

    def choose(self, groups: Sequence[Group], count: int) -> list[Group]:
        """``count`` of the groups: those of the largest spread, or the first that have one, filled up with others."""
        by_spread = self.keep_top_ratio < 1
        return sorted(groups, key=lambda group: -group.spread if by_spread else not group.spread)[:count]


def spread_of(rewards: torch.Tensor, weights: torch.Tensor, aggregation: str) -> torch.Tensor:
    """How much the rewards of each group differ, in the sense in which TRL makes advantages of them.

    Args:
        rewards: (N, G, K); NaN where a reward does not apply.
        weights: (K,).
        aggregation: TRL's ``multi_objective_aggregation``.

    Returns:
        (N,) the standard deviation of weighted sums; with ``normalize_then_sum`` the weighted sum of the standard
        deviations of the rewards. 0 where all rewards are equal.
    """
    if aggregation == "normalize_then_sum":
        spread = (nanstd(rewards, dim=1).nan_to_num() * weights.abs()).sum(dim=-1)
    else:
        spread = nanstd(weighted(rewards, weights), dim=1).nan_to_num()
    return torch.where(spread > 1e-8, spread, 0)  # TRL's own tolerance


def weighted(rewards: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted sums (...,) of rewards (..., K); NaN where none applies."""
    sums = (rewards * weights).nansum(dim=-1)
    return sums.masked_fill(rewards.isnan().all(dim=-1), torch.nan)


class GroupSamplingMixin:
    """For trainers with shared prompts, and data sets with a column ``row``, the number of each row.

    Attributes:
        group_sampling: how groups are chosen; None: the groups of a rollout are those of the data loader.
    """

    group_sampling: GroupSampling | None = None
    _kept: list[Group] | None = None
    _begun = -1, 0  # the optimiser step in progress, and the micro-batches before it

    def training_step(self, *args, **kwargs):
        """As TRL; notes where an optimiser step begins, which is where a run without signal is saved."""
        if self._begun[0] != self.state.global_step:
            self._begun = self.state.global_step, self._step
        return super().training_step(*args, **kwargs)

    def _generate_and_score_completions(self, inputs):
        """As TRL, on groups that were sampled before and chosen."""
        if self.group_sampling is None or not self.model.training:
            return super()._generate_and_score_completions(inputs)
        known = {item["row"]: item for item in inputs}
        rows = gather_object([item["row"] for item in inputs])[:: self.num_generations]
        self._kept = self._sample_groups(rows, known)
        try:
            return super()._generate_and_score_completions(self._share([group.row for group in self._kept], known))
        finally:
            self._kept = None

    def _generate(self, prompts):
        if self._kept is None:
            return super()._generate(prompts)
        prompt_ids, images, _ = self._tokenize_prompts(prompts)
        ids, completions, logps = zip(
            *self._own([part for group in self._kept for part in group.completions]), strict=True
        )
        return prompt_ids, list(ids), None, list(completions), None if logps[0] is None else list(logps), {}, images, []

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        if self._kept is None:
            return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        return torch.cat([group.rewards for group in self._kept]).to(self.accelerator.device)

    def _sample_groups(self, rows: list[int], known: dict[int, dict]) -> list[Group]:
        """As many groups as there are rows, chosen from what is sampled in one round or several.

        Args:
            rows: the prompts of the data loader, in all processes.
            known: rows of the data set by number; those that are read are added.

        Raises:
            UserError: dynamic sampling found no group whose rewards differ; the run is saved before.
        """
        sampling, solved, wanted = self.group_sampling, self.group_sampling.solved, len(rows)
        due = [row for row in rows if not (solved and solved.take_turn(row))]
        skipped = wanted - len(due)
        due += self._draw(self._whole(math.ceil(wanted / sampling.keep_top_ratio)) - len(due), rows, 0)
        groups, rounds = [], 0
        while due:
            sampled = self._sample_round(due, known)
            groups += sampled
            rounds += 1
            for group in sampled if solved else ():
                solved.add(group)
            missing = wanted - sum(group.spread > 0 for group in groups) if rounds < sampling.max_rounds else 0
            due = self._draw(self._whole(max(missing, 0)), [*rows, *(group.row for group in groups)], rounds)
        self._log(groups, rounds, wanted, skipped)
        if sampling.max_rounds > 1 and not any(group.spread for group in groups):
            self._stop(groups, rounds)
        return sampling.choose(groups, wanted)

    def _whole(self, count: int) -> int:
        """The next number of groups whose completions the processes can share evenly."""
        processes = self.accelerator.num_processes
        unit = processes // math.gcd(processes, self.num_generations)
        return -(-count // unit) * unit

    def _draw(self, count: int, taken: Collection[int], number: int) -> list[int]:
        """Rows of the data set, the same in all processes: none that is taken or left out while there are others."""
        solved, taken = self.group_sampling.solved, set(taken)
        order = np.random.default_rng([self.args.seed, self._step, number]).permutation(len(self.train_dataset))
        rank = {row: (row in taken, solved is not None and solved.is_left_out(row)) for row in order.tolist()}
        return list(islice(cycle(sorted(rank, key=rank.get)), count))

    def _sample_round(self, rows: list[int], known: dict[int, dict]) -> list[Group]:
        """A group for each row, the same ones in all processes."""
        inputs = self._share(rows, known)
        prompts = [prepare_multimodal_messages(item["prompt"], images=item["images"]) for item in inputs]
        self._rows = [item["row"] for item in inputs]
        with once_per_image(self.processing_class):
            _, ids, _, completions, logps, *_ = self._generate(prompts)
        rewards = self._calculate_rewards(inputs, prompts, completions, ids).cpu()
        parts = gather_object(list(zip(ids, completions, logps or [None] * len(ids), strict=True)))
        size, weights = self.num_generations, self.reward_weights.cpu()
        rewards = rewards.view(len(rows), size, -1)
        spreads = spread_of(rewards, weights, self.multi_objective_aggregation).tolist()
        return [
            Group(row, parts[place * size : (place + 1) * size], own, weighted(own, weights), spread)
            for place, (row, own, spread) in enumerate(zip(rows, rewards, spreads, strict=True))
        ]

    def _share(self, rows: Sequence[int], known: dict[int, dict]) -> list[dict[str, Any]]:
        """What this process samples of groups of some rows."""
        own = self._own([row for row in rows for _ in range(self.num_generations)])
        new = [row for row in dict.fromkeys(own) if row not in known]
        if new:
            known.update(zip(new, self.train_dataset.__getitems__(new), strict=True))
        return [known[row] for row in own]

    def _own(self, items: list) -> list:
        """This process's part of what all have together."""
        count = len(items) // self.accelerator.num_processes
        first = count * self.accelerator.process_index
        return items[first : first + count]

    def _log(self, groups: Sequence[Group], rounds: int, wanted: int, skipped: int) -> None:
        """Metrics of all that was sampled; TRL's own rewards are of the groups that are kept."""
        values = {
            "groups/with_signal": sum(group.spread > 0 for group in groups) / len(groups),
            "groups/rounds": rounds,
            "groups/sampled": len(groups) / wanted,
            "groups/generated_tokens": sum(len(ids) for group in groups for ids, *_ in group.completions),
            "groups/reward": torch.cat([group.totals for group in groups]).nanmean().item(),
        }
        if (solved := self.group_sampling.solved) is not None:
            values["groups/skipped"] = skipped / wanted
            values["groups/left_out"] = sum(left > 0 for _, left in solved.turns.values())
        for name, value in values.items():
            self._metrics["train"][name].append(float(value))

    def _stop(self, groups: Sequence[Group], rounds: int) -> None:
        """Save the run as it was after its last step, and end it.

        Raises:
            UserError: in all processes.
        """
        done, self._step = self._begun
        if done:
            self._save_checkpoint(self.model, None)
        rewards = torch.cat([group.totals for group in groups])
        kept = f"the run is saved after step {done}, and the same command goes on" if done else "nothing was learnt yet"
        raise UserError(
            f"dynamic_sampling: none of {counted(len(groups), 'group')} in {counted(rounds, 'round')} had rewards that "
            f"differ (mean {rewards.nanmean():g}), so there is nothing to learn from: {GENERAL_ADVICE}; {kept}"
        )

    def save_rollout(self, checkpoint: Path) -> None:
        """Write which prompts are left out."""
        super().save_rollout(checkpoint)
        if self.group_sampling and self.group_sampling.solved and self.accelerator.is_main_process:
            atomic_write_text(checkpoint / SOLVED_NAME, json.dumps(list(self.group_sampling.solved.turns.items())))

    def load_rollout(self, checkpoint: Path) -> None:
        """Leave out what :meth:`save_rollout` wrote."""
        super().load_rollout(checkpoint)
        path = checkpoint / SOLVED_NAME
        if self.group_sampling and self.group_sampling.solved and path.is_file():
            turns = read_json(path, "the solved prompts of a run")
            self.group_sampling.solved.turns = {row: tuple(counts) for row, counts in turns}
