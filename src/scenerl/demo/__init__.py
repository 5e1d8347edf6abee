"""The ``demo`` command: from nothing to a report on two cores, by the same commands that users run on their own data.

:mod:`~scenerl.demo.tasks` holds the settings of its tasks, :mod:`~scenerl.demo.pipeline` runs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from scenerl.demo.pipeline import Pipeline

if TYPE_CHECKING:
    from scenerl.commands.demo import DemoOptions


def run(options: DemoOptions) -> None:
    """The command."""
    Pipeline(options, Console()).run()
