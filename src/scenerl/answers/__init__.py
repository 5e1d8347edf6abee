"""Prompts and answers as text: formats, response templates, the writer of target answers and the parser of real ones.

:class:`OutputFormat` names the *format* of an answer (``json``, ``compact``, ``detections``, ``toon``), the *response
template* around it (``plain``, ``think``), the format of its boxes and its vocabularies. Prompts
(:func:`build_prompt`), SFT targets (:func:`write_answer`) and parsing (:func:`parse_answer`) all follow it, so that
training, rollout and prediction cannot drift apart. :class:`~scenerl.answers.dialogue.Conversation` puts them together
for one model.

To add a format, write a module with ``write``, ``read`` and ``INSTRUCTION`` (see :mod:`scenerl.answers.compact`), and
add it to :data:`FORMATS`, to :mod:`scenerl.answers.locate` and to the round-trip test. What other families write needs
``read`` only. Nothing here imports torch.
"""

from __future__ import annotations

from scenerl.answers.formats import FORMATS, TRAINED
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
    "TRAINED",
    "GrammarSpec",
    "OutputFormat",
    "Located",
    "build_grammar",
    "build_prompt",
    "locate_elements",
    "parse_answer",
    "write_answer",
]
