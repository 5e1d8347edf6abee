"""Trivial mistakes end a command before torch is imported."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from scenerl.commands import parse
from scenerl.config.convert import choices, convert
from scenerl.config.options import field_types
from scenerl.config.trl_fields import _CLOSED, fields_in_source
from scenerl.early_checks import check_trackers, check_training
from scenerl.errors import UserError

ROW = {"image_id": "1", "file_name": "1.png", "width": 8, "height": 8, "objects": [], "relationships": []}
SFT = "sft --model tiny --out o --data rows.jsonl"
GRPO = "grpo --model m --out o --data rows.jsonl"
MISTAKES = {
    "sft --model tiny --out o --data nope.jsonl": "nope.jsonl: cannot be read",
    "sft --model tiny --out o --data row.jsonl": "row.jsonl: cannot be read (No such file or directory) (did you mean",
    "sft --model tiny --out o --data rows.json": "(did you mean rows.jsonl?)",
    "sft --model tiny --out o --data image/rows.jsonl": "(did you mean images",
    "sft --model bse --out o --data rows.jsonl": "(did you mean base?)",
    "sft --model tiny --out o --data coco:nope.json,query=all": "coco:nope.json,query=all: there is no file",
    "sft --model tiny --out o --data coc:nope.json": "did you mean coco",
    "sft --model tiny --out o --data relations.jsonl": "'relationships' is missing (is it 'relations'?)",
    "sft --model tiny --out o --data box.jsonl": "objects[0] lacks 'bbox' (is it 'box'?)",
    "sft --model tiny --out o --data no_image.jsonl": "2.png",
    "sft --model nope --out o --data rows.jsonl": "model 'nope': no such folder",
    "sft --model tiny --out images --data rows.jsonl": "images: holds files but no config.yaml",
    "sft --model base --out o --data detection.jsonl": "detection.jsonl: is annotated for detection, and json writes",
    "predict --model base --out p.jsonl --data detection.jsonl": "add --format detections",
    f"{SFT} --format gemini": "format: gemini is only read; models are trained in json, compact, detections, toon",
    f"{SFT} --lr 1e-5": "unknown option 'lr', no field of SFTConfig either (did you mean learning_rate",
    f"{SFT} --bs 4": "did you mean global_batch_size",
    f"{SFT} --learning_rate fast": "learning_rate: 'fast': should be a valid number",
    f"{SFT} --config typo.yaml": "typo.yaml: unknown option 'fromat'",
    f"{SFT} --format jsn": "(did you mean json?)",
    f"{SFT} --vocabulary vg15": "vg15",
    f"{SFT} --boxes nope.json --task sgcls": "boxes: there is no file nope.json",
    f"{SFT} --loss_type dtf": "loss_type: 'dtf': should be 'dft' or 'nll' (did you mean dft?)",
    f"{SFT} --lr_scheduler_type constnt": "(did you mean constant, cosine?)",
    f"{SFT} --optim adamw": "(did you mean adamw_8bit, adamw_torch, adamw_bnb_8bit?)",
    f"{GRPO} --temperature 0": "temperature: '0': should be greater than 0",
    f"{GRPO} --top_p 1.5": "top_p: '1.5': should be less than or equal to 1",
    f"{GRPO} --num_generations 1": "num_generations: '1': should be greater than or equal to 2",
    f"{GRPO} --beta -1": "beta: '-1': should be greater than or equal to 0",
    f"{GRPO} --loss_type grop": "(did you mean grpo?)",
    f"{GRPO} --importance_sampling_level seq": "should be 'sequence' or 'token'",
    f"{GRPO} --scale_rewards grup": "(did you mean group?)",
    f"{SFT} --report_to tensorbord": "'tensorbord' is not known (did you mean tensorboard?)",
    f"{GRPO} --rewards hard_recal": "unknown reward 'hard_recal' (did you mean hard_recall",
    f"{GRPO} --rewards nope.py:mine": "there is no file",
    f"{GRPO} --reward_weights 1 2": "2 weights for 4 rewards",
    f"{GRPO} --predicate_counts nope.json": "predicate_counts: there is no file nope.json",
    GRPO: "model 'm': no such folder",
    "predict rows.jsonl --model base": "rows.jsonl: is no image; a data set is given as --data rows.jsonl",
    "predict nope.jpg --model base": "nope.jpg: no image there",
    "predict --model base --data nope.jsonl --out p.jsonl": "nope.jsonl: cannot be read",
    "predict --model nope --data rows.jsonl --out p.jsonl": "model 'nope': no such folder",
    "app nope": "model 'nope': no such folder",
    "export nope --out e": "model 'nope': no such folder",
    "launch sft_mine.yaml --profile 1x24gb --print --set lr=1": "did you mean learning_rate",
    "launch grpo_mine.yaml --profile 1x24gb --print --set rewards=fromat": "(did you mean format?)",
}
SCRIPT = """
import io, json, sys
from contextlib import redirect_stderr
from scenerl.cli import main
for line in json.load(sys.stdin):
    with redirect_stderr(io.StringIO()) as said:
        code = main(line.split())
    print(json.dumps([code, said.getvalue(), [name for name in ("torch", "trl") if name in sys.modules]]))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    Image.new("RGB", (8, 8)).save("images/1.png")
    relations = {key: value for key, value in ROW.items() if key != "relationships"} | {"relations": []}
    box = ROW | {"objects": [{"id": "dog.1", "box": [0, 0, 4, 4]}]}
    rows = {"rows": ROW, "relations": relations, "box": box, "no_image": ROW | {"file_name": "2.png"}}
    rows["detection"] = {key: ROW[key] for key in list(ROW)[:4]} | {"detections": [], "query": ["dog"]}
    for name, row in rows.items():
        Path(f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    Path("typo.yaml").write_text("fromat: json\n")
    for command in ("sft", "grpo"):
        Path(f"{command}_mine.yaml").write_text("model: m\ndata: d\nout: o\nglobal_batch_size: 8\n")
    return tmp_path


def test_mistakes_are_found_without_torch(folder):
    pytest.importorskip("trl")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps(list(MISTAKES)), capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    for (words, expected), line in zip(MISTAKES.items(), done.stdout.splitlines(), strict=True):
        code, said, imported = json.loads(line)
        assert code == 2 and expected in said and said.count("\n") == 1, (words, said)
        assert not imported, (words, imported)


def test_correct_options_pass(folder):
    for words in (
        [*SFT.split(), "--learning_rate", "1e-5"],
        ["sft", "--model", "owner/name", "--out", "o", "--data", "hub:owner/rows"],
        ["sft", "--model", "nope", "--out", "o", "--data", "nope.jsonl", "--smoke"],
        ["sft", "--model", "tiny", "--out", "o", "--data", "box.jsonl", "--skip_bad"],
        ["grpo", "--model", "base", "--out", "o", "--data", "rows.jsonl", "--report_to", "none"],
        ["grpo", "--model", "base", "--out", "o", "--data", "rows.jsonl", "--scale_rewards", "false"],
        ["grpo", "--model", "base", "--out", "o", "--data", "detection.jsonl", "--task", "det"],
        ["sft", "--model", "tiny", "--out", "o", "--data", "detection.jsonl", "--format", "detections"],
    ):
        check_training(*parse(words[0], words[1:]))
    assert not Path("o").exists()


def test_trackers(monkeypatch):
    monkeypatch.setattr("scenerl.early_checks.find_spec", lambda name: None)
    with pytest.raises(UserError, match="wandb is not installed: pip install wandb, or --report_to none"):
        check_trackers(["none", "wandb"])
    for name in (None, "none", "all", "azure_ml"):
        check_trackers(name)
    monkeypatch.setattr("scenerl.early_checks.find_spec", lambda name: name == "tensorboardX")
    check_trackers("tensorboard")


@pytest.mark.parametrize("name", ["SFTConfig", "GRPOConfig"])
def test_fields_in_the_source_are_those_of_the_class(name):
    trl = pytest.importorskip("trl")
    read, true = field_types(fields_in_source(name)), field_types(getattr(trl, name))
    assert read.keys() == true.keys()
    assert all(read[key] == true[key] for key in ("learning_rate", "max_steps", "report_to", "fp16"))
    assert all(choices(read[key]) == choices(true[key]) for key in ("lr_scheduler_type", "optim", "save_strategy"))
    for field in dataclasses.fields(getattr(trl, name)):
        if field.name in _CLOSED:
            convert(field.default, read[field.name])


def test_without_trl_fields_are_not_checked(folder, monkeypatch):
    monkeypatch.setattr("scenerl.early_checks.fields_in_source", lambda name: None)
    check_training(*parse("sft", [*SFT.split()[1:], "--lr", "1"]))
