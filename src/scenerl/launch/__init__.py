"""Recipes on machines: profiles, the launcher and its SLURM script.

Nothing here imports torch: a recipe is submitted from a login node that has none. Adding a profile is a YAML file in
``recipes/profiles``.
"""
