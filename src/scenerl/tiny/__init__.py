"""Small models of the families' architectures, trained from scratch by the demo and the tests."""

from __future__ import annotations

from scenerl.tiny.architectures import TinyShape
from scenerl.tiny.checkpoint import build, checkpoint_of_run, create, requested_family, resize_of_run, save

__all__ = ["TinyShape", "build", "checkpoint_of_run", "create", "requested_family", "resize_of_run", "save"]
