"""The model card of a run that uploads its checkpoints: ours, in place of TRL's."""

from __future__ import annotations

from pathlib import Path

from scenerl.answers import OutputFormat
from scenerl.card import FILE_NAME, model_card, origin_of
from scenerl.files import atomic_write_text
from scenerl.models.loading import Checkpoint, base_of


class Carded:
    """For TRL's trainers, which write a card beside each checkpoint and before each upload."""

    checkpoint: Checkpoint
    output_format: OutputFormat

    def create_model_card(self, model_name: str | None = None, dataset_name=None, tags=None) -> None:
        """Write what the run's files say about its model; there are no metrics yet."""
        if not self.is_world_process_zero():
            return
        folder = Path(self.args.output_dir)
        checkpoint = self.checkpoint
        card = model_card(
            self.args.hub_model_id or model_name or folder.name,
            checkpoint.family.model_type,
            self.output_format,
            base_of(checkpoint.name) or checkpoint.name,
            origin_of(folder),
        )
        atomic_write_text(folder / FILE_NAME, card)
