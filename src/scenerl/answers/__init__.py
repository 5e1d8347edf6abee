"""What a model may say: formats, envelopes, prompts, the writer of ideal answers and the parser of real ones.

An answer stands in an *envelope* and holds a *format*; :class:`OutputFormat` names both, with the frame of the boxes and
the vocabularies. The same style asks (:func:`build_prompt`), writes (:func:`write_answer`) and reads
(:func:`parse_answer`), so that training, rollout and prediction cannot drift apart.

To add a format: one module with ``write``, ``read`` and ``INSTRUCTION`` (see :mod:`scenerl.answers.compact`), one line
in :data:`FORMATS`, one in :mod:`scenerl.answers.locate`, one entry in the round-trip test. Nothing here imports torch.
"""

from __future__ import annotations

from scenerl.answers.formats import FORMATS, Format
from scenerl.answers.grammar import GrammarSpec, build_grammar
from scenerl.answers.locate import Located, locate_elements
from scenerl.answers.output_format import OutputFormat
from scenerl.answers.parser import parse_answer
from scenerl.answers.prompts import build_prompt
from scenerl.answers.template import TEMPLATES
from scenerl.answers.writer import write_answer

__all__ = [
    "TEMPLATES",
    "FORMATS",
    "GrammarSpec",
    "OutputFormat",
    "Format",
    "Located",
    "build_grammar",
    "build_prompt",
    "locate_elements",
    "parse_answer",
    "write_answer",
]
