"""Profiles and jobs: what is in a file, which file a name means, and what does not go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from scenerl.commands import parse
from scenerl.config.batch import accumulation_steps
from scenerl.launch import command
from scenerl.launch.job import DEFAULTS, command_of, make_job
from scenerl.launch.profiles import find_profile, profile_files, read_profile
from scenerl.launch.servers import server_words

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "r1_sgg" / "grpo_qwen2vl7b_vg150.yaml"
PLAIN = "nodes: 1\ngpus_per_node: 1\ngpu: gh200\ngpu_memory_gib: 96\nsharding: none\n"


@pytest.mark.parametrize(
    "text, said",
    [
        (PLAIN + "gpu_memory_gb: 9\n", "unknown key 'gpu_memory_gb'.*did you mean gpu_memory_gib"),
        (PLAIN.replace("nodes: 1\n", ""), "lacks nodes"),
        (PLAIN.replace("nodes: 1", "nodes: many"), "nodes: 'many': should be a valid integer"),
        (PLAIN.replace("sharding: none", "sharding: zero9"), "sharding: 'zero9'"),
        (PLAIN + "accelerate: gone.yaml\n", "there is no file .*gone.yaml"),
        (PLAIN.replace("gpus_per_node: 1", "gpus_per_node: 2"), "2 processes need a configuration file"),
        ("- a\n", "is not a mapping"),
        (PLAIN + "server_gpus: 1\n", "server_gpus: 1 of 1 leave none to train"),
        (PLAIN + "server_gpus: 1\nserver_nodes: 1\n", "server_gpus: there are server_nodes; give one of the two"),
        (PLAIN + "server_nodes: -1\n", "server_nodes: -1: should be greater than or equal to 0"),
        (PLAIN + "server_nodes: 1\ngpus_per_server: 2\n", "gpus_per_server: 2 does not divide 1"),
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
    path.write_text(f"{PLAIN}accelerate: recipes/profiles/accelerate/ddp.yaml\n")
    assert find_profile(str(path), RECIPE).accelerate.samefile(ROOT / "recipes/profiles/accelerate/ddp.yaml")
    assert set(profile_files(tmp_path / "recipe.yaml")) == set(profile_files(RECIPE))


def test_what_wins(tmp_path):
    """The user over the profile, the profile over the recipe."""
    job = make_job([RECIPE], find_profile("16xgh200", RECIPE))
    assert job.value("per_device_train_batch_size") == "16" and job.accumulation == 1
    job = make_job([RECIPE], find_profile("16xgh200", RECIPE), ["per_device_train_batch_size=4", "beta=0.04"])
    assert job.value("per_device_train_batch_size") == "4" and job.accumulation == 4
    assert job.value("beta") == "0.04" and job.value("num_generations") == 8
    assert job.options.rewards[-1] == "hard_recall"


@pytest.mark.parametrize(
    "sets, said",
    [
        (["per_device_train_batch_size=5"], "256 is no multiple of .* 5 times 16 processes; .*allowed: 1, 2, 4, 8, 16"),
        (["per_device_train_batch_size=0"], "should be greater than 0"),
        (["per_device_train_batch_size=-4"], "should be greater than 0"),
        (
            ["per_device_train_batch_size=few"],
            "per_device_train_batch_size: 'few': should be a valid integer",
        ),
        (["num_generations=0"], "num_generations: '0': should be greater than or equal to 2"),
        (["global_batch_size=20"], "20 completions are no whole groups of 8"),
        (["num_generations"], "set: 'num_generations' is not KEY=VALUE"),
        (["rewards=beauty"], "unknown reward 'beauty'"),
        (["freeze_vison=true"], "no field of GRPOConfig either .did you mean freeze_vision"),
    ],
)
def test_what_does_not_go_together(sets, said):
    profile = find_profile("16x80gb", RECIPE)
    with pytest.raises(ValueError, match=said):
        make_job([RECIPE], profile, sets)


def test_a_recipe_without_a_global_batch(tmp_path):
    path = tmp_path / "sft_mine.yaml"
    path.write_text("model: m\ndata: d.jsonl\nout: o\n")
    with pytest.raises(ValueError, match="has no global_batch_size"):
        make_job([path], find_profile("1x24gb", RECIPE))
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


def test_a_recipe_is_changed_by_another(tmp_path):
    """`launch base.yaml change.yaml`: the later wins, the first names the command, both reach the command line."""
    change = tmp_path / "soft.yaml"
    change.write_text("rewards: [format, soft_recall]\nout: runs/soft\n")
    job = make_job([RECIPE, change], find_profile("16xgh200", RECIPE))
    assert (job.command, job.name) == ("grpo", "grpo_qwen2vl7b_vg150+soft")
    assert job.options.rewards == ["format", "soft_recall"] and job.options.out == Path("runs/soft")
    assert job.arguments[1:5] == ["--config", str(RECIPE), "--config", str(change)]


def test_recipes_and_profiles_that_are_shipped_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "sft_mine.yaml"
    mine.write_text("model: m\ndata: d.jsonl\nout: o\nglobal_batch_size: 16\n")
    assert find_profile("4x80gb", mine).num_gpus == 4
    job = make_job(["recipes/r1_sgg/sft_qwen2vl7b_psg.yaml"], find_profile("4x80gb", mine))
    assert job.options.model == "Qwen/Qwen2-VL-7B-Instruct"


@pytest.mark.parametrize("package, name", [("accelerate", "4x80gb"), ("deepspeed", "8x24gb")])
def test_a_missing_engine_names_its_extra(monkeypatch, package, name):
    """Before anything is started."""
    find = command.importlib.util.find_spec
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda each: None if each == package else find(each))
    monkeypatch.setattr(command.shutil, "which", lambda each: None if each == package else f"/bin/{each}")
    monkeypatch.setattr(command.os, "execvp", lambda *_: pytest.fail("was started"))
    options, _ = parse("launch", [str(RECIPE), "--profile", name, "--set", "use_vllm=false"])
    extra = {"accelerate": "train", "deepspeed": "deepspeed"}[package]
    with pytest.raises(ValueError, match=rf"is not installed; pip install 'scenerl\[{extra}\]'"):
        command.run(options)


def test_servers_run_where_rollouts_ask_for_them():
    """Otherwise their GPUs train, and machines that would serve only are not asked for."""
    recipe = RECIPE.with_name("sft_qwen2vl7b_vg150.yaml")
    profile = find_profile("8x80gb_server", RECIPE)
    job = make_job([RECIPE], profile)
    assert [server.gpus for server in job.servers] == [range(n, n + 1) for n in (4, 5, 6, 7)]
    assert (job.num_gpus, job.accumulation) == (4, 8)
    for sets in (["use_vllm=false"], ["vllm_mode=colocate"], ["vllm_server_base_url=http://other:8000"]):
        job = make_job([RECIPE], profile, sets)
        assert (job.servers, job.num_gpus, job.accumulation) == ((), 8, 4), sets
    job = make_job([recipe], profile)
    assert (job.servers, job.num_gpus, job.accumulation) == ((), 8, 8)
    profile = find_profile("16xgh200_server", RECIPE)
    assert (make_job([RECIPE], profile).nodes, make_job([RECIPE], profile, ["use_vllm=no"]).nodes) == (5, 4)


def test_weights_reach_several_servers_as_files_only():
    profile = find_profile("8x80gb_server", RECIPE)
    with pytest.raises(ValueError, match="vllm_sync: nccl reaches one server, and profile 8x80gb_server has 4"):
        make_job([RECIPE], profile, ["vllm_sync=nccl"])
    job = make_job([RECIPE], profile, ["vllm_sync=adapter", "use_peft=true", "lora_r=65"])
    words = server_words(job, "localhost")
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1" in words and words[words.index("--max-lora-rank") + 1] == "128"
    with pytest.raises(ValueError, match="lora_r: vLLM serves no adapter of rank 513; allowed: at most 512"):
        server_words(make_job([RECIPE], profile, ["vllm_sync=adapter", "lora_r=513"]), "localhost")
