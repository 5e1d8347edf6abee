"""Which files make a report: ``report.json`` of a run folder, or files named on the command line."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scenerl.errors import UserError
from scenerl.json_files import read_json

FILE_NAME = "report.json"


@dataclass(frozen=True, slots=True)
class Target:
    """One ground truth of the test images: its name and its data rows (JSONL)."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Stage:
    """One model on its way (base, SFT, SFT + RL, or a run to compare with). Everything but the name may be missing.

    ``metrics`` maps a target's name to a metrics.json; ``log`` is one TRL log dict per line.
    """

    name: str
    predictions: Path | None = None
    metrics: Mapping[str, Path] = field(default_factory=dict)
    log: Path | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """All inputs of one report. Paths are resolved and exist; stage and target names are unique."""

    title: str
    targets: tuple[Target, ...]
    stages: tuple[Stage, ...]
    predicate_counts: Mapping[str, int] = field(default_factory=dict)

    def files(self) -> list[Path]:
        """Every file that the report is made of."""
        found = [target.path for target in self.targets]
        for stage in self.stages:
            found += [path for path in (stage.predictions, stage.log, *stage.metrics.values()) if path is not None]
        return found


def read_manifest(run: Path) -> Manifest:
    """The manifest of a run folder; paths in it are relative to the folder.

    Raises:
        UserError: the manifest is missing, has a wrong key or type, or names a file that is not there.
    """
    path = run / FILE_NAME
    if not path.is_file():
        raise UserError(
            f"{path}: not found. A run folder holds a {FILE_NAME}; without one, name the files: "
            "--data ROWS.jsonl --predictions NAME=PRED.jsonl [--metrics NAME=METRICS.json]"
        )
    required = {"title": str, "targets": list, "stages": list}
    fields = _object(read_json(path, "the manifest of a run"), f"{path}", required, {"predicate_counts": dict})
    targets = []
    for index, item in enumerate(fields["targets"]):
        where = f"{path}: targets[{index}]"
        item = _object(item, where, {"name": str, "path": str}, {})
        targets.append(Target(item["name"], _file(run, item["path"], where)))
    stages = []
    for index, item in enumerate(fields["stages"]):
        where = f"{path}: stages[{index}]"
        item = _object(item, where, {"name": str}, {"predictions": str, "metrics": dict, "log": str})
        stages.append(
            Stage(
                item["name"],
                predictions=_file(run, item["predictions"], where) if "predictions" in item else None,
                metrics={name: _file(run, value, where) for name, value in item.get("metrics", {}).items()},
                log=_file(run, item["log"], where) if "log" in item else None,
            )
        )
    counts = fields.get("predicate_counts", {})
    for predicate, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise UserError(f"{path}: predicate_counts[{predicate!r}] is {count!r}; allowed: whole numbers from 0")
    return checked(Manifest(fields["title"], tuple(targets), tuple(stages), counts), str(path))


def manifest_from_files(
    data: Path,
    predictions: Sequence[str],
    metrics: Sequence[str] = (),
    logs: Sequence[str] = (),
    title: str | None = None,
) -> Manifest:
    """A manifest from loose files. Each of ``predictions``, ``metrics`` and ``logs`` is ``NAME=PATH``; the NAMEs are
    the stages, in the order in which they first appear. A path without a name is named after its file.

    Raises:
        UserError: a file is not there, or a name is given twice for one kind of file.
    """
    target = Target(data.stem, _file(Path(), str(data), "--data"))
    parts: dict[str, dict[str, Path]] = {}
    for flag, items in (("predictions", predictions), ("metrics", metrics), ("log", logs)):
        for item in items:
            name, equals, value = item.partition("=")
            if not equals:
                name, value = Path(item).stem, item
            files = parts.setdefault(name, {})
            if flag in files:
                raise UserError(f"--{flag}: the name {name!r} is given twice; give each stage its own, as NAME=PATH")
            files[flag] = _file(Path(), value, f"--{flag} {item}")
    stages = tuple(
        Stage(
            name,
            predictions=files.get("predictions"),
            metrics={target.name: files["metrics"]} if "metrics" in files else {},
            log=files.get("log"),
        )
        for name, files in parts.items()
    )
    return checked(Manifest(title or f"Predictions on {data.stem}", (target,), stages), "the command line")


def checked(manifest: Manifest, where: str) -> Manifest:
    """The manifest itself.

    Raises:
        UserError: it has no stage or no target, names are equal, or metrics are against an unknown target.
    """
    for kind, items in (("targets", manifest.targets), ("stages", manifest.stages)):
        names = [item.name for item in items]
        if not names:
            raise UserError(f"{where}: there are no {kind}; at least one is needed")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"{where}: {kind} with equal names: {', '.join(map(repr, twice))}")
    known = [target.name for target in manifest.targets]
    for stage in manifest.stages:
        for name in stage.metrics:
            if name not in known:
                raise UserError(f"{where}: stage {stage.name!r} has metrics for {name!r}; the targets are {known}")
    return manifest


def _object(value: Any, where: str, required: Mapping[str, type], optional: Mapping[str, type]) -> dict:
    """``value`` as a dict with these keys and no others; a null stands for an optional key that is absent."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: is {type(value).__name__}; allowed: an object with {sorted(required)}")
    allowed = {**required, **optional}
    for key in value:
        if key not in allowed:
            near = difflib.get_close_matches(key, allowed, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UserError(f"{where}: unknown key {key!r}{hint} Allowed: {', '.join(allowed)}")
    for key in required:
        if key not in value:
            raise UserError(f"{where}: the key {key!r} is missing")
    result = {key: item for key, item in value.items() if key in required or item is not None}
    for key, item in result.items():
        if not isinstance(item, allowed[key]):
            raise UserError(f"{where}: {key} is {type(item).__name__}; allowed: {allowed[key].__name__}")
    return result


def _file(folder: Path, name: Any, where: str) -> Path:
    if not isinstance(name, str):
        raise UserError(f"{where}: {name!r} is not the name of a file")
    path = folder / name
    if not path.is_file():
        raise UserError(f"{path}: not found (named by {where})")
    return path
