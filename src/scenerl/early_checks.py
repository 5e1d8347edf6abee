"""Mistakes in `sft`, `grpo` and `predict` that show without torch, whose import takes half a minute on some disks.

What stays unsaid here is said later, in the same words, by what reads the file or takes the option.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from scenerl import data
from scenerl.answers import FORMATS, TRAINED, OutputFormat
from scenerl.commands.groups import TrainingOptions
from scenerl.commands.grpo import GRPOOptions
from scenerl.commands.predict import PredictOptions
from scenerl.commands.sft import SFTOptions
from scenerl.commands.sources import eval_sources_of, sources_of
from scenerl.config import Extra, resolve_extra
from scenerl.config.convert import near_misses
from scenerl.config.trl_fields import fields_in_source
from scenerl.data.vocabulary import Vocabulary
from scenerl.errors import UserError, near_files
from scenerl.models.folders import located
from scenerl.models.loading import is_hub_name, model_type_of
from scenerl.models.output_formats import saved_output_format
from scenerl.plugins import is_own
from scenerl.rewards import check_rewards, select_rewards
from scenerl.runs import check_folder
from scenerl.types import Example

_CHEAP = ("jsonl", "photos", "toon", "vlmr1_jsonl")
"""Data sets whose first row is read without the others."""
_TRACKERS = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}
"""Value of ``report_to`` to the packages of which one is needed."""


def check_training(options: TrainingOptions, extra: Extra) -> None:
    """Names, trackers, and the files and folders of a run of ``sft`` or ``grpo``.

    Raises:
        UserError: one of them is wrong.
    """
    fields = check_names(options, extra)
    if isinstance(options, GRPOOptions):
        check_rewards(options.rewards, fields.get("reward_weights"))
    check_trackers(fields.get("report_to"))
    if fields.get("deepspeed") and find_spec("deepspeed") is None:
        raise UserError("deepspeed: the package is not installed: pip install 'scenerl[deepspeed]'")
    if options.vocabulary is not None:
        Vocabulary.read(options.vocabulary)
    if options.format is not None and options.format not in TRAINED:
        raise UserError(f"format: {options.format} is only read; models are trained in {', '.join(TRAINED)}")
    if options.smoke:  # neither data, model nor folder are used
        return
    for name in ("boxes", "predicate_counts"):
        path = getattr(options, name, None)
        if path is not None and not path.is_file():
            raise UserError(f"{name}: there is no file {path}{near_files(path)}")
    is_built = isinstance(options, SFTOptions) and options.model.partition(":")[0] == "tiny"
    if not is_built or Path(options.model).is_dir():
        _check_model(options.model)
    named = [(source.source, source.split or options.split) for source in sources_of(options.data)]
    named += [(source.source, source.split or options.eval_split) for source in eval_sources_of(options.eval_data)]
    for source, split in named:
        first = _check_source(source, split, need_images=True, skip_bad=options.skip_bad)
        if first is not None and source == options.data:  # others may have a format of their own
            _check_kind(first, source, options, is_built=is_built and not Path(options.model).is_dir())
    check_folder(options.out)


def check_prediction(options: PredictOptions, _: Extra) -> None:
    """The files and folders that ``predict`` reads.

    Raises:
        UserError: one of them is not there, or no image or data.
    """
    if options.vocabulary is not None:
        Vocabulary.read(options.vocabulary)
    if options.engine == "hf":
        _check_model(options.model)
    for source in [f"photos:{image}" for image in options.images] or [options.data]:
        first = _check_source(source, options.split)
        if first is not None and options.data is not None and options.engine == "hf":
            _check_kind(first, source, options)


def check_names(options: TrainingOptions, extra: Extra) -> dict:
    """The fields given for TRL's configuration, converted; nothing where TRL is not installed.

    Raises:
        UserError: a field or a reward that there is not. Files of own rewards are not looked at: they may be elsewhere.
    """
    if isinstance(options, GRPOOptions):
        select_rewards(name for name in options.rewards if not is_own(name))
    known = fields_in_source(type(options).trl_config)
    return resolve_extra(known, extra, own=type(options)) if known else {}


def check_trackers(names: list[str] | str | None) -> None:
    """See that the programs that curves are sent to are installed.

    Raises:
        UserError: one is not; says how to install it, or which name was meant.
    """
    for name in [names] if isinstance(names, str) else names or ():
        if name in _TRACKERS and not any(map(find_spec, _TRACKERS[name])):
            package = _TRACKERS[name][0]
            raise UserError(f"report_to: {name} is not installed: pip install {package}, or --report_to none")
        hint = near_misses(name, {*_TRACKERS, "none", "all"} - {name})
        if name not in (*_TRACKERS, "none", "all") and "did you mean" in hint:
            raise UserError(f"report_to: {name!r} is not known{hint}")


def _check_model(name: str) -> None:
    if not is_hub_name(name):
        model_type_of(name)


def _check_kind(first: Example, source: str, options: TrainingOptions | PredictOptions, is_built: bool = False) -> None:
    """See that rows for detection are not answered with scene graphs, which no query is asked for."""
    is_saved = not is_built and Path(located(options.model)).is_dir()
    saved = saved_output_format(options.model) if is_saved else None
    name = options.format or (saved or OutputFormat()).format
    if first.query is not None and FORMATS[name].graph and options.task is None:
        raise UserError(
            f"{source}: is annotated for detection, and {name} writes scene graphs; add --format detections"
        )


def _check_source(source: str, split: str | None, need_images: bool = False, skip_bad: bool = False) -> Example | None:
    """See that data are there; where that costs little, that the first row can be used, which is returned."""
    name, argument = data.resolve(source)
    if name in _CHEAP:
        if not skip_bad:
            return next(iter(data.load(source, split, limit=1, need_images=need_images, quiet=True)))
    elif not name.startswith("synthetic") and name not in ("hub", "own"):
        parts = argument.split(",")  # a path with commas, and settings after it
        if not any(Path(",".join(parts[:end])).exists() for end in range(1, len(parts) + 1)):
            raise UserError(f"{source}: there is no file or folder {parts[0]}{near_files(parts[0])}")
    return None
