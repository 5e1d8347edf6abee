"""The one form of a constrained answer, that of SFT's targets: slots and the forced text between them, per format."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from scenerl.answers.compact import split_object, split_relation
from scenerl.answers.elements import clean_label
from scenerl.answers.formats import FORMATS
from scenerl.answers.grammar import DIGITS_OF_NORM1, GrammarSpec, check_vocabularies, json_text, largest_steps
from scenerl.answers.json_graph import label_of
from scenerl.answers.template import ANSWER, END_ANSWER, END_THINK, THINK
from scenerl.constrain.memory import Memory
from scenerl.constrain.slots import Link, OpenText, Words
from scenerl.errors import UserError

_CARRY = 4
"""Tokens that finish a character or an escape at most."""
_NUMBER = len("9999")


@dataclass(frozen=True, slots=True)
class Template:
    """How an answer may begin (the last link is the shortest answer), the memory then, and the closed vocabularies."""

    starts: tuple[Link, ...]
    memory: Memory
    words: tuple[str, ...]


def build_template(spec: GrammarSpec) -> Template:
    """The template of answers of one form.

    Raises:
        UserError: the box format has no room for a box, no answer can be written in the vocabularies, or the format
            has no template.
    """
    output_format = spec.output_format
    build = {"json": _json, "compact": _compact, "detections": _detections}.get(output_format.format)
    if build is None:
        raise UserError(
            f"constrain: the format {output_format.format!r} has no template for it: the number of lines stands before "
            "them in toon, and the other formats are only read; use json, compact or detections"
        )
    check_vocabularies(output_format)
    spelt = str if output_format.format == "compact" else json_text
    vocabularies = [
        None if words is None else tuple(dict.fromkeys(map(spelt, words)))
        for words in (output_format.objects, output_format.predicates)
    ]
    sides = tuple(
        Side(largest, output_format.step, output_format.box_format == "norm1")
        for largest in largest_steps(output_format, spec.bounds_wh)
    )
    is_reasoning = output_format.template == "think"
    body = build(*vocabularies, sides, f"\n{END_ANSWER}" if is_reasoning else "")
    head = f"{END_THINK}\n{ANSWER}\n"
    starts = body("")
    if is_reasoning:
        reasoning = OpenText("reasoning", lambda memory, text: memory, lambda memory: ("",), _CARRY, body(head))
        # a small tokenizer may have one token for the tags and what follows: no reasoning is a start of its own
        starts = [Link(reasoning, lead=THINK), *body(THINK + head)]
    predicates = vocabularies[1] if FORMATS[output_format.format].graph else ()
    words = [word for vocabulary in vocabularies for word in vocabulary or ()]
    return Template(tuple(starts), Memory(predicates), tuple(words))


@dataclass(frozen=True)
class Side:
    """The numbers of one side of the image, as answers spell them: multiples of ``step`` up to ``largest`` steps."""

    largest: int
    step: int
    is_norm1: bool

    @cached_property
    def words(self) -> tuple[str, ...]:
        values = (index * self.step for index in range(self.largest + 1))
        if self.is_norm1:
            return tuple(str(round(value * 10.0**-DIGITS_OF_NORM1, DIGITS_OF_NORM1)) for value in values)
        return tuple(map(str, values))

    @cached_property
    def lower(self) -> tuple[str, ...]:
        """Those that leave room for a larger one."""
        return self.words[:-1]

    @cached_property
    def index(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words)}


def _box(sides: Sequence[Side], lead: str, links: list[Link]) -> Words:
    """The slots of ``x1``, ``y1``, ``x2``, ``y2`` with ``lead`` between them; ``links`` follow."""

    def add(memory: Memory, index: int, word: str) -> Memory:
        return Memory(
            memory.predicates, memory.num_objects, memory.names, (*memory.box, index)[-4:],
            memory.subject, memory.predicate, memory.relations,
        )  # fmt: skip

    for axis in (3, 2, 1, 0):
        side = sides[axis % 2]
        if axis >= 2:
            slot = Words(lambda memory, side=side: side.words, add, bound=lambda memory: memory.box[-2], links=links)
        else:
            slot = Words(lambda memory, side=side: side.lower, add, links=links)
        links = [Link(slot, lead=lead)]
    return slot


def _relations(
    predicates: tuple[str, ...] | None, texts: tuple[str, str, str, str], open_predicate: OpenText | None
) -> Words:
    """Subject, predicate and object of a relation, and another or the end.

    Args:
        texts: before the predicate, before the object, before another subject, and the end.
        open_predicate: where the vocabulary is open.
    """
    subject = Words(Memory.subjects, lambda memory, _, word: memory.about(word), all_words=lambda memory: memory.names)
    if open_predicate is not None:
        predicate: Words | OpenText = open_predicate
    else:
        predicate = Words(
            Memory.free_predicates,
            lambda memory, _, word: memory.saying(word),
            all_words=lambda memory: memory.predicates,
        )
    object_ = Words(Memory.objects, lambda memory, _, word: memory.related(word), all_words=lambda memory: memory.names)
    subject.links = [Link(predicate, lead=texts[0])]
    predicate.links = [Link(object_, lead=texts[1])]
    object_.links = [Link(subject, lead=texts[2], when=Memory.with_relation), Link(None, texts[3])]
    return subject


def _endings(*starts: str) -> Iterator[str]:
    """Nothing, each start, and the last with numbers behind it."""
    yield from ("", *starts)
    yield from (f"{starts[-1]}{number}" for number in range(10**_NUMBER))


def _json(objects, predicates, sides: Sequence[Side], tail: str):
    def ids(memory: Memory) -> Iterator[str]:
        for start in ("", "a"):
            yield from (f"{start}{ending}" for ending in ("", f".{memory.num_objects}"))
        yield from (f"a.{number}" for number in range(10**_NUMBER))

    def claim(memory: Memory, text: str) -> Memory | None:
        label = clean_label(label_of(json.loads(f'"{text}"').strip()))
        return None if label is None or text in memory.names else memory.named(text)

    def say(memory: Memory, text: str) -> Memory | None:
        return None if clean_label(json.loads(f'"{text}"')) is None else memory.saying(text)

    if objects is None:
        id_: Words | OpenText = OpenText("string", claim, ids, _CARRY + 2 + _NUMBER)
        id_end: str | Callable[[Memory], str] = '", "bbox": ['
    else:
        words = tuple(f"{label}." for label in objects)
        id_ = Words(lambda memory: words, lambda memory, _, word: memory.named(f"{word}{memory.num_objects}"))
        id_end = lambda memory: f'{memory.num_objects}", "bbox": ['  # noqa: E731
    open_predicate = OpenText("string", say, lambda memory: _endings("a"), _CARRY + 1 + _NUMBER)
    subject = _relations(
        predicates,
        ('", "predicate": "', '", "object": "', '"}, {"subject": "', f'"}}]}}{tail}'),
        open_predicate if predicates is None else None,
    )
    box = _box(
        sides,
        ", ",
        [
            Link(id_, lead=']}, {"id": "', when=Memory.with_object),
            Link(subject, lead=']}], "relationships": [{"subject": "', when=Memory.with_relation),
            Link(None, f']}}], "relationships": []}}{tail}'),
        ],
    )
    id_.links = [Link(box, id_end)]
    return lambda head: [
        Link(id_, lead=f'{head}{{"objects": [{{"id": "', when=Memory.with_object),
        Link(None, f'{head}{{"objects": [], "relationships": []}}{tail}'),
    ]


def _detections(objects, predicates, sides: Sequence[Side], tail: str):
    if objects is None:
        label: Words | OpenText = OpenText(
            "string",
            lambda memory, text: None if clean_label(json.loads(f'"{text}"')) is None else memory,
            lambda memory: ("", "a"),
            _CARRY + 1,
        )
    else:
        label = Words(lambda memory: objects, lambda memory, _, word: memory, is_joint=True)
    box = _box(sides, ", ", [Link(label, lead='], "label": "')])
    label.links = [Link(box, '"}, {"bbox_2d": [', when=Memory.with_object), Link(None, f'"}}]{tail}')]
    return lambda head: [
        Link(box, f'{head}[{{"bbox_2d": [', when=Memory.with_object),
        Link(None, f"{head}None{tail}"),
    ]


def _compact(objects, predicates, sides: Sequence[Side], tail: str):
    check_lines(objects or (), "objects")
    check_lines(predicates or (), "predicates")

    def relation_tail(memory: Memory, text: str) -> Memory | None:
        found = _split_tail(memory.subject, text)
        if found is None:
            return None
        memory = memory.saying(found[0])
        return memory.related(found[1]) if memory is not None and found[1] in memory.objects() else None

    def relation_tails(memory: Memory) -> Iterator[str]:
        others = [name for name in memory.names if name != memory.subject]
        yield ""
        yield from (f"{start} {name}" for start in _endings("a", " a") for name in others)

    def line(memory: Memory, text: str) -> Memory | None:
        return memory.named(str(memory.num_objects)) if _is_line(sides, text) else None

    end = f"\nend{tail}"
    if predicates is None:
        open_tail = OpenText("line", relation_tail, relation_tails, _CARRY + 3 + 2 * _NUMBER)
        subject = Words(
            Memory.subjects, lambda memory, _, word: memory.about(word), all_words=lambda memory: memory.names
        )
        subject.links = [Link(open_tail, lead=" ")]
        open_tail.links = [Link(subject, lead="\n", when=Memory.with_relation), Link(None, end)]
    else:
        subject = _relations(tuple(predicates), (" ", " ", "\n", end), None)
    links = [Link(subject, lead="\n\n", when=Memory.with_relation), Link(None, end)]
    if objects is None:
        box = " ".join(["", *(side.words[index] for index in (0, 1) for side in sides)])
        label: Words | OpenText = OpenText("line", line, lambda memory: ("", box, f"a{box}"), _CARRY + 1 + len(box))
        label.links = [Link(label, lead="\n", when=Memory.with_object), *links]
    else:
        label = Words(lambda memory: objects, lambda memory, _, word: memory.named(str(memory.num_objects)))
        label.links = [Link(_box(sides, " ", [Link(label, lead="\n", when=Memory.with_object), *links]), lead=" ")]
    return lambda head: [Link(label, lead=head, when=Memory.with_object), Link(None, f"{head}end{tail}")]


def check_lines(words: Iterable[str], what: str) -> None:
    """Raise UserError for a vocabulary that lines cannot hold: two words of which the longer goes on with a number."""
    known = set(words)
    for word in known:
        for match in re.finditer(r" [0-9]", word):
            if word[: match.start()] in known:
                raise UserError(
                    f"constrain: the {what} {word[: match.start()]!r} and {word!r} cannot be told apart in the compact "
                    "format"
                )
        if what == "predicates" and split_object(f"1 {word} 1") is not None:
            raise UserError(f"constrain: the compact format cannot hold the predicate {word!r}: too many numbers")


@lru_cache(maxsize=4096)
def _is_line(sides: Sequence[Side], line: str) -> bool:
    """Whether a line of open text ends in a box with an area, spelt as the writer does, behind a clean label."""
    label, *box = line.rsplit(" ", 4)
    if len(box) < 4:
        return False
    values = [sides[axis % 2].index.get(word) for axis, word in enumerate(box)]
    if None in values or values[2] <= values[0] or values[3] <= values[1]:
        return False
    return clean_label(label) is not None and split_object(line.strip()) is not None


def _split_tail(subject: str, text: str) -> tuple[str, str] | None:
    """Predicate and object behind a subject, as the parser takes them."""
    line = f"{subject} {text}".strip()
    found = split_relation(line) if " " in text and split_object(line) is None else None
    if found is None or str(found[0]) != subject:
        return None
    predicate, name = clean_label(found[1]), text.rsplit(" ", 1)[1]
    return None if predicate is None or str(found[2]) != name else (predicate, name)
