"""The command ``merge``: a file with several answers per image in, a file with one merged graph per image out."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from scenerl.answers import OutputFormat
from scenerl.data.jsonl import read_jsonl, write_jsonl
from scenerl.data.rows import excerpt
from scenerl.errors import DataError
from scenerl.files import check_out
from scenerl.formats.predictions import Predictions, tidy_id
from scenerl.formats.rows import read_row
from scenerl.inference.merge import Merged, merge_graphs
from scenerl.inference.rows import graph_to_json
from scenerl.types import FAILURES, Example, ParseResult, SceneGraph

if TYPE_CHECKING:
    from scenerl.commands.merge import MergeOptions

_KEPT = ("image_id", "file_name", "width", "height", "task", "frame", "input_wh", "error")
"""What a merged row takes from the first row of its image."""


def merged_row(rows: list[Mapping], results: list[ParseResult], merged: Merged | None) -> dict:
    """The row of an image: like one of ``predict``, without ``answer``, with ``votes`` at each element.

    ``answers`` is how many there were, ``failed`` how many of them could not be read. Where none could, ``status`` is
    the commonest of theirs. ``num_tokens`` is of all answers together.

    Args:
        rows: of the image, as ``predict`` writes them. results: what they parsed to. merged: their consensus.
    """
    row = {key: rows[0][key] for key in _KEPT if key in rows[0]}
    failed = Counter(result.status for result in results if not result.ok)
    row |= {
        "sample": 0,
        "status": "ok" if merged else max(FAILURES, key=failed.__getitem__),
        "issues": [],
        "graph": None,
        "answers": len(rows),
        "failed": failed.total(),
        "num_tokens": sum(count for item in rows if isinstance(count := item.get("num_tokens"), int)),
    }
    if merged is not None:
        row["graph"] = graph_to_json(merged.graph)
        for kind, votes in (("objects", merged.object_votes), ("relationships", merged.relation_votes)):
            for element, count in zip(row["graph"][kind], votes, strict=True):
                element["votes"] = count
    return row


def merge_file(path: Path, out: Path, **settings: float) -> str | None:
    """Merge the answers to each image of a file that ``predict`` wrote; the images keep their order.

    Args:
        out: replaced where it exists, whole or not at all.
        settings: of :func:`scenerl.inference.merge.merge_graphs`.

    Returns:
        A warning where some images have fewer answers than others.

    Raises:
        DataError: a row is not as ``predict`` writes it, or no image has a second answer; names file and row.
    """
    images = _read(path)
    counts = Counter(len(answers) for answers in images.values())
    if not images or max(counts) == 1:
        raise DataError(f"{path}: holds no image with several answers; make them with predict --num_samples")

    def rows() -> Iterator[dict]:
        for answers in images.values():
            results = [result for _, result in answers]
            merged = merge_graphs([result.graph for result in results], **settings)
            yield merged_row([row for row, _ in answers], results, merged)

    write_jsonl(out, rows())
    fewer = sum(number for count, number in counts.items() if count < max(counts))
    return f"{path}: {fewer} of {len(images)} images have fewer than {max(counts)} answers" if fewer else None


def _read(path: Path) -> dict[str, list[tuple[dict, ParseResult]]]:
    """The rows of each image, without the parts that take memory, and what each parsed to."""
    images: dict[str, dict[object, tuple[dict, ParseResult]]] = {}
    for number, row in read_jsonl(path):
        where = f"{path}, row {number}"
        image_id, sample = tidy_id(row.get("image_id")), row.get("sample", 0)
        if image_id is None or "status" not in row or type(sample) is not int:
            raise DataError(f"{where}: not as predict writes it; image_id, sample and status are needed")
        answers = images.setdefault(image_id, {})
        if sample in answers:
            raise DataError(f"{where}: image {excerpt(image_id)} has a sample {sample} already")
        # The row says all there is to know; what is asked of the example and the style concerns unparsed answers.
        result = read_row(row, where, OutputFormat(), Example(image_id, 1, 1, SceneGraph()), Predictions(path))
        kept = {key: row[key] for key in (*_KEPT, "num_tokens") if key in row}
        answers[sample] = kept, result
    return {image_id: list(answers.values()) for image_id, answers in images.items()}


def run(options: MergeOptions) -> None:
    """The command.

    Raises:
        UserError: a file cannot be used.
    """
    check_out(options.out, [options.samples])
    warning = merge_file(options.samples, options.out, iou_threshold=options.iou_threshold, min_share=options.min_share)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"Written to {options.out}")
