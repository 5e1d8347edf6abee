"""Constrained answers from transformers' ``generate``: a loop that does not sample what is forced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import LogitsProcessor

from scenerl.answers import GrammarSpec
from scenerl.constrain.row import Row, constraint_of
from scenerl.constrain.vocabulary import Vocabulary
from scenerl.models.branching import SHRINK_BELOW, BranchedStates, BranchSampler

_BARRED = -1e9
"""Of a score that was minus infinity: without a chance beside any other."""
_MAX_RUN = 8
"""Tokens of an answer in one forward pass at most: others of the batch wait with padding."""
_MAX_WASTE = 1.25
"""Padding is taken out of the cache once it is so many times as long as the longest answer."""


class ConstraintMask(LogitsProcessor):
    """Leaves the tokens that constraints allow. Goes to one call of ``generate``, with a :class:`RunSampler`.

    Args:
        specs: of the answers to U prompts, in order.
        vocabulary: the checkpoint's.
        limit: the most tokens of an answer, the one that ends it included.

    Attributes:
        rows: the answers; the sampler sets those whose scores come next.

    Raises:
        UserError: an answer cannot be written, or the limit is too small for any.
    """

    def __init__(self, specs: Sequence[GrammarSpec], vocabulary: Vocabulary, limit: int):
        self.rows = [Row(constraint_of(spec, vocabulary), limit) for spec in specs]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        mask = torch.from_numpy(np.stack([row.mask() for row in self.rows])).to(scores.device)
        # what another processor bars (a shortest length, a repetition) stays possible where nothing else is allowed
        return torch.where(mask, scores.clamp(min=_BARRED), -torch.inf)


@dataclass(slots=True)
class _Answer:
    """An answer in the making: its tokens, and those of them that have not gone through the model (``queue``)."""

    row: Row
    random: torch.Generator
    tokens: list[int] = field(default_factory=list)
    queue: list[int] = field(default_factory=list)
    logps: list[torch.Tensor] = field(default_factory=list)

    def write(self, token: int | None) -> None:
        """Go on with a token, and with those that are forced behind it."""
        while token is not None:
            self.row.take(token)
            self.tokens.append(token)
            self.queue.append(token)
            token = None if self.row.is_done else self.row.forced()

    def next_run(self, longest: int) -> list[int]:
        """Take from the queue what goes through the model next: never the token that ends the answer."""
        count = min(len(self.queue) - self.row.is_done, longest) if self.queue else 0
        run, self.queue = self.queue[:count], self.queue[count:]
        return run


class RunSampler(BranchSampler):
    """Samples constrained answers; tokens that the constraint forces go through the model together.

    Answers move at their own pace: each pass takes from every answer the token it sampled and those forced behind it,
    padded on the left to the longest run. Padding is masked, and taken out of the cache from time to time. States of
    linear attention decay with every token, padding too: such a model gets one token of each answer at a time.

    Args:
        constraint: of the prompts; also the call's ``logits_processor``. The other arguments are BranchSampler's.

    Attributes:
        num_passes: how often the model ran, the prompts aside.
    """

    def __init__(self, constraint: ConstraintMask, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.constraint = constraint
        self.num_passes = 0

    @torch.no_grad()
    def __call__(
        self, model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs
    ) -> torch.Tensor:
        """(B, P + T) token ids: prompts and answers, filled up with the padding token."""
        prompts = self.read_prompts(model, input_ids, generation_config, model_kwargs)
        ids, mask, position, cache, logits = prompts.ids, prompts.mask, prompts.position, prompts.cache, prompts.logits
        device, pad = ids.device, int(generation_config._pad_token_tensor)
        has_states = any(isinstance(layer, BranchedStates) for layer in cache.layers)
        longest_run = 1 if has_states else _MAX_RUN
        answers = self._begin(prompts.branch.tolist(), device)
        batch = list(answers)
        while True:
            waiting = [place for place, answer in enumerate(batch) if not answer.queue and not answer.row.is_done]
            if waiting:
                chosen = [batch[place] for place in waiting]
                self.constraint.rows = [answer.row for answer in chosen]
                scores = logits_processor(ids[waiting], logits[waiting])
                if generation_config.do_sample:
                    noise = torch.stack(
                        [torch.empty_like(scores[0]).exponential_(generator=one.random) for one in chosen]
                    )
                    scores = scores.softmax(dim=-1) / noise  # as torch.multinomial samples
                for answer, token in zip(chosen, scores.argmax(dim=-1).tolist(), strict=True):
                    answer.write(token)
            self._record_first(batch, logits)
            running = [place for place, answer in enumerate(batch) if answer.queue]
            if not running:
                break
            if len(running) < SHRINK_BELOW * len(batch):
                left = torch.tensor(running, device=device)
                batch = [batch[place] for place in running]
                ids, mask, position = ids[left], mask[left], position[left]
                cache.batch_select_indices(left)
            runs = [answer.next_run(longest_run) for answer in batch]
            width = max(map(len, runs))
            lengths = torch.tensor([[len(run)] for run in runs], device=device)
            steps = torch.arange(width, device=device) - (width - lengths)
            padded = torch.tensor([[pad] * (width - len(run)) + run for run in runs], device=device)
            ids, mask = torch.cat([ids, padded], dim=1), torch.cat([mask, (steps >= 0).to(mask.dtype)], dim=1)
            kept = 1 if self.temperature is None else width
            # without padding attention needs no mask, and copies less
            seen = mask if len(batch) > 1 or not bool(mask.all()) else None
            logits = self.forward(model, padded, seen, position + steps.clamp(min=0), cache, kept)
            self.num_passes += 1
            self._record_rest(batch, runs, logits)
            logits, position = logits[:, -1], position + lengths
            longest = int(mask.sum(dim=-1).max())
            if mask.shape[1] > _MAX_WASTE * longest:
                places = mask.argsort(dim=-1, stable=True)[:, -longest:]
                ids, mask = ids.gather(1, places), mask.gather(1, places)
                for layer in cache.layers:
                    layer.pick_places(places)
        if self.temperature is not None:
            self.logps = pad_sequence([torch.stack(answer.logps) for answer in answers], batch_first=True)
        written = [torch.tensor(answer.tokens, device=device) for answer in answers]
        written = pad_sequence(written, batch_first=True, padding_value=pad)
        return torch.cat([input_ids[prompts.branch], written], dim=1)

    def _begin(self, branch: Sequence[int], device: torch.device) -> list[_Answer]:
        """The answers with what is forced at their beginning. Each has random numbers of its own, so that they depend
        neither on the others' pace nor on the parts in which a batch is generated."""
        seed = int(torch.randint(1 << 62, ()))
        answers = []
        for number, prompt in enumerate(branch):
            random = torch.Generator(device).manual_seed(seed + self.first + number)
            answers.append(_Answer(self.constraint.rows[prompt].copy(), random))
            answers[-1].write(answers[-1].row.forced())
        return answers

    def _record_first(self, batch: Sequence[_Answer], logits: torch.Tensor) -> None:
        """Keep the log-probability of the first token in each queue; empty those of which nothing else is to know."""
        for answer, row in zip(batch, logits, strict=True):
            if answer.queue and self.temperature is not None:
                answer.logps.append((row / self.temperature).log_softmax(dim=-1)[answer.queue[0]])
            if answer.row.is_done and (self.temperature is None or len(answer.queue) == 1):
                answer.queue.clear()

    def _record_rest(self, batch: Sequence[_Answer], runs: Sequence[list[int]], logits: torch.Tensor) -> None:
        """Keep the log-probabilities of the tokens of each run behind its first."""
        if self.temperature is None:
            return
        for answer, run, row in zip(batch, runs, logits, strict=True):
            if len(run) > 1:
                scores = (row[-len(run) : -1] / self.temperature).log_softmax(dim=-1)
                answer.logps += scores.gather(-1, torch.tensor(run[1:], device=row.device)[:, None])[:, 0].unbind()
