"""GRPO updates and rollouts that run the image and the prompt once per group of completions.

:mod:`trainer` is TRL's trainer on packed groups; :mod:`packing` lays a group out in one row of tokens and
:mod:`attention` attends over it; :mod:`padded_rows` takes TRL's padded batches apart; :mod:`rollout` prepares prompts
for ``generate``; :mod:`support` says where sharing is possible; :mod:`self_check` compares the first group with TRL's
own log-probabilities.
"""
