"""Whether the boxes of a data set look as if they were written in another convention than pixels x1, y1, x2, y2.

A wrong convention seldom breaks a row: boxes from 0 to 1 are tiny boxes, boxes from 0 to 1000 fit into large images. It
shows in the whole set.
"""

from __future__ import annotations

from scenerl.data.records import CLIPPED, INVERTED, OUTSIDE, Record

_LEAST = 5  # boxes before anything is said
_SHARE = 0.2  # of the boxes with a flaw, above which it is no slip
_LARGE = 1200  # pixels: in images wider or higher than this, some box should go beyond 1000


class Conventions:
    """Counts the boxes of records; :meth:`hints` says what they look like."""

    def __init__(self) -> None:
        self.boxes = self.inverted = self.beyond = self.in_large = 0
        self.largest = self.largest_in_large = 0.0

    def add(self, record: Record) -> None:
        """Count one row's boxes, by its example or else by what is wrong with it."""
        messages = (*record.errors, *record.warnings)
        inverted, outside, clipped = (sum(text in m for m in messages) for text in (INVERTED, OUTSIDE, CLIPPED))
        self.inverted += inverted
        self.beyond += outside + clipped
        if record.example is None:
            self.boxes += inverted + outside + clipped
            return
        graph, (width, height) = record.example.graph, record.example.image_wh
        self.boxes += len(graph.objects)
        largest = max((value for item in graph.objects for value in item.box), default=0.0)
        self.largest = max(self.largest, largest)
        if max(width, height) > _LARGE:
            self.in_large += len(graph.objects)
            self.largest_in_large = max(self.largest_in_large, largest)

    def hints(self) -> list[str]:
        """A sentence for each convention that the boxes may be in."""
        found = []
        if self.boxes < _LEAST:
            return found
        if 0 < self.largest <= 1:
            found.append("no coordinate is above 1: are the boxes from 0 to 1, relative to the image?")
        if self.in_large >= _LEAST and 900 <= self.largest_in_large <= 1000:
            found.append(
                f"no coordinate is above 1000, also in images of more than {_LARGE} pixels: are the boxes from 0 to "
                "1000, relative to the image?"
            )
        if self.inverted > _SHARE * self.boxes:
            found.append(
                f"{self.inverted} of {self.boxes} boxes have x2 below x1 or y2 below y1: are they x, y, width, height?"
            )
        if self.beyond > _SHARE * self.boxes:
            found.append(
                f"{self.beyond} of {self.boxes} boxes leave their image: are they from 0 to 1000, corners in a file of "
                "x, y, width, height, or of another size of the image?"
            )
        return [f"{hint} Expected: x1, y1, x2, y2 in pixels (x, y, width, height in COCO files)" for hint in found]
