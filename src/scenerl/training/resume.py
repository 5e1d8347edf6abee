"""Going on after a kill: checkpoints that are whole or not there, and how weights and rollouts come back from them."""

from __future__ import annotations

import json
import logging
import os
import shutil
import zipfile
from pathlib import Path

from rich.console import Console
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel
from transformers.trainer import OPTIMIZER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from scenerl.answers import OutputFormat
from scenerl.answers.dialogue import save_output_format
from scenerl.errors import UserError
from scenerl.files import atomic_write_text
from scenerl.models.folders import check_folder
from scenerl.models.loading import load
from scenerl.training.stop import StopOnSignal

UNFINISHED = "unfinished"
"""Folder in a run folder in which a checkpoint is written before it gets its name."""
MANIFEST = "manifest.json"
"""In a checkpoint: its files and their sizes in bytes."""
_log = logging.getLogger(__name__)


class Resumable:
    """For TRL's trainers: a checkpoint appears whole or not at all, and gives back what it was made from.

    Attributes:
        output_format: written into every checkpoint, so that each can be used for prediction.
    """

    output_format: OutputFormat
    _staging: Path | None = None

    def _get_output_dir(self, trial) -> str:
        return str(self._staging) if self._staging else super()._get_output_dir(trial)

    def _save_checkpoint(self, model, trial) -> None:
        """Write the checkpoint aside, with all processes; when all have written, one gives it its name."""
        folder = Path(self.args.output_dir)
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        self._staging = folder / UNFINISHED
        if self.args.should_save:
            shutil.rmtree(self._staging, ignore_errors=True)  # what a kill has left there
        self.accelerator.wait_for_everyone()
        try:
            super()._save_checkpoint(model, trial)
            self.save_rollout(self._staging / name)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                save_output_format(self.output_format, self._staging / name)
                _publish(self._staging / name, folder / name)
                rotate_checkpoints(str(folder), self.args.save_total_limit, use_mtime=True)
        finally:
            self._staging = None
        self.accelerator.wait_for_everyone()

    def save_rollout(self, checkpoint: Path) -> None:
        """Write what a trainer that samples needs to go on in the middle of a rollout; nothing else needs it."""

    def load_rollout(self, checkpoint: Path) -> None:
        """Take back what :meth:`save_rollout` wrote."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        """Weights come back as ``from_pretrained`` reads them, or not at all.

        Checkpoints name their tensors as the released models do, a model in memory names them otherwise. transformers'
        trainer does not translate: it finds no tensor that it knows, warns, and goes on from the initial weights.
        """
        if model is not None or not isinstance(self.model, PreTrainedModel):  # FSDP and adapters have ways of their own
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        self.model.load_state_dict(load(resume_from_checkpoint, dtype="float32").model.state_dict())


def _publish(draft: Path, checkpoint: Path) -> None:
    """Note the sizes of a finished draft's files, see them on the disk, and rename the folder."""
    sizes = {}
    for path in sorted(path for path in draft.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        sizes[path.relative_to(draft).as_posix()] = path.stat().st_size
    atomic_write_text(draft / MANIFEST, json.dumps(sizes, indent=1))
    if checkpoint.exists():  # a damaged one, which the run has passed over
        checkpoint.rename(draft.with_name(f"replaced-{checkpoint.name}"))
    draft.rename(checkpoint)
    shutil.rmtree(draft.parent, ignore_errors=True)


def last_checkpoint(folder: str | Path) -> Path | None:
    """The newest whole checkpoint in a run folder; a warning names each newer one that is damaged."""
    numbered = [
        (int(path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")), path)
        for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-").isdecimal()
    ]
    for _, path in sorted(numbered, reverse=True):
        try:
            _check(path)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            _log.warning("%s is damaged and passed over: %s", path, " ".join(str(error).split()))
        else:
            return path
    return None


def _check(checkpoint: Path) -> None:
    """Raise ValueError, KeyError or OSError with what is wrong with a checkpoint."""
    manifest, inside = checkpoint / MANIFEST, list(checkpoint.iterdir())
    if manifest.is_file():
        for name, size in json.loads(manifest.read_text(encoding="utf-8")).items():
            path = checkpoint / name
            if not path.is_file() or path.stat().st_size != size:
                found = f"{path.stat().st_size} bytes" if path.is_file() else "missing"
                raise UserError(f"{name} is {found}, was saved with {size} bytes")
    elif not any(path.name == OPTIMIZER_NAME or path.is_dir() for path in inside):
        # checkpoints of earlier versions have no manifest; DeepSpeed and FSDP write folders
        raise UserError(f"{OPTIMIZER_NAME} is missing")
    for path in inside:
        if path.suffix in (".pt", ".pth") and not zipfile.is_zipfile(path):
            raise UserError(f"{path.name} is cut off")
        if path.suffix == ".safetensors":
            with safe_open(path, framework="numpy"):
                pass
    if not (checkpoint / "adapter_config.json").is_file():
        check_folder(checkpoint)
    _progress(checkpoint)


def _progress(checkpoint: Path) -> tuple[int, int]:
    """How many steps a checkpoint has behind it, and how many the run has in all."""
    state = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    return state["global_step"], state["max_steps"]


def fit(trainer: Resumable) -> None:
    """Train from the newest whole checkpoint on, or from the start, and save the final model in the run folder.

    A run that has all its steps behind it is not trained further; transformers would do so where the last epoch is not
    a full one.

    Raises:
        SystemExit: asked to stop by a signal, with :data:`~scenerl.training.stop.REQUEUE`, when a checkpoint is saved.
    """
    folder = trainer.args.output_dir
    checkpoint = last_checkpoint(folder)
    step, num_steps = _progress(checkpoint) if checkpoint else (0, None)
    if checkpoint and trainer.is_world_process_zero():
        where = "all" if step >= num_steps else f"{step} of {num_steps}"
        _tell(f"{folder}: {where} steps were done before; --fresh starts over")
    if checkpoint and step >= num_steps:
        trainer._load_from_checkpoint(str(checkpoint))
    else:
        if checkpoint:
            trainer.load_rollout(checkpoint)
        with StopOnSignal() as stop:
            trainer.add_callback(stop)
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        stop.leave(trainer.state)
    trainer.save_model(folder)
    if trainer.args.should_save:
        save_output_format(trainer.output_format, folder)


def _tell(text: str) -> None:
    Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)
