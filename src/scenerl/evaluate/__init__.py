"""The command `eval`: a file of predictions and a data set in, a table and metrics.json out. Needs no torch."""

from __future__ import annotations

from scenerl.evaluate.command import run_eval

__all__ = ["run_eval"]
