"""Profiles: machines to run recipes on, as YAML files kept apart from the recipes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from scenerl.config import load_yaml
from scenerl.config.convert import near_misses
from scenerl.config.parse import convert_key, field_types
from scenerl.errors import UserError

Sharding = Literal["none", "zero2", "zero3", "zero3_offload", "fsdp2"]
FOLDER = "profiles"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Machines, and the fields that follow from them.

    Attributes:
        name: the file's name without its ending.
        nodes: machines that train.
        gpus_per_node: GPUs of each.
        gpu: a name from :data:`scenerl.launch.sizes.GPUS`.
        gpu_memory_gib: memory of one.
        sharding: what is divided over the GPUs; ``accelerate`` sets it up.
        accelerate: configuration file of accelerate; None for a single process, which needs none.
        server_nodes: further machines, which serve completions with vLLM.
        cpus_per_gpu: CPU cores to ask SLURM for.
        sft, grpo: fields of the commands that follow from the machines; they win over the recipe.
    """

    name: str
    nodes: int
    gpus_per_node: int
    gpu: str
    gpu_memory_gib: int
    sharding: Sharding
    accelerate: Path | None = None
    server_nodes: int = 0
    cpus_per_gpu: int = 8
    sft: dict[str, Any] = field(default_factory=dict)
    grpo: dict[str, Any] = field(default_factory=dict)

    @property
    def num_gpus(self) -> int:
        """GPUs that train, one process each."""
        return self.nodes * self.gpus_per_node

    def fields(self, command: str) -> dict[str, Any]:
        """The fields for a command, ``sft`` or ``grpo``."""
        return getattr(self, command)


def read_profile(path: Path) -> Profile:
    """A profile file.

    Raises:
        UserError: it cannot be read, a key is unknown or missing, or a value is of the wrong type; names file and key.
    """
    path = Path(path)
    content = load_yaml(path)
    kinds = {key: kind for key, kind in field_types(Profile).items() if key != "name"}
    for key in content:
        if key not in kinds:
            raise UserError(f"{path}: unknown key {key!r}{near_misses(key, kinds)}; allowed: {', '.join(kinds)}")
    values = {key: convert_key(key, value, kinds[key], str(path)) for key, value in content.items()}
    missing = [item.name for item in dataclasses.fields(Profile) if item.name != "name" and _is_missing(item, values)]
    if missing:
        raise UserError(f"{path}: lacks {', '.join(missing)}")
    if values.get("accelerate"):
        values["accelerate"] = path.parent / values["accelerate"]
        if not values["accelerate"].is_file():
            raise UserError(f"{path}: accelerate: there is no file {values['accelerate']}")
    profile = Profile(name=path.stem, **values)
    if profile.num_gpus > 1 and profile.accelerate is None:
        raise UserError(f"{path}: accelerate: {profile.num_gpus} processes need a configuration file")
    return profile


def _is_missing(item: dataclasses.Field, values: dict) -> bool:
    no_default = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    return no_default and item.name not in values


def find_profile(name: str, recipe: Path) -> Profile:
    """The profile of a name, from the folder ``profiles`` beside the recipe or above it, or of a path.

    Raises:
        UserError: there is none of the name; names those that there are.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        return read_profile(Path(name))
    known = profile_files(recipe)
    if name not in known:
        raise UserError(f"profile {name!r} is not known{near_misses(name, known)}; allowed: {', '.join(known)}")
    return read_profile(known[name])


def profile_files(recipe: Path) -> dict[str, Path]:
    """Name to file of the profiles that a recipe can be run with.

    Raises:
        UserError: no folder of profiles stands beside the recipe or above it.
    """
    for folder in Path(recipe).resolve().parents:
        found = {path.stem: path for path in sorted((folder / FOLDER).glob("*.yaml"))}
        if found:
            return found
    raise UserError(f"{recipe}: no folder {FOLDER!r} beside it or above it; give the path of a profile")
