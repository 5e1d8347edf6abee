"""Profiles and jobs: what is in a file, which file a name means, and what does not go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from scenerl.commands import parse
from scenerl.config.batch import accumulation_steps
from scenerl.launch.job import DEFAULTS, command_of, make_job
from scenerl.launch.profiles import find_profile, profile_files, read_profile

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "r1_sgg" / "grpo_qwen2vl7b_vg150.yaml"
PLAIN = "nodes: 1\ngpus_per_node: 1\ngpu: gh200\ngpu_memory_gib: 96\nsharding: none\n"


@pytest.mark.parametrize(
    "text, said",
    [
        (PLAIN + "gpu_memory_gb: 9\n", "unknown key 'gpu_memory_gb'.*did you mean gpu_memory_gib"),
        (PLAIN.replace("nodes: 1\n", ""), "lacks nodes"),
        (PLAIN.replace("nodes: 1", "nodes: many"), "nodes: 'many' is not a whole number"),
        (PLAIN.replace("sharding: none", "sharding: zero9"), "sharding: 'zero9'"),
        (PLAIN + "accelerate: gone.yaml\n", "there is no file .*gone.yaml"),
        (PLAIN.replace("gpus_per_node: 1", "gpus_per_node: 2"), "2 processes need a configuration file"),
        ("- a\n", "is not a mapping"),
    ],
)
def test_what_is_wrong_with_a_profile(tmp_path, text, said):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=said) as error:
        read_profile(path)
    assert str(path) in str(error.value)


def test_profiles_are_found_by_name_or_path(tmp_path):
    assert set(profile_files(RECIPE)) >= {"1x24gb", "8x24gb", "4x80gb", "16x80gb", "16xgh200", "16xgh200_server"}
    assert find_profile("4x80gb", RECIPE).num_gpus == 4
    with pytest.raises(ValueError, match="profile '4x80' is not known .*did you mean 4x80gb"):
        find_profile("4x80", RECIPE)
    path = tmp_path / "mine.yaml"
    path.write_text(PLAIN)
    assert find_profile(str(path), RECIPE).name == "mine"
    with pytest.raises(ValueError, match="no folder 'profiles'"):
        profile_files(tmp_path / "recipe.yaml")


def test_what_wins(tmp_path):
    """The user over the profile, the profile over the recipe."""
    job = make_job(RECIPE, find_profile("16xgh200", RECIPE))
    assert job.value("per_device_train_batch_size") == 16 and job.accumulation == 1
    job = make_job(RECIPE, find_profile("16xgh200", RECIPE), ["per_device_train_batch_size=4", "beta=0.04"])
    assert job.value("per_device_train_batch_size") == 4 and job.accumulation == 4
    assert job.value("beta") == 0.04 and job.value("num_generations") == 8
    assert job.options.rewards[-1] == "hard_recall"


@pytest.mark.parametrize(
    "sets, said",
    [
        (["per_device_train_batch_size=5"], "256 is no multiple of .* 5 times 16 processes; .*allowed: 1, 2, 4, 8, 16"),
        (["per_device_train_batch_size=0"], "256 is no multiple of .* 0 times 16 processes; .*allowed: 1, 2, 4, 8, 16"),
        (["per_device_train_batch_size=-4"], "256 is no multiple of .* -4 times 16 processes"),
        (["per_device_train_batch_size=few"], "per_device_train_batch_size: 'few' is not a number"),
        (["num_generations=0"], "num_generations: 0 is out of range; allowed: at least 1"),
        (["global_batch_size=20"], "20 completions are no whole groups of 8"),
        (["num_generations"], "set: 'num_generations' is not KEY=VALUE"),
        (["rewards=beauty", "freeze_vison=true"], None),  # TRL's fields and rewards are checked by the command itself
    ],
)
def test_what_does_not_go_together(sets, said):
    profile = find_profile("16x80gb", RECIPE)
    if said is None:
        make_job(RECIPE, profile, sets)
        return
    with pytest.raises(ValueError, match=said):
        make_job(RECIPE, profile, sets)


def test_a_recipe_without_a_global_batch(tmp_path):
    path = tmp_path / "sft_mine.yaml"
    path.write_text("model: m\ndata: d.jsonl\nout: o\n")
    with pytest.raises(ValueError, match="has no global_batch_size"):
        make_job(path, find_profile("1x24gb", RECIPE))
    with pytest.raises(ValueError, match="begins with the command"):
        command_of(tmp_path / "my_sft.yaml")


def test_gradient_accumulation():
    assert accumulation_steps(128, 2, 4) == 16
    assert accumulation_steps(8, 8, 1) == 1
    with pytest.raises(ValueError, match="allowed: 1, 2, 4, 8, 16, 32"):
        accumulation_steps(128, 3, 4)
    with pytest.raises(ValueError, match="none: use another number of processes than 3"):
        accumulation_steps(128, 1, 3)


def test_defaults_are_those_of_trl():
    trl = pytest.importorskip("trl")
    for key, value in DEFAULTS.items():
        for fields in (trl.SFTConfig.__dataclass_fields__, trl.GRPOConfig.__dataclass_fields__):
            assert key not in fields or fields[key].default == value, key


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_recipes_build_on_others(tmp_path):
    write(tmp_path / "a.yaml", "model: a\ngrid: 5\nlearning_rate: 1e-5\n")
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep" / "b.yaml", "extends: ../a.yaml\nmodel: b\nformat: compact\n")
    top = write(tmp_path / "c.yaml", "extends: [a.yaml, deep/b.yaml]\nout: o\ndata: d\nformat: json\n")
    options, extra = parse("sft", ["--config", str(top), "--grid", "7"])
    assert (options.model, options.format, options.grid, extra["learning_rate"]) == ("b", "json", 7, 1e-5)
    assert extra.where["learning_rate"] == str(tmp_path / "deep" / ".." / "a.yaml")


@pytest.mark.parametrize(
    "text, said",
    [
        ("extends: gone.yaml\n", "gone.yaml: cannot be read"),
        ("extends: 3\n", "extends: 3 is not a path or a list of paths"),
        ("extends: [a.yaml, 4]\n", "is not a path"),
        ("extends: top.yaml\n", "top.yaml: extends itself"),
        ("extends: b.yaml\n", "extends itself"),
        ("extends: wrong.yaml\n", "wrong.yaml: grid: 'x' is not a whole number"),
    ],
)
def test_recipes_that_cannot_be_built_on(tmp_path, text, said):
    top = write(tmp_path / "top.yaml", text + "model: m\nout: o\ndata: d\n")
    write(tmp_path / "a.yaml", "grid: 1\n")
    write(tmp_path / "b.yaml", "extends: top.yaml\n")
    write(tmp_path / "wrong.yaml", "grid: x\n")
    with pytest.raises(ValueError, match=said):
        parse("sft", ["--config", str(top)])
