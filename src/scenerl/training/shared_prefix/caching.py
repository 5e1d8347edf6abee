"""A group's prompt run once, its cache branched to the completions, which run behind it in batches of like lengths.

For models whose layers cannot attend over a packed row, linear attention above all. The caches keep the graph, so that
gradients of the completions come back to the prompt through keys, values, convolution and recurrent states. They never
change once they are filled: gradient checkpointing runs a layer a second time, and must find what it found before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, LinearAttentionLayer
from transformers.modeling_layers import GradientCheckpointingLayer

LAYER_TYPES = {"full_attention", "linear_attention"}
"""What a model's ``layer_types`` may hold."""

WORTH_A_BATCH = 0.05
"""Share of a group's tokens, padding included, that one more batch must save, as every batch has a cost of its own."""


class _PromptKeys(DynamicLayer):
    """Keys and values of the prompts (U, heads, P, D), kept as they first come."""

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
        return key_states, value_states


class _BranchKeys(DynamicLayer):
    """Keys and values of the prompt of each of B completions, in front of its own."""

    def __init__(self, prompts: _PromptKeys, branch: torch.Tensor):
        super().__init__()
        self.lazy_initialization(prompts.keys, prompts.values)
        self.keys, self.values, self.branch = prompts.keys, prompts.values, branch

    def update(self, key_states, value_states, *args, **kwargs):
        prompts = (_branched(self.keys, self.branch), _branched(self.values, self.branch))
        return tuple(torch.cat(pair, dim=-2) for pair in zip(prompts, (key_states, value_states), strict=True))


class _PromptStates(LinearAttentionLayer):
    """The states of linear attention at the end of the prompts, kept as they first come."""

    def update_conv_state(self, conv_states, state_idx=0, conv_kernel_size=None, **kwargs):
        size = conv_kernel_size or conv_states.shape[-1]
        padded = F.pad(conv_states, (max(0, size - conv_states.shape[-1]), 0))
        if self.conv_states[state_idx] is None:
            self.conv_states[state_idx] = padded[..., -size:]
        return padded

    def update_recurrent_state(self, recurrent_states, state_idx=0, **kwargs):
        if self.recurrent_states[state_idx] is None:
            self.recurrent_states[state_idx] = recurrent_states
        return recurrent_states


class _BranchStates(LinearAttentionLayer):
    """The states that each of B completions starts from; its final states are not needed."""

    def __init__(self, prompts: _PromptStates, branch: torch.Tensor):
        super().__init__(prompts.number_of_states)
        for name in ("conv_states", "recurrent_states"):
            states = getattr(prompts, name).items()
            setattr(self, name, {key: None if state is None else _branched(state, branch) for key, state in states})
        self.has_previous_state = dict.fromkeys(self.has_previous_state, True)

    def update_conv_state(self, conv_states, state_idx=0, **kwargs):
        return torch.cat([self.conv_states[state_idx], conv_states], dim=-1)

    def update_recurrent_state(self, recurrent_states, state_idx=0, **kwargs):
        return recurrent_states


def _branched(states: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
    """Of U prompts to B completions; of a single one without a copy."""
    return states.expand(len(branch), *states.shape[1:]) if len(states) == 1 else states[branch]


def _cache(layers: Sequence) -> DynamicCache:
    cache = DynamicCache()
    cache.layers = list(layers)
    return cache


def batches_of(lengths: Sequence[int], most: int | None = None) -> list[list[int]]:
    """Completions that run as one padded batch each, from the shortest to the longest.

    A batch is cut in two where that saves most padding, until the next cut would save too little.

    Args:
        lengths: tokens of each completion, at least one completion.
        most: batches; None: as many as are worth it.
    """
    batches = [sorted(range(len(lengths)), key=lengths.__getitem__)]
    while most is None or len(batches) < most:
        cuts = [
            (cut * (lengths[batch[-1]] - lengths[batch[cut - 1]]), index, cut)
            for index, batch in enumerate(batches)
            for cut in range(1, len(batch))
        ]
        saved, index, cut = max(cuts, default=(0, 0, 0))
        if saved <= WORTH_A_BATCH * sum(len(batch) * lengths[batch[-1]] for batch in batches):
            break
        batches[index : index + 1] = [batches[index][:cut], batches[index][cut:]]
    return batches


def score(
    model,
    backbone,
    prompts: Sequence[torch.Tensor],
    positions: Sequence[torch.Tensor],
    completions: Sequence[Sequence[torch.Tensor]],
    images: dict[str, torch.Tensor],
    device: torch.device,
    most_batches: int | None = None,
):
    """TRL's fused output, log-probabilities (1, S) and more, for the S tokens of one completion after the other.

    The prompts run without their last token, which each completion has in front, as in a packed row.

    Args:
        model: as the trainer wraps it; ``backbone`` is the model inside without its head.
        prompts: token ids (P,) of each group's prompt, at least two each.
        positions: theirs: (P,), or (3, P) for models with M-RoPE.
        completions: token ids (C,) of each group's completions, one at least that is not empty.
        images: the model's inputs for the images of all prompts.
        most_batches: of completions, see :func:`batches_of`.
    """
    config = backbone.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    prefix, mask, places = _left_padded(prompts, positions)
    before = _cache(_PromptStates() if kind == "linear_attention" else _PromptKeys() for kind in kinds)
    is_padded = not bool(mask.all())
    with _checkpointing_with_caches(backbone):
        model(
            input_ids=prefix.to(device),
            attention_mask=mask.to(device) if is_padded else None,
            position_ids=places.to(device),
            past_key_values=before,
            logits_to_keep=1,
            **{key: value.to(device) for key, value in images.items()},
        )
        members = [(row, member) for row, own in enumerate(completions) for member in own if len(member)]
        batches = batches_of([len(member) for _, member in members], most_batches)
        outputs = []
        for batch in batches:
            rows, own = zip(*(members[index] for index in batch), strict=True)
            lengths = torch.tensor(list(map(len, own)))
            width = max(2, int(lengths.max()))  # kernels that go on by one token are for sampling: without gradient
            steps = torch.arange(width)
            ids = pad_sequence(
                [torch.cat([prompts[row][-1:], member[:-1]]) for row, member in zip(rows, own, strict=True)],
                batch_first=True,
            )
            last = torch.stack([positions[row][..., -1] for row in rows], dim=-1)
            branch = torch.tensor(rows)
            seen = torch.cat([mask[branch], mask.new_ones(len(rows), width)], dim=1).to(device) if is_padded else None
            branch = branch.to(device)
            branched = _cache(
                (_BranchStates if isinstance(layer, _PromptStates) else _BranchKeys)(layer, branch)
                for layer in before.layers
            )
            with _keeping(backbone, (steps < lengths[:, None]).flatten().nonzero()[:, 0].to(device)):
                outputs.append(
                    model(
                        input_ids=F.pad(ids, (0, width - ids.shape[1])).to(device),
                        attention_mask=seen,
                        position_ids=(last[..., None] + steps).to(device),
                        past_key_values=branched,
                        shift_labels=torch.cat(own)[None].to(device),
                        fused_lm_head=True,
                    )
                )
    return _joined(outputs, batches, [len(member) for _, member in members])


def _joined(outputs: Sequence, batches: Sequence[Sequence[int]], lengths: Sequence[int]):
    """The fused outputs of batches as one, completions in their order."""
    ran = [index for batch in batches for index in batch]
    places = torch.arange(sum(lengths)).split([lengths[index] for index in ran])
    order = torch.cat([places[turn] for turn in sorted(range(len(ran)), key=ran.__getitem__)])
    whole = outputs[0]
    for name in ("log_probs", "entropy"):
        if getattr(whole, name) is not None:  # a reference model has no entropy
            values = torch.cat([getattr(output, name) for output in outputs], dim=1)
            setattr(whole, name, values[:, order.to(values.device)])
    return whole


def _left_padded(
    prompts: Sequence[torch.Tensor], positions: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids and mask (U, P - 1), and positions (…, U, P - 1), of prompts without their last token."""
    longest = max(map(len, prompts)) - 1
    ids = torch.stack([F.pad(prompt[:-1], (longest + 1 - len(prompt), 0)) for prompt in prompts])
    places = [F.pad(place[..., :-1], (longest + 1 - place.shape[-1], 0)) for place in positions]
    mask = torch.stack([torch.arange(longest) >= longest + 1 - len(prompt) for prompt in prompts])
    return ids, mask.long(), torch.stack(places, dim=-2)


@contextmanager
def _keeping(backbone, scored: torch.Tensor) -> Iterator[None]:
    """Let a model give the hidden states (1, S, width) of some tokens of a batch only, which its head then runs on."""

    def keep(module, args, output):
        output.last_hidden_state = output.last_hidden_state.flatten(0, 1)[scored][None]
        return output

    hook = backbone.register_forward_hook(keep)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _checkpointing_with_caches(backbone) -> Iterator[None]:
    """transformers' checkpointed layers leave caches aside, as a second run would fill them again; these stay."""
    layers = [module for module in backbone.modules() if isinstance(module, GradientCheckpointingLayer)]
    with ExitStack() as stack:
        for layer in layers:
            layer._can_checkpoint_with_cache = True
            stack.callback(delattr, layer, "_can_checkpoint_with_cache")
        yield
