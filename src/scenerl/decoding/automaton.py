"""The automaton of one answer style: what may be written, byte by byte, and the shortest way to end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from operator import methodcaller

from scenerl.answers.compact import split_object, split_relation
from scenerl.answers.elements import clean_label, label_of
from scenerl.answers.formats import FORMATS
from scenerl.answers.grammar import (
    FENCE_NAMES,
    MAX_GAP,
    MAX_SPACE,
    NOTHING_FOUND,
    GrammarSpec,
    check_vocabularies,
    json_text,
    largest_steps,
)
from scenerl.answers.output_format import OutputFormat
from scenerl.answers.template import ANSWER, END_ANSWER, TEMPLATES, THINK
from scenerl.decoding.lines import ObjectWords, OpenObject, OpenTail, Words, check_words
from scenerl.decoding.memory import Memory, Rules
from scenerl.decoding.nodes import SPACES, End, Marks, Node, Option, State, chain, walk
from scenerl.decoding.numbers import Number, Numbers
from scenerl.decoding.slots import ClosedId, ClosedText, Reference
from scenerl.decoding.texts import OpenText, Reasoning, id_suffixes, label_suffixes, predicate_suffixes

_NEWLINE, _SPACE = b"\n "
_ADD, _RELATE, _CLAIM, _LABEL, _LIST = map(methodcaller, ("add", "relate", "claim", "label", "listed"))
_SAY, _BEGIN = methodcaller("say", True), methodcaller("say", False)


class Automaton:
    """Reads an answer byte by byte; see :mod:`scenerl.decoding.nodes` for what a state is.

    Attributes:
        start: the state before the first byte.
        words: the closed vocabularies, spelt as in an answer.

    Raises:
        UserError: the frame has no room for a box, or no answer can be written in the vocabularies.
    """

    def __init__(self, shape: GrammarSpec):
        output_format = shape.output_format
        check_vocabularies(output_format)
        build = {"json": _json, "compact": _compact, "detections": _detections}[output_format.format]
        sides = [
            Numbers(most * output_format.step, output_format.step, output_format.box_format == "norm1")
            for most in largest_steps(output_format, shape.bounds_wh)
        ]
        self.rules, body = build(output_format, sides)
        self.start: State = _templated(output_format, body).enter(Memory(self.rules))
        labels = [max(output_format.objects or ("a",), key=len)] * 2
        predicate = max(output_format.predicates or ("a",), key=len)
        boxes = [
            [json.loads(side.spell(side.largest if value is None else value)) for value in (0, None) for side in sides]
        ] * 2
        relations = (
            [(0, predicate, 1)] if FORMATS[output_format.format].graph and output_format.predicates != () else []
        )
        spell = str if output_format.format == "compact" else json_text
        self.words = [
            spell(word).encode() for word in (*(output_format.objects or ()), *(output_format.predicates or ()))
        ]
        body = FORMATS[output_format.format].write(labels, boxes, relations)
        self.example = TEMPLATES[output_format.template].wrap(body, None).encode()

    def examples(self) -> Iterator[State]:
        """The states of an answer of two large objects and a relation."""
        state = self.start
        for byte in self.example:
            state = walk(state, bytes((byte,)))
            yield state

    @staticmethod
    def rest(state: State) -> list[bytes]:
        """The shortest end of the answer, in chunks."""
        node, inner, memory = state
        return node.rest(inner, memory)

    @staticmethod
    def is_end(state: State) -> bool:
        return state[0].is_end(state[1])


def _templated(output_format: OutputFormat, body: Callable[[Node], Node]) -> Node:
    """The whole answer: the body, in a code fence or not, in its envelope. ``body`` is given what follows it."""
    is_reasoning = output_format.template == "think"
    gap = {"space": MAX_GAP if is_reasoning else 0}
    end = last = End()
    if is_reasoning:
        last = Marks(Option(END_ANSWER.encode(), end), lead=b"\n", **gap)
        # in lines, what goes on behind ``end`` is a label that begins with it
        spaces = frozenset(b"\n") if output_format.format == "compact" else SPACES
        end = Marks(Option(END_ANSWER.encode(), end), lead=b"\n", spaces=spaces, **gap)
    inside = body(Marks(Option(b"\n```", last), space=0))
    names = Marks(*(Option(f"{name}\n".encode(), inside) for name in FENCE_NAMES[output_format.format]), space=0)
    start = Marks(Option(b"```", names), instead=body(end), **gap)
    if not is_reasoning:
        return start
    return Marks(Option(THINK.encode(), Reasoning(Marks(Option(ANSWER.encode(), start), lead=b"\n", **gap))), space=0)


def _box(sides: list[Numbers], last: Node) -> Node:
    """``[x1, y1, x2, y2]`` and what follows."""
    node = Marks(Option(b"]", last))
    for axis in (3, 2, 1, 0):
        node = Number(axis, sides[axis % 2], node, MAX_SPACE, lead=b" " if axis else b"")
        node = Marks(Option(b",", node)) if axis else node
    return node


def _json_label(raw: bytes) -> str | None:
    """The label that is spelt so in a JSON string, if it is clean."""
    return clean_label(json.loads(b'"' + raw + b'"'))


@lru_cache(maxsize=4096)
def _is_id(objects: frozenset[str] | None, raw: bytes) -> bool:
    label = clean_label(label_of(json.loads(b'"' + raw + b'"').strip()))
    return label is not None and (objects is None or label in objects)


@lru_cache(maxsize=4096)
def _is_label(labels: frozenset[str] | None, raw: bytes) -> bool:
    label = _json_label(raw)
    return label is not None and (labels is None or label in labels)


def _spelt(labels) -> tuple[bytes, ...] | None:
    return None if labels is None else tuple(json_text(label).encode() for label in dict.fromkeys(labels))


def _json(output_format: OutputFormat, sides: list[Numbers]):
    objects, predicates = _spelt(output_format.objects), _spelt(output_format.predicates)
    rules = Rules(
        partial(_is_id, None if output_format.objects is None else frozenset(output_format.objects)),
        partial(_is_label, None if output_format.predicates is None else frozenset(output_format.predicates)),
        predicates,
    )

    def body(end: Node) -> Node:
        close = chain("}", end)
        next_relation, next_object = Marks(), Marks()
        relation_rest = chain("}", next_relation)
        object_ = Reference("object", relation_rest)
        after = chain(', "object" : "', object_)
        if predicates is None:
            predicate = OpenText(after, _SAY, predicate_suffixes, b"9999")
        else:
            predicate = ClosedText(predicates, after, _SAY, _BEGIN)
        subject = Reference("subject", chain(', "predicate" : "', predicate))
        subject_start = chain('"subject" : "', subject)
        open_relation = Option(b"{", subject_start, _RELATE)
        next_relation.set(Option(b",", Marks(Option(b"{", subject_start), lead=b" "), _RELATE), Option(b"]", close))
        relations = chain(', "relationships" : [', Marks(open_relation, Option(b"]", close)))
        box = chain(', "bbox" : [', _box(sides, chain("}", next_object)))
        id_ = OpenText(box, _CLAIM, id_suffixes, b"a.9999") if objects is None else ClosedId(objects, box)
        id_start = chain('"id" : "', id_)
        next_object.set(Option(b",", Marks(Option(b"{", id_start), lead=b" "), _ADD), Option(b"]", relations))
        first_object = Marks(Option(b"{", id_start, _ADD), Option(b"]", relations))
        return Marks(Option(b"{", chain('"objects" : [', first_object)), space=0)

    return rules, body


def _detections(output_format: OutputFormat, sides: list[Numbers]):
    labels = _spelt(output_format.objects)
    rules = Rules(
        partial(_is_label, None if output_format.objects is None else frozenset(output_format.objects)),
        lambda raw: False,
        (),
    )

    def body(end: Node) -> Node:
        next_object = Marks()
        close = chain("}", next_object)
        label = OpenText(close, _LABEL, label_suffixes, b"a") if labels is None else ClosedText(labels, close)
        box = chain('"bbox_2d" : [', _box(sides, chain(', "label" : "', label)))
        next_object.set(Option(b",", Marks(Option(b"{", box), lead=b" "), _LIST), Option(b"]", end))
        return Marks(
            Option(b"[", Marks(Option(b"{", box, _LIST), Option(b"]", end))),
            *(Option(word.encode(), Marks(Option(b".", end), space=0, instead=end)) for word in NOTHING_FOUND),
            space=0,
        )

    return rules, body


def _compact(output_format: OutputFormat, sides: list[Numbers]):
    check_words(output_format.objects or (), "objects")
    check_words(output_format.predicates or (), "predicates")
    objects, predicates = _encoded(output_format.objects), _encoded(output_format.predicates)
    smallest = b"".join(b" " + side.spell(value * side.step) for value in (0, 1) for side in sides)
    rules = Rules(
        lambda raw: False,
        (lambda raw: clean_label(raw.decode()) is not None)
        if predicates is None
        else frozenset(predicates).__contains__,
        predicates,
        partial(_is_line, sides),
        _tail,
    )

    def body(end: Node) -> Node:
        relation = Marks(Option(b"end", end), space=0, instead=Marks(), ends=False)
        if predicates is None:
            predicate: Node = OpenTail(relation)
        else:
            predicate = Words(predicates, Reference("object", relation, leave=_NEWLINE), _SAY, _BEGIN)
        relation.instead = Reference("subject", predicate, leave=_SPACE)
        if objects is None:
            return OpenObject(smallest, relation, end)
        line_end = Marks(space=0)
        node: Node = line_end
        for axis in (3, 2, 1, 0):
            node = Number(axis, sides[axis % 2], node, space=0)
            node = Marks(Option(b" ", node), space=0) if axis else node
        line = ObjectWords(objects, node, relation, end)
        line_end.set(Option(b"\n", line, methodcaller("count")))
        return line

    return rules, body


def _encoded(words) -> tuple[bytes, ...] | None:
    return None if words is None else tuple(word.encode() for word in dict.fromkeys(words))


def _is_line(sides: list[Numbers], line: bytes) -> bool:
    """Whether a line ends in a box with an area, spelt as the writer does, behind a clean label."""
    label, *box = line.rsplit(b" ", 4)
    if len(box) < 4:
        return False
    values = [sides[axis % 2].value(digits) for axis, digits in enumerate(box)]
    if None in values or values[2] <= values[0] or values[3] <= values[1]:
        return False
    return clean_label(label.decode()) is not None and split_object(line.decode().strip()) is not None


def _tail(subject: bytes, text: bytes) -> tuple[bytes, bytes] | None:
    """Predicate and object behind a subject, as the reader takes them."""
    line = f"{subject.decode()} {text.decode()}".strip()
    found = split_relation(line) if split_object(line) is None else None
    if found is None or str(found[0]).encode() != subject or b" " not in text:
        return None
    predicate, reference = clean_label(found[1]), text.rsplit(b" ", 1)[1]
    return None if predicate is None or str(found[2]).encode() != reference else (predicate.encode(), reference)
