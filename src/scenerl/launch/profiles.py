"""Profiles: machines to run recipes on, as YAML files kept apart from the recipes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveInt

from scenerl.config import load_yaml
from scenerl.config.command_line import convert_key
from scenerl.config.convert import near_misses
from scenerl.config.options import default_of, field_types
from scenerl.config.recipes import RECIPES, find_recipe
from scenerl.errors import UserError

FOLDER = "profiles"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Machines, and the options that follow from them.

    Attributes:
        name: the file's name without its ending.
        nodes: machines that train.
        gpus_per_node: GPUs of each.
        gpu, gpu_memory_gib, sharding: kind of GPU, its memory, and what is divided over them. The job script states
            them; ``accelerate`` and the options below set them up.
        accelerate: configuration file of accelerate, beside the profile or one that comes with SceneRL
            (``recipes/profiles/accelerate/…``); None for a single process, which needs none.
        server_nodes: further machines, all of whose GPUs serve completions with vLLM.
        server_gpus: or GPUs of each training machine that serve in place of training, the last ones. Without rollouts
            by servers they train, and further machines are not needed.
        gpus_per_server: GPUs that a server divides its model over; None: one server per machine.
        cpus_per_gpu: CPU cores to request from SLURM.
        sft, grpo: options of the commands that follow from the machines; they win over the recipe.
    """

    name: str
    nodes: int
    gpus_per_node: int
    gpu: str
    gpu_memory_gib: int
    sharding: Literal["none", "zero2", "zero3", "zero3_offload", "fsdp2"]
    accelerate: Path | None = None
    server_nodes: NonNegativeInt = 0
    server_gpus: NonNegativeInt = 0
    gpus_per_server: PositiveInt | None = None
    cpus_per_gpu: int = 8
    sft: dict[str, Any] = field(default_factory=dict)
    grpo: dict[str, Any] = field(default_factory=dict)

    @property
    def num_gpus(self) -> int:
        """GPUs of the machines that train."""
        return self.nodes * self.gpus_per_node


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
    values["name"] = path.stem
    required = [item.name for item in dataclasses.fields(Profile) if default_of(item) is dataclasses.MISSING]
    if missing := [name for name in required if name not in values]:
        raise UserError(f"{path}: lacks {', '.join(missing)}")
    if values.get("accelerate"):
        beside = path.parent / values["accelerate"]
        values["accelerate"] = beside if beside.is_file() else find_recipe(values["accelerate"])
        if not values["accelerate"].is_file():
            raise UserError(f"{path}: accelerate: there is no file {values['accelerate']}")
    profile = Profile(**values)
    if profile.num_gpus > 1 and profile.accelerate is None:
        raise UserError(f"{path}: accelerate: {profile.num_gpus} processes need a configuration file")
    if profile.server_gpus and profile.server_nodes:
        raise UserError(f"{path}: server_gpus: there are server_nodes; give one of the two")
    if profile.server_gpus >= profile.gpus_per_node:
        raise UserError(f"{path}: server_gpus: {profile.server_gpus} of {profile.gpus_per_node} leave none to train")
    serving = profile.server_gpus or profile.gpus_per_node
    if profile.gpus_per_server and serving % profile.gpus_per_server:
        raise UserError(f"{path}: gpus_per_server: {profile.gpus_per_server} does not divide {serving}")
    return profile


def find_profile(name: str, recipe: Path) -> Profile:
    """The profile of this name or path.

    Raises:
        UserError: there is none of this name; lists those that there are.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        return read_profile(Path(name))
    known = profile_files(recipe)
    if name not in known:
        raise UserError(f"profile {name!r} is not known{near_misses(name, known)}; allowed: {', '.join(known)}")
    return read_profile(known[name])


def profile_files(recipe: Path) -> dict[str, Path]:
    """Name to file of the profiles for a recipe: those beside it or above it, else those that come with SceneRL."""
    for folder in (*Path(recipe).resolve().parents, RECIPES):
        found = {path.stem: path for path in sorted((folder / FOLDER).glob("*.yaml"))} if folder else {}
        if found:
            return found
    return {}
