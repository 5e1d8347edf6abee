"""The automaton of one answer style: what may be written, byte by byte, and the shortest way to end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from operator import methodcaller

from scenerl.answers.elements import clean_label
from scenerl.answers.formats import FORMATS
from scenerl.answers.grammar import FENCE_NAMES, NOTHING_FOUND, AnswerShape, json_text, largest_steps
from scenerl.answers.json_graph import label_of
from scenerl.answers.style import AnswerStyle
from scenerl.decoding.memory import Memory, Rules
from scenerl.decoding.nodes import End, Marks, Node, Option, State, chain
from scenerl.decoding.numbers import Number, Numbers
from scenerl.decoding.texts import (
    ClosedId,
    ClosedText,
    OpenText,
    Reference,
    id_suffixes,
    label_suffixes,
    predicate_suffixes,
)

_ADD, _RELATE, _CLAIM, _LABEL = map(methodcaller, ("add", "relate", "claim", "label"))
_SAY, _BEGIN = methodcaller("say", True), methodcaller("say", False)


def _list(memory):
    memory = memory.add()
    return None if memory is None else memory.listed()


class Automaton:
    """Reads an answer byte by byte; see :mod:`scenerl.decoding.nodes` for what a state is.

    Attributes:
        start: the state before the first byte.
        words: the closed vocabularies, spelt as in an answer.

    Raises:
        ValueError: the frame has no room for a box, or the vocabulary of objects is empty.
    """

    def __init__(self, shape: AnswerShape):
        style = shape.style
        if style.objects is not None and not style.objects:
            raise ValueError("the closed vocabulary of objects is empty, so no answer can hold an object")
        build = {"json": _json, "detections": _detections}.get(style.format)
        if build is None or style.envelope != "plain":
            raise ValueError(f"constrain: format {style.format} in envelope {style.envelope} cannot be constrained yet")
        sides = [
            Numbers(most * style.grid, style.grid, style.frame == "norm1")
            for most in largest_steps(style, shape.bounds_wh)
        ]
        self.rules, body = build(style, sides)
        self.start: State = _enveloped(style, body).enter(Memory(self.rules))
        labels = [max(style.objects or ("a",), key=len)] * 2
        predicate = max(style.predicates or ("a",), key=len)
        boxes = [
            [json.loads(side.spell(side.largest if value is None else value)) for value in (0, None) for side in sides]
        ] * 2
        relations = [(0, predicate, 1)] if FORMATS[style.format].graph and style.predicates != () else []
        spell = str if style.format == "compact" else json_text
        self.words = [spell(word).encode() for word in (*(style.objects or ()), *(style.predicates or ()))]
        self.example = FORMATS[style.format].write(labels, boxes, relations).encode()

    def examples(self) -> Iterator[State]:
        """The states of an answer of two large objects and a relation."""
        state = self.start
        for byte in self.example:
            state = self.walk(state, bytes((byte,)))
            yield state

    def walk(self, state: State, text: bytes) -> State | None:
        """The state behind ``text``, or None where it is not allowed."""
        for byte in text:
            node, inner, memory = state
            state = node.step(inner, memory, byte)
            if state is None:
                return None
        return state

    @staticmethod
    def rest(state: State) -> list[bytes]:
        """The shortest end of the answer, in chunks."""
        node, inner, memory = state
        return node.rest(inner, memory)

    @staticmethod
    def is_end(state: State) -> bool:
        return state[0].is_end(state[1])


def _enveloped(style: AnswerStyle, body: Callable[[Node], list[Option]]) -> Node:
    """The whole answer: the body, in a code fence or not, in its envelope. ``body`` gives its first marks."""
    end = End()
    fenced = Marks(Option(b"\n```", end), space=0)
    inside = Marks(*body(fenced), space=0)
    names = Marks(*(Option(f"{name}\n".encode(), inside) for name in FENCE_NAMES[style.format]), space=0)
    return Marks(Option(b"```", names), *body(end), space=0)


def _box(sides: list[Numbers], last: Node) -> Node:
    """``[x1, y1, x2, y2]`` and what follows."""
    node = Marks(Option(b"]", last))
    for axis in (3, 2, 1, 0):
        node = Number(axis, sides[axis % 2], node, space=16, lead=b" " if axis else b"")
        node = Marks(Option(b",", node)) if axis else node
    return node


def _json_label(raw: bytes) -> str | None:
    """The label that is spelt so in a JSON string, if it is clean."""
    return clean_label(json.loads(b'"' + raw + b'"'))


def _is_id(objects: frozenset[str] | None, raw: bytes) -> bool:
    label = clean_label(label_of(json.loads(b'"' + raw + b'"').strip()))
    return label is not None and (objects is None or label in objects)


def _is_label(labels: frozenset[str] | None, raw: bytes) -> bool:
    label = _json_label(raw)
    return label is not None and (labels is None or label in labels)


def _spelt(labels) -> tuple[bytes, ...] | None:
    return None if labels is None else tuple(json_text(label).encode() for label in dict.fromkeys(labels))


def _json(style: AnswerStyle, sides: list[Numbers]):
    objects, predicates = _spelt(style.objects), _spelt(style.predicates)
    rules = Rules(
        partial(_is_id, None if style.objects is None else frozenset(style.objects)),
        partial(_is_label, None if style.predicates is None else frozenset(style.predicates)),
        predicates,
    )

    def body(end: Node) -> list[Option]:
        close = chain("}", end)
        next_relation, next_object = Marks(), Marks()
        relation_rest = chain("}", next_relation)
        object_ = Reference("object", relation_rest)
        after = chain(', "object" : "', object_)
        if predicates is None:
            predicate = OpenText(after, _SAY, predicate_suffixes)
        else:
            predicate = ClosedText(predicates, after, _SAY, _BEGIN)
        subject = Reference("subject", chain(', "predicate" : "', predicate))
        subject_start = chain('"subject" : "', subject)
        open_relation = Option(b"{", subject_start, _RELATE)
        next_relation.set(Option(b",", Marks(Option(b"{", subject_start), lead=b" "), _RELATE), Option(b"]", close))
        relations = chain(', "relationships" : [', Marks(open_relation, Option(b"]", close)))
        box = chain(', "bbox" : [', _box(sides, chain("}", next_object)))
        id_ = OpenText(box, _CLAIM, id_suffixes) if objects is None else ClosedId(objects, box)
        id_start = chain('"id" : "', id_)
        next_object.set(Option(b",", Marks(Option(b"{", id_start), lead=b" "), _ADD), Option(b"]", relations))
        first_object = Marks(Option(b"{", id_start, _ADD), Option(b"]", relations))
        return [Option(b"{", chain('"objects" : [', first_object))]

    return rules, body


def _detections(style: AnswerStyle, sides: list[Numbers]):
    labels = _spelt(style.objects)
    rules = Rules(
        partial(_is_label, None if style.objects is None else frozenset(style.objects)), lambda raw: False, ()
    )

    def body(end: Node) -> list[Option]:
        next_object = Marks()
        close = chain("}", next_object)
        label = OpenText(close, _LABEL, label_suffixes) if labels is None else ClosedText(labels, close, _LABEL)
        box = chain('"bbox_2d" : [', _box(sides, chain(', "label" : "', label)))
        next_object.set(Option(b",", Marks(Option(b"{", box), lead=b" "), _list), Option(b"]", end))
        return [
            Option(b"[", Marks(Option(b"{", box, _list), Option(b"]", end))),
            *(Option(word.encode(), Marks(Option(b".", end), space=0, instead=end)) for word in NOTHING_FOUND),
        ]

    return rules, body
