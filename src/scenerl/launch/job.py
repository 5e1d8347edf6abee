"""A recipe on the machines of a profile: which command, with which options, and whether they go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenerl.commands import TRAINING, parse
from scenerl.commands.groups import TrainingOptions
from scenerl.config import Extra
from scenerl.config.batch import accumulation_steps
from scenerl.config.convert import convert
from scenerl.config.recipes import find_recipe
from scenerl.early_checks import check_names
from scenerl.errors import UserError
from scenerl.launch.profiles import Profile

DEFAULTS = {"per_device_train_batch_size": 8, "num_generations": 8}
"""TRL's defaults of the fields that decide the batch; ``tests/launch`` compares them with TRL."""


@dataclass(frozen=True)
class Job:
    """A recipe and a profile that fit together.

    Attributes:
        command: ``sft`` or ``grpo``.
        recipes: files, of which the later wins.
        arguments: the command line after ``scenerl``; the profile's and the user's options win over the recipes.
        options, extra: everything that the command will see.
        accumulation: batches that each process adds up for an optimiser step.
    """

    command: str
    recipes: tuple[Path, ...]
    profile: Profile
    arguments: list[str]
    options: TrainingOptions
    extra: Extra
    accumulation: int

    @property
    def name(self) -> str:
        return "+".join(recipe.stem for recipe in self.recipes)

    @property
    def server_nodes(self) -> int:
        """Machines that serve completions; SFT samples none."""
        return self.profile.server_nodes if self.command == "grpo" else 0

    @property
    def accelerate(self) -> list[str]:
        """accelerate's command line up to what depends on the node; the profile has a configuration file for it."""
        words = ["accelerate", "launch", "--config_file", str(self.profile.accelerate)]
        return [*words, "--num_machines", str(self.profile.nodes), "--num_processes", str(self.profile.num_gpus)]

    def value(self, key: str) -> Any:
        """An option of the command, or a field that was set for TRL; None where nobody set it."""
        return getattr(self.options, key) if hasattr(self.options, key) else self.extra.get(key)


def make_job(recipes: Sequence[Path], profile: Profile, sets: Sequence[str] = ()) -> Job:
    """Bring recipes and a profile together.

    Args:
        recipes: files, of which the later wins; the first names the command.
        sets: ``KEY=VALUE`` each, winning over both.

    Raises:
        UserError: an unknown or wrong option, no global batch, or one that the profile's processes cannot share.
    """
    recipes = tuple(find_recipe(recipe) for recipe in recipes)
    command = command_of(recipes[0])
    words = [word for recipe in recipes for word in ("--config", str(recipe))]
    for key, value in getattr(profile, command).items():
        words += [f"--{key}", *map(_word, value if isinstance(value, list) else [value])]
    for item in sets:
        key, equals, value = item.partition("=")
        if not equals or not key.isidentifier():
            raise UserError(f"set: {item!r} is not KEY=VALUE")
        words += [f"--{key}={value}"]
    options, extra = parse(command, words)
    assert isinstance(options, TrainingOptions)
    check_names(options, extra)
    accumulation = _accumulation(command, recipes[0], profile, options, extra)
    return Job(command, recipes, profile, [command, *words], options, extra, accumulation)


def command_of(recipe: Path) -> str:
    """The command that a recipe is for, by which its file's name begins.

    Raises:
        UserError: it begins with none.
    """
    command = Path(recipe).stem.split("_")[0]
    if command not in TRAINING:
        allowed = ", ".join(f"{name}_….yaml" for name in TRAINING)
        raise UserError(f"{recipe}: a recipe's name begins with the command it is for; allowed: {allowed}")
    return command


def _accumulation(command: str, recipe: Path, profile: Profile, options: TrainingOptions, extra: Extra) -> int:
    size = options.global_batch_size
    if size is None:
        raise UserError(f"{recipe}: has no global_batch_size, so that a step would depend on the profile; set it")
    if command == "grpo":
        group = _number(extra, "num_generations")
        if group < 1:
            raise UserError(f"num_generations: {group} is out of range; allowed: at least 1")
        if size % group:
            raise UserError(f"{recipe}: global_batch_size: {size} completions are no whole groups of {group}")
    try:
        return accumulation_steps(size, _number(extra, "per_device_train_batch_size"), profile.num_gpus)
    except UserError as error:
        raise UserError(f"{recipe} with profile {profile.name}: {error}") from error


def _number(extra: Extra, key: str) -> int:
    try:
        return convert(extra.get(key, DEFAULTS[key]), int, text=True)
    except UserError as error:
        raise UserError(f"{extra.where.get(key)}: {key}: {error}") from error


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
