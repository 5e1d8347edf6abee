"""Packed rows: every token has its place, its position and its view of the others, and attention follows the view."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from scenerl.training.shared_prefix.attention import packed_attention, portable_attention
from scenerl.training.shared_prefix.packing import (
    PackedGroup,
    pack,
    parts_within,
    runs,
    shuffle_groups,
    split_further,
)

GROUPS = st.lists(
    st.tuples(st.integers(1, 6), st.lists(st.integers(0, 5), min_size=1, max_size=4)), min_size=1, max_size=4
)
"""Of each group the length of the prompt and those of the completions."""


def visible(groups: tuple[PackedGroup, ...]) -> torch.Tensor:
    """(N, N) which token (row) attends to which (column): the definition."""
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


def packed_from(sizes):
    """Rows of tokens that are all different, so that each can be found again."""
    count = iter(range(10_000))

    def fresh(length: int) -> torch.Tensor:
        return torch.tensor([next(count) for _ in range(length)], dtype=torch.long)

    prompts = [fresh(prompt) for prompt, _ in sizes]
    completions = [[fresh(length) for length in lengths] for _, lengths in sizes]
    # an image of three by two tokens would make such positions: not one per token, and different in each dimension
    positions = [
        torch.stack([torch.arange(len(p)) // 2, torch.arange(len(p)), torch.arange(len(p)) * 2]) for p in prompts
    ]
    return prompts, positions, completions


def test_the_layout_of_two_completions():
    row = pack(
        [torch.tensor([1, 2, 3])],
        [torch.tensor([[0, 1, 5], [0, 2, 5], [0, 1, 5]])],
        [[torch.tensor([7, 8]), torch.tensor([9])]],
    )
    assert row.input_ids.tolist() == [[1, 2, 3, 7, 3]]
    assert row.position_ids[:, 0].tolist() == [[0, 1, 5, 6, 5], [0, 2, 5, 6, 5], [0, 1, 5, 6, 5]]
    assert row.scored.tolist() == [2, 3, 4]
    assert row.labels.tolist() == [[7, 8, 9]]
    assert row.groups == (PackedGroup(0, 2, (2, 1)),)
    assert visible(row.groups).int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]


@given(GROUPS)
@settings(deadline=None, max_examples=60)
def test_each_completion_sees_its_prompt_and_itself_at_the_positions_of_a_row_of_its_own(sizes):
    prompts, positions, completions = packed_from(sizes)
    row = pack(prompts, positions, completions)
    ids, seen = row.input_ids[0], visible(row.groups)
    scored = 0
    for prompt, position, members in zip(prompts, positions, completions, strict=True):
        for completion in members:
            # what a row of its own would hold, up to the token that predicts the completion's last
            alone = torch.cat([prompt, completion[:-1]])
            for k in range(len(completion)):
                index = int(row.scored[scored])
                assert int(row.labels[0, scored]) == int(completion[k])
                assert ids[index] == alone[len(prompt) - 1 + k]
                assert row.position_ids[:, 0, index].tolist() == (position[:, -1] + k).tolist()
                context = seen[index].nonzero()[:, 0]
                assert ids[context].tolist() == alone[: len(prompt) + k].tolist()
                before = context[: len(prompt) - 1]
                assert torch.equal(row.position_ids[:, 0, before], position[:, :-1])
                scored += 1
    assert scored == len(row.scored) == row.labels.shape[1]
    assert len(ids) == sum(p - 1 + sum(lengths) for p, lengths in sizes)  # nothing twice, no padding


@pytest.mark.parametrize("attention", [packed_attention, portable_attention])
@pytest.mark.parametrize("heads, kv_heads", [(2, 2), (6, 2)])
@given(sizes=GROUPS, seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=25)
def test_attention_is_that_of_the_mask(attention, heads, kv_heads, sizes, seed):
    row = pack(*packed_from(sizes))
    length = row.input_ids.shape[1]
    if not length:
        return
    generator = torch.Generator().manual_seed(seed)
    shapes = [(1, heads, length, 8), (1, kv_heads, length, 8), (1, kv_heads, length, 8)]
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    weight = torch.randn(shapes[0], generator=generator, dtype=torch.float64)
    query, key, value = inputs
    repeat = heads // kv_heads
    masked = F.scaled_dot_product_attention(
        query, key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1),
        attn_mask=visible(row.groups), scale=0.7,
    )  # fmt: skip
    output = attention(*inputs, row.groups, 0.7)
    assert output.shape == masked.shape
    torch.testing.assert_close(output, masked, rtol=0, atol=1e-12)
    for got, wanted in zip(
        torch.autograd.grad((output * weight).sum(), inputs),
        torch.autograd.grad((masked * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-11)


@given(st.integers(1, 5), st.integers(1, 4), st.randoms(use_true_random=False))
def test_a_shuffle_keeps_groups_together(num_groups, size, random):
    group_of = [row // size for row in range(num_groups * size)]
    permutation = random.sample(range(len(group_of)), len(group_of))
    order = shuffle_groups(permutation, group_of)
    assert sorted(order) == list(range(len(group_of)))
    shuffled = [group_of[row] for row in order]
    assert len(runs(shuffled)) == num_groups
    assert shuffled[0] == group_of[permutation[0]]
    for group in range(num_groups):
        assert [row for row in order if group_of[row] == group] == [
            r for r in range(len(group_of)) if group_of[r] == group
        ]


def test_a_group_that_does_not_fit_is_split_and_has_its_prompt_in_each_part():
    groups, prompts, completions = [range(3), range(3, 5)], [4, 4, 4, 3, 3], [5, 5, 5, 1, 2]
    # A prompt of 4 takes 3 tokens: its last one is counted with each completion. 3 + 15 and 2 + 3 tokens.
    assert parts_within(groups, prompts, completions, 23) == [range(5)]
    assert parts_within(groups, prompts, completions, 22) == [range(3), range(3, 5)]  # rather than 4 and 1
    assert parts_within(groups, prompts, completions, 13) == [range(2), range(2, 5)]
    assert parts_within(groups, prompts, completions, 12) == [range(1), range(1, 2), range(2, 3), range(3, 5)]
    assert parts_within(groups, prompts, completions, 1) == [range(row, row + 1) for row in range(5)]


@given(GROUPS, st.integers(1, 60), st.integers(1, 20))
def test_parts_hold_every_completion_once_and_no_more_tokens_than_allowed(sizes, limit, count):
    groups, prompts, completions = [], [], []
    for prompt, lengths in sizes:
        groups.append(range(len(completions), len(completions) + len(lengths)))
        prompts += [prompt] * len(lengths)
        completions += lengths
    whole = {row: group for group in groups for row in group}
    for parts in (
        parts_within(groups, prompts, completions, limit),
        split_further(parts_within(groups, prompts, completions, limit), count),
    ):
        assert [row for part in parts for row in part] == list(range(len(completions)))
        assert all(len(part) for part in parts)
        for part in parts:
            own = {whole[row] for row in part}
            tokens = sum(prompts[group.start] - 1 for group in own) + sum(completions[row] for row in part)
            assert tokens <= limit or len(part) == 1 or not sum(completions[row] for row in part)
    assert len(parts) >= min(count, len(completions))
    parts = parts_within(groups, prompts, completions, limit)
    for group in groups:  # what fits in a row of its own is in one row
        if prompts[group.start] - 1 + sum(completions[row] for row in group) <= limit:
            assert any(set(group) <= set(part) for part in parts)


def test_runs():
    assert runs("aabba") == [range(2), range(2, 4), range(4, 5)]
    assert runs([]) == []


def test_a_prompt_needs_tokens_and_positions():
    with pytest.raises(ValueError, match="a prompt of 0 tokens"):
        pack([torch.zeros(0, dtype=torch.long)], [torch.zeros(3, 0, dtype=torch.long)], [[torch.tensor([1])]])
    with pytest.raises(ValueError, match=r"positions of shape \(3, 1\)"):
        pack([torch.tensor([1, 2])], [torch.zeros(3, 1, dtype=torch.long)], [[torch.tensor([1])]])
