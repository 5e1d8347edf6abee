"""What is in a data set: classes, predicates and their long tail, boxes; predicate counts and triplet types."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from scenerl.data.triplets import Triplet
from scenerl.data.vocabulary import by_frequency
from scenerl.errors import counted
from scenerl.predicate_groups import predicate_groups
from scenerl.types import Example

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Statistics:
    """Counts that grow by one example at a time; memory grows with the vocabulary, and by 8 bytes per box
    and 16 per image."""

    def __init__(self) -> None:
        self.num_images = 0
        self.objects: Counter[str] = Counter()
        self.predicates: Counter[str] = Counter()
        self.triplets: Counter[Triplet] = Counter()
        self.queried: Counter[str] = Counter()
        self.num_absent = 0
        self.boxes_per_image = array("L")
        self.relations_per_image = array("L")
        self._area = array("d")

    def add(self, example: Example) -> None:
        graph = example.graph
        self.num_images += 1
        labels = [found.label for found in graph.objects]
        self.objects.update(labels)
        self.predicates.update(relation.predicate for relation in graph.relations)
        self.triplets.update(graph.triplet(relation) for relation in graph.relations)
        self.boxes_per_image.append(len(graph.objects))
        self.relations_per_image.append(len(graph.relations))
        if image_area := example.width * example.height:  # unknown in some sets that are only evaluated
            self._area.extend((x2 - x1) * (y2 - y1) / image_area for x1, y1, x2, y2 in (o.box for o in graph.objects))
        if example.query is not None:
            self.queried.update(example.query)
            self.num_absent += len(set(example.query) - set(labels))

    @classmethod
    def of(cls, examples: Iterable[Example]) -> Statistics:
        statistics = cls()
        for example in examples:
            statistics.add(example)
        return statistics

    def as_dict(self, seen: Collection[Triplet] | None = None) -> dict:
        """Everything as JSON values. ``objects`` and ``predicates`` list names, most frequent first, so that the file
        serves as a vocabulary.

        Args:
            seen: triplet types of the training data; adds the relations and triplet types that it does not hold.
        """
        areas = np.asarray(self._area)
        value = {
            "num_images": self.num_images,
            "objects": list(by_frequency(self.objects + self.queried)),
            "predicates": list(by_frequency(self.predicates)),
            "object_counts": _sorted(self.objects),
            "predicate_counts": _sorted(self.predicates),
            "predicate_groups": {name: list(group) for name, group in predicate_groups(self.predicates).items()},
            "num_boxes": self.objects.total(),
            "num_relations": self.predicates.total(),
            "num_triplet_types": len(self.triplets),
            "boxes_per_image": _summary(self.boxes_per_image),
            "relations_per_image": _summary(self.relations_per_image),
            "box_area_quantiles": {str(q): float(np.quantile(areas, q)) for q in QUANTILES} if len(areas) else {},
        }
        if self.queried:
            value["query_counts"] = _sorted(self.queried)
            value["num_absent_queries"] = self.num_absent
        if seen is not None:
            value["zero_shot"] = self.zero_shot(seen)
        return value

    def zero_shot(self, seen: Collection[Triplet]) -> dict:
        """Triplet types of this data that ``seen`` does not hold, and how many relations they are."""
        unseen = {triplet: count for triplet, count in self.triplets.items() if triplet not in seen}
        return {"num_types": len(unseen), "num_relations": sum(unseen.values()), "triplets": _rows(Counter(unseen))}

    def triplets_dict(self) -> dict:
        """What zero-shot recall and predicate-weighted rewards need to know of a training set: the list of triplet
        types ``[subject, predicate, object]``, most frequent first, and the count of every predicate."""
        return {"triplets": _rows(self.triplets), "predicate_counts": _sorted(self.predicates)}


def tables(statistics: Statistics, seen: Collection[Triplet] | None = None, top: int = 15) -> Group:
    """The statistics for a terminal; ``top`` bounds the rows of the lists of labels."""
    value = statistics.as_dict(seen)
    overview = Table("What", "Value", title="Data set")
    overview.add_row("images", str(value["num_images"]))
    overview.add_row("boxes", f"{value['num_boxes']} of {counted(len(statistics.objects), 'label')}")
    overview.add_row(
        "relations",
        f"{value['num_relations']} of {counted(len(statistics.predicates), 'predicate')}, "
        f"{counted(value['num_triplet_types'], 'triplet type')}",
    )
    for key, name in (("boxes_per_image", "boxes per image"), ("relations_per_image", "relations per image")):
        numbers = value[key]
        overview.add_row(
            name,
            f"mean {numbers['mean']:.2f}, median {numbers['median']:g}, "
            f"{numbers['min']} to {numbers['max']}; none in {counted(numbers['num_zero'], 'image')}",
        )
    areas = ", ".join(f"{float(q):.0%}: {share:.2%}" for q, share in value["box_area_quantiles"].items())
    overview.add_row("box area, quantiles", f"{areas} of the image" if areas else "no box")
    if statistics.queried:
        overview.add_row("labels in queries", f"{statistics.queried.total()}, of which {statistics.num_absent} absent")
    if seen is not None:
        unseen = value["zero_shot"]
        overview.add_row(
            "not in the training data",
            f"{counted(unseen['num_relations'], 'relation')} of {counted(unseen['num_types'], 'triplet type')}",
        )
    parts = [overview]
    counts = statistics.predicates
    if counts:
        tail = Table("Group", "Predicates", "Relations", "Share", title="Long tail (thirds by frequency)")
        for name, group in predicate_groups(counts).items():
            tail.add_row(name, str(len(group)), *_number_and_share(group, counts))
        parts.append(tail)
    for title, counts in (("Predicates", statistics.predicates), ("Labels", statistics.objects)):
        if counts:
            table, ranked = Table("Name", "Count", "Share", title=title), by_frequency(counts)
            for name in ranked[:top]:
                table.add_row(Text(name), *_number_and_share([name], counts))
            if rest := ranked[top:]:
                table.add_row(f"{len(rest)} more", *_number_and_share(rest, counts))
            parts.append(table)
    return Group(*parts)


def _number_and_share(names: Iterable[str], counts: Counter[str]) -> tuple[str, str]:
    number = sum(counts[name] for name in names)
    return str(number), f"{number / counts.total():.1%}"


def _summary(counts: Sequence[int]) -> dict:
    """Mean, median and range of counts; all 0 when there are none."""
    num_zero = counts.count(0)
    counts = np.asarray(counts if len(counts) else [0])
    return {
        "mean": float(counts.mean()),
        "median": float(np.median(counts)),
        "min": int(counts.min()),
        "max": int(counts.max()),
        "num_zero": num_zero,
    }


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return {name: counts[name] for name in by_frequency(counts)}


def _rows(triplets: Counter[Triplet]) -> list[list[str]]:
    return [list(triplet) for triplet in sorted(triplets, key=lambda triplet: (-triplets[triplet], triplet))]
