"""Scene graphs as text for graph stores: RDF (Turtle) and Cypher, an image after the other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

from scenerl.files import whole_file
from scenerl.types import Example, Relation

PREFIXES = """@prefix rdf: <http://www.w3.org/1999/02/22-rdf-syntax-ns#> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
@prefix s: <urn:scenerl:term:> .
"""
_SIDES = ("x1", "y1", "x2", "y2")
_SPECIAL = re.compile(r"""[\x00-\x1f\x7f"\\]""")
_SURROGATE = re.compile("[\ud800-\udfff]")


def turtle(examples: Iterable[Example]) -> Iterator[str]:
    """RDF in Turtle, the prefixes first, then a text for each image.

    An image is ``<urn:scenerl:image:ID>``, its objects ``…#1`` and so on, with ``rdfs:label``, ``s:x1`` to ``s:y2`` in
    pixels and perhaps ``s:score``. A relation is a triple whose predicate is ``<urn:scenerl:predicate:NAME>``; one with
    a score is an ``rdf:Statement`` besides. Ids and names are percent-encoded in IRIs.
    """
    yield PREFIXES
    named: set[str] = set()
    for example in examples:
        image = f"urn:scenerl:image:{_in_iri(example.image_id)}"
        facts = ["a s:Image", f"s:id {_quoted(example.image_id)}"]
        facts += [f"s:width {example.width} ; s:height {example.height}"] if all(example.image_wh) else []
        facts += [f"s:file {_quoted(str(example.image))}"] if isinstance(example.image, Path) else []
        lines = [_about(f"<{image}>", facts)]
        for number, item in enumerate(example.graph.objects, start=1):
            box = " ; ".join(f"s:{side} {float(value)}" for side, value in zip(_SIDES, item.box, strict=True))
            facts = ["a s:Object", f"s:image <{image}>", f"rdfs:label {_quoted(item.label)}", box]
            facts += [f"s:score {float(item.score)}"] if item.score is not None else []
            lines.append(_about(f"<{image}#{number}>", facts))
        for relation in example.graph.relations:
            predicate = f"<urn:scenerl:predicate:{_in_iri(relation.predicate)}>"
            if relation.predicate not in named:
                named.add(relation.predicate)
                lines.append(_about(predicate, ["a rdf:Property", f"rdfs:label {_quoted(relation.predicate)}"]))
            subject, object_ = f"<{image}#{relation.subject + 1}>", f"<{image}#{relation.object + 1}>"
            lines.append(f"{subject} {predicate} {object_} .")
            if relation.score is not None:
                parts = [f"rdf:subject {subject}", f"rdf:predicate {predicate}", f"rdf:object {object_}"]
                lines.append(_about("[]", ["a rdf:Statement", *parts, f"s:score {float(relation.score)}"]))
        yield "\n" + "\n".join(lines) + "\n"


def cypher(examples: Iterable[Example]) -> Iterator[str]:
    """One statement of Cypher for each image: ``(:Image)-[:SHOWS]->(:Object)-[:RELATION {predicate}]->(:Object)``.

    It creates nodes; in a store that has them already they would be there twice.
    """
    for example in examples:
        size = {"width": example.width, "height": example.height} if all(example.image_wh) else {}
        file = {"file": str(example.image)} if isinstance(example.image, Path) else {}
        parts = [f"(image:Image {_map({'id': example.image_id, **size, **file})})"]
        for number, item in enumerate(example.graph.objects, start=1):
            box = {side: float(value) for side, value in zip(_SIDES, item.box, strict=True)}
            values = {"number": number, "label": item.label, **box, **_score(item.score)}
            parts.append(f"(image)-[:SHOWS]->(o{number}:Object {_map(values)})")
        parts += map(_edge, example.graph.relations)
        yield "CREATE " + ",\n  ".join(parts) + ";\n"


def write_turtle(out: Path, examples: Iterable[Example]) -> int:
    """Write :func:`turtle`, whole or not at all; returns the number of images."""
    return _write(out, turtle(examples)) - 1


def write_cypher(out: Path, examples: Iterable[Example]) -> int:
    """Write :func:`cypher`, whole or not at all; returns the number of images."""
    return _write(out, cypher(examples))


def _write(out: Path, texts: Iterable[str]) -> int:
    count = 0
    with whole_file(out) as draft, draft.open("w", encoding="utf-8", newline="\n") as file:
        for text in texts:
            file.write(text)
            count += 1
    return count


def _about(subject: str, facts: list[str]) -> str:
    return f"{subject} {' ; '.join(facts)} ."


def _edge(relation: Relation) -> str:
    values = {"predicate": relation.predicate, **_score(relation.score)}
    return f"(o{relation.subject + 1})-[:RELATION {_map(values)}]->(o{relation.object + 1})"


def _score(score: float | None) -> dict[str, float]:
    return {} if score is None else {"score": float(score)}


def _map(values: dict) -> str:
    items = (f"{key}: {_quoted(value) if isinstance(value, str) else value}" for key, value in values.items())
    return f"{{{', '.join(items)}}}"


def _quoted(text: str) -> str:
    """A string in double quotes, with escapes that both languages read.

    Quotes and backslashes are never written as ``\\uXXXX``: older Neo4j replaces that before it looks for the string's
    end. UTF-8 cannot hold lone surrogates; they become U+FFFD.
    """
    return '"' + _SPECIAL.sub(_escaped, _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)) + '"'


def _escaped(found: re.Match) -> str:
    character = found.group()
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
    return short.get(character, f"\\u{ord(character):04X}")


def _in_iri(text: str) -> str:
    return quote(_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text), safe="")
