"""The model card of a run that uploads its checkpoints: ours, in place of TRL's."""

from __future__ import annotations

from pathlib import Path

from scenerl.answers import OutputFormat
from scenerl.card import FILE_NAME, model_card, origin_of
from scenerl.files import atomic_write_text
from scenerl.models.loading import Checkpoint, base_of


class ModelCardMixin:
    """For TRL's trainers, which write a card with each checkpoint and before each upload.

    Attributes:
        checkpoint: the model that is trained; None: the card is TRL's.
        output_format: of its answers.
    """

    checkpoint: Checkpoint | None = None
    output_format: OutputFormat | None = None

    def create_model_card(self, model_name: str | None = None, dataset_name=None, tags=None) -> None:
        """Describe the model by the files of the run; there are no metrics yet."""
        if self.checkpoint is None or self.output_format is None:
            super().create_model_card(model_name, dataset_name, tags)
        elif self.is_world_process_zero():
            folder = Path(self.args.output_dir)
            card = model_card(
                self.args.hub_model_id or model_name or folder.name,
                self.checkpoint.family.model_type,
                self.output_format,
                base_of(self.checkpoint.name) or self.checkpoint.name,
                origin_of(folder),
            )
            atomic_write_text(folder / FILE_NAME, card)
