"""Constraints in transformers' ``generate``: a logits processor, and a loop that does not sample what is forced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import LogitsProcessor

from scenerl.answers import GrammarSpec
from scenerl.constrain.row import Row, constraint_of
from scenerl.constrain.vocabulary import Vocabulary
from scenerl.models.branching import SHRINK_BELOW, branched

_BARRED = -1e9
"""Of a score that was minus infinity: without a chance beside any other."""
_MAX_RUN = 32
"""Tokens of an answer in one forward pass at most."""
_MAX_WASTE = 1.5
"""The cache is packed once it is so many times as long as the longest answer needs."""


class ConstrainedDecoding(LogitsProcessor):
    """Leaves in each answer of a batch only the tokens that its constraint allows. For one call of ``generate``.

    Args:
        specs: of the B answers, in order.
        vocabulary: the checkpoint's.
        limit: the most tokens of an answer, the one that ends it included.

    Attributes:
        current: the rows whose scores come next, where a loop of ours moves them; None: all, moved by the tokens that
            ``generate`` sampled.

    Raises:
        UserError: an answer cannot be written, or the limit is too small for any.
    """

    def __init__(self, specs: Sequence[GrammarSpec], vocabulary: Vocabulary, limit: int):
        self.rows = [Row(constraint_of(spec, vocabulary), limit) for spec in specs]
        self.current: list[Row] | None = None
        self._has_begun = False

    def pick_rows(self, rows: torch.Tensor) -> None:
        """Go on with these answers of the batch, in this order; one that is named again is written twice from here."""
        self.rows = [self.rows[row].copy() for row in rows.tolist()]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        rows = self.rows if self.current is None else self.current
        if self.current is None and self._has_begun:
            for row, token in zip(rows, input_ids[:, -1].tolist(), strict=True):
                if not row.is_done:
                    row.take(token)
        self._has_begun = True
        masks = np.stack([np.ones(scores.shape[1], dtype=bool) if row.is_done else row.mask() for row in rows])
        # what another processor bars (a shortest length, a repetition) stays possible where nothing else is allowed
        scores = scores.clamp(min=_BARRED)
        return torch.where(torch.from_numpy(masks).to(scores.device), scores, -torch.inf)


@dataclass(slots=True)
class _Answer:
    """An answer in the making: its tokens, and those of them that the model has not run on (``queue``)."""

    row: Row
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


class RunSampler:
    """Samples constrained answers; tokens that the constraint forces run through the model together.

    For ``generate(..., custom_generate=...)`` on U prompts, padded on the left, with ``constraint`` among the logits
    processors. Answers move at their own pace: each pass takes from every answer the token it sampled and those forced
    behind it, padded on the left to the longest run. Padding is masked, and leaves the cache from time to time.

    Args:
        counts: (U) answers per prompt, in which order the B answers come back.
        constraint: of the U prompts.
        temperature: as in :class:`scenerl.models.branching.BranchSampler`.

    Attributes:
        logps: after the call (B, T), of every token under the whole distribution; no meaning after an answer's end.
        num_passes: how often the model ran, the prompts aside.
    """

    def __init__(self, counts: Sequence[int], constraint: ConstrainedDecoding, temperature: float | None = None):
        self.counts = torch.tensor(counts)
        self.constraint = constraint
        self.temperature = temperature
        self.logps: torch.Tensor | None = None
        self.num_passes = 0

    @torch.no_grad()
    def __call__(
        self, model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs
    ) -> torch.Tensor:
        """(B, P + T) token ids: prompts and answers, filled up with the padding token."""
        output = model._prefill(input_ids, generation_config, model_kwargs)
        branch, pad = torch.repeat_interleave(self.counts).to(input_ids.device), generation_config._pad_token_tensor
        mask = model_kwargs.get("attention_mask")
        mask = torch.ones_like(input_ids) if mask is None else mask
        position = (mask.sum(dim=-1, keepdim=True) + model.base_model.rope_deltas.to(mask.device))[branch]
        ids, mask, cache = input_ids[branch], mask[branch], branched(output.past_key_values, branch)
        logits = output.logits[:, -1].float()[branch]
        self.constraint.pick_rows(branch)
        answers = [_Answer(row) for row in self.constraint.rows]
        for answer in answers:
            answer.write(answer.row.forced())
        batch = list(answers)
        while True:
            waiting = [place for place, answer in enumerate(batch) if not answer.queue and not answer.row.is_done]
            if waiting:
                self.constraint.current = [batch[place].row for place in waiting]
                scores = logits_processor(ids[waiting], logits[waiting])
                if generation_config.do_sample:
                    scores = scores.softmax(dim=-1) / torch.empty_like(scores).exponential_()
                for place, token in zip(waiting, scores.argmax(dim=-1).tolist(), strict=True):
                    batch[place].write(token)
            self._record(batch, logits)
            running = [place for place, answer in enumerate(batch) if answer.queue]
            if not running:
                break
            if len(running) < SHRINK_BELOW * len(batch):
                left = torch.tensor(running, device=ids.device)
                batch = [batch[place] for place in running]
                ids, mask, position = ids[left], mask[left], position[left]
                cache.batch_select_indices(left)
            runs = [self._next_run(answer) for answer in batch]
            width = max(map(len, runs))
            run = torch.tensor([[int(pad)] * (width - len(run)) + run for run in runs], device=ids.device)
            lengths = torch.tensor([[len(run)] for run in runs], device=ids.device)
            steps = torch.arange(width, device=ids.device) - (width - lengths)
            ids, mask = torch.cat([ids, run], dim=1), torch.cat([mask, (steps >= 0).to(mask.dtype)], dim=1)
            logits = model(
                input_ids=run,
                attention_mask=mask,
                position_ids=(position + steps.clamp(min=0)).expand(3, -1, -1),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1 if self.temperature is None else width,
            ).logits.float()
            self.num_passes += 1
            if self.temperature is not None:
                self._record_runs(batch, runs, logits)
            logits, position = logits[:, -1], position + lengths
            longest = int(mask.sum(dim=-1).max())
            if mask.shape[1] > _MAX_WASTE * longest:
                kept = mask.argsort(dim=-1, stable=True)[:, -longest:]
                ids, mask = ids.gather(1, kept), mask.gather(1, kept)
                for layer in cache.layers:
                    layer.pick_places(kept)
        if self.temperature is not None:
            rows = [torch.stack(answer.logps) for answer in answers]
            self.logps = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        rows = [torch.tensor(answer.tokens, device=ids.device) for answer in answers]
        written = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=int(pad))
        return torch.cat([input_ids[branch], written], dim=1)

    def _record(self, batch: Sequence[_Answer], logits: torch.Tensor) -> None:
        """Keep the log-probability of the token that comes next in each queue; let finished answers go."""
        for answer, row in zip(batch, logits, strict=True):
            if answer.queue and self.temperature is not None:
                answer.logps.append((row / self.temperature).log_softmax(dim=-1)[answer.queue[0]])
            if answer.row.is_done and (self.temperature is None or len(answer.queue) == 1):
                answer.queue.clear()

    def _record_runs(self, batch: Sequence[_Answer], runs: Sequence[list[int]], logits: torch.Tensor) -> None:
        """Keep the log-probabilities of the tokens of each run but the first, which is kept already."""
        for answer, run, row in zip(batch, runs, logits, strict=True):
            if len(run) > 1:
                scores = (row[-len(run) : -1] / self.temperature).log_softmax(dim=-1)
                answer.logps += scores.gather(-1, torch.tensor(run[1:], device=row.device)[:, None])[:, 0].unbind()

    @staticmethod
    def _next_run(answer: _Answer) -> list[int]:
        """Take the tokens from the queue that the model runs on next; the token that ends an answer is never."""
        count = min(len(answer.queue) - answer.row.is_done, _MAX_RUN) if answer.queue else 0
        run, answer.queue = answer.queue[:count], answer.queue[count:]
        return run
