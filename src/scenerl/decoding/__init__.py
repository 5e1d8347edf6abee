"""Constrained decoding: answers that always parse, refer to nothing that is not there and end before the limit.

:class:`Constraint` says which tokens may follow, and :class:`ConstrainedDecoding` tells transformers' ``generate``.
xgrammar runs the grammar of :func:`scenerl.answers.build_grammar`; what a grammar cannot say, an automaton of the
answer's bytes does (:mod:`scenerl.decoding.automaton`).
"""

from __future__ import annotations

from scenerl.decoding.constraint import Constraint, Row, constraint_of
from scenerl.decoding.processor import ConstrainedDecoding
from scenerl.decoding.vocabulary import Vocabulary

__all__ = ["ConstrainedDecoding", "Constraint", "Row", "Vocabulary", "constraint_of"]
