"""Answers and ground truth in, every reward of every answer out, with what became of the answer and what it matched.

This is how to see why a reward is 0. It needs no images and no torch.
"""

from __future__ import annotations

from scenerl.score.command import run_score
from scenerl.score.rows import describe_matches, score_answer, score_row

__all__ = ["describe_matches", "run_score", "score_answer", "score_row"]
