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
class Server:
    """A server of completions: on which of a job's machines, and on which of its GPUs; counted from 0."""

    node: int
    gpus: range


@dataclass(frozen=True)
class Job:
    """A recipe and a profile that fit together.

    Attributes:
        command: ``sft`` or ``grpo``.
        recipes: files, of which the later wins.
        arguments: the command line after ``scenerl``; the profile's and the user's options win over the recipes.
        options, extra: everything that the command will see.
        servers: vLLM servers to start beside training.
        training_gpus: of each machine that trains, one process each.
        accumulation: batches that each process adds up for an optimiser step.
    """

    command: str
    recipes: tuple[Path, ...]
    profile: Profile
    arguments: list[str]
    options: TrainingOptions
    extra: Extra
    servers: tuple[Server, ...]
    training_gpus: range
    accumulation: int

    @property
    def name(self) -> str:
        return "+".join(recipe.stem for recipe in self.recipes)

    @property
    def num_gpus(self) -> int:
        """Processes that train."""
        return self.profile.nodes * len(self.training_gpus)

    @property
    def nodes(self) -> int:
        """Machines that are needed."""
        return max([self.profile.nodes, *(server.node + 1 for server in self.servers)])

    @property
    def accelerate(self) -> list[str]:
        """accelerate's command line up to what depends on the node; the profile has a configuration file for it."""
        words = ["accelerate", "launch", "--config_file", str(self.profile.accelerate)]
        return [*words, "--num_machines", str(self.profile.nodes), "--num_processes", str(self.num_gpus)]

    def value(self, key: str) -> Any:
        """An option of the command, or a field that was set for TRL; None where nobody set it."""
        return _value(self.options, self.extra, key)


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
    servers = _servers(profile) if _asks_servers(options, extra) else ()
    if len(servers) > 1 and _value(options, extra, "vllm_sync") == "nccl":
        raise UserError(
            f"vllm_sync: nccl reaches one server, and profile {profile.name} has {len(servers)}; allowed: checkpoint, "
            "or adapter with --use_peft"
        )
    training = range(profile.gpus_per_node - (profile.server_gpus if servers else 0))
    accumulation = _accumulation(command, recipes[0], profile, profile.nodes * len(training), options, extra)
    return Job(command, recipes, profile, [command, *words], options, extra, servers, training, accumulation)


def _servers(profile: Profile) -> tuple[Server, ...]:
    """A profile's servers, those of a machine next to each other."""
    gpus = range(profile.gpus_per_node)[-profile.server_gpus :]
    size = profile.gpus_per_server or len(gpus)
    nodes = range(profile.nodes)
    if not profile.server_gpus:
        nodes = range(profile.nodes, profile.nodes + profile.server_nodes)
    return tuple(Server(node, gpus[start : start + size]) for node in nodes for start in range(0, len(gpus), size))


def _asks_servers(options: TrainingOptions, extra: Extra) -> bool:
    """Whether rollouts are sampled by servers, and none are named."""
    is_server = _value(options, extra, "vllm_mode") == "server"
    return is_server and not extra.get("vllm_server_base_url") and _field(extra, "use_vllm", bool, False)


def _value(options: TrainingOptions, extra: Extra, key: str) -> Any:
    return getattr(options, key) if hasattr(options, key) else extra.get(key)


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


def _accumulation(
    command: str, recipe: Path, profile: Profile, processes: int, options: TrainingOptions, extra: Extra
) -> int:
    size = options.global_batch_size
    if size is None:
        raise UserError(f"{recipe}: has no global_batch_size, so that a step would depend on the profile; set it")
    if command == "grpo":
        group = _field(extra, "num_generations", int, DEFAULTS["num_generations"])
        if group < 1:
            raise UserError(f"num_generations: {group} is out of range; allowed: at least 1")
        if size % group:
            raise UserError(f"{recipe}: global_batch_size: {size} completions are no whole groups of {group}")
    try:
        key = "per_device_train_batch_size"
        return accumulation_steps(size, _field(extra, key, int, DEFAULTS[key]), processes)
    except UserError as error:
        raise UserError(f"{recipe} with profile {profile.name}: {error}") from error


def _field(extra: Extra, key: str, kind: type, default: Any) -> Any:
    try:
        return convert(extra.get(key, default), kind, text=True)
    except UserError as error:
        raise UserError(f"{extra.where.get(key)}: {key}: {error}") from error


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
