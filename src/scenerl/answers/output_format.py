"""What fixes prompts and answers apart from the image; training, rollout, prediction and scoring share it."""

from __future__ import annotations

from dataclasses import dataclass

from scenerl.answers.formats import FORMATS
from scenerl.answers.template import TEMPLATES
from scenerl.box_formats import BOX_FORMATS
from scenerl.errors import UserError

PROVIDED = {"boxes": "sgcls", "objects": "predcls"}
"""What a prompt may provide of the objects, and the name of that task in the literature: their boxes only (SGCls), or
their labels too (PredCls). In both the answer is the whole graph."""


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """Format, response template, box format and vocabularies of answers.

    Args:
        format: a name from :data:`~scenerl.answers.formats.FORMATS`.
        template: a name from :data:`~scenerl.answers.template.TEMPLATES`.
        objects: closed vocabulary of object labels; None leaves it open. For ``detections``, the
            labels to look for.
        predicates: closed vocabulary of predicates; None leaves it open.
        box_format: of the boxes in the answer, a name from :data:`~scenerl.box_formats.BOX_FORMATS`.
        step: quantisation step; coordinates are multiples of this many units of the box format (a unit of ``norm1`` is
            0.0001).
        provided: what the prompt provides of the objects, a name from :data:`PROVIDED`; None: nothing.

    Raises:
        UserError: an unknown name, a step below 1, a vocabulary that is not a list of strings, objects provided for a
            format without relations.
    """

    format: str = "json"
    template: str = "plain"
    objects: tuple[str, ...] | None = None
    predicates: tuple[str, ...] | None = None
    box_format: str = "norm1000"
    step: int = 1
    provided: str | None = None

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("format", self.format, FORMATS),
            ("template", self.template, TEMPLATES),
            ("box format", self.box_format, BOX_FORMATS),
            ("provided", self.provided, {None: "", **PROVIDED}),
        ):
            if value not in tuple(allowed):  # a file may hold a list there, which has no hash
                raise UserError(f"unknown {name} {value!r}; allowed: {', '.join(map(str, allowed))}")
        if self.provided is not None and not FORMATS[self.format].graph:
            raise UserError(f"the task {PROVIDED[self.provided]} needs relations, which {self.format!r} cannot hold")
        if type(self.step) is not int or self.step < 1:
            raise UserError(f"step must be a whole number of at least 1, not {self.step!r}")
        for name in ("objects", "predicates"):
            labels = getattr(self, name)
            if labels is None:
                continue
            if not isinstance(labels, list | tuple) or not all(isinstance(label, str) for label in labels):
                raise UserError(f"{name} must be a list of strings or None, not {labels!r:.80}")
            # lists come from YAML and JSON; a tuple makes the output format hashable
            object.__setattr__(self, name, tuple(labels))

    @property
    def task(self) -> str:
        """The task of the literature: ``sgdet``, ``sgcls``, ``predcls``; ``det`` where answers hold no relations."""
        if not FORMATS[self.format].graph:
            return "det"
        return "sgdet" if self.provided is None else PROVIDED[self.provided]
