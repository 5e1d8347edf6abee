"""How the completions of one prompt share one row of tokens: the tokens, their positions, and who attends to whom.

A group of G completions c1 … cG of the prompt p1 … pP is laid out as::

    p1 … p(P-1) | pP c1[:-1] | pP c2[:-1] | … | pP cG[:-1]
    prefix        suffix 1     suffix 2         suffix G

A prefix token attends to the prefix up to itself. A suffix token attends to the whole prefix and to its own suffix up
to itself, not to other suffixes, and its position follows the prompt's as if there were no other suffix. So every token
has the hidden state that it would have in a row of its own. Every suffix token predicts one token of its completion:
suffix i is as long as completion i. Groups follow each other in one row without padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class PackedGroup:
    """The place of one group in a row: ``prefix`` tokens from ``start`` on, then suffixes of ``suffixes`` tokens."""

    start: int
    prefix: int
    suffixes: tuple[int, ...]

    @property
    def middle(self) -> int:
        """Where the first suffix starts."""
        return self.start + self.prefix

    @property
    def end(self) -> int:
        return self.middle + sum(self.suffixes)


@dataclass(frozen=True, slots=True)
class PackedRow:
    """Groups in one row of N tokens, of which S predict one.

    Attributes:
        groups: their places, in order and without gaps.
        input_ids: (1, N).
        position_ids: (3, 1, N), M-RoPE: time, height and width.
        scored: (S,) positions of the suffix tokens.
        labels: (1, S) the tokens that those predict: the completions one after the other.
    """

    groups: tuple[PackedGroup, ...]
    input_ids: torch.Tensor
    position_ids: torch.Tensor
    scored: torch.Tensor
    labels: torch.Tensor


def runs(keys: Sequence) -> list[range]:
    """Ranges of neighbours that are equal, e.g. ``aabba`` to 0-2, 2-4 and 4-5."""
    starts = [index for index in range(len(keys)) if index == 0 or keys[index] != keys[index - 1]]
    return [range(start, end) for start, end in zip(starts, [*starts[1:], len(keys)], strict=False)]


def pack(
    prompts: Sequence[torch.Tensor], positions: Sequence[torch.Tensor], completions: Sequence[Sequence[torch.Tensor]]
) -> PackedRow:
    """Lay groups out in one row.

    Args:
        prompts: token ids (P,) of each group's prompt, at least one token each.
        positions: their M-RoPE positions (3, P).
        completions: token ids (C,) of each group's completions; may be empty.

    Raises:
        ValueError: a prompt without a token, or a number of positions other than that of tokens.
    """
    groups, ids, places, scored, labels, start = [], [], [], [], [], 0
    for prompt, position, members in zip(prompts, positions, completions, strict=True):
        if not len(prompt) or position.shape != (3, len(prompt)):
            raise ValueError(f"a prompt of {len(prompt)} tokens with positions of shape {tuple(position.shape)}")
        group = PackedGroup(start, len(prompt) - 1, tuple(len(member) for member in members))
        ids.append(prompt[:-1])
        places.append(position[:, :-1])
        for member in members:
            if len(member):
                ids += [prompt[-1:], member[:-1]]
                places.append(position[:, -1:] + torch.arange(len(member)))
                labels.append(member)
        scored.append(torch.arange(group.middle, group.end))
        groups.append(group)
        start = group.end
    return PackedRow(
        groups=tuple(groups),
        input_ids=torch.cat(ids)[None],
        position_ids=torch.cat(places, dim=1)[:, None],
        scored=torch.cat(scored),
        labels=torch.cat(labels)[None] if labels else torch.zeros(1, 0, dtype=torch.long),
    )


def parts_within(
    groups: Sequence[range], prompt_sizes: Sequence[int], completion_sizes: Sequence[int], limit: int
) -> list[range]:
    """Neighbouring completions that share a packed row of at most ``limit`` tokens.

    A group that fits in a row is not split; the prompt of one that does not is in each of its rows. A completion longer
    than the limit has a row of its own.

    Args:
        groups: ranges of completions with one prompt each, without gaps.
        prompt_sizes, completion_sizes: tokens of each completion and of its prompt.
        limit: tokens of a row.

    Returns:
        Ranges of completions, in order and without gaps.
    """
    parts: list[range] = []
    start, used = groups[0].start, 0
    for group in groups:
        prefix = prompt_sizes[group.start] - 1
        if used and used + prefix + sum(completion_sizes[row] for row in group) > limit:
            parts.append(range(start, group.start))
            start, used = group.start, 0
        used += prefix
        for row in group:
            if row > start and used + completion_sizes[row] > limit:
                parts.append(range(start, row))
                start, used = row, prefix
            used += completion_sizes[row]
    return [*parts, range(start, groups[-1].stop)]


def split_further(parts: Sequence[range], count: int) -> list[range]:
    """At least ``count`` ranges, by halving the longest: all processes must run the same number of rows."""
    parts = list(parts)
    while len(parts) < count and max(map(len, parts)) > 1:
        k = max(range(len(parts)), key=lambda index: len(parts[index]))
        middle = parts[k].start + len(parts[k]) // 2
        parts[k : k + 1] = [range(parts[k].start, middle), range(middle, parts[k].stop)]
    return parts


def shuffle_groups(permutation: Sequence[int], group_of: Sequence[int]) -> list[int]:
    """An order of rows in which groups stay together, sorted by their first members in a shuffle of the rows.

    Args:
        permutation: a shuffle of the B rows, drawn as TRL draws it, so that later random numbers are the same.
        group_of: (B) the group of each row.
    """
    turn: dict[int, int] = {}
    for row in permutation:
        turn.setdefault(group_of[row], len(turn))
    return sorted(range(len(group_of)), key=lambda row: turn[group_of[row]])
