"""Boxes for labels that were asked for and are not there: what hard negatives are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scenerl.metrics.counts import Ratios
from scenerl.metrics.options import Pair


def add_absent(ratios: Ratios, pairs: Sequence[Pair]) -> None:
    """Add ``absent_boxes_per_image`` and ``absent_answered``, where some image was asked for a label that it lacks.

    A label is absent where it was asked for and the target has neither a box nor a crowd of it. Against annotations
    that leave boxes out, a label may only seem absent.
    """
    rows = [_boxes(pair) for pair in pairs]
    if not any(absent for absent, _ in rows):
        return
    ratios.add("absent_boxes_per_image", np.array([float(len(boxes)) for _, boxes in rows]))
    ratios.add(
        "absent_answered",
        np.array([float(len(set(boxes))) for _, boxes in rows]),
        np.array([float(len(absent)) for absent, _ in rows]),
    )


def _boxes(pair: Pair) -> tuple[set[str], list[str]]:
    """The absent labels of an image, and the label of every box predicted for one of them."""
    absent = set(pair.query or ()) - {found.label for found in (*pair.target.objects, *pair.crowds)}
    predicted = pair.result.graph.objects if pair.result.graph is not None else ()
    return absent, [found.label for found in predicted if found.label in absent]
