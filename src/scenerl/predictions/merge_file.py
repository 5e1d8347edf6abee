"""The command ``merge``: a file with several answers per image in, a file with one merged graph per image out."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from scenerl.answers.elements import excerpt
from scenerl.commands.merge import MergeOptions
from scenerl.data.jsonl import write_jsonl
from scenerl.errors import DataError
from scenerl.files import check_out
from scenerl.predictions.merge import Merged, merge_graphs
from scenerl.predictions.notes import Notes
from scenerl.predictions.row import decode_parsed, encode_graph, read_rows
from scenerl.types import FAILURES, ParseResult

_KEPT = ("image_id", "file_name", "width", "height", "task", "frame", "input_wh", "error")
"""What a merged row takes from the first row of its image, the error only where no answer could be read."""


def merged_row(rows: Sequence[Mapping], results: Sequence[ParseResult], merged: Merged | None) -> dict:
    """The row of an image: like one of ``predict``, without ``answer``, with ``votes`` at each element.

    ``answers`` is how many there were, ``failed`` how many of them could not be parsed. Where none could, ``status`` is
    the commonest of theirs. ``num_tokens`` is of all answers together.

    Args:
        rows: of the image, as ``predict`` writes them.
        results: what they parsed to.
        merged: their consensus.
    """
    row = {key: rows[0][key] for key in _KEPT if key in rows[0] and not (merged and key == "error")}
    failed = Counter(result.status for result in results if not result.ok)
    return row | {
        "sample": 0,
        "status": "ok" if merged else max(FAILURES, key=failed.__getitem__),
        "issues": [],
        "graph": merged and encode_graph(merged.graph, votes=(merged.object_votes, merged.relation_votes)),
        "answers": len(rows),
        "failed": failed.total(),
        "num_tokens": sum(count for item in rows if isinstance(count := item.get("num_tokens"), int)),
    }


def merge_file(path: Path, out: Path, **settings: float) -> list[str]:
    """Merge the answers to each image of a file that ``predict`` wrote; the images keep their order.

    Args:
        out: replaced where it exists, whole or not at all.
        settings: of :func:`scenerl.predictions.merge.merge_graphs`.

    Returns:
        Warnings: about scores that are no numbers, and images that have fewer answers than others.

    Raises:
        DataError: a row is not as ``predict`` writes it, or no image has a second answer; names file and row.
    """
    notes = Notes(path)
    images: dict[str, dict[int, tuple[dict, ParseResult]]] = {}
    for where, row in read_rows(path):
        answers = images.setdefault(row["image_id"], {})
        if row["sample"] in answers:
            raise DataError(f"{where}: image {excerpt(row['image_id'])} has a sample {row['sample']} already")
        kept = {key: row[key] for key in (*_KEPT, "num_tokens") if key in row}  # the rest takes memory
        try:
            json.dumps(kept, allow_nan=False)
        except ValueError:
            raise DataError(f"{where}: holds NaN or an infinity, which no file of JSON can: {excerpt(kept)}") from None
        answers[row["sample"]] = kept, decode_parsed(row, where, notes)
    counts = Counter(len(answers) for answers in images.values())
    if not images or max(counts) == 1:
        raise DataError(f"{path}: holds no image with several answers; make them with predict --num_samples")

    def rows() -> Iterator[dict]:
        for answers in images.values():
            kept, results = zip(*answers.values(), strict=True)
            yield merged_row(kept, results, merge_graphs([result.graph for result in results], **settings))

    write_jsonl(out, rows())
    warnings = notes.warnings()
    if fewer := sum(number for count, number in counts.items() if count < max(counts)):
        warnings.append(f"{path}: {fewer} of {len(images)} images have fewer than {max(counts)} answers")
    return warnings


def run(options: MergeOptions) -> None:
    """The command.

    Raises:
        UserError: a file cannot be used.
    """
    check_out(options.out, [options.samples])
    settings = {"iou_threshold": options.iou_threshold, "min_share": options.min_share}
    for warning in merge_file(options.samples, options.out, **settings):
        print(f"warning: {warning}", file=sys.stderr)
    print(f"Written to {options.out}")
