"""GRPO updates and rollouts that run the image and the prompt once per group of completions.

:mod:`trainer` is TRL's trainer on shared prompts. Where a family's attention allows it, groups are packed:
:mod:`packing` lays one out in a row of tokens and :mod:`attention` attends over it; elsewhere :mod:`caching` runs the
completions behind the prompt's cache. :mod:`padded_rows` takes TRL's padded batches apart; :mod:`rollout` prepares
prompts for ``generate``; :mod:`support` says where and how sharing is possible; :mod:`self_check` compares the first
group with TRL's own log-probabilities.
"""
