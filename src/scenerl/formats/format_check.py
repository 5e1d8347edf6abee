"""Answers read in another format than they were written in fail one and all, and read well in their own.

Nothing is read again on suspicion; the suspicion is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from scenerl.answers import OutputFormat, parse_answer
from scenerl.answers.formats import FORMATS

ANSWERS = 20
"""Answers that are tried in other formats."""
_ANY_SIZE = (1000.0, 1000.0)  # boxes are of no interest here


def check_format(failed: Sequence[str], output_format: OutputFormat) -> list[str]:
    """A sentence where most of the answers could be read in another format, else nothing.

    Args:
        failed: answers from which nothing could be read, where that was so for all; a few of them will do.
        output_format: how they were read.
    """
    tried = failed[:ANSWERS]
    for name in FORMATS:
        other = replace(output_format, format=name, objects=None, predicates=None, box_format="norm1000", provided=None)
        results = [parse_answer(answer, other, _ANY_SIZE) for answer in tried if name != output_format.format]
        readable = sum(bool(result.graph and result.graph.objects) for result in results)
        if 2 * readable > len(tried):
            return [
                f"no answer could be read as {output_format.format!r}; as {name!r}, {readable} of {len(tried)} that were "
                f"tried "
                f"can be read: is --format {name} meant?"
            ]
    return []
