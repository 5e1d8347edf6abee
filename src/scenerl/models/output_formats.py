"""The output format of a run: from its options, else from its checkpoint."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from scenerl.answers import OutputFormat
from scenerl.answers.dialogue import FILE_NAME, read_output_format
from scenerl.answers.formats import FORMATS
from scenerl.answers.output_format import PROVIDED
from scenerl.data.vocabulary import Vocabulary
from scenerl.errors import UserError
from scenerl.models.family import Family
from scenerl.models.folders import located
from scenerl.models.loading import is_hub_name

_log = logging.getLogger(__name__)


def saved_output_format(name: str | Path) -> OutputFormat | None:
    """The output format a checkpoint (folder or hub name) was trained with; None where it was not trained by us.

    Raises:
        UserError: ``scenerl.json`` is there but cannot be read; the message names it.
    """
    path = Path(located(name)) / FILE_NAME
    if is_hub_name(name):
        from transformers.utils import cached_file

        try:
            path = Path(cached_file(str(name), FILE_NAME))
        except OSError:  # the hub, or its local copy, has no such file
            return None
    if not path.is_file():
        return None
    return read_output_format(path)


def output_format_for(options, family: Family, is_new: bool = False) -> OutputFormat:
    """The output format of a run: from the options, else the one the checkpoint was trained with, else the default.

    The box format is always the model family's. ``is_new``: the model is yet to be built, so there is no checkpoint.

    Raises:
        UserError: options that do not go together, or a file that cannot be read.
    """
    saved = None if is_new else saved_output_format(options.model)
    output_format = changed_by_options(saved or OutputFormat(), options, family)
    if saved is not None and saved != output_format:
        now = asdict(output_format)
        changed = [_described(key, value) for key, value in asdict(saved).items() if value != now[key]]
        _log.warning("%s was trained with %s", options.model, ", ".join(changed))
    return output_format


def _described(key: str, value: object) -> str:
    """A field of an output format in a sentence: closed vocabularies are too long for it."""
    if value is None:
        return f"no {key}"
    return f"other {key}" if isinstance(value, list | tuple) else f"{key} {value}"


def changed_by_options(output_format: OutputFormat, options, family: Family) -> OutputFormat:
    """An output format with what the options set in place of its own, and the family's box format.

    Raises:
        UserError: options that do not go together, or a file that cannot be read.
    """
    objects, predicates = output_format.objects, output_format.predicates
    if options.vocabulary is not None:
        vocabulary = Vocabulary.read(options.vocabulary)
        objects, predicates = vocabulary.objects, vocabulary.predicates
    name, provided = options.format or output_format.format, output_format.provided
    if options.task is not None:
        provided = {task: kind for kind, task in PROVIDED.items()}.get(options.task)
        if FORMATS[name].graph == (options.task == "det"):
            if options.format is not None:
                raise UserError(f"task {options.task} and format {options.format} do not go together")
            name = "detections" if options.task == "det" else OutputFormat().format
    if options.boxes is not None and provided is None:
        raise UserError(f"boxes are for the tasks {' and '.join(PROVIDED.values())}; choose one with task")
    return OutputFormat(
        format=name,
        template=options.envelope or output_format.template,
        objects=objects,
        predicates=predicates,
        box_format=family.box_format,
        step=options.grid or output_format.step,
        provided=provided,
    )
