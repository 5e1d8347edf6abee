"""The reasoning in SFT targets with the template ``think``, as annotations hold none: nothing, or a summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from scenerl.types import SceneGraph


def empty(graph: SceneGraph, query: Sequence[str] | None) -> str | None:
    """No reasoning."""
    return None


def summary(graph: SceneGraph, query: Sequence[str] | None) -> str:
    """How many objects of each label the answer has, and how many relations: a plan before the boxes.

    >>> from scenerl.types import SceneObject
    >>> dog = SceneObject("dog", (0, 0, 1, 1))
    >>> summary(SceneGraph((dog, dog)), ("cat", "dog"))
    'cat: none; dog: 2.'
    >>> summary(SceneGraph((dog,)), None)
    'dog: 1. Relations: 0.'
    """
    counts = Counter(found.label for found in graph.objects)
    if query is not None:
        return "; ".join(f"{label}: {counts[label] or 'none'}" for label in query) + "."
    objects = "; ".join(f"{label}: {count}" for label, count in counts.items())
    return f"{objects or 'No objects'}. Relations: {len(graph.relations)}."


REASONING: dict[str, Callable[[SceneGraph, Sequence[str] | None], str | None]] = {"empty": empty, "summary": summary}
"""Name to a function that writes the reasoning, from the target graph and the requested labels."""
