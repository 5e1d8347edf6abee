"""Constrained decoding: answers in one form, that of SFT's targets, which always parse and end before the limit.

An answer is a template of forced text and slots (:mod:`scenerl.constrain.template`). A :class:`Row` says which tokens
one answer may go on with; :class:`ConstraintMask` and :class:`RunSampler` tell transformers' ``generate``.
"""

from __future__ import annotations

from scenerl.constrain.row import Constraint, Row, constraint_of
from scenerl.constrain.sampling import ConstraintMask, RunSampler
from scenerl.constrain.vocabulary import Vocabulary

__all__ = ["Constraint", "ConstraintMask", "Row", "RunSampler", "Vocabulary", "constraint_of"]
