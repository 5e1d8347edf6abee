"""Estimates: parameters of the real shapes, operations and activations of small models, and what a table says."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from scenerl import cli
from scenerl.launch.costs import layer_bytes, lora_parameters
from scenerl.launch.job import make_job
from scenerl.launch.memory import memory
from scenerl.launch.plan import estimate, train_flops
from scenerl.launch.profiles import find_profile
from scenerl.launch.sizes import GPUS, MODELS
from scenerl.launch.tokens import model_size, tokens_of

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes" / "r1_sgg"
GRPO, SFT = RECIPES / "grpo_qwen2vl7b_vg150.yaml", RECIPES / "sft_qwen2vl7b_vg150.yaml"

RELEASED = {
    "Qwen/Qwen2-VL-2B-Instruct": 2_208_985_600,
    "Qwen/Qwen2-VL-7B-Instruct": 8_291_375_616,
    "Qwen/Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "Qwen/Qwen2.5-VL-7B-Instruct": 8_292_166_656,
}
"""Parameters that the hub counts in the released safetensors files."""


@pytest.fixture(scope="module")
def bench():
    pytest.importorskip("transformers")
    sys.path.insert(0, str(ROOT / "bench"))
    try:
        import plan

        yield plan
    finally:
        sys.path.remove(str(ROOT / "bench"))


def job_of(recipe: Path, profile: str, *sets: str, **changed):
    return make_job(recipe, replace(find_profile(profile, recipe), **changed), sets)


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_those_of_the_architecture(bench, name):
    size = MODELS[name]
    model = bench.build(size, device="meta")
    assert size.parameters == sum(parameter.numel() for parameter in model.parameters()) == RELEASED[name]
    assert size.vision_parameters == sum(parameter.numel() for parameter in model.model.visual.parameters())
    assert model.config.model_type == size.model_type


@pytest.mark.parametrize("name", ["small", "wide 2.5"])
def test_operations_and_activations_are_those_of_small_models(bench, name):
    size = bench.SIZES[name]
    forward, backward = bench.counted_flops(size, 160)
    assert forward == pytest.approx(bench.formula_flops(size, 160), rel=0.12)
    assert backward == pytest.approx(2 * forward, rel=0.1)
    assert bench.kept_per_layer(size, 160) == pytest.approx(layer_bytes(size, 160, 4), rel=0.1)


def test_parameters_of_adapters(bench):
    peft = pytest.importorskip("peft")
    from scenerl.models.qwen2_vl import FAMILY

    size = bench.SIZES["small"]
    model = peft.get_peft_model(bench.build(size), peft.LoraConfig(r=4, target_modules=FAMILY.lora_targets))
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert lora_parameters(size, 4) == trained


def test_published_times():
    """R1-SGG's README: SFT on four A100 takes about 4 hours (2B) and 10 (7B). An estimate is good to a third."""
    for model, hours in (("2b", 4), ("7b", 10)):
        job = job_of(RECIPES / f"sft_qwen2vl{model}_vg150.yaml", "4x80gb")
        assert estimate(job, 0.4).hours == pytest.approx(hours, rel=0.34)


def test_steps_are_the_data_over_the_batch():
    assert estimate(job_of(SFT, "4x80gb"), 0.4).steps == 3 * (56_224 // 128)
    assert estimate(job_of(GRPO, "16xgh200"), 0.4).steps == 56_224 // 32
    assert estimate(job_of(GRPO, "16xgh200", "max_steps=5"), 0.4).steps == 5
    assert estimate(job_of(GRPO, "16xgh200", "limit=320"), 0.4).steps == 10


def test_time_follows_gpus_and_efficiency():
    job = job_of(SFT, "16xgh200")
    once, twice = estimate(job, 0.2), estimate(job, 0.4)
    assert once.train_hours == pytest.approx(2 * twice.train_hours)
    half = job_of(SFT, "16xgh200", nodes=2)
    assert estimate(half, 0.4).train_hours == pytest.approx(2 * twice.train_hours, rel=1e-6)


def test_a_shared_prompt_saves_operations():
    shared, single = job_of(GRPO, "16xgh200"), job_of(GRPO, "16xgh200", "shared_prefix=off")
    size, tokens = model_size(shared), tokens_of(shared)
    # 8 answers of 524 tokens behind one prompt of 1,643, and behind eight; the image is read once, and eight times
    assert (tokens.prompt + tokens.image, tokens.answer) == (1643, 524)
    ratio = train_flops(single, size, tokens) / train_flops(shared, size, tokens)
    assert (8 * 2167) / (1643 + 8 * 524) < ratio < 8


def test_memory_by_hand():
    """ZeRO-2 on 16 GPUs: all weights in 16 bits, a sixteenth of gradients in 16 bits and of 12 bytes of optimiser."""
    job = job_of(GRPO, "16xgh200")
    found = memory(job, model_size(job), tokens_of(job))
    count = 8_291_375_616 * 1.1 / 2**30
    assert found["weights"] == pytest.approx(2 * count)
    assert found["gradients"] == pytest.approx(2 * count / 16)
    assert found["optimiser"] == pytest.approx(12 * count / 16)
    assert found["vLLM"] == pytest.approx(0.2 * 96)
    assert "vLLM" not in memory(job_of(GRPO, "16xgh200_server"), model_size(job), tokens_of(job))
    reference = memory(job_of(GRPO, "16xgh200", "beta=0.04"), model_size(job), tokens_of(job))
    assert reference["reference model"] == pytest.approx(2 * count)


def test_the_most_memory_is_needed_where_nothing_is_divided():
    totals = {}
    for sharding in ("none", "zero2", "zero3", "zero3_offload"):
        job = job_of(SFT, "16xgh200", sharding=sharding)
        totals[sharding] = sum(memory(job, model_size(job), tokens_of(job)).values())
    assert totals["none"] > totals["zero2"] > totals["zero3"] > totals["zero3_offload"]


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*/*qwen*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_fits_where_it_is_launched(recipe):
    """On the profile of its first line, and with QLoRA on one card of 24 GB."""
    words = recipe.read_text().splitlines()[0].split()
    for name in (words[words.index("--profile") + 1], "1x24gb"):
        profile = find_profile(name, recipe)
        assert profile.gpu in GPUS
        found = estimate(make_job(recipe, profile), 0.4)
        assert 1 < sum(found.memory.values()) < profile.gpu_memory_gib
        assert found.hours > 0


def test_the_table(capsys):
    assert cli.main(["plan", str(GRPO), "--set", "global_batch_size=512"]) == 0
    text = capsys.readouterr().out
    assert "16xgh200" in text and "878" in text and "docs/plan.md" in text
    assert cli.main(["plan", str(GRPO), "--profile", "4x80gb", "--set", "vllm_gpu_memory_utilization=0.9"]) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[4] == "no"


@pytest.mark.parametrize(
    "sets, said",
    [
        (["model=mine/unknown"], "no shape of model 'mine/unknown' is known; allowed: Qwen/Qwen2-VL-2B-Instruct"),
        (["data=mine.jsonl"], "how many images mine.jsonl has is not known"),
        (["max_steps=soon"], "max_steps: 'soon' is not a number"),
    ],
)
def test_what_cannot_be_estimated(capsys, sets, said):
    assert cli.main(["plan", str(GRPO), "--set", *sets]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
