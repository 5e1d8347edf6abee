"""A recipe on the machines of a profile: which command, with which fields, and whether they go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenerl.config import TRL_CONFIGS, Extra, Options, parse
from scenerl.config.batch import accumulation_steps
from scenerl.errors import UserError
from scenerl.launch.profiles import Profile

DEFAULTS = {
    "per_device_train_batch_size": 8,
    "num_generations": 8,
    "num_train_epochs": 3.0,
    "beta": 0.0,
    "max_completion_length": 512,
}
"""TRL's defaults of the fields that are looked at here; ``tests/launch`` compares them with TRL."""


@dataclass(frozen=True)
class Job:
    """A recipe and a profile that fit together.

    Attributes:
        command: ``sft`` or ``grpo``.
        words: fields of the profile and of the user as a command line; they win over the recipe.
        options, extra: all that the command will see.
    """

    command: str
    recipe: Path
    profile: Profile
    words: tuple[str, ...]
    options: Options
    extra: Extra

    @property
    def name(self) -> str:
        return self.recipe.stem

    @property
    def server_nodes(self) -> int:
        """Machines that serve completions; supervised fine-tuning samples none."""
        return self.profile.server_nodes if self.command == "grpo" else 0

    @property
    def arguments(self) -> list[str]:
        """The command line after ``scenerl``."""
        return [self.command, "--config", str(self.recipe), *self.words]

    def value(self, key: str) -> Any:
        """A field as the command will see it; TRL's default where nobody gave it."""
        if hasattr(self.options, key):
            return getattr(self.options, key)
        default = DEFAULTS.get(key)
        value = self.extra.get(key, default)
        if isinstance(value, str) and isinstance(default, int | float):  # a word of the command line
            return _number(key, value, type(default))
        return value

    @property
    def accumulation(self) -> int:
        """Batches that each process adds up for a step."""
        return check_batch(self)

    def extra_number(self, key: str) -> int:
        """A whole number among TRL's fields; 0 where it is not given or means "no limit"."""
        return max(0, _number(key, self.extra.get(key, 0), int))

    def is_on(self, key: str) -> bool:
        """Whether a field that is yes or no was given as yes."""
        return str(self.value(key)).lower() == "true"


def _number(key: str, value: Any, kind: type) -> Any:
    try:
        return kind(float(value))
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{key}: {value!r} is not a number") from error


def command_of(recipe: Path) -> str:
    """The command a recipe is for, by which its file's name begins.

    Raises:
        UserError: it begins with none.
    """
    command = Path(recipe).stem.split("_")[0]
    if command not in TRL_CONFIGS:
        allowed = ", ".join(f"{name}_….yaml" for name in TRL_CONFIGS)
        raise UserError(f"{recipe}: a recipe's name begins with the command it is for; allowed: {allowed}")
    return command


def make_job(recipe: Path, profile: Profile, sets: Sequence[str] = ()) -> Job:
    """Bring a recipe and a profile together.

    Args:
        sets: ``KEY=VALUE`` each, winning over both.

    Raises:
        UserError: an unknown or wrong field, or a global batch that the profile's processes cannot share.
    """
    recipe = Path(recipe)
    command = command_of(recipe)
    words = _words(profile.fields(command))
    for item in sets:
        key, equals, value = item.partition("=")
        if not equals or not key.isidentifier():
            raise UserError(f"set: {item!r} is not KEY=VALUE")
        words += [f"--{key}={value}"]
    options, extra = parse(command, ["--config", str(recipe), *words])
    job = Job(command, recipe, profile, tuple(words), options, extra)
    check_batch(job)
    return job


def _words(fields: dict[str, Any]) -> list[str]:
    words = []
    for key, value in fields.items():
        texts = value if isinstance(value, list) else [value]
        words += [f"--{key}", *(str(text).lower() if isinstance(text, bool) else str(text) for text in texts)]
    return words


def check_batch(job: Job) -> int:
    """Gradient accumulation of a job.

    Raises:
        UserError: the recipe has no global batch, or the processes cannot share it; GRPO: its groups do not fill it.
    """
    size = job.value("global_batch_size")
    if size is None:
        raise UserError(f"{job.recipe}: has no global_batch_size, so that a step would depend on the profile")
    if job.value("num_generations") < 1:
        raise UserError(f"num_generations: {job.value('num_generations')} is out of range; allowed: at least 1")
    if job.command == "grpo" and size % job.value("num_generations"):
        raise UserError(
            f"{job.recipe}: global_batch_size: {size} completions are no whole groups of {job.value('num_generations')}"
        )
    try:
        return accumulation_steps(size, job.value("per_device_train_batch_size"), job.profile.num_gpus)
    except ValueError as error:
        raise UserError(f"{job.recipe} with profile {job.profile.name}: {error}") from error
