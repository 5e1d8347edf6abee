"""Checkpoints that appear whole or not at all, and training that goes on from the newest of them."""

from __future__ import annotations

import logging
import os
import shutil
import zipfile
from pathlib import Path

import torch
from rich.console import Console
from transformers import PreTrainedModel, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy, rotate_checkpoints

from scenerl.answers import OutputFormat
from scenerl.answers.dialogue import save_output_format
from scenerl.card import FILE_NAME, model_card, origin_of
from scenerl.errors import UserError
from scenerl.files import apply_umask, atomic_write_text, whole_file
from scenerl.models.folders import check_folder, one_line
from scenerl.models.loading import Checkpoint, base_of, load
from scenerl.training.best import EarlyStopping, best_checkpoint
from scenerl.training.engine import check_checkpoint, engine_of
from scenerl.training.preemption import PreemptionCallback

UNFINISHED = "_unfinished"
"""Folder in a run folder in which a checkpoint is written before it is renamed. Uploads leave out names with ``_``."""

_TRAINING_STATE = (
    TRAINER_STATE_NAME, "optimizer*", "scheduler*", "scaler*", "rng_state*", "rollout_*", "pytorch_model_fsdp*",
    "latest", "zero_to_*.py", "manifest.json",
)  # fmt: skip
"""Files of a checkpoint that are not the model's. Versions before 0.2 wrote the last."""

_log = logging.getLogger(__name__)


class CheckpointMixin:
    """For TRL's trainers: atomic checkpoints that hold the output format and restore weights and rollouts.

    Attributes:
        checkpoint: the model that is trained, for the model card; None: the card is TRL's.
        output_format: saved with every checkpoint, so that each can be used for prediction; None: nothing is saved.
    """

    checkpoint: Checkpoint | None = None
    output_format: OutputFormat | None = None
    _staging: Path | None = None

    def _get_output_dir(self, trial) -> str:
        return str(self._staging) if self._staging else super()._get_output_dir(trial)

    def _save_checkpoint(self, model, trial) -> None:
        """All processes write the checkpoint in a staging folder; when all have written, one renames it."""
        folder = Path(self.args.output_dir)
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        self._staging = folder / UNFINISHED
        if self.args.should_save:
            shutil.rmtree(self._staging, ignore_errors=True)  # of a process that was killed
        self.accelerator.wait_for_everyone()
        try:
            super()._save_checkpoint(model, trial)
            self.save_rollout(self._staging / name)
            is_best = self.state.best_global_step == self.state.global_step
            best = folder / name if is_best else best_checkpoint(folder, self.state)
            self.state.best_model_checkpoint = None if best is None else str(best)  # transformers names the staging one
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                self.state.save_to_json(str(self._staging / name / TRAINER_STATE_NAME))
                _publish(self._staging / name, folder / name)
                rotate_checkpoints(
                    str(folder), self.args.save_total_limit, self.state.best_model_checkpoint, use_mtime=True
                )
        finally:
            self._staging = None
        self.accelerator.wait_for_everyone()
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(folder / name))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As transformers, which may upload the folder at the end: the output format is in it before."""
        folder = output_dir or self.args.output_dir
        if self.args.should_save and self.output_format is not None:
            save_output_format(self.output_format, folder)
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            apply_umask(folder)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """As transformers, but of tied weights, which FSDP gathers one by one, the second is left out."""
        if state_dict is not None:
            tied = getattr(self.accelerator.unwrap_model(self.model), "all_tied_weights_keys", {})
            state_dict = {
                name: weights
                for name, weights in state_dict.items()
                if tied.get(name) not in state_dict or not torch.equal(weights, state_dict[tied[name]])
            }
        super()._save(output_dir, state_dict)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """As transformers, once the checkpoint is complete and the run folder holds the output format."""
        if self._staging is not None:
            return
        if self.is_world_process_zero() and self.output_format is not None:
            save_output_format(self.output_format, self.args.output_dir)
        super()._push_from_checkpoint(checkpoint_folder)

    def create_model_card(self, model_name: str | None = None, dataset_name=None, tags=None) -> None:
        """Describe the model by the files of the run; there are no metrics yet."""
        if self.checkpoint is None or self.output_format is None:
            super().create_model_card(model_name, dataset_name, tags)
            return
        if not self.is_world_process_zero():
            return
        folder = Path(self.args.output_dir)
        card = model_card(
            self.args.hub_model_id or model_name or folder.name,
            self.checkpoint.family.model_type,
            self.output_format,
            base_of(self.checkpoint.name) or self.checkpoint.name,
            origin_of(folder),
        )
        atomic_write_text(folder / FILE_NAME, card)

    def save_rollout(self, checkpoint: Path) -> None:
        """Write the state of a rollout that training is in the middle of; only trainers that sample have one."""

    def load_rollout(self, checkpoint: Path) -> None:
        """Restore what :meth:`save_rollout` wrote."""

    def _load_best_model(self) -> None:
        """As transformers, with names of tensors as :meth:`_load_from_checkpoint` reads them."""
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            super()._load_best_model()
        else:
            self._load_from_checkpoint(self.state.best_model_checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        """Load weights as ``from_pretrained`` does.

        Tensor names in a checkpoint are those of the released models and differ from the names in memory.
        transformers' trainer does not translate them: it finds no tensor, warns, and goes on from the initial weights.
        """
        if model is None and isinstance(self.model, PreTrainedModel):
            self.model.load_state_dict(load(resume_from_checkpoint, dtype="float32").model.state_dict())
            return
        dtypes = {name: parameter.dtype for name, parameter in self.model.named_parameters()}
        super()._load_from_checkpoint(resume_from_checkpoint, model)  # FSDP, and adapters
        for name, parameter in self.model.named_parameters():  # PEFT loads adapters in float32
            parameter.data = parameter.data.to(dtypes.get(name, parameter.dtype))


def _publish(draft: Path, checkpoint: Path) -> None:
    """Flush a finished draft's files to the disk and rename the folder."""
    for path in draft.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    if checkpoint.exists():  # a damaged one, which the run has passed over
        checkpoint.rename(draft.with_name(f"replaced-{checkpoint.name}"))
    draft.rename(checkpoint)
    shutil.rmtree(draft.parent, ignore_errors=True)


def last_checkpoint(folder: str | Path) -> Path | None:
    """The newest usable checkpoint in a run folder; a warning names each newer one that is damaged.

    Raises:
        UserError: there are checkpoints, and all are damaged; names what is wrong with the oldest.
    """
    numbered = [
        (int(number), path)
        for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if (number := path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")).isdecimal()
    ]
    damaged = None
    for _, path in sorted(numbered, reverse=True):
        if damaged:
            _log.warning("%s is damaged and passed over: %s", *damaged)
        try:
            check_folder(path)
            _check_archives(path)
            _state(path)
            return path
        except (OSError, ValueError, KeyError, TypeError) as error:
            damaged = path, one_line(error)
    if damaged:
        path, reason = damaged
        raise UserError(f"{path} is damaged ({reason}), and there is no earlier checkpoint; --fresh starts over")
    return None


def _check_archives(checkpoint: Path) -> None:
    """Raise ValueError for a file of ``torch.save`` that cannot be read, without reading its tensors.

    It is a ZIP archive: the directory is at its end, a header before each entry, and the pickle is small and has a
    checksum. Changed bytes inside tensors are not found; ``torch.load`` does not find them either.
    """
    for path in checkpoint.rglob("*"):
        if path.suffix not in (".pt", ".pth", ".bin"):
            continue
        try:
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    with archive.open(entry) as file:
                        if "/data/" not in entry.filename:
                            file.read()
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            raise ValueError(f"{path.name}: damaged or cut off ({one_line(error)})") from error


def _state(checkpoint: Path) -> TrainerState:
    """How far a run was at a checkpoint; ValueError if it does not say."""
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    if not (state.global_step and state.max_steps):
        raise ValueError(f"{TRAINER_STATE_NAME}: no steps")
    return state


def fit(trainer: CheckpointMixin) -> CheckpointMixin:
    """Train from the newest checkpoint on, or from the start, and save the final model in the run folder.

    A run with all its steps done, or stopped early, is not trained further; transformers would do so where the last
    epoch is not a full one. Its final model is copied from its last checkpoint, or from the best where that is wanted.

    Raises:
        UserError: the checkpoint is another engine's.
        SystemExit: stopped by a signal, with a checkpoint; the code is
            :data:`~scenerl.training.preemption.REQUEUE`.
    """
    folder = Path(trainer.args.output_dir)
    checkpoint = last_checkpoint(folder)
    state = _state(checkpoint) if checkpoint else TrainerState()
    stops = [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, EarlyStopping)]
    is_early = any(callback.has_stopped(state) for callback in stops)
    is_done = checkpoint is not None and (is_early or state.global_step >= state.max_steps)
    if checkpoint and trainer.is_world_process_zero():
        done = "all" if is_done and not is_early else f"{state.global_step} of {state.max_steps}"
        _say(f"{folder}: {done} steps were done before; --fresh starts over")
    if is_done:
        best = best_checkpoint(folder, state) if trainer.args.load_best_model_at_end else None
        _finish(trainer, best or checkpoint, folder)
        return trainer
    if checkpoint:
        check_checkpoint(checkpoint, trainer.accelerator)
        trainer.load_rollout(checkpoint)
    _log.info("trained by: %s", engine_of(trainer.accelerator))
    with PreemptionCallback() as preemption:
        trainer.add_callback(preemption)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    preemption.leave(trainer.state)
    trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        _say(f"{folder}: {trainer.state.global_step} of {trainer.state.max_steps} steps are done; the model is there")
    return trainer


def _say(text: str) -> None:
    Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)


def _finish(trainer: CheckpointMixin, checkpoint: Path, folder: Path) -> None:
    """Put the model of a run's last checkpoint in the run folder: without training there is no engine to save it."""
    if trainer.args.should_save:
        for path in checkpoint.iterdir():
            if path.is_file() and not any(path.match(pattern) for pattern in _TRAINING_STATE):
                with whole_file(folder / path.name) as draft:
                    shutil.copyfile(path, draft)
        if trainer.output_format is not None:
            save_output_format(trainer.output_format, folder)
    if trainer.args.push_to_hub:
        trainer.args.hub_strategy = HubStrategy.EVERY_SAVE  # with END transformers uploads after training only
        trainer.create_model_card()
        trainer._push_from_checkpoint(str(checkpoint))
        trainer._finish_current_push()
    trainer.accelerator.wait_for_everyone()
