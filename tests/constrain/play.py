"""Random constrained answers (any allowed token may come next, marks and digits more often), and tokenizers."""

from __future__ import annotations

from itertools import product

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from scenerl.answers import GrammarSpec, OutputFormat, parse_answer, write_answer
from scenerl.constrain import Constraint, Row, Vocabulary
from scenerl.tiny.tokenizer import build_tokenizer
from scenerl.types import Relation, SceneGraph, SceneObject

OBJECTS = ("dog", "cat", "no", "no.1", "no.1.2", "traffic light", 'trafficé "x"', "end", "end table", "犬")
PREDICATES = ("on", "on top of", "e", 'say "hi"')
FORMATS, TEMPLATES = ("json", "compact", "detections"), ("plain", "think")
BOX_FORMATS = {"norm1000": (1000, 1000, 20), "norm1": (1, 1, 7), "resized": (644, 420, 1), "pixels": (640, 427, 10)}
"""Box format to width, height and quantisation step."""


def output_format_of(fmt: str, template: str, is_closed: bool, box_format: str = "norm1000") -> OutputFormat:
    step = BOX_FORMATS[box_format][2]
    if is_closed:
        return OutputFormat(fmt, template, OBJECTS, PREDICATES, box_format, step)
    return OutputFormat(fmt, template, box_format=box_format, step=step)


def spec_of(output_format: OutputFormat) -> GrammarSpec:
    return GrammarSpec(output_format, BOX_FORMATS[output_format.box_format][:2])


PIECES = [
    *(bytes((byte,)) for byte in range(256)),
    *(
        b"end",
        b"end\n",
        b"dog",
        b" 0 0 20 20\n",
        b" 1 1 7 7\n",
        b"1 on 2\n",
        b"1 on 1\n",
        b"None",
        b'"}',
        b"]}",
        b'", "',
    ),
]
"""Tokens of a server that knows the grammar only: every byte, and text that leads on. No tags: the grammar does not bar
them from an open label."""

OUTPUT_FORMATS = [output_format_of(*choice) for choice in product(FORMATS, TEMPLATES, (True, False))]


def parse(text: str, output_format: OutputFormat):
    return parse_answer(text, output_format, (640, 427), (644, 420))


def is_right(text: str, output_format: OutputFormat) -> bool:
    """What constrained decoding promises, by the parser: all of it is kept, and boxes lie in the image."""
    result = parse(text, output_format)
    # a side that is no multiple of the step is rounded up
    width, height = (640, 427) if output_format.step == 1 else (660, 440)
    boxes = [item.box for item in result.graph.objects] if result.ok else []
    are_inside = all(0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height for x1, y1, x2, y2 in boxes)
    return result.ok and not result.issues and result.in_template and are_inside


def graph(rng: np.random.Generator, least: int = 1) -> SceneGraph:
    """A few objects, at least so many, with relations."""
    objects = []
    for _ in range(rng.integers(least, 6)):
        x, y = rng.integers(0, 360, 2)
        objects.append(SceneObject(str(rng.choice(OBJECTS)), (x, y, x + 100, y + 60)))
    pairs = {tuple(rng.integers(0, len(objects), 2).tolist()) for _ in range(3)}
    edges = [Relation(one, str(rng.choice(PREDICATES)), other) for one, other in sorted(pairs) if one != other]
    return SceneGraph(tuple(objects), tuple(edges))


NAME = {True: "closed", False: "open"}
IDS = [f"{item.format}-{item.template}-{NAME[item.objects is not None]}" for item in OUTPUT_FORMATS]


def _texts() -> list[str]:
    rng = np.random.default_rng(0)
    return [
        write_answer(graph(rng), output_format, (640, 427)) for output_format in OUTPUT_FORMATS[::2] for _ in range(60)
    ]


def small_tokenizer():
    return build_tokenizer(_texts(), range(0, 1001, 20), vocab_size=800)


def _fast(backend: Tokenizer) -> PreTrainedTokenizerFast:
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


def qwen_like_tokenizer():
    """Of byte-level BPE over the pieces that Qwen2's tokenizer cuts text into."""
    pieces = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    backend = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(pieces), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["</s>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(_texts(), trainer)
    return _fast(backend)


def byte_vocabulary() -> Vocabulary:
    tokens = {token: number for number, token in enumerate(["</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    backend = Tokenizer(models.BPE(tokens, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return Vocabulary(_fast(backend), len(tokens), [0])


def likes(piece: bytes) -> bool:
    return piece[:1] in b'",:[]{} \n0123456789<' and piece != b""


def play(constraint: Constraint, limit: int, seed: int, watch=None) -> list[int]:
    """Tokens of one answer. ``watch`` is called with the row, its mask and the tokens so far at every step."""
    rng = np.random.default_rng(seed)
    liked = np.array([likes(piece) for piece in constraint.vocabulary.pieces])
    row, tokens = Row(constraint, limit), []
    while not row.is_done:
        mask = row.mask()
        if watch:
            watch(row, mask, tokens)
        choice = (mask & liked).nonzero()[0]
        if rng.random() < 0.3 or not len(choice):
            choice = mask.nonzero()[0]
        tokens.append(int(rng.choice(choice)))
        row.take(tokens[-1])
    return tokens


def tokens_for(row: Row, text: bytes) -> list[int] | None:
    """Allowed tokens that write ``text``, the longest that lead there, and the end of the answer; None: there are
    none."""
    allowed = row.mask()
    if not text:
        ends = [stop for stop in row.constraint.vocabulary.stop_ids if allowed[stop]]
        return ends[:1] or None
    pieces = row.constraint.vocabulary.pieces
    found = [number for number in allowed.nonzero()[0].tolist() if pieces[number] and text.startswith(pieces[number])]
    for number in sorted(found, key=lambda number: -len(pieces[number])):
        further = row.copy()
        further.take(number)
        rest = tokens_for(further, text[len(pieces[number]) :])
        if rest is not None:
            return [number, *rest]
    return None


def walk(constraint: Constraint, text: bytes, start: Row | None = None) -> Row | None:
    """The row behind a text whose bytes are tokens, from the start or another row; None where it is not allowed."""
    row = start.copy() if start else Row(constraint, 1_000_000)
    for byte in text:
        (token,) = constraint.vocabulary.spell_bytes(bytes((byte,)))
        if not row.mask()[token]:
            return None
        row.take(token)
    return row


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
