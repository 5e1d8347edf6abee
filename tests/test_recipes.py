"""Every recipe is launched as its first line says, fits every profile, and trains a small model of its family."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from scenerl import cli
from scenerl.commands import options_of, parse
from scenerl.config import load_yaml, resolve_extra
from scenerl.data.vocabulary import Vocabulary
from scenerl.launch.job import command_of, make_job
from scenerl.launch.profiles import find_profile, profile_files
from scenerl.models.output_formats import saved_output_format

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "recipes"
RECIPES = sorted(path for path in FOLDER.rglob("*.yaml") if not {"parts", "profiles"} & set(path.parts))
PUBLISHED = [path for path in RECIPES if path.parent != FOLDER]
NAMES = [path.stem for path in RECIPES]
PROFILES = list(profile_files(FOLDER / "any.yaml"))


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe(path):
    launch, expected = path.read_text(encoding="utf-8").splitlines()[:2]
    assert launch.startswith("# scenerl ") and expected.startswith("# "), "line 1: launch command, line 2: number"
    words = shlex.split(launch.removeprefix("# scenerl "))
    options, _ = parse(words[0], words[1:])
    place = path.relative_to(ROOT).as_posix()
    assert words[0] == command_of(path) or [recipe.as_posix() for recipe in options.recipe] == [place]
    assert place in launch
    published = path.parent.name not in ("recipes", "successors")
    assert re.search(r"\d\.\d", expected) if published else re.search(r"\d\.\d|No published number", expected)
    command = command_of(path)
    options, extra = parse(command, ["--config", str(path)])
    assert path.parent == FOLDER or options.out.as_posix() == f"runs/{path.stem}"
    trl = pytest.importorskip("trl")
    resolve_extra(getattr(trl, options_of(command).trl_config), extra, own=options_of(command))


def test_names_say_what_is_in_them():
    """Of the runs after R1-SGG and VLM-R1: model, data, prompt, start and reward."""
    assert len(NAMES) == len(set(NAMES))
    models = {"qwen2vl2b": "Qwen2-VL-2B", "qwen2vl7b": "Qwen2-VL-7B"}
    for path in (FOLDER / "r1_sgg").glob("*.yaml"):
        command, model, data, *rest = path.stem.split("_")
        options, _ = parse(command, ["--config", str(path)])
        base = f"runs/sft_{model}_{data}{'_open' if 'open' in rest else ''}"
        from_sft = command == "grpo" and "zero" not in rest
        assert options.model == base if from_sft else models[model] in options.model, path.stem
        assert from_sft is False or base.removeprefix("runs/") in NAMES
        assert ("psg" in options.data) == (data == "psg")
        assert (options.vocabulary is None) == ("open" in rest)
        assert options.vocabulary is None or options.vocabulary.name == data
        if command == "grpo":
            reward = {"relax": "relaxed_recall", "soft": "soft_recall"}.get(rest[-1] if rest else "", "hard_recall")
            assert options.rewards == ["format", "node_label", "node_box", reward]
    rewards = {}
    for path in (FOLDER / "vlm_r1").glob("grpo_*.yaml"):
        options, extra = parse("grpo", ["--config", str(path)])
        rewards[options.rewards[-1]] = extra["beta"]
    assert rewards == {"ap": 0.0, "od_length": 0.0, "format": 0.04}  # the last one's first reward is iou


def published_job(path: Path, profile: str, *sets: str):
    """A recipe on a profile. The smallest published batch needs fewer rows at a time on sixteen GPUs than the profile
    has, as its recipe says."""
    found = find_profile(profile, path)
    if path.stem == "grpo_qwen25vl3b_rec" and found.num_gpus == 16:
        sets = (*sets, "per_device_train_batch_size=8")
    return make_job([path], found, sets)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_recipe_fits_every_profile(profile):
    """Options are known, and the processes share the batch; a step is the same on all profiles."""
    for path in PUBLISHED:
        job = published_job(path, profile)
        at_once = int(job.value("per_device_train_batch_size")) * job.num_gpus
        assert at_once * job.accumulation == job.options.global_batch_size
        assert job.command == "sft" or at_once % job.value("num_generations") == 0, "a rollout holds whole groups"


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("command", ["sft", "grpo"])
def test_trl_takes_the_fields_of_recipe_and_profile(profile, command, tmp_path, monkeypatch):
    trl = pytest.importorskip("trl")
    from scenerl.training import setup, vllm_engine

    monkeypatch.setattr(vllm_engine, "check_version", lambda: None)
    config = getattr(trl, options_of(command).trl_config)
    for path in PUBLISHED:
        if command_of(path) != command:
            continue
        job = published_job(path, profile, "bf16=false")  # there is no accelerator here
        monkeypatch.setenv("WORLD_SIZE", str(job.num_gpus))
        more = setup._accumulation(job.options, job.extra, config)
        args, _ = setup.trl_config(config, job.extra, tmp_path, type(job.options), **more)
        assert args.gradient_accumulation_steps == job.accumulation
        for key, value in resolve_extra(config, job.extra).items():
            assert getattr(args, key) == value, key


def smoke(path: Path, folder: Path) -> Path:
    """Two steps of a recipe with a small model of its family; returns the run folder."""
    words = ["--config", str(path), "--smoke", "--out", str(folder / "run")]
    if command_of(path) == "grpo":
        words += ["--similarity", "exact"]  # recipes name a model of spaCy, which need not be installed here
    assert cli.main([command_of(path), *words]) == 0
    return folder / "run_smoke"


KINDS = [
    "r1_sgg/sft_qwen2vl2b_psg.yaml",
    "r1_sgg/grpo_qwen2vl2b_vg150_zero.yaml",
    "vlm_r1/grpo_qwen25vl3b_d3_od_length_kl0.yaml",
    "successors/grpo_qwen2vl7b_psg_gspo.yaml",
]


def assert_two_steps(path: Path, run: Path) -> None:
    """The run of a recipe left a log and a model of the recipe's family with the recipe's output format."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2]
    assert (run / "model.safetensors").is_file()
    job = make_job([path], find_profile("1x24gb", path))
    model_type = json.loads((run / "config.json").read_text())["model_type"]
    assert model_type == ("qwen2_5_vl" if "qwen25vl" in path.stem else "qwen2_vl")
    output_format, options = saved_output_format(run), job.options
    named = Vocabulary.read(options.vocabulary) if options.vocabulary else None
    assert (output_format.format, output_format.template) == (options.format, options.envelope or "plain")
    assert (output_format.objects, output_format.predicates) == (named and named.objects, named and named.predicates)


@pytest.mark.parametrize("name", KINDS)
def test_a_recipe_of_each_kind_trains(name, tmp_path):
    pytest.importorskip("trl")
    assert_two_steps(FOLDER / name, smoke(FOLDER / name, tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_every_recipe_trains(path, tmp_path):
    pytest.importorskip("trl")
    assert_two_steps(path, smoke(path, tmp_path))


@pytest.mark.parametrize(
    "path", sorted((FOLDER / "profiles" / "accelerate").glob("*.yaml")), ids=lambda path: path.stem
)
def test_accelerate_takes_its_configurations(path):
    pytest.importorskip("accelerate")
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.mixed_precision == "bf16"
    assert str(config.distributed_type).rpartition(".")[2] in ("MULTI_GPU", "DEEPSPEED", "FSDP")


@pytest.mark.parametrize("profile", PROFILES)
def test_accelerate_takes_command_and_settings(profile, monkeypatch):
    """accelerate ignores a setting of an engine that it does not know, so that each is looked for in what it makes."""
    accelerate = pytest.importorskip("accelerate")
    from accelerate.commands import launch

    from scenerl.launch.command import local_command

    job = make_job([PUBLISHED[0]], replace(find_profile(profile, PUBLISHED[0]), nodes=1, server_nodes=0))
    command = local_command(job)
    if command[0] != "accelerate":
        assert job.num_gpus == 1
        return
    args = launch.launch_command_parser().parse_args(command[2:])
    assert (args.training_script, args.module, args.num_processes) == ("scenerl", True, job.num_gpus)
    assert args.training_script_args == job.arguments
    known = set(vars(args))
    engine = {"zero2": "deepspeed", "zero3_offload": "deepspeed", "fsdp2": "fsdp"}[job.profile.sharding]
    settings = load_yaml(job.profile.accelerate)[f"{engine}_config"]
    assert set(settings) <= known
    args, *_ = launch._validate_launch_command(args)
    assert {key: getattr(args, key) for key in settings} == settings
    assert {"deepspeed": args.use_deepspeed, "fsdp": args.use_fsdp}[engine] and args.mixed_precision == "bf16"
    if engine == "deepspeed":  # which reads what is made of them: tests/engines
        return
    for key, value in launch.prepare_multi_gpu_env(args).items():
        if key.startswith("FSDP_"):
            monkeypatch.setenv(key, value)
    plugin = accelerate.utils.FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True and plugin.cpu_ram_efficient_loading
    assert "transformer" in plugin.auto_wrap_policy.__name__ and plugin.state_dict_type.name == "FULL_STATE_DICT"


def test_the_documentation_lists_every_recipe_with_its_number():
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for path in RECIPES:
        expected = path.read_text(encoding="utf-8").splitlines()[1].removeprefix("# ")
        assert f"| `{path.stem}` | {expected} |" in text
