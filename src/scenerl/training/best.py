"""The best checkpoint of a run, by a metric of its validation, and training that ends when none gets better.

transformers keeps both in the trainer's state, but only for one uninterrupted run in one folder.
"""

from __future__ import annotations

from pathlib import Path

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR


def best_checkpoint(folder: str | Path, state: TrainerState) -> Path | None:
    """The checkpoint of the best evaluation so far in a run folder; None where there is none."""
    if not state.best_global_step:
        return None
    path = Path(folder) / f"{PREFIX_CHECKPOINT_DIR}-{state.best_global_step}"
    return path if path.is_dir() else None


class BestCheckpoint(TrainerCallback):
    """Finds the best checkpoint of a run that goes on, also where its folder was moved."""

    def on_train_begin(self, args, state, control, **kwargs):
        found = best_checkpoint(args.output_dir, state)
        state.best_model_checkpoint = None if found is None else str(found)


class EarlyStopping(EarlyStoppingCallback):
    """As transformers', but a run that goes on counts on from where it was."""

    def on_train_begin(self, args, state, control, **kwargs):
        super().on_train_begin(args, state, control, **kwargs)
        self.early_stopping_patience_counter = self.count(state)

    def has_stopped(self, state: TrainerState) -> bool:
        """Whether a run with this state was stopped early."""
        return self.count(state) >= self.early_stopping_patience

    @classmethod
    def count(cls, state: TrainerState) -> int:
        """Evaluations in a row without a better value, as a checkpoint holds them."""
        saved = state.stateful_callbacks.get(cls.__name__, {})
        return saved.get("attributes", {}).get("early_stopping_patience_counter", 0)
