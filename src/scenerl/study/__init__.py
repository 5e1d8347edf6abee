"""The ``study`` command: what the papers claim, tested on small models with several seeds.

:mod:`~scenerl.study.worlds` draws the data, :mod:`~scenerl.study.experiments` says what is trained,
:mod:`~scenerl.study.run` trains it, :mod:`~scenerl.study.claims` compares, and :mod:`~scenerl.study.page` writes.
"""
