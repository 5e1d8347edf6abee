"""How the completions of one prompt share one row of tokens: which tokens, at which positions, and who sees whom.

A group of G completions c1 … cG of the prompt p1 … pP is laid out as::

    p1 … p(P-1) | pP c1[:-1] | pP c2[:-1] | … | pP cG[:-1]
    prefix        suffix 1     suffix 2         suffix G

A prefix token sees the prefix up to itself. A suffix token sees the whole prefix and its own suffix up to itself,
nothing of the other suffixes, and its position counts on from the prompt's as if no other suffix were there. So the
hidden state of every token is the one it has in a row of its own, and every suffix token predicts one token of its
completion: suffix i is as long as completion i. Groups follow each other in one row without padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class PackedGroup:
    """Where one group stands in a row: ``prefix`` tokens from ``start`` on, then suffixes of ``suffixes`` tokens."""

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
        groups: where each group stands, in order and without gaps.
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
        completions: token ids (C,) of each group's completions; an empty one takes no room.

    Raises:
        ValueError: a prompt without a token, or positions of another number than tokens.
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


def visible(groups: Sequence[PackedGroup]) -> torch.Tensor:
    """(N, N) which token (row) sees which (column): the definition that the attention kernels are held to."""
    length = groups[-1].end
    seen = torch.zeros(length, length, dtype=torch.bool)
    for group in groups:
        seen[group.start : group.middle, group.start : group.middle] = True
        seen[group.middle : group.end, group.start : group.middle] = True
        start = group.middle
        for size in group.suffixes:
            seen[start : start + size, start : start + size] = True
            start += size
    return seen.tril()


def shuffle_groups(permutation: Sequence[int], group_of: Sequence[int]) -> list[int]:
    """An order of rows in which groups stay together: each where its first member stands in a shuffle of the rows.

    Args:
        permutation: a shuffle of the B rows; it is what TRL draws, so that the random numbers after it are the same.
        group_of: (B) the group of each row.
    """
    turn: dict[int, int] = {}
    for row in permutation:
        turn.setdefault(group_of[row], len(turn))
    return sorted(range(len(group_of)), key=lambda row: turn[group_of[row]])
