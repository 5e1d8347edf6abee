"""The one way from a data source to the ground truth that predictions are evaluated against.

Examples for training are made fit for it: boxes are clipped to their image, boxes without area are left out, every
image has a size. Other projects' evaluators do none of that. :func:`load_ground_truth` therefore keeps the boxes of
COCO instances and psg.json exactly as the file has them, and does not need sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from scenerl import data
from scenerl.json_files import collector_paused
from scenerl.progress import track
from scenerl.types import Example


@dataclass(frozen=True, slots=True)
class Names:
    """The names behind the numbers of a file: category id, which may be a text, to label; predicates counted from 0."""

    objects: Mapping[Any, str] = field(default_factory=dict)
    predicates: Sequence[str] = ()


@dataclass(frozen=True)
class GroundTruth:
    """Examples, and the names of the categories and predicates where the file numbers them.

    Prediction files of COCO, OVDEval and SGBench hold the numbers only.
    """

    examples: Sequence[Example]
    names: Names = field(default_factory=Names)


def load_ground_truth(source: str | Path, split: str | None = None) -> GroundTruth:
    """The ground truth of a source.

    Args:
        source: everything that :func:`scenerl.data.load` takes.
        split: which one, where the source has several. Of a bare psg.json it is the test images, or all images where
            the file names no test image.

    Raises:
        DataError: the source cannot be used; the message names file and row.
    """
    name, argument = data.resolve(str(source))
    module = import_module(data.DATASETS[name])
    with collector_paused():
        if not hasattr(module, "read_named"):
            return GroundTruth(list(track(data.load(source, split), "ground truth")))
        names, records = module.read_named(argument, split, exact=True)
        return GroundTruth(list(track(data.usable(records, str(source)), "ground truth")), names)
