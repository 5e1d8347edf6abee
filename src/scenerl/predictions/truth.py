"""Ground truth with what some files hold besides examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scenerl.predictions.contents import Names
from scenerl.types import Example, SceneObject


@dataclass(frozen=True)
class Truth:
    """The ground truth: examples, names of numbered labels, and crowd regions by image id (COCO's ``iscrowd``)."""

    examples: Sequence[Example]
    names: Names = field(default_factory=Names)
    crowds: Mapping[str, tuple[SceneObject, ...]] = field(default_factory=dict)
