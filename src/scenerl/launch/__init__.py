"""Recipes on machines: profiles, the launcher with its SLURM script, and estimates of memory and time.

Nothing here imports torch: a recipe is planned and submitted from a login node that has none. Adding a profile is a
YAML file in ``recipes/profiles``, adding a model to the estimates a line in :mod:`scenerl.launch.sizes`.
"""
