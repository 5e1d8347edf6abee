"""Every profile trains, with the configuration of its engine as the engine itself reads it."""

from __future__ import annotations

import pytest
import yaml

from engines.launched import ENGINES, PROCESSES, PROFILES, ROOT, scenerl
from training.small_run import read_rows

pytestmark = [pytest.mark.engines, pytest.mark.timeout(1800)]
RECIPES = {
    "1x24gb": "r1_sgg/grpo_qwen2vl2b_psg.yaml",
    "8x24gb": "r1_sgg/grpo_qwen2vl2b_vg150_zero.yaml",
    "4x80gb": "r1_sgg/sft_qwen2vl2b_psg.yaml",
    "16x80gb": "vlm_r1/grpo_qwen25vl3b_d3_od_length_kl0.yaml",
    "16xgh200": "successors/grpo_qwen2vl7b_psg_gspo.yaml",
    "8x80gb_server": "r1_sgg/grpo_qwen2vl2b_vg150.yaml",
    "16xgh200_server": "successors/sft_qwen2vl2b_psg_compact.yaml",
}
"""A recipe of another kind for each."""


def test_every_profile_has_a_recipe():
    assert set(RECIPES) == {path.stem for path in PROFILES.glob("*.yaml")}


@pytest.mark.parametrize("profile", RECIPES)
def test_a_profile_trains(profile, tmp_path):
    """Two steps of a small model, on two processes in place of the profile's, and without vLLM."""
    fields = yaml.safe_load((PROFILES / f"{profile}.yaml").read_text())
    is_one = "accelerate" not in fields
    fields |= {"nodes": 1, "gpus_per_node": 1 if is_one else PROCESSES, "server_nodes": 0, "server_gpus": 0}
    if not is_one:
        fields["accelerate"] = str(PROFILES / fields["accelerate"])
    path = tmp_path / f"{profile}.yaml"
    path.write_text(yaml.safe_dump(fields))
    sets = ["smoke=true", "bf16=true", f"out={tmp_path / 'run'}"]
    if "grpo" in RECIPES[profile]:
        sets += ["use_vllm=false", "similarity=exact"]
    recipe = ROOT / "recipes" / RECIPES[profile]
    done = scenerl("launch", str(recipe), "--profile", str(path), "--set", *sets, cwd=ROOT).require()
    name = next(name for name, _, sharding in ENGINES.values() if sharding == fields["sharding"])
    assert f"trained by: {name}\n" in done.text
    assert [row["step"] for row in read_rows(tmp_path / "run_smoke" / "log.jsonl") if "loss" in row] == [1, 2]


@pytest.mark.parametrize("name, stage", [("zero2", 2), ("zero3_offload", 3)])
def test_deepspeed_reads_what_accelerate_makes_of_a_file(name, stage, monkeypatch):
    from accelerate.commands import launch
    from accelerate.utils import DeepSpeedPlugin
    from deepspeed.runtime.config import DeepSpeedConfig

    words = ["--config_file", str(PROFILES / "accelerate" / f"{name}.yaml"), "--num_processes", "2", "script.py"]
    args, file, _ = launch._validate_launch_command(launch.launch_command_parser().parse_args(words))
    args.deepspeed_fields_from_accelerate_config = ",".join(file.deepspeed_config)
    for key, value in launch.prepare_deepspeed_cmd_env(args)[1].items():
        if key.startswith("ACCELERATE_"):
            monkeypatch.setenv(key, value)
    made = {**DeepSpeedPlugin().deepspeed_config, "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 2}
    made = {key: value for key, value in made.items() if value != "auto"}
    config = DeepSpeedConfig({**made, "bf16": {"enabled": True}})
    assert config.zero_optimization_stage == stage and config.gradient_accumulation_steps == 2
    assert config.zero_config.offload_optimizer.device == ("cpu" if stage == 3 else "none")
    assert config.zero_config.gather_16bit_weights_on_model_save == (stage == 3)
