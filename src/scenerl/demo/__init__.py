"""The ``demo`` command: from nothing to a report on two cores, by the same commands that users run on their own data.

:mod:`~scenerl.demo.tasks` holds the settings of its tasks, :mod:`~scenerl.demo.pipeline` runs them.
"""

from __future__ import annotations

from rich.console import Console

from scenerl.config import DemoOptions
from scenerl.demo.pipeline import Pipeline


def run(options: DemoOptions) -> None:
    """The command."""
    Pipeline(options, Console()).run()
