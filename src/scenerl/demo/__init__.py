"""The ``demo`` command: from nothing to a report on two cores, by the same commands that users run on their own data.

:mod:`~scenerl.demo.tasks` holds the settings of its tasks, :mod:`~scenerl.demo.pipeline` runs them.
"""
