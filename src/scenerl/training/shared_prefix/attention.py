"""Attention over a packed row (:mod:`scenerl.training.shared_prefix.packing`) at the cost of the visible pairs.

Masked attention computes every pair of tokens and discards most of them: three of four in a row of eight completions.
Here all suffixes of a group attend to its prefix at once, without a mask, and each suffix attends to itself causally.
The two parts are merged by their log-sum-exp, which gives the exact softmax over both, as flash attention merges its
blocks (Dao et al. 2022; Juravsky et al. 2024 for shared prefixes).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch.nn.attention.bias import causal_lower_right
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from scenerl.training.shared_prefix.packing import PackedGroup

NAME = "scenerl_shared_prefix"
"""The name of this attention in transformers; without packed groups it is transformers' ``sdpa``."""

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def packed_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, groups: Sequence[PackedGroup], scale: float
) -> torch.Tensor:
    """Attention in one packed row.

    Args:
        query: (1, H, N, D).
        key, value: (1, K, N, D) with H a multiple of K: query head h reads head h // (H // K).
        groups: cover the N tokens.
        scale: of the dot products.

    Returns:
        (1, H, N, D).
    """
    if query.device.type == "cpu":
        repeat = query.shape[1] // key.shape[1]
        if repeat > 1:
            key, value = key.repeat_interleave(repeat, dim=1), value.repeat_interleave(repeat, dim=1)
        return _Merged.apply(query, key, value, tuple(groups), scale)
    return portable_attention(query, key, value, groups, scale)


class _Merged(torch.autograd.Function):
    """With the CPU's flash kernel. Its backward pass needs a block's inputs, the merged output and the merged
    log-sum-exp, so that each part is differentiated by itself."""

    @staticmethod
    def forward(ctx, query, key, value, groups, scale):
        exact = torch.promote_types(query.dtype, torch.float32)  # as the kernel accumulates
        output, lse = torch.empty_like(query), query.new_empty(query.shape[:3], dtype=exact)

        def attend(rows: slice, columns: slice, causal: bool):
            return _flash(query[:, :, rows], key[:, :, columns], value[:, :, columns], 0.0, causal, scale=scale)

        for rows, columns, causal in _own_blocks(groups):
            output[:, :, rows], lse[:, :, rows] = attend(rows, columns, causal)
        for rows, columns in _prefix_blocks(groups):
            other, other_lse = attend(rows, columns, False)
            own_lse = lse[:, :, rows]
            total = torch.logaddexp(own_lse, other_lse)
            share = (other_lse - total).exp_()[..., None]
            output[:, :, rows] = output[:, :, rows].to(exact).lerp(other.to(exact), share)
            lse[:, :, rows] = total
        ctx.save_for_backward(query, key, value, output, lse)
        ctx.groups, ctx.scale = groups, scale
        return output

    @staticmethod
    def backward(ctx, grad):
        query, key, value, output, lse = ctx.saved_tensors
        d_query, d_key, d_value = (torch.empty_like(x) for x in (query, key, value))

        def differentiate(rows: slice, columns: slice, causal: bool):
            return _flash_backward(
                grad[:, :, rows], query[:, :, rows], key[:, :, columns], value[:, :, columns],
                output[:, :, rows], lse[:, :, rows], 0.0, causal, scale=ctx.scale,
            )  # fmt: skip

        for rows, columns, causal in _own_blocks(ctx.groups):
            d_query[:, :, rows], d_key[:, :, columns], d_value[:, :, columns] = differentiate(rows, columns, causal)
        for rows, columns in _prefix_blocks(ctx.groups):
            for total, part, where in zip(
                (d_query, d_key, d_value), differentiate(rows, columns, False), (rows, columns, columns), strict=True
            ):
                total[:, :, where] += part
        return d_query, d_key, d_value, None, None


def _own_blocks(groups: Sequence[PackedGroup]):
    """The prefixes and suffixes, each of which attends to itself causally: every token is in one of them."""
    for group in groups:
        start = group.start
        for size in (group.prefix, *group.suffixes):
            if size:
                block = slice(start, start + size)
                yield block, block, True
            start += size


def _prefix_blocks(groups: Sequence[PackedGroup]):
    """All suffixes of a group against its prefix, to which they attend in full."""
    for group in groups:
        if group.prefix and group.end > group.middle:
            yield slice(group.middle, group.end), slice(group.start, group.middle)


def portable_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, groups: Sequence[PackedGroup], scale: float
) -> torch.Tensor:
    """:func:`packed_attention` from public functions of torch alone, on any device.

    A group's suffixes are a batch, each with the prefix's keys in front of its own. Flash kernels know the causal mask
    aligned to the lower right corner and skip what it hides.
    """
    gqa = query.shape[1] != key.shape[1]
    parts = []
    for group in groups:
        if group.prefix:
            prefix = slice(group.start, group.middle)
            parts.append(
                F.scaled_dot_product_attention(
                    query[:, :, prefix], key[:, :, prefix], value[:, :, prefix],
                    is_causal=True, scale=scale, enable_gqa=gqa,
                )
            )  # fmt: skip
        sizes = [size for size in group.suffixes if size]
        if not sizes:
            continue

        def batch(states: torch.Tensor) -> torch.Tensor:
            """The suffixes (G, heads, longest, D), padded at the end, to which no suffix token attends."""
            own = states[0, :, group.middle : group.end].transpose(0, 1).split(sizes)  # noqa: B023
            return pad_sequence(own, batch_first=True).transpose(1, 2)

        def with_prefix(states: torch.Tensor) -> torch.Tensor:
            prefix = states[:, :, group.start : group.middle].expand(len(sizes), -1, -1, -1)  # noqa: B023
            return torch.cat([prefix, batch(states)], dim=2)

        output = F.scaled_dot_product_attention(
            batch(query), with_prefix(key), with_prefix(value),
            attn_mask=causal_lower_right(max(sizes), group.prefix + max(sizes)), scale=scale, enable_gqa=gqa,
        )  # fmt: skip
        parts += [output[index : index + 1, :, :size] for index, size in enumerate(sizes)]
    return torch.cat(parts, dim=2)


def _attention_forward(module, query, key, value, attention_mask, dropout=0.0, scaling=None, packed_row=None, **kwargs):
    if packed_row is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
    output = packed_attention(query.to(dtype), key.to(dtype), value.to(dtype), packed_row.groups, scaling)
    return output.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _attention_forward)
AttentionMaskInterface.register(NAME, sdpa_mask)
