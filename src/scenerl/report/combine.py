"""Several runs in one report: their stages side by side, where they were tested on the same images."""

from __future__ import annotations

import filecmp
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scenerl.errors import UserError
from scenerl.report.manifest import Manifest, Target, checked, read_manifest


def combine_runs(runs: Sequence[Path]) -> Manifest:
    """One manifest of several run folders. Stages are called ``run: stage``; ground truth that not all runs share is
    left out, the metrics against it too.

    Raises:
        UserError: a folder is no run, two are the same, or no ground truth is the same in all of them.
    """
    manifests = [read_manifest(run) for run in runs]
    if len(runs) == 1:
        return manifests[0]
    names = _names(runs)
    targets = tuple(target for target in manifests[0].targets if all(_has(other, target) for other in manifests[1:]))
    if not targets:
        described = "; ".join(
            f"{run}: {', '.join(target.name for target in manifest.targets)}"
            for run, manifest in zip(runs, manifests, strict=True)
        )
        raise UserError(f"the runs were not tested on the same data; each needs an equal ground truth ({described})")
    shared = {target.name for target in targets}
    stages = tuple(
        replace(
            stage,
            name=f"{name}: {stage.name}",
            metrics={target: path for target, path in stage.metrics.items() if target in shared},
        )
        for name, manifest in zip(names, manifests, strict=True)
        for stage in manifest.stages
    )
    counts = manifests[0].predicate_counts
    if any(manifest.predicate_counts != counts for manifest in manifests):
        counts = {}
    return checked(Manifest(" and ".join(names), targets, stages, counts), "the runs")


def _names(runs: Sequence[Path]) -> list[str]:
    """The shortest ends of the folders' paths that differ."""
    parts = [run.resolve().parts for run in runs]
    if len(set(parts)) < len(parts):
        raise UserError("a run folder is named twice")
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names


def _has(manifest: Manifest, target: Target) -> bool:
    return any(
        other.name == target.name and filecmp.cmp(other.path, target.path, shallow=False) for other in manifest.targets
    )
