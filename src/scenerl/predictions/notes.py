"""What is odd about a file of predictions: counted by kind, and listed in the warnings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

KINDS = {
    "ignored_samples": "rows with sample above 0 were left out; metrics are of sample 0 (`scenerl merge` joins them)",
    "doubled_images": "predictions of an image that had one already were left out",
    "broken_rows": "rows that break off or are no JSON object were left out",
    "unnamed_rows": "rows without an image_id (a text or a whole number) were left out",
    "bad_boxes": "elements whose box is not four finite numbers were left out",
    "lost_relations": "relations name no object of their image and were left out",
    "bad_scores": "scores are not finite numbers and rank last",
    "unknown_categories": "elements of a category that the ground truth does not name match nothing",
}
"""What a file may hold that is not used as it stands: key in ``counts`` to its meaning."""

SHOWN = 5


class Notes:
    """Collects what is odd about one file, by the kinds in :data:`KINDS`."""

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self._listed: dict[str, list[str]] = {kind: [] for kind in KINDS}

    def add(self, kind: str, where: str) -> None:
        """Count something at a place in the file."""
        self._listed[kind].append(where)

    def counts(self) -> dict[str, int]:
        """How many there are of each kind."""
        return {kind: len(listed) for kind, listed in self._listed.items()}

    def warnings(self) -> list[str]:
        """A sentence for each kind that occurred, with the first places."""
        return [
            f"{self.path}: {len(listed)} {KINDS[kind]}: {shown(listed)}"
            for kind, listed in self._listed.items()
            if listed
        ]


def shown(listed: Sequence[str]) -> str:
    """The first few of a list."""
    return ", ".join(listed[:SHOWN]) + (", …" if len(listed) > SHOWN else "")
