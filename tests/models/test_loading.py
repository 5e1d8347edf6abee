"""Checkpoints load whole, by their type alone, from safetensors alone; everything else is one clear line."""

from __future__ import annotations

import importlib
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from scenerl import tiny
from scenerl.models import FAMILIES
from scenerl.models.folders import REQUIRED, check_folder
from scenerl.models.loading import family_of, load, weights_digest
from scenerl.models.qwen2_vl import FAMILY, Qwen2VLImageTextProcessor

JSON_FILES = ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"]


def edit(path: Path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refused(name, call=load) -> str:
    with pytest.raises(ValueError) as caught:
        call(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def inputs_of(processor: Qwen2VLImageTextProcessor):
    image = Image.new("RGB", (61, 87), (200, 30, 30))
    message = {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "1 near 2"}]}
    return processor.apply_chat_template(
        [[message]], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )


@torch.no_grad()
def logits_of(model, processor):
    return model.eval()(**inputs_of(processor)).logits


def test_logits_are_the_same_after_saving_and_loading(saved, tmp_path):
    first = load(saved)
    tiny.save(first.model, first.processor, tmp_path / "again")
    second = load(tmp_path / "again")
    assert torch.equal(logits_of(first.model, first.processor), logits_of(second.model, second.processor))
    assert (second.family, second.name) == (FAMILY, str(tmp_path / "again"))


def test_dtype_is_as_asked_or_as_saved(saved):
    assert load(saved).model.dtype == torch.float32
    assert load(saved, dtype="bfloat16").model.dtype == torch.bfloat16


def test_weights_in_several_files_load(saved, tmp_path):
    whole = load(saved)
    whole.processor.save_pretrained(tmp_path)
    whole.model.save_pretrained(tmp_path, max_shard_size="200KB")
    shards = sorted(path.name for path in tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    parts = load(tmp_path)
    assert torch.equal(logits_of(whole.model, whole.processor), logits_of(parts.model, parts.processor))
    (tmp_path / shards[1]).unlink()
    (tmp_path / "tokenizer.json").unlink()
    assert refused(tmp_path).endswith(f"incomplete checkpoint, missing tokenizer.json or vocab.json, {shards[1]}")


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}']
)
def test_an_index_that_cannot_be_read_is_named(folder, content):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    assert "model.safetensors.index.json: " in refused(folder)


def test_the_type_alone_decides_the_family(folder):
    shutil.move(folder, folder.with_name("llava-clip-gpt2"))
    folder = folder.with_name("llava-clip-gpt2")
    edit(folder / "config.json", architectures=["LlavaForConditionalGeneration"], _name_or_path="gpt2")
    assert family_of(folder) is FAMILY
    edit(folder / "config.json", model_type="llava", architectures=["Qwen2VLForConditionalGeneration"])
    shutil.move(folder, folder.with_name("qwen2_vl"))
    message = refused(folder.with_name("qwen2_vl"))
    assert message.endswith(f"model_type 'llava' is not supported; allowed: {', '.join(FAMILIES)}")


def test_a_near_miss_of_a_type_is_pointed_out(folder):
    edit(folder / "config.json", model_type="qwen2-vl")
    assert refused(folder).endswith("did you mean qwen2_vl?")


@pytest.mark.parametrize("content", ["{", "", "[]", '"qwen2_vl"', "\xff", "[" * 100_000])
def test_a_configuration_that_is_no_json_object(folder, content):
    (folder / "config.json").write_bytes(content.encode("latin-1"))
    for call in (load, family_of):
        assert f"{folder / 'config.json'}: not " in refused(folder, call)


def test_every_missing_file_is_named(folder):
    names = [name for group in REQUIRED for name in group if (folder / name).is_file()]
    assert len(names) == len(REQUIRED)
    for name in names[1:]:
        (folder / name).rename(folder / "aside")
        start, missing = refused(folder).split(", missing ")
        assert start == f"{folder}: incomplete checkpoint"
        assert name in missing.split(" or ") and "," not in missing
        (folder / "aside").rename(folder / name)
    check_folder(folder)
    for name in names[1:]:
        (folder / name).unlink()
    message = refused(folder)
    assert all(name in message for name in names[1:])
    (folder / "config.json").unlink()
    assert refused(folder).endswith("no config.json, so this is not a checkpoint folder")


@pytest.mark.parametrize("name", JSON_FILES[1:] + ["preprocessor_config.json"])
@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_json_file_is_named(folder, name, content):
    (folder / name).write_text(content)
    assert f"{folder / name}: not " in refused(folder)


def test_a_json_file_without_what_it_should_hold(folder):
    (folder / "tokenizer.json").write_text("{}")
    assert "cannot be loaded" in refused(folder)


def test_damaged_weights_are_named(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert f"{path}: damaged or cut off" in refused(folder), length
    for content in (b"\xff" * 1000, b"\0" * 1000, whole + b"more"):
        path.write_bytes(content)
        assert f"{path}: damaged or cut off" in refused(folder)


def test_a_model_with_random_parts_is_never_used(folder):
    """transformers would fill what is missing, or has another shape, with noise and go on."""
    text = json.loads((folder / "config.json").read_text())["text_config"]
    text.pop("layer_types", None)
    edit(folder / "config.json", text_config={**text, "num_hidden_layers": 3})
    assert "lack 12 tensors that config.json declares: model.language_model.layers.2." in refused(folder)
    edit(folder / "config.json", text_config={**text, "intermediate_size": 320})
    assert "have another shape in 6 tensors that config.json declares: " in refused(folder)


@pytest.mark.parametrize("value", ["many", None, 7])
def test_a_configuration_with_a_wrong_value(folder, value):
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edit(folder / "config.json", text_config={**text, "num_attention_heads": value})
    assert refused(folder).startswith(f"{folder}: ")


def test_a_tokenizer_that_is_not_the_models(folder):
    checkpoint = load(folder)
    checkpoint.processor.tokenizer.add_tokens(["elephant"])
    checkpoint.processor.save_pretrained(folder)
    count = checkpoint.model.config.text_config.vocab_size
    assert refused(folder).endswith(f"the tokenizer has {count + 1} tokens, but the model knows {count}")


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickled_weights_are_refused(folder, tmp_path):
    exploded = tmp_path / "exploded"
    for name in ("pytorch_model.bin", "model.pt", "training_args.bin"):
        (folder / name).write_bytes(pickle.dumps(Bomb(exploded)))
    load(folder)
    (folder / "model.safetensors").unlink()
    message = refused(folder)
    assert "missing model.safetensors or model.safetensors.index.json" in message
    assert "(model.pt, pytorch_model.bin, training_args.bin: pickled weights are not loaded" in message
    assert not exploded.exists()
    pickle.loads((folder / "model.pt").read_bytes())
    assert exploded.exists()  # the bomb works


def test_weights_in_a_bin_file_load_by_the_flag_alone(folder):
    whole = load(folder)
    torch.save(whole.model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "pytorch_model.bin: pickled weights are not loaded without --allow_pickle" in refused(folder)
    refused(folder, weights_digest)
    again = load(folder, allow_pickle=True)
    assert torch.equal(logits_of(whole.model, whole.processor), logits_of(again.model, again.processor))
    assert weights_digest(folder, allow_pickle=True)


def test_code_in_a_checkpoint_is_never_run(folder, tmp_path):
    exploded = tmp_path / "exploded"
    (folder / "custom.py").write_text(f"open({str(exploded)!r}, 'w').close()\nclass Own: ...\n")
    edit(folder / "config.json", auto_map={"AutoConfig": "custom.Own", "AutoModelForImageTextToText": "custom.Own"})
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["custom.Own", None]})
    load(folder)
    assert not exploded.exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nowhere", "no such folder, and not a hub name (owner/name)"),
        ("./runs/nowhere", "no such folder, and not a hub name (owner/name)"),
        ("/runs/nowhere", "no such folder, and not a hub name (owner/name)"),
        ("a/b/c", "no such folder, and not a hub name (owner/name)"),
        ("", "no such folder, and not a hub name (owner/name)"),
        ("nobody/nothing-2.5-VL", "no such folder, and the hub gives no such model"),
    ],
)
def test_a_name_that_leads_nowhere(name, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if name:
        assert f"model {name!r}: {expected}" in refused(name)
    else:  # the folder we stand in
        assert "no config.json" in refused(name)


def test_a_file_in_place_of_a_folder(folder):
    assert "is a file; give the folder" in refused(folder / "model.safetensors")


def test_a_hub_name_loads_from_the_local_copy(saved, hub_copy):
    """Names with dots are hub names too."""
    checkpoint = load(hub_copy(saved, "owner/small-1.5"))
    assert (checkpoint.name, checkpoint.family) == ("owner/small-1.5", FAMILY)
    assert torch.equal(
        logits_of(checkpoint.model, checkpoint.processor), logits_of(load(saved).model, checkpoint.processor)
    )


def test_a_hub_name_of_an_unsupported_type(folder, hub_copy):
    edit(folder / "config.json", model_type="bert")
    assert "model_type 'bert' is not supported" in refused(hub_copy(folder, "owner/other"))


def test_the_digest_follows_the_weights(saved, folder):
    digest = weights_digest(folder)
    assert digest == weights_digest(saved)
    checkpoint = load(folder)
    with torch.no_grad():
        checkpoint.model.model.language_model.norm.weight.add_(1e-3)
    checkpoint.model.save_pretrained(folder)
    assert weights_digest(folder) != digest
    assert weights_digest("owner/name") is None
    (folder / "model.safetensors").unlink()
    refused(folder, weights_digest)


def test_banned_ids_are_those_of_the_tokens_the_tokenizer_has(saved):
    checkpoint = load(saved)
    tokens = checkpoint.processor.tokenizer.convert_ids_to_tokens(checkpoint.banned_ids)
    assert set(tokens) == set(FAMILY.banned_tokens) - {"<|vision_pad|>"}  # the small tokenizer has no such token
    checkpoint.processor.tokenizer.add_tokens(["<|vision_pad|>"], special_tokens=True)
    tokens = checkpoint.processor.tokenizer.convert_ids_to_tokens(checkpoint.banned_ids)
    assert set(tokens) == set(FAMILY.banned_tokens)
    config = checkpoint.model.config
    assert {config.image_token_id, config.video_token_id, config.vision_start_token_id} <= {*checkpoint.banned_ids}


def test_every_family_says_its_type():
    for model_type, module in FAMILIES.items():
        family = importlib.import_module(module).FAMILY
        assert family.model_type == model_type and family.banned_tokens
