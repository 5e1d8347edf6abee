"""Answers written by a player who knows nothing: any allowed token may come next, marks and digits more often."""

from __future__ import annotations

from itertools import product

import numpy as np

from scenerl import tiny
from scenerl.answers import GrammarSpec, OutputFormat, parse_answer, write_answer
from scenerl.decoding import Constraint, Row
from scenerl.types import Relation, SceneGraph, SceneObject

OBJECTS = ("dog", "cat", "no", "no.1", "no.1.2", "traffic light", 'trafficé "x"', "end", "end table", "犬")
PREDICATES = ("on", "on top of", "e", 'say "hi"')
FORMATS, TEMPLATES = ("json", "compact", "detections"), ("plain", "think")
BOX_FORMATS = {"norm1000": (1000, 1000, 20), "norm1": (1, 1, 7), "resized": (644, 420, 1), "pixels": (640, 427, 10)}
"""Frame to width, height and grid."""


def output_format_of(fmt: str, template: str, is_closed: bool, box_format: str = "norm1000") -> OutputFormat:
    step = BOX_FORMATS[box_format][2]
    if is_closed:
        return OutputFormat(fmt, template, OBJECTS, PREDICATES, box_format, step)
    return OutputFormat(fmt, template, box_format=box_format, step=step)


def shape_of(output_format: OutputFormat) -> GrammarSpec:
    return GrammarSpec(output_format, BOX_FORMATS[output_format.box_format][:2])


PIECES = [
    *(bytes((byte,)) for byte in range(256)),
    *(b"end", b"end\n", b"```\n", b"dog", b" 0 0 20 20\n", b" 1 1 7 7\n", b"1 on 2\n", b"1 on 1\n"),
    *(b"None", b'"}', b"]}", b'", "'),
]
"""Tokens of a player who knows a grammar only: every byte, and marks that lead on. Tags are none: that an open label
holds one the grammar does not bar."""

STYLES = [output_format_of(*choice) for choice in product(FORMATS, TEMPLATES, (True, False))]


def parse(text: str, output_format: OutputFormat):
    return parse_answer(text, output_format, (640, 427), (644, 420))


def is_right(text: str, output_format: OutputFormat) -> bool:
    """What decoding promises of an answer, by the parser: read as a whole, nothing dropped, boxes in the frame."""
    result = parse(text, output_format)
    # a frame whose side is no multiple of the grid is rounded up
    width, height = (640, 427) if output_format.step == 1 else (660, 440)
    boxes = [item.box for item in result.graph.objects] if result.ok else []
    in_frame = all(0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height for x1, y1, x2, y2 in boxes)
    return result.ok and not result.issues and result.in_template and in_frame


def graph(rng: np.random.Generator, least: int = 1) -> SceneGraph:
    """A few objects, at least so many, with relations."""
    objects = []
    for _ in range(rng.integers(least, 6)):
        x, y = rng.integers(0, 360, 2)
        objects.append(SceneObject(str(rng.choice(OBJECTS)), (x, y, x + 100, y + 60)))
    pairs = {tuple(rng.integers(0, len(objects), 2).tolist()) for _ in range(3)}
    edges = [Relation(one, str(rng.choice(PREDICATES)), other) for one, other in sorted(pairs) if one != other]
    return SceneGraph(tuple(objects), tuple(edges))


def small_tokenizer():
    rng = np.random.default_rng(0)
    texts = [write_answer(graph(rng), output_format, (640, 427)) for output_format in STYLES[::2] for _ in range(60)]
    return tiny.build_tokenizer(texts, range(0, 1001, 20), vocab_size=800)


def likes(piece: bytes) -> bool:
    return piece[:1] in b'",:[]{} \n0123456789<'


def play(constraint: Constraint, limit: int, seed: int, watch=None) -> list[int]:
    """Tokens of one answer. ``watch`` is called with the row and its mask at every step."""
    rng = np.random.default_rng(seed)
    vocabulary = constraint.vocabulary
    liked = vocabulary.having("liked", likes)
    row, tokens = Row(constraint, limit), []
    while not row.is_done:
        mask = row.mask()
        if watch:
            watch(row, mask)
        choice = (mask & liked).nonzero()[0]
        if rng.random() < 0.3 or not len(choice):
            choice = mask.nonzero()[0]
        tokens.append(int(rng.choice(choice)))
        row.take(tokens[-1])
    return tokens


def wander(matcher, rng: np.random.Generator, beginning: str, limit: int = 300) -> str | None:
    """A random sentence of xgrammar's ``matcher`` in :data:`PIECES`, or None where it is too long to be finished."""
    import xgrammar

    bits = xgrammar.allocate_token_bitmask(1, len(PIECES) + 1)
    text = beginning.encode()
    assert matcher.accept_string(beginning)
    for _ in range(limit):
        matcher.fill_next_token_bitmask(bits)
        allowed = np.unpackbits(bits.numpy().view(np.uint8)[0], bitorder="little")[: len(PIECES)].nonzero()[0]
        # marks more often than text, which most tokens go on with
        marks = [number for number in allowed if likes(PIECES[number])]
        marks += 4 * [number for number in allowed if len(PIECES[number]) > 1]
        number = int(rng.choice(marks if marks and rng.random() < 0.95 else allowed))
        matcher.accept_token(number)
        text += PIECES[number]
        if matcher.is_terminated():
            return text.decode(errors="replace")
    return None
