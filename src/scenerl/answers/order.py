"""The order of objects in SFT targets, which decides what a model learns to write first.

Annotations have the order in which people drew boxes, which no image shows. A rule that the image does show, such as
left to right, leaves the model less to guess, and gives each object one place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from scenerl.types import SceneGraph, SceneObject


def left_to_right(item: SceneObject, labels: Sequence[str]) -> tuple[float, float]:
    """By the left edge, then by the top edge."""
    return item.box[:2]


def by_size(item: SceneObject, labels: Sequence[str]) -> tuple[float]:
    """Largest area first."""
    x1, y1, x2, y2 = item.box
    return (-(x2 - x1) * (y2 - y1),)


def by_class(item: SceneObject, labels: Sequence[str]) -> tuple[int, str]:
    """In the order of ``labels``; those that are not among them come last, in alphabetical order."""
    return labels.index(item.label) if item.label in labels else len(labels), item.label


ORDERS: dict[str, Callable[[SceneObject, Sequence[str]], tuple] | None] = {
    "annotated": None, "left_to_right": left_to_right, "size": by_size, "class": by_class,
}  # fmt: skip
"""Name to what objects are sorted by, given the labels of a query or closed vocabulary; None: they are not sorted."""


def in_order(graph: SceneGraph, order: str, labels: Sequence[str] = ()) -> SceneGraph:
    """The same graph with its objects in another order, and its relations by subject, then by object.

    Equal objects stay as annotated, and ``annotated`` leaves relations as they are too.

    Args:
        order: a name from :data:`ORDERS`.
        labels: of the query or closed vocabulary, where there is one.

    >>> dog, cat = SceneObject("dog", (50, 0, 90, 40)), SceneObject("cat", (10, 0, 20, 20))
    >>> [item.label for item in in_order(SceneGraph((dog, cat)), "left_to_right").objects]
    ['cat', 'dog']
    """
    place = ORDERS[order]
    if place is None:
        return graph
    before = sorted(range(len(graph.objects)), key=lambda index: place(graph.objects[index], labels))
    now = {old: new for new, old in enumerate(before)}
    moved = (edge._replace(subject=now[edge.subject], object=now[edge.object]) for edge in graph.relations)
    relations = sorted(moved, key=lambda edge: (edge.subject, edge.object))
    return SceneGraph(tuple(graph.objects[old] for old in before), tuple(relations))
