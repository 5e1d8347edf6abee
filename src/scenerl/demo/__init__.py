"""The ``demo`` command: from nothing to a report on two cores, by the same commands that users run on their own data.

:mod:`~scenerl.demo.stages` holds what every story shares; each story has its data, its settings and its sequence of
stages in a module of its own, a line in :data:`STORIES` and a choice of ``task`` in the command's options.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console

from scenerl.demo import detection, graph
from scenerl.errors import UserError

if TYPE_CHECKING:
    from scenerl.commands.demo import DemoOptions

STORIES = {"graph": graph, "detection": detection}
"""Name of a task to the module with its :class:`Story` and, in ``WEIGHTS``, its rewards, the usual one first."""


def run(options: DemoOptions) -> None:
    """The command.

    Raises:
        UserError: a reward that the task does not have.
    """
    story = STORIES[options.task]
    reward = options.reward or next(iter(story.WEIGHTS))
    if reward not in story.WEIGHTS:
        raise UserError(f"reward: {reward!r} is none of task {options.task!r}; allowed: {', '.join(story.WEIGHTS)}")
    story.Story(replace(options, reward=reward), Console()).run()
