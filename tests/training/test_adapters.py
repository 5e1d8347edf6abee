"""LoRA: what is trained, what is saved, and that an adapter folder is a model like any other."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file, save_file

from hub_cache import fill_cache
from scenerl import cli, tiny
from scenerl.commands import parse
from scenerl.errors import UserError
from scenerl.models.loading import base_of, family_of, load, weights_digest
from scenerl.training import adapters, setup
from training.small_run import QUICK, QUICK_GRPO, SHAPE, STYLE, read_rows, words

LORA = ["--use_peft", "--lora_r", "4", "--lora_dropout", "0", "--learning_rate", "0.05"]
SFT = ["--format", "compact", "--grid", "20"]


@pytest.fixture(scope="module")
def adapter(base, rows, tmp_path_factory):
    """Folder of a run of two steps of SFT with LoRA."""
    out = tmp_path_factory.mktemp("lora") / "run"
    command = ["sft", "--model", str(base), "--data", str(rows), "--out", str(out), *SFT, *LORA]
    assert cli.main([*command, *words({**QUICK, "save_strategy": "steps", "save_steps": 1})]) == 0
    return out


@pytest.fixture
def folder(adapter, tmp_path):
    """A copy of the adapter that a test may break."""
    keep = shutil.ignore_patterns("checkpoint-*")
    return shutil.copytree(adapter, tmp_path / "adapter", ignore=keep)


def weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def test_only_adapters_of_the_language_model_are_trained_and_saved(adapter, base):
    assert not (adapter / "model.safetensors").exists() and (adapter / "scenerl.json").is_file()
    saved = weights(adapter)
    assert len(saved) == 2 * 7 * 2  # A and B of seven linear layers in each of two blocks
    assert all("language_model.layers." in name for name in saved) and all(value.any() for value in saved.values())
    assert {value.shape[0] for name, value in saved.items() if "lora_A" in name} == {4}
    assert base_of(adapter) == str(base) and family_of(adapter) is family_of(base)


def test_an_adapter_is_merged_for_prediction_and_beside_the_weights_for_training(adapter, base):
    merged, beside, plain = load(adapter).model, load(adapter, trainable=True).model, load(base).model
    assert isinstance(beside, PeftModel) and not isinstance(merged, PeftModel)
    trained = [name for name, value in beside.named_parameters() if value.requires_grad]
    assert len(trained) == 28 and all("lora_" in name for name in trained)
    ids = {"input_ids": torch.tensor([[10, 11, 12, 13]])}
    with torch.no_grad():
        logits = [model.eval()(**ids).logits for model in (merged, beside, plain)]
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-4)
    assert (logits[0] - logits[2]).abs().max() > 1e-2
    changed = {name for name, value in merged.named_parameters() if not torch.equal(value, plain.get_parameter(name))}
    assert len(changed) == 14 and all(name.endswith("_proj.weight") for name in changed)


def test_predict_and_grpo_take_the_folder_and_grpo_trains_the_adapter_on(adapter, rows, tmp_path, caplog):
    out = tmp_path / "predictions.jsonl"
    predict = ["predict", "--model", str(adapter), "--data", str(rows), "--out", str(out), "--limit", "2"]
    assert cli.main([*predict, "--max_new_tokens", "4"]) == 0
    assert [row["image_id"] for row in read_rows(out)] == ["image-0", "image-1"]
    run = tmp_path / "rl"
    command = [
        "grpo",
        "--model",
        str(adapter),
        "--data",
        str(rows),
        "--out",
        str(run),
        "--rewards",
        "format",
        "box_count",
    ]
    fields = {**QUICK_GRPO, "beta": 0.1, "learning_rate": 1e-2, "temperature": 2.0, "max_completion_length": 4}
    assert cli.main([*command, "--use_peft", *words({**fields, "gradient_checkpointing": True})]) == 0
    assert "prompts are run once per completion" not in caplog.text
    assert weights(run).keys() == weights(adapter).keys()
    log = read_rows(run / "log.jsonl")
    assert log[0]["kl"] == pytest.approx(0, abs=1e-5)  # the reference is the adapter as it was, not the base model
    assert base_of(run) == base_of(adapter)
    load(run)


def test_a_run_goes_on_from_its_last_adapter(adapter, base, rows, tmp_path):
    """Two steps, killed after the first and started again, end with the same weights."""
    run = tmp_path / "run"
    command = ["sft", "--model", str(base), "--data", str(rows), "--out", str(run), *SFT, *LORA]
    argv = [*command, *words({**QUICK, "save_strategy": "steps", "save_steps": 1})]
    shutil.copytree(adapter, run)
    shutil.rmtree(run / "checkpoint-2")
    (run / "adapter_model.safetensors").unlink()
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace(str(adapter), str(run)))
    assert cli.main(argv) == 0
    found, wanted = weights(run), weights(adapter)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_the_digest_follows_adapter_and_base(folder, base, tmp_path):
    digest = weights_digest(folder)
    other = shutil.copytree(base, tmp_path / "base")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(other)}))
    assert weights_digest(folder) == digest
    saved = load_file(other / "model.safetensors")
    save_file({name: value + 1 for name, value in saved.items()}, other / "model.safetensors", {"format": "pt"})
    assert weights_digest(folder) != digest


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda f: (f / "adapter_config.json").write_text("{"), "adapter_config.json: not JSON"),
        (lambda f: (f / "adapter_config.json").write_text("{}"), "base_model_name_or_path"),
        (lambda f: edit(f, base_model_name_or_path="runs/gone away"), "base model 'runs/gone away' is no folder"),
        (lambda f: edit(f, base_model_name_or_path=str(f)), "is an adapter itself"),
        (lambda f: edit(f, peft_type="PROMPT_TUNING"), "peft_type 'PROMPT_TUNING' is not supported; allowed: LORA"),
        (lambda f: edit(f, r=8), "does not fit its base model"),
        (lambda f: edit(f, target_modules=["q_proj"]), "not those of its configuration"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"\0" * 40), "damaged or cut off"),
        (lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"), "training_args.bin: pickled"),
        (lambda f: (f / "config.json").write_text('{"model_type": "qwen2_vl"}'), "keep one of them"),
        (lambda f: spoil(f), "values that are no numbers"),
    ],
)  # fmt: skip
def test_a_damaged_adapter_is_one_line(folder, damage, said):
    damage(folder)
    with pytest.raises(ValueError, match=said) as caught:
        load(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def edit(folder, **values) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def spoil(folder) -> None:
    saved = weights(folder)
    save_file({name: value * float("nan") for name, value in saved.items()}, folder / "adapter_model.safetensors")


def options(*argv: str):
    return parse("sft", ["--model", "m", "--data", "d.jsonl", "--out", "o", *argv])[0]


def test_options_become_pefts_configuration(checkpoint, conversation):
    provided = options(
        "--use_peft", "--lora_r", "2", "--lora_alpha", "6", "--use_rslora", "--lora_modules_to_save", "merger"
    )
    config = adapters.lora_config(provided, checkpoint)
    assert (config.r, config.lora_alpha, config.use_rslora, config.modules_to_save) == (2, 6, True, ["merger"])
    assert config.target_modules == checkpoint.family.lora_targets
    assert adapters.lora_config(options(), checkpoint) is None
    everything = options("--use_peft", "--lora_target_modules", "all-linear")
    assert adapters.lora_config(everything, checkpoint).target_modules == "all-linear"
    wrong = options("--use_peft", "--lora_target_modules", "q_proj", "w_pack")
    with pytest.raises(ValueError, match="lora_target_modules: no module of .* is called w_pack"):
        adapters.lora_config(wrong, checkpoint)


@pytest.mark.parametrize(
    "argv, said",
    [
        (["--load_in_4bit"], "load_in_4bit: quantised weights cannot be trained themselves; add --use_peft"),
        (["--load_in_4bit", "--load_in_8bit", "--use_peft"], "only one of them"),
        (["--load_in_8bit", "--use_peft"], r"bitsandbytes is not installed; pip install 'scenerl\[qlora\]'"),
        (["--lora_r", "0", "--use_peft"], "lora_r: '0': should be greater than 0"),
        (["--lora_rank", "4"], "did you mean .*lora_r"),
    ],
)
def test_mistakes_are_found_before_the_data_are_read(base, tmp_path, capsys, monkeypatch, argv, said):
    find = adapters.importlib.util.find_spec
    monkeypatch.setattr(
        adapters.importlib.util, "find_spec", lambda name: None if name == "bitsandbytes" else find(name)
    )
    row = {"image_id": "1", "file_name": "1.png", "width": 64, "height": 64, "objects": [], "relationships": []}
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "images" / "1.png")
    (tmp_path / "broken.jsonl").write_text(json.dumps(row) + "\n{}\n")  # only the first row is looked at
    command = ["sft", "--model", str(base), "--data", str(tmp_path / "broken.jsonl"), "--out", str(tmp_path / "run")]
    assert cli.main([*command, *argv]) == 2
    error = capsys.readouterr().err
    assert re.search(said, error), error


def test_quantised_weights_are_those_of_the_options():
    provided = options("--load_in_4bit", "--use_peft", "--dtype", "bfloat16", "--use_bnb_nested_quant")
    config = adapters.quantization(provided)
    assert config.load_in_4bit and config.bnb_4bit_use_double_quant and config.bnb_4bit_quant_type == "nf4"
    assert config.bnb_4bit_compute_dtype == torch.bfloat16
    assert adapters.quantization(options("--load_in_8bit", "--use_peft")).load_in_8bit
    assert adapters.quantization(options()) is None


def test_qlora(examples, rows, tmp_path):
    """Where bitsandbytes is there: 4-bit weights, adapters on them, an adapter like any other."""
    pytest.importorskip("bitsandbytes")
    base = tmp_path / "base"  # of layers as wide as the blocks in which weights are quantised
    tiny.create(base, examples, STYLE, replace(SHAPE, vision_width=64))
    out = tmp_path / "run"
    command = ["sft", "--model", str(base), "--data", str(rows), "--out", str(out), *SFT, *LORA, "--load_in_4bit"]
    assert cli.main([*command, *words(QUICK)]) == 0
    assert len(weights(out)) == 28
    load(out)
    if not torch.cuda.is_available():  # on CPUs bitsandbytes packs weights when it first evaluates, then cannot train
        return
    run = tmp_path / "rl"
    command = ["grpo", "--model", str(out), "--data", str(rows), "--out", str(run), "--load_in_4bit"]
    assert cli.main([*command, *words(QUICK_GRPO)]) == 0
    assert weights(run).keys() == weights(out).keys()


@pytest.mark.parametrize("flags", [[], ["--trust_remote_code"], ["--allow_pickle"]])
def test_code_and_pickles_need_their_flags(base, rows, tmp_path, monkeypatch, flags):
    provided = {}

    def note(name, dtype, **settings):
        provided.update(settings)
        raise UserError("enough")

    monkeypatch.setattr(setup, "load", note)
    command = ["sft", "--model", str(base), "--data", str(rows), "--out", str(tmp_path / "run")]
    assert cli.main([*command, *flags]) == 2
    for name in ("trust_remote_code", "allow_pickle"):
        assert provided[name] == (f"--{name}" in flags)


def test_pickled_adapters_of_the_hub_need_their_flag(adapter, tmp_path, monkeypatch):
    """PEFT takes adapter_model.bin where a repository has no safetensors."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert load(fill_cache(tmp_path / "cache", adapter, "owner/lora")).name == "owner/lora"
    pickled = shutil.copytree(adapter, tmp_path / "pickled")
    torch.save(load_file(pickled / "adapter_model.safetensors"), pickled / "adapter_model.bin")
    (pickled / "adapter_model.safetensors").unlink()
    name = fill_cache(tmp_path / "cache", pickled, "owner/pickled")
    with pytest.raises(ValueError, match=r"^owner/pickled: has no adapter_model\.safetensors, and pickled weights are"):
        load(name)
    again = load(name, allow_pickle=True).model.state_dict()
    assert all(torch.equal(value, again[key]) for key, value in load("owner/lora").model.state_dict().items())
