"""The ``demo`` command: from nothing to a report on two cores, by the same commands that users run on their own data.

:mod:`~scenerl.demo.stages` holds what every story shares, each story its data, settings and sequence of stages:
:mod:`~scenerl.demo.graph`.
"""

from __future__ import annotations

from rich.console import Console

from scenerl.config import DemoOptions
from scenerl.demo.graph import GraphDemo


def run(options: DemoOptions) -> None:
    """The command."""
    GraphDemo(options, Console()).run()
