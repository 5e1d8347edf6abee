"""How a model is asked and how it answers, in one value that training, rollout, prediction and scoring share."""

from __future__ import annotations

from dataclasses import dataclass

from scenerl.answers.envelope import ENVELOPES
from scenerl.answers.formats import FORMATS
from scenerl.frames import FRAMES

GIVEN = {"boxes": "sgcls", "objects": "predcls"}
"""What a prompt may tell of the objects, with the task of the literature that it makes: their boxes only (SGCls), or
their labels too (PredCls). In both the answer is the whole graph."""


@dataclass(frozen=True, slots=True)
class AnswerStyle:
    """Everything that fixes the text of an answer, and of the question, apart from the image.

    Args:
        format: a name from :data:`~scenerl.answers.formats.FORMATS`.
        envelope: a name from :data:`~scenerl.answers.envelope.ENVELOPES`.
        objects: closed vocabulary of object labels; None leaves it open. For ``detections``, the labels asked for.
        predicates: closed vocabulary of predicates; None leaves it open.
        frame: the frame of the boxes in the answer, a name from :data:`~scenerl.frames.FRAMES`.
        grid: coordinates are written in multiples of this many units of the frame (a unit of ``norm1`` is 0.0001).
        given: what the prompt tells of the objects, a name from :data:`GIVEN`; None: nothing.

    Raises:
        ValueError: a name that is none of those allowed, a grid below 1, a vocabulary that is not a list of strings,
            objects given for a format without relations.
    """

    format: str = "json"
    envelope: str = "plain"
    objects: tuple[str, ...] | None = None
    predicates: tuple[str, ...] | None = None
    frame: str = "norm1000"
    grid: int = 1
    given: str | None = None

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("format", self.format, FORMATS),
            ("envelope", self.envelope, ENVELOPES),
            ("frame", self.frame, FRAMES),
            ("given", self.given, {None: "", **GIVEN}),
        ):
            if value not in allowed:
                raise ValueError(f"unknown {name} {value!r}; allowed: {', '.join(map(str, allowed))}")
        if self.given is not None and not FORMATS[self.format].graph:
            raise ValueError(f"the task {GIVEN[self.given]} asks for relations, which {self.format!r} cannot hold")
        if type(self.grid) is not int or self.grid < 1:
            raise ValueError(f"grid must be a whole number of at least 1, not {self.grid!r}")
        for name in ("objects", "predicates"):
            labels = getattr(self, name)
            if labels is None:
                continue
            if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
                raise ValueError(f"{name} must be a list of strings or None, not {labels!r:.80}")
            # lists come from YAML and JSON; a tuple makes the style hashable
            object.__setattr__(self, name, tuple(labels))

    @property
    def task(self) -> str:
        """The task of the literature: ``sgdet``, ``sgcls``, ``predcls``; ``det`` where answers hold no relations."""
        if not FORMATS[self.format].graph:
            return "det"
        return "sgdet" if self.given is None else GIVEN[self.given]
