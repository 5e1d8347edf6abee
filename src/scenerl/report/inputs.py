"""Which files make a report: ``report.json`` of one or several run folders, or files named on the command line."""

from __future__ import annotations

import filecmp
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, NonNegativeInt

from scenerl.commands.eval import EvalOptions
from scenerl.errors import UserError, near_files
from scenerl.evaluate.models import Model, read_model
from scenerl.json_files import read_as
from scenerl.metrics.file import models_in

FILE_NAME = "report.json"
STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class Target:
    """One ground truth of the test images: its name, and a data source as ``eval --data`` takes it."""

    name: str
    source: str
    split: str | None = None


class Stage(BaseModel, **STRICT):
    """One model on its way (base, SFT, SFT + RL, or a run to compare with). Everything but the name may be missing.

    ``metrics`` maps a target's name to a metrics.json; ``log`` is one TRL log dict per line.
    """

    name: str
    predictions: Path | None = None
    metrics: Annotated[dict[str, Path], BeforeValidator(lambda value: {} if value is None else value)] = field(
        default_factory=dict
    )
    log: Path | None = None


class ManifestTarget(BaseModel, **STRICT):
    """One ground truth; ``path`` is relative to the run folder."""

    name: str
    path: str


class Manifest(BaseModel, **STRICT):
    """``report.json``; its paths are relative to the run folder."""

    title: str
    targets: list[ManifestTarget]
    stages: list[Stage]
    predicate_counts: dict[str, NonNegativeInt] | None = None


@dataclass(frozen=True, slots=True)
class Inputs:
    """All inputs of one report. Files exist; stage and target names are unique; the gallery shows the last target.
    ``models``: how the predictions of a stage are read that may be another project's.

    Raises:
        UserError: there is no stage or no target, names are equal, or metrics are against an unknown target.
    """

    title: str
    targets: tuple[Target, ...]
    stages: tuple[Stage, ...]
    predicate_counts: Mapping[str, int] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind, items in (("targets", self.targets), ("stages", self.stages)):
            names = [item.name for item in items]
            if not names:
                raise UserError(f"{self.title}: there are no {kind}; at least one is needed")
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise UserError(f"{self.title}: {kind} with equal names: {', '.join(map(repr, twice))}")
        known = [target.name for target in self.targets]
        for stage in self.stages:
            for name in stage.metrics:
                if name not in known:
                    raise UserError(f"{self.title}: stage {stage.name!r} has metrics for {name!r}; targets: {known}")

    def files(self) -> list[Path | str]:
        """Every file and source that the report is made of."""
        found: list[Path | str] = [target.source for target in self.targets]
        for stage in self.stages:
            found += [path for path in (stage.predictions, stage.log, *stage.metrics.values()) if path is not None]
        return found


def read_run(run: Path) -> Inputs:
    """The inputs of a run folder; paths in its ``report.json`` are relative to the folder.

    Raises:
        UserError: the manifest is missing, has a wrong key or type, or names a file that is not there.
    """
    path = run / FILE_NAME
    if not path.is_file():
        raise UserError(
            f"{path}: not found. A run folder holds a {FILE_NAME}; without one, name the files: "
            "--data ROWS.jsonl --predictions NAME=PRED.jsonl [--metrics NAME=METRICS.json]"
        )
    manifest = read_as(Manifest, path)
    targets = [Target(item.name, str(_file(run, item.path, path))) for item in manifest.targets]
    stages = [
        item.model_copy(
            update={
                "predictions": item.predictions and _file(run, item.predictions, path),
                "metrics": {name: _file(run, value, path) for name, value in item.metrics.items()},
                "log": item.log and _file(run, item.log, path),
            }
        )
        for item in manifest.stages
    ]
    return Inputs(manifest.title, tuple(targets), tuple(stages), manifest.predicate_counts or {})


def named_files(
    source: str,
    predictions: Sequence[str],
    metrics: Sequence[str] = (),
    logs: Sequence[str] = (),
    split: str | None = None,
) -> Inputs:
    """Inputs from loose files. Each of ``predictions``, ``metrics`` and ``logs`` is ``NAME=PATH``; the NAMEs are the
    stages, in the order in which they first appear. A path without a name is named after its file; a metrics.json of
    several models without a name is that of all of them. Predictions may be written as for `eval`,
    ``NAME=PATH:format=…``.

    Args:
        source: ground truth, as ``eval --data`` takes it.

    Raises:
        UserError: a file is not there, or a name is given twice for one kind of file.
    """
    target = Target(Path(source).stem or source, source, split)
    stages: dict[str, Stage] = {}
    models = {}
    for key, items in (("predictions", predictions), ("metrics", metrics), ("log", logs)):
        for item in items:
            name, equals, value = item.partition("=")
            if key == "predictions":
                model = read_model(item, EvalOptions(data=source, split=split))
                name, value, models[model.name] = model.name, str(model.path), model
            elif not equals:
                name, value = Path(item).stem, item
            found = Path(value) if key == "predictions" and Path(value).is_dir() else None
            path = found or _file(Path(), value, f"--{key} {item}")
            for own in (models_in(path) if key == "metrics" and not equals else ()) or [name]:
                stage = stages.get(own, Stage(name=own))
                if getattr(stage, key):
                    raise UserError(f"--{key}: the name {own!r} is given twice; give each stage its own, as NAME=PATH")
                stages[own] = stage.model_copy(update={key: {target.name: path} if key == "metrics" else path})
    return Inputs(f"Predictions on {target.name}", (target,), tuple(stages.values()), models=models)


def combine_runs(runs: Sequence[Path]) -> Inputs:
    """The inputs of several run folders. Stages are called ``run: stage``; ground truth that not all runs share is left
    out, and so are the metrics against it.

    Raises:
        UserError: a folder is no run, two are the same, or no ground truth is the same in all of them.
    """
    found = [read_run(run) for run in runs]
    if len(runs) == 1:
        return found[0]
    names = _short_names(runs)
    targets = tuple(target for target in found[0].targets if all(_has(other, target) for other in found[1:]))
    if not targets:
        pairs = zip(runs, found, strict=True)
        listed = [f"{run}: {', '.join(target.name for target in item.targets)}" for run, item in pairs]
        raise UserError(
            f"the runs were not tested on the same data; each needs an equal ground truth ({'; '.join(listed)})"
        )
    shared = {target.name for target in targets}
    stages = tuple(
        stage.model_copy(
            update={
                "name": f"{name}: {stage.name}",
                "metrics": {target: path for target, path in stage.metrics.items() if target in shared},
            }
        )
        for name, item in zip(names, found, strict=True)
        for stage in item.stages
    )
    counts = found[0].predicate_counts
    same_counts = all(item.predicate_counts == counts for item in found)
    return Inputs(" and ".join(names), targets, stages, counts if same_counts else {})


def _short_names(runs: Sequence[Path]) -> list[str]:
    """The shortest ends of the folders' paths that differ."""
    parts = [run.resolve().parts for run in runs]
    if len(set(parts)) < len(parts):
        raise UserError("a run folder is named twice")
    lengths = range(1, max(map(len, parts)) + 1)
    choices = (["/".join(part[-length:]) for part in parts] for length in lengths)
    return next(names for names in choices if len(set(names)) == len(names))


def _has(inputs: Inputs, target: Target) -> bool:
    return any(
        other.name == target.name and filecmp.cmp(other.source, target.source, shallow=False)
        for other in inputs.targets
    )


def _file(folder: Path, name: str | Path, where: object) -> Path:
    path = folder / name
    if not path.is_file():
        raise UserError(f"{path}: not found (named by {where}){near_files(path)}")
    return path
