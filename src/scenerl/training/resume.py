"""Going on after a kill: which checkpoint is whole, and how its weights come back."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from rich.console import Console
from transformers import PreTrainedModel
from transformers.trainer import OPTIMIZER_NAME, TRAINER_STATE_NAME

from scenerl.conversation import Conversation
from scenerl.models.loading import check_folder, load


class Resumable:
    """For TRL's trainers: weights come back from a checkpoint as ``from_pretrained`` reads them, or not at all.

    Checkpoints name their tensors as the released models do, a model in memory names them otherwise. transformers'
    trainer does not translate: it finds no tensor that it knows, warns, and goes on from the initial weights.
    """

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        if model is not None or not isinstance(self.model, PreTrainedModel):  # FSDP and adapters have ways of their own
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        self.model.load_state_dict(load(resume_from_checkpoint, dtype="float32").model.state_dict())


def last_checkpoint(folder: str | Path) -> Path | None:
    """The newest whole checkpoint in a run folder; one that was cut off while it was saved is passed over."""
    numbered = [
        (int(path.name.removeprefix("checkpoint-")), path)
        for path in Path(folder).glob("checkpoint-*")
        if path.name.removeprefix("checkpoint-").isdecimal()
    ]
    return next((path for _, path in sorted(numbered, reverse=True) if _is_whole(path)), None)


def _is_whole(checkpoint: Path) -> bool:
    inside = list(checkpoint.iterdir())
    if not any(path.name == OPTIMIZER_NAME or path.is_dir() for path in inside):  # DeepSpeed and FSDP write folders
        return False
    if not all(zipfile.is_zipfile(path) for path in inside if path.suffix in (".pt", ".pth")):
        return False
    try:
        check_folder(checkpoint)
        _progress(checkpoint)
    except (OSError, ValueError, KeyError):
        return False
    return True


def _progress(checkpoint: Path) -> tuple[int, int]:
    """How many steps a checkpoint has behind it, and how many the run has in all."""
    state = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    return state["global_step"], state["max_steps"]


def fit(trainer: Resumable, conversation: Conversation) -> None:
    """Train from the newest whole checkpoint on, or from the start, and save the final model in the run folder.

    A run that has all its steps behind it is not trained further; transformers would do so where the last epoch is not
    a full one.
    """
    folder = trainer.args.output_dir
    checkpoint = last_checkpoint(folder)
    step, num_steps = _progress(checkpoint) if checkpoint else (0, None)
    if checkpoint:
        # saving the conversation comes after saving the checkpoint, and a kill may have come between
        conversation.save(checkpoint)
        where = "all" if step >= num_steps else f"{step} of {num_steps}"
        text = f"{folder}: {where} steps were done before; --fresh starts over"
        Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)
    if checkpoint and step >= num_steps:
        trainer._load_from_checkpoint(str(checkpoint))
    else:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.save_model(folder)
    conversation.save(folder)
