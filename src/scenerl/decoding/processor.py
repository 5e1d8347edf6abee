"""The constraint as transformers' ``generate`` takes it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers import LogitsProcessor

from scenerl.answers import GrammarSpec
from scenerl.decoding.constraint import Row, constraint_of
from scenerl.decoding.vocabulary import Vocabulary

_BARRED = -1e9
"""Of a score that was minus infinity: without a chance beside any other."""


class ConstrainedDecoding(LogitsProcessor):
    """Leaves in each answer of a batch only the tokens that its constraint allows. For one call of ``generate``.

    Args:
        shapes: of the B answers, in order.
        vocabulary: the checkpoint's.
        limit: the most tokens of an answer, the one that ends it included.

    Raises:
        UserError: an answer cannot be written, or the limit is too small for any.
    """

    def __init__(self, shapes: Sequence[GrammarSpec], vocabulary: Vocabulary, limit: int):
        self.rows = [Row(constraint_of(shape, vocabulary), limit) for shape in shapes]
        self._has_begun = False

    def pick_rows(self, rows: torch.Tensor) -> None:
        """Go on with these answers of the batch, in this order; one that is named again is written twice from here."""
        chosen = rows.tolist()
        self.rows = [
            self.rows[row].copy() if row in chosen[:place] else self.rows[row] for place, row in enumerate(chosen)
        ]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self._has_begun:
            for row, token in zip(self.rows, input_ids[:, -1].tolist(), strict=True):
                if not row.is_done:
                    row.take(token)
        self._has_begun = True
        masks = np.ones(scores.shape, dtype=bool)
        for place, row in enumerate(self.rows):
            if not row.is_done:
                masks[place] = row.mask()
        # what another processor bars (a shortest length, a repetition) stays possible where nothing else is allowed
        scores = scores.clamp(min=_BARRED)
        return torch.where(torch.from_numpy(masks).to(scores.device), scores, -torch.inf)
