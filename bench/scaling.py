"""Time of a policy update with shared prompts against prompt length, group size and batch.

    OMP_NUM_THREADS=1 python bench/scaling.py [--axes prompt group batch] [--rounds 1] [--trl] [--smoke]

Model and shape are those of bench/update.py (prompt 1,643 tokens of which 512 of the image, G 8, 240 tokens an answer,
one group); one of them changes at a time. Times are CPU time, the best of the rounds. The columns with × say how many
times the first row size, time and counted operations are. The *slope* between two rows is the growth of the time in
powers of the size: below 1 part of the cost is shared, 1 is linear, above 1 it grows faster than the size. `--trl`
times TRL's trainer as well, in turns.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence

from common import print_conditions, print_head, print_row
from update import CLASSES, PACKAGES, SMOKE, Setting, batch_of, build, operations, update, use_one_thread

AXES = {"prompt": (1024, 2048, 4096, 8192, 16384), "group": (4, 8, 16, 32), "batch": (1, 2, 4)}
SMOKE_AXES = {"prompt": (16, 32), "group": (2, 4), "batch": (1, 2)}
UNITS = {"prompt": "prompt tokens", "group": "G", "batch": "groups"}


def setting_of(axis: str, size: int, smoke: bool) -> Setting:
    base = Setting(2, 4, **SMOKE) if smoke else Setting()
    fields = {"group": base.group, "mean": base.mean, "groups": base.groups, "text": base.text, "grid": base.grid}
    change = {"prompt": {"text": size - base.image}, "group": {"group": size}, "batch": {"groups": size}}[axis]
    return Setting(**{**fields, **change})


def scale(axis: str, sizes: Sequence[int], trainers: dict, rounds: int, smoke: bool) -> None:
    config = trainers["SceneRL"].model.config
    peer = ["TRL", "faster"] if "TRL" in trainers else []
    print_head(UNITS[axis], "time", "size ×", "time ×", "operations ×", "slope", *peer)
    rows: list[tuple[int, float, float]] = []
    for size in sizes:
        setting = setting_of(axis, size, smoke)
        batch = batch_of(config, setting)
        found = [{kind: update(trainer, batch)[0] for kind, trainer in trainers.items()} for _ in range(rounds)]
        best = {kind: min(times[kind] for times in found) for kind in trainers}
        rows.append((size, best["SceneRL"], operations(config, setting, shared=True)))
        growth = [f"{now / first:.2f}" for now, first in zip(rows[-1], rows[0], strict=True)]
        slope = None
        if len(rows) > 1:
            (size_before, before, _), (_, now, _) = rows[-2:]
            slope = math.log(now / before) / math.log(size / size_before)
        print_row(
            size, f"{best['SceneRL']:.2f} s", *growth, "" if slope is None else f"{slope:.2f}",
            *([f"{best['TRL']:.2f} s", f"{best['TRL'] / best['SceneRL']:.1f}"] if peer else []),
        )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axes", nargs="+", choices=list(AXES), default=list(AXES))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--trl", action="store_true", help="TRL's trainer as well")
    parser.add_argument("--smoke", action="store_true", help="a few tokens: that it runs, no figures worth keeping")
    options = parser.parse_args()
    print_conditions(use_one_thread(), PACKAGES)
    with tempfile.TemporaryDirectory() as folder:
        kinds = list(CLASSES) if options.trl or options.smoke else ["SceneRL"]
        trainers = {kind: build(kind, folder) for kind in kinds}
        for trainer in trainers.values():
            update(trainer, batch_of(trainer.model.config, Setting(2, 4, **SMOKE)))  # what is done once, at first use
        for axis in options.axes:
            sizes = (SMOKE_AXES if options.smoke else AXES)[axis]
            scale(axis, sizes, trainers, options.rounds, options.smoke)


if __name__ == "__main__":
    main()
