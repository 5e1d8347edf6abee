"""The form of an answer as a grammar, for engines that decode under one.

The text is EBNF in the dialect that xgrammar reads, and with it vLLM and SGLang as structured outputs. A grammar has no
memory: unique ids, relations that name existing objects, boxes with an area and an end before the token limit take
:mod:`scenerl.constrain`. Whatever that allows, the grammar allows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass

from scenerl.answers.elements import clean_label, excerpt
from scenerl.answers.output_format import OutputFormat
from scenerl.answers.template import ANSWER, END_ANSWER, END_THINK, TAGS, THINK
from scenerl.answers.toon import quoted
from scenerl.errors import UserError

_MAX_NUMBER_DIGITS = 4
"""Digits of an object's number; the parser reads 1,000 objects."""
DIGITS_OF_NORM1 = 4
_MAX_LISTED = 512
"""Multiples of a step are listed one by one up to so many; beyond, any whole number up to the largest passes."""

_BARRED = r"\x00-\x1f\x7f-\x9f\u2028\u2029"  # what no label may hold: scenerl.answers.elements.clean_label
_IN_STRING = rf'([^"\\{_BARRED}] | "\\" ["\\])*'
_IN_LINE = rf"[^{_BARRED}]*"
_IN_FIELD = rf'[^"\\,\[\]{{}}:| \-{_BARRED}] [^"\\,\[\]{{}}:|{_BARRED}]* | "\"" {_IN_STRING} "\""'
# Reasoning must not hold tags. A rule that bars nothing else makes xgrammar a thousand times slower.
_REASONING = r'([^<\x00-\x08\x0b-\x1f\x7f] | "<" [^</at\x00-\x08\x0b-\x1f\x7f])*'
_NUMBER = f"[1-9] [0-9]{{0,{_MAX_NUMBER_DIGITS - 1}}}"
_BOX = 'x ", " y ", " x ", " y'


@dataclass(frozen=True, slots=True)
class GrammarSpec:
    """What fixes the form of one answer: the output format and the (width, height) of its box format."""

    output_format: OutputFormat
    bounds_wh: tuple[float, float]


def largest_steps(output_format: OutputFormat, bounds_wh: tuple[float, float]) -> tuple[int, int]:
    """The largest x and y that an answer may hold, in quantisation steps (a unit of ``norm1`` is 0.0001).

    A side that is no multiple of the step is rounded up, because the writer rounds to the nearest multiple.

    Raises:
        UserError: a side is shorter than one unit of the box format.
    """
    step = output_format.step * (10.0**-DIGITS_OF_NORM1 if output_format.box_format == "norm1" else 1.0)
    largest = tuple(math.ceil(round(side / step, 6)) for side in bounds_wh)
    if min(largest) < 1:
        raise UserError(f"constrain: no box with an area fits an image of {bounds_wh[0]:g} x {bounds_wh[1]:g}")
    return largest


def check_vocabularies(output_format: OutputFormat) -> None:
    """Raise UserError where a closed vocabulary holds what no answer can hold, or no object at all."""
    if output_format.objects == ():
        raise UserError("constrain: the closed vocabulary of objects is empty, so no answer can hold an object")
    for what, labels in (("object label", output_format.objects), ("predicate", output_format.predicates)):
        for label in labels or ():
            if clean_label(label) != label or any(tag in label for tag in TAGS):
                raise UserError(
                    f"constrain: no answer can hold the {what} {excerpt(label)}: empty, too long, with white space "
                    "around it, control characters or tags"
                )


def build_grammar(output_format: OutputFormat, bounds_wh: tuple[float, float]) -> str:
    """The grammar of answers in an output format: what the writer writes, and no other spelling.

    Closed vocabularies are lists; in an open one any label passes that the parser takes for clean. Reasoning is any
    text in which no ``<`` stands before ``/``, ``a``, ``t`` or another ``<``, so that it holds no tag.

    Args:
        output_format: format, response template, vocabularies, box format and quantisation step.
        bounds_wh: (width, height) of the box format, as :func:`scenerl.box_formats.extent_wh` gives it.

    Returns:
        EBNF with the start rule ``root``.

    Raises:
        UserError: a box format without room for a box, a vocabulary that no answer can be written in, a format that is
            only read.

    >>> print(build_grammar(OutputFormat("compact", objects=("dog",), predicates=("on",), step=500), (1000, 1000)))
    root ::= body
    body ::= object+ ("\\n" relation+)? "end" | "end"
    object ::= label " " x " " y " " x " " y "\\n"
    relation ::= number " " predicate " " number "\\n"
    number ::= [1-9] [0-9]{0,3}
    label ::= "dog"
    predicate ::= "on"
    x ::= "0" | "500" | "1000"
    y ::= "0" | "500" | "1000"
    <BLANKLINE>
    """
    if output_format.format not in _BODIES:
        raise UserError(f"no grammar for the format {output_format.format!r}; allowed: {', '.join(_BODIES)}")
    check_vocabularies(output_format)
    largest = largest_steps(output_format, bounds_wh)
    rules = {"root": _root(output_format), **_BODIES[output_format.format](output_format)}
    rules["x"], rules["y"] = (_numbers(output_format, most) for most in largest)
    return "".join(f"{name} ::= {rule}\n" for name, rule in rules.items())


def _root(output_format: OutputFormat) -> str:
    if output_format.template == "plain":
        return "body"
    return _alternating(THINK, _REASONING, f"{END_THINK}\n{ANSWER}\n", "body", f"\n{END_ANSWER}")


def _json_rules(output_format: OutputFormat) -> dict[str, str]:
    relations = _list("relation") if output_format.predicates != () else '""'
    return {
        "body": _alternating('{"objects": [', _list("object"), '], "relationships": [', relations, "]}"),
        "object": _alternating('{"id": "', "id", '", "bbox": [', _BOX, "]}"),
        "relation": _alternating('{"subject": "', "id", '", "predicate": "', "predicate", '", "object": "', "id", '"}'),
        "id": f'label "." {_NUMBER}' if output_format.objects is not None else "label",
        "label": _label(output_format.objects, json_text, _IN_STRING),
        "predicate": _label(output_format.predicates, json_text, _IN_STRING),
    }


def _detection_rules(output_format: OutputFormat) -> dict[str, str]:
    return {
        "body": '"None" | "[" object (", " object)* "]"',
        "object": _alternating('{"bbox_2d": [', _BOX, '], "label": "', "label", '"}'),
        "label": _label(output_format.objects, json_text, _IN_STRING),
    }


def _compact_rules(output_format: OutputFormat) -> dict[str, str]:
    relations = ' ("\\n" relation+)?' if output_format.predicates != () else ""
    return {
        # the parser takes relations without any object for another form
        "body": f'object+{relations} "end" | "end"',
        "object": 'label " " x " " y " " x " " y "\\n"',
        "relation": 'number " " predicate " " number "\\n"',
        "number": _NUMBER,
        "label": _label(output_format.objects, str, _IN_LINE),
        "predicate": _label(output_format.predicates, str, _IN_LINE),
    }


def _toon_rules(output_format: OutputFormat) -> dict[str, str]:
    # a grammar cannot count: the numbers of lines are any
    relations = '("\\n  " relation)*' if output_format.predicates != () else '""'
    return {
        "body": f'"obj[" count "]" {_quoted("{id,name,x1,y1,x2,y2}:")} ("\\n  " object)* "\\nrel[" count "]" '
        f"{_quoted('{subj,pred,obj}:')} {relations}",
        "object": 'number "," label "," x "," y "," x "," y',
        "relation": 'number "," predicate "," number',
        "count": f'"0" | {_NUMBER}',
        "number": _NUMBER,
        "label": _label(output_format.objects, quoted, _IN_FIELD),
        "predicate": _label(output_format.predicates, quoted, _IN_FIELD),
    }


_BODIES = {"json": _json_rules, "compact": _compact_rules, "detections": _detection_rules, "toon": _toon_rules}


def json_text(label: str) -> str:
    """A label as the writer puts it into a JSON string, without the quotes."""
    return json.dumps(label, ensure_ascii=False)[1:-1]


def _label(vocabulary: tuple[str, ...] | None, spell: Callable[[str], str], open_text: str) -> str:
    """A label of a closed vocabulary, or any text."""
    if vocabulary is not None:
        return " | ".join(_quoted(spell(label)) for label in dict.fromkeys(vocabulary)) or '""'
    return open_text


def _alternating(*parts: str) -> str:
    """Forced text at even places, rules at odd ones."""
    return " ".join(part if place % 2 else _quoted(part) for place, part in enumerate(parts))


def _list(rule: str) -> str:
    return f'({rule} (", " {rule})*)?'


def _quoted(text: str) -> str:
    """A literal of the grammar."""
    return json.dumps(text, ensure_ascii=False)


def _numbers(output_format: OutputFormat, largest: int) -> str:
    """Coordinates from 0 to ``largest`` quantisation steps, spelt as the writer does."""
    if output_format.box_format == "norm1":
        beyond = "[0]" if largest * output_format.step == 10**DIGITS_OF_NORM1 else "[0-9]"
        return rf'"0." [0-9]{{1,{DIGITS_OF_NORM1}}} | "1." {beyond}{{1,{DIGITS_OF_NORM1}}}'
    if output_format.step > 1 and largest < _MAX_LISTED:
        return " | ".join(f'"{step * output_format.step}"' for step in range(largest + 1))
    return _up_to(largest * output_format.step)


def _up_to(largest: int) -> str:
    """Whole numbers from 0 to ``largest`` without leading zeros."""
    digits = str(largest)
    alternatives = ["[0-9]"] if len(digits) > 1 else [f"[0-{digits}]"]
    if len(digits) > 2:
        alternatives.append(f"[1-9] [0-9]{{1,{len(digits) - 2}}}")
    for place, digit in enumerate(digits if len(digits) > 1 else ""):  # the same first digits, then a smaller one
        low, high = int(place == 0), int(digit) - 1
        if low > high:
            continue
        rest = len(digits) - place - 1
        head = f'"{digits[:place]}" ' if place else ""
        alternatives.append(f"{head}[{low}-{high}]" + (f" [0-9]{{{rest}}}" if rest else ""))
    if len(digits) > 1:
        alternatives.append(f'"{digits}"')
    return " | ".join(alternatives)
