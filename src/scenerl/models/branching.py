"""Sampling several answers per prompt: each prompt is read once, its cache branched, finished answers leave the batch.

For transformers' ``generate(..., custom_generate=...)``, which prepares inputs, logits processors and stopping criteria
as always. Its ``num_return_sequences`` repeats prompts and images before the model reads them. Random numbers are drawn
as transformers draws them, so that the same seed gives the same answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, LinearAttentionLayer

SHRINK_BELOW = 0.875
"""Finished answers are taken out once fewer than this share of the batch is left: each time copies the cache."""


class Prompts(NamedTuple):
    """What has been read, for each of B answers: prompt, its token ids and mask (B, P), the next position (B, 1), the
    cache, and the logits of the first token (B, V)."""

    branch: torch.Tensor
    ids: torch.Tensor
    mask: torch.Tensor
    position: torch.Tensor
    cache: DynamicCache
    logits: torch.Tensor


class BranchSampler:
    """One call of ``generate`` on U prompts, padded on the left, that gives ``counts[u]`` answers to prompt u.

    Args:
        counts: (U) answers per prompt, in which order the B answers come back.
        temperature: record log-probabilities at this temperature in ``logps``; None for none.
        first, total: these are the answers from number ``first`` on of a batch of ``total``, which is generated in
            parts. With the generator seeded anew for each part, every answer gets the random numbers that it would
            get in the whole batch. Not given: the batch is whole.

    Attributes:
        logps: after the call (B, T), of every token under the whole distribution; no meaning after an answer's end.
    """

    def __init__(
        self, counts: Sequence[int], temperature: float | None = None, first: int = 0, total: int | None = None
    ):
        self.counts = torch.tensor(counts)
        self.temperature = temperature
        self.first, self.total = first, total or sum(counts)
        self.logps: torch.Tensor | None = None

    @torch.no_grad()
    def __call__(
        self, model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs
    ) -> torch.Tensor:
        """(B, P + T) token ids: prompts and answers, filled up with the padding token."""
        prompts = self.read_prompts(model, input_ids, generation_config, model_kwargs)
        ids, mask, position, cache, logits = prompts.ids, prompts.mask, prompts.position, prompts.cache, prompts.logits
        is_padded = not bool(mask.all())
        _pick_rows(logits_processor, prompts.branch)
        num_prompt, num_rows = ids.shape[1], len(ids)
        rows = torch.arange(num_rows, device=ids.device)  # which answer each row of the batch is
        answers: list[torch.Tensor] = []
        logps: list[torch.Tensor] = []
        running = torch.ones_like(rows, dtype=torch.bool)
        while True:
            scores = logits_processor(ids, logits)
            if generation_config.do_sample:
                # what torch.multinomial does, with as many random numbers as if no answer had left
                noise = scores.new_empty(self.total, scores.shape[1]).exponential_()
                tokens = (scores.softmax(dim=-1) / noise[self.first + rows]).argmax(dim=-1)
            else:
                tokens = scores.argmax(dim=-1)
            tokens = torch.where(running, tokens, generation_config._pad_token_tensor)
            answers.append(
                tokens.new_full((num_rows,), generation_config._pad_token_tensor).index_copy(0, rows, tokens)
            )
            if self.temperature is not None:
                chosen = (logits / self.temperature).log_softmax(dim=-1).gather(-1, tokens[:, None])[:, 0]
                logps.append(chosen.new_zeros(num_rows).index_copy(0, rows, chosen))
            ids = torch.cat([ids, tokens[:, None]], dim=1)
            running = running & ~stopping_criteria(ids, None)
            num_running = int(running.sum())
            if not num_running:
                break
            if num_running < SHRINK_BELOW * len(rows):
                left = running.nonzero()[:, 0]
                rows, ids, mask, position, tokens, running = (
                    value[left] for value in (rows, ids, mask, position, tokens, running)
                )
                cache.batch_select_indices(left)
                _pick_rows(logits_processor, left)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            logits = self.forward(model, tokens[:, None], mask if is_padded else None, position, cache)[:, -1]
            position = position + 1
        if self.temperature is not None:
            self.logps = torch.stack(logps, dim=1)
        return torch.cat([input_ids[prompts.branch][:, :num_prompt], torch.stack(answers, dim=1)], dim=1)

    def read_prompts(self, model, input_ids, generation_config, model_kwargs) -> Prompts:
        """Run the prompts, and branch what came of them to the answers."""
        output = model._prefill(input_ids, generation_config, model_kwargs)
        branch = torch.repeat_interleave(self.counts).to(input_ids.device)
        mask = model_kwargs.get("attention_mask")
        mask = torch.ones_like(input_ids) if mask is None else mask
        position = mask.sum(dim=-1, keepdim=True)
        offsets = getattr(model.base_model, "rope_deltas", None)
        position = (position if offsets is None else position + offsets.to(mask.device))[branch]
        cache = _branched(output.past_key_values, branch)
        return Prompts(branch, input_ids[branch], mask[branch], position, cache, output.logits[:, -1].float()[branch])

    @staticmethod
    def forward(model, tokens, mask, position, cache, logits_to_keep: int = 1) -> torch.Tensor:
        """Logits of the last tokens of (B, K), which stand at ``position`` (B, K)."""
        # the Qwen-VL families count with an offset per prompt, on three axes
        has_axes = getattr(model.base_model, "rope_deltas", None) is not None
        return model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=position.expand(3, -1, -1) if has_axes else position,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=logits_to_keep,
        ).logits.float()


def _pick_rows(logits_processor, rows: torch.Tensor) -> None:
    """Let processors that know each row's padding (the repetition penalty does), or its answer so far, follow the rows
    of the batch."""
    for processor in logits_processor:
        if hasattr(processor, "pick_rows"):
            processor.pick_rows(rows)
        elif isinstance(padding := getattr(processor, "prompt_ignore_length", None), torch.Tensor):
            processor.prompt_ignore_length = padding[rows]


class _Layer(DynamicLayer):
    """Keys and values with room to grow: a step writes into it instead of copying all that came before."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor):
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._hold(keys, values)

    def _hold(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        length = keys.shape[-2]
        room = [keys.shape[0], keys.shape[1], length + max(32, length // 2)]
        self._room = [state.new_empty(*room, state.shape[-1]) for state in (keys, values)]
        for held, state in zip(self._room, (keys, values), strict=True):
            held[:, :, :length] = state
        self._show(length)

    def _show(self, length: int) -> None:
        self.keys, self.values = (held[:, :, :length] for held in self._room)

    def update(self, key_states, value_states, *args, **kwargs):
        length = self.keys.shape[-2]
        end = length + key_states.shape[-2]
        if end > self._room[0].shape[-2]:
            self._hold(self.keys, self.values)
        for held, states in zip(self._room, (key_states, value_states), strict=True):
            held[:, :, length:end] = states
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._hold(self.keys[indices], self.values[indices])

    def pick_places(self, places: torch.Tensor) -> None:
        """Keep the tokens at these places (B, T) of each row."""
        index = places[:, None, :, None]
        states = (self.keys, self.values)
        self._hold(*(state.gather(2, index.expand(-1, state.shape[1], -1, state.shape[3])) for state in states))


class BranchedStates(LinearAttentionLayer):
    """States of linear attention, which sum up what came before; rows can be taken out, tokens cannot."""

    def __init__(self, layer: LinearAttentionLayer, branch: torch.Tensor):
        super().__init__(layer.number_of_states)
        self.__dict__.update(layer.__dict__)
        self.batch_select_indices(branch)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        for name in ("conv_states", "recurrent_states"):
            held = getattr(self, name)
            setattr(self, name, {key: None if state is None else state[indices] for key, state in held.items()})

    def pick_places(self, places: torch.Tensor) -> None:
        """There are no places, and what is padding never came in."""


def _branched(cache: DynamicCache, branch: torch.Tensor) -> DynamicCache:
    """A cache in which row b goes on from row ``branch[b]`` of the prompts'."""
    own = DynamicCache()
    own.layers = [
        BranchedStates(layer, branch)
        if isinstance(layer, LinearAttentionLayer)
        else _Layer(layer.keys[branch], layer.values[branch])
        for layer in cache.layers
    ]
    return own
