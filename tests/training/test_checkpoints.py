"""Going on after a kill: nothing lost, nothing doubled, the same weights in the end."""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import Future
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers.trainer
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import TrainerCallback
from trl import GRPOConfig, SFTConfig

from scenerl import cli
from scenerl.training import sft
from scenerl.training.checkpoints import last_checkpoint
from scenerl.training.datasets import grpo_dataset
from scenerl.training.grpo import SceneGRPOTrainer
from scenerl.training.logs import LogFile, truncate_log
from training.small_run import QUICK, QUICK_GRPO, load_checkpoint, read_rows, words

# Three batches are an epoch: 7 steps end in the middle of one, which is where transformers would train on.
FIELDS = {**QUICK, "max_steps": 7, "save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-3}


def command(base, rows, out, *more) -> list[str]:
    return ["sft", "--model", str(base), "--data", str(rows), "--out", str(out), *words(FIELDS), *more]


def steps(out) -> list[int]:
    return [row["step"] for row in read_rows(out / "log.jsonl") if "loss" in row]


def assert_equal_weights(folder, other):
    a, b = load_file(folder / "model.safetensors"), load_file(other / "model.safetensors")
    assert a.keys() == b.keys()
    assert [key for key in a if not torch.equal(a[key], b[key])] == []


@pytest.fixture(scope="module")
def whole(base, rows, tmp_path_factory):
    """A run that nobody interrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert cli.main(command(base, rows, out, "--muon")) == 0
    return out


class Killed(BaseException):
    """As sudden as a kill, for what runs in this process."""


class KillAt(TrainerCallback):
    """Cuts a run off at the end of a step, or once it has been logged."""

    def __init__(self, step, logged=False):
        self.step = step
        setattr(self, "on_log" if logged else "on_step_end", self.kill)

    def kill(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


def interrupted(monkeypatch, module, step, argv, logged=False) -> None:
    """Run a command that is cut off after ``step`` steps."""
    build = module.build_trainer

    def build_doomed(*args, **settings):
        trainer = build(*args, **settings)
        trainer.add_callback(KillAt(step, logged))
        return trainer

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(module, "build_trainer", build_doomed)
        cli.main(argv)


def test_other_users_can_read_what_a_run_saved(whole, base):
    saved = [*whole.rglob("*.safetensors"), *base.rglob("*.safetensors")]
    assert len(saved) >= 3
    assert {path.stat().st_mode & 0o777 for path in saved} == {(base / "config.json").stat().st_mode & 0o777}


def test_a_run_cut_off_goes_on_as_if_nothing_had_happened(whole, base, rows, tmp_path, capsys, monkeypatch):
    """Real processes are killed in test_preemption.py."""
    out = tmp_path / "run"
    argv = command(base, rows, out, "--muon")
    interrupted(monkeypatch, sft, 5, argv, logged=True)
    capsys.readouterr()
    assert steps(out) == [1, 2, 3, 4, 5]
    assert not (out / "model.safetensors").exists()
    with (out / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # a kill in the middle of a line
    assert cli.main(argv) == 0
    said = capsys.readouterr().err
    assert "4 of 7 steps were done before" in said
    assert said.endswith("run: 7 of 7 steps are done; the model is there\n") and "Loading weights" not in said
    assert steps(out) == steps(whole) == [1, 2, 3, 4, 5, 6, 7]
    assert_equal_weights(out, whole)
    losses, wanted = ([row.get("loss") for row in read_rows(folder / "log.jsonl")] for folder in (out, whole))
    assert losses == wanted


def test_a_finished_run_stays_as_it_is(whole, base, rows, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    log = (out / "log.jsonl").read_text()
    (out / "model.safetensors").unlink()  # killed between the last checkpoint and the final model
    assert cli.main(command(base, rows, out, "--muon")) == 0
    assert "all steps were done before" in capsys.readouterr().err
    assert (out / "log.jsonl").read_text() == log
    assert_equal_weights(out, whole)


def test_a_finished_run_needs_no_engine_to_save_its_model(whole, base, rows, tmp_path, monkeypatch):
    """DeepSpeed has none before training: a run killed before its final save must still be able to finish."""
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    for name in ("model.safetensors", "scenerl.json", "processor_config.json"):
        (out / name).unlink(missing_ok=True)
    monkeypatch.setattr(sft.SceneSFTTrainer, "save_model", lambda *args, **kwargs: pytest.fail("saved by the trainer"))
    assert cli.main(command(base, rows, out, "--muon")) == 0
    assert_equal_weights(out, whole)
    found, wanted = (
        {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".json", ".jinja")}
        for folder in (out, whole)
    )
    assert found == wanted
    assert not list(out.glob("optimizer*")) and not (out / "trainer_state.json").exists()


class FakeApi:
    """Stands in for HfApi: notes the files of every upload at the moment it is requested."""

    def __init__(self):
        self.uploads: list[set[str]] = []

    def create_repo(self, name, **kwargs):
        return SimpleNamespace(repo_id=name)

    def upload_folder(self, folder_path, ignore_patterns=(), **kwargs):
        names = {path.relative_to(folder_path).as_posix() for path in Path(folder_path).rglob("*") if path.is_file()}
        patterns = ignore_patterns or ()
        self.uploads.append({name for name in names if not any(fnmatch(name, pattern) for pattern in patterns)})
        done = Future()
        done.set_result(None)
        return done


@pytest.mark.parametrize("strategy", ["every_save", "end"])
def test_what_is_uploaded_is_whole(base, rows, tmp_path, monkeypatch, strategy):
    api = FakeApi()
    monkeypatch.setattr(transformers.trainer, "hf_api", lambda *args, **kwargs: api)
    out = tmp_path / "run"
    argv = ["sft", "--model", str(base), "--data", str(rows), "--out", str(out), "--push_to_hub", "true"]
    argv += ["--hub_strategy", strategy, *words({**FIELDS, "max_steps": 2, "save_steps": 1})]
    assert cli.main(argv) == 0
    assert len(api.uploads) == (3 if strategy == "every_save" else 1)
    (out / "model.safetensors").unlink()
    assert cli.main(argv) == 0  # killed before the final model was saved
    assert len(api.uploads) == (4 if strategy == "every_save" else 2)
    for names in api.uploads:
        assert {"scenerl.json", "model.safetensors", "README.md", "config.json"} <= names
        assert not any("checkpoint" in name or "unfinished" in name for name in names)


def test_trainers_made_by_hand_save_checkpoints_as_trls_do(checkpoint, conversation, examples, tmp_path):
    fields = {**QUICK_GRPO, "max_steps": 1, "save_strategy": "steps", "save_steps": 1}
    trainer = SceneGRPOTrainer(
        model=checkpoint.model,
        reward_funcs=[lambda completions, **_: [0.5] * len(completions)],
        args=GRPOConfig(output_dir=str(tmp_path), remove_unused_columns=False, **fields),
        train_dataset=grpo_dataset(examples, conversation),
        processing_class=checkpoint.processor,
    )
    trainer.train()
    saved = tmp_path / "checkpoint-1"
    assert (saved / "model.safetensors").is_file() and not (saved / "scenerl.json").exists()


def test_adapters_come_back_in_their_number_type(checkpoint, conversation, examples, tmp_path):
    """QLoRA trains adapters in bfloat16; PEFT loads them in float32."""
    args = SFTConfig(output_dir=str(tmp_path), **{**QUICK, "max_steps": 1})
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    trainer = sft.build_trainer(checkpoint, conversation, examples, args, peft_config=config)
    adapters = {name: value for name, value in trainer.model.named_parameters() if value.requires_grad}
    for value in adapters.values():
        value.data = torch.randn_like(value).to(torch.bfloat16)
    trainer.save_model(str(tmp_path / "saved"))
    before = {name: value.detach().clone() for name, value in adapters.items()}
    for value in adapters.values():
        value.data.zero_()
    trainer._load_from_checkpoint(str(tmp_path / "saved"))
    for name, value in trainer.model.named_parameters():
        if name in before:
            assert value.dtype == torch.bfloat16 and torch.equal(value, before[name])


def overwrite(path: Path, start: int) -> None:
    """As long as before, with other bytes from ``start`` on."""
    content = path.read_bytes()
    path.write_bytes(content[:start] + bytes(len(content) - start))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: os.truncate(folder / "model.safetensors", 5000),
        lambda folder: os.truncate(folder / "optimizer.pt", 5000),
        lambda folder: overwrite(folder / "optimizer.pt", 5000),
        lambda folder: overwrite(folder / "scheduler.pt", 100),
        lambda folder: (folder / "scheduler.pt").write_bytes(b"<html>"),
        lambda folder: (folder / "rng_state.pth").write_bytes(b""),
        lambda folder: os.truncate(folder / "training_args.bin", 10),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (folder / "trainer_state.json").unlink(),
        lambda folder: (folder / "trainer_state.json").write_text('{"global_step": 6, "max_'),
        lambda folder: (folder / "trainer_state.json").write_text("{}"),
        shutil.rmtree,
    ],
)
def test_a_damaged_newest_checkpoint_is_passed_over(whole, tmp_path, damage):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    shutil.rmtree(out / "checkpoint-7")
    (out / "checkpoint-best").mkdir()
    assert last_checkpoint(out) == out / "checkpoint-6"
    damage(out / "checkpoint-6")
    assert last_checkpoint(out) == out / "checkpoint-4"


def test_changed_bytes_of_a_pickle_are_found(whole, tmp_path):
    """They would end in an error of the unpickler; those of a tensor are read as they are."""
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    path = out / "checkpoint-7" / "optimizer.pt"
    path.write_bytes(path.read_bytes().replace(b"exp_avg", b"exp_\xff\xff\xff").replace(b"momentum", b"\xff" * 8))
    assert last_checkpoint(out) == out / "checkpoint-6"


def test_without_a_whole_checkpoint_the_run_ends_in_one_line(whole, base, rows, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    for number in (2, 4, 6, 7):
        os.truncate(out / f"checkpoint-{number}" / "optimizer.pt", 5000)
    before = {path: path.stat().st_size for path in out.glob("checkpoint-*/*")}
    assert cli.main(command(base, rows, out, "--muon")) == 2
    error = capsys.readouterr().err
    assert f"{out / 'checkpoint-2'} is damaged (optimizer.pt: damaged or cut off (" in error
    assert error.rstrip().endswith("and there is no earlier checkpoint; --fresh starts over")
    assert {path: path.stat().st_size for path in out.glob("checkpoint-*/*")} == before


def test_after_damage_the_run_ends_the_same(whole, base, rows, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    for number, name in ((6, "optimizer.pt"), (7, "model.safetensors")):
        os.truncate(out / f"checkpoint-{number}" / name, 100)
    assert cli.main(command(base, rows, out, "--muon")) == 0
    assert steps(out) == [1, 2, 3, 4, 5, 6, 7]
    assert_equal_weights(out, whole)


def test_no_checkpoint_is_a_start(tmp_path):
    assert last_checkpoint(tmp_path) is None
    assert last_checkpoint(tmp_path / "nowhere") is None


def test_grpo_goes_on_too(base, rows, tmp_path, monkeypatch):
    from scenerl.training import grpo

    fields = {**QUICK_GRPO, "max_steps": 5, "save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-3}
    words_of = ["--model", str(base), "--data", str(rows), "--rewards", "cosine_length", "--sample_log_every", "1"]
    argv = ["grpo", "--traceback", *words_of, *words(fields)]
    assert cli.main([*argv, "--out", str(tmp_path / "whole")]) == 0
    interrupted(monkeypatch, grpo, 3, [*argv, "--out", str(tmp_path / "run")])
    assert cli.main([*argv, "--out", str(tmp_path / "run")]) == 0
    for name in ("log.jsonl", "samples.jsonl"):
        wanted, found = (read_rows(tmp_path / folder / name) for folder in ("whole", "run"))
        assert [row["step"] for row in found] == [row["step"] for row in wanted]
    assert found == wanted  # the same completions with the same rewards
    assert_equal_weights(tmp_path / "run", tmp_path / "whole")


def half_a_rollout(processes: int, index: int = 0) -> SceneGRPOTrainer:
    """A trainer after the first of two steps on one rollout, without a model."""
    trainer = object.__new__(SceneGRPOTrainer)
    trainer.args = SimpleNamespace(steps_per_generation=2)
    trainer.num_iterations, trainer._step = 1, 1
    trainer._buffered_inputs = [{"advantages": torch.tensor([0.5])}, {"advantages": torch.tensor([-0.5])}]
    trainer.accelerator = SimpleNamespace(num_processes=processes, process_index=index, device=torch.device("cpu"))
    return trainer


@pytest.mark.parametrize(("processes", "goes_on"), [(2, True), (1, False), (4, False)])
def test_a_rollout_goes_on_in_as_many_processes_only(tmp_path, processes, goes_on):
    for index in range(2):
        half_a_rollout(2, index).save_rollout(tmp_path)
    for index in range(processes):
        trainer = half_a_rollout(processes, index)
        trainer._step, trainer._buffered_inputs = 0, None  # as TRL starts
        trainer.load_rollout(tmp_path)
        assert (trainer._step == 1) == (trainer._buffered_inputs is not None) == goes_on


def test_adapters_go_on_too(base, rows, tmp_path, monkeypatch):
    pytest.importorskip("peft")
    argv = ["sft", "--model", str(base), "--data", str(rows), *words(FIELDS), "--use_peft", "--lora_r", "2"]
    assert cli.main([*argv, "--out", str(tmp_path / "whole")]) == 0
    interrupted(monkeypatch, sft, 5, [*argv, "--out", str(tmp_path / "run")])
    assert cli.main([*argv, "--out", str(tmp_path / "run")]) == 0
    found, wanted = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("run", "whole"))
    assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert any(value.abs().max() > 0 for key, value in found.items() if "lora_B" in key)


def test_what_a_checkpoint_lacks_is_said(whole, tmp_path, caplog):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "checkpoint-7" / "model.safetensors").unlink()
    assert last_checkpoint(out) == out / "checkpoint-6"
    (record,) = caplog.records
    assert "checkpoint-7 is damaged and passed over: " in record.getMessage()
    assert "missing model.safetensors" in record.getMessage()


def test_another_run_is_refused_and_fresh_starts_over(whole, base, rows, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    assert cli.main(command(base, rows, out, "--muon", "--learning_rate", "0.5")) == 2
    error = capsys.readouterr().err
    assert "belongs to another run; differing: learning_rate (0.001 there, 0.5 now)" in error
    assert_equal_weights(out, whole)
    # An option of a later version was its default then; how often it logs and saves changes nothing that is learnt.
    config = out / "config.yaml"
    kept = [line for line in config.read_text().splitlines() if not line.startswith(("freeze_vision:", "lora_r:"))]
    config.write_text("\n".join(kept))
    assert cli.main(command(base, rows, out, "--muon", "--freeze_vision")) == 2
    assert "differing: freeze_vision (False there, True now)" in capsys.readouterr().err
    assert cli.main(command(base, rows, out, "--muon", "--logging_steps", "7", "--save_steps", "5")) == 0
    assert_equal_weights(out, whole)
    assert cli.main(command(base, rows, out, "--fresh", "--max_steps", "1", "--save_strategy", "no")) == 0
    assert steps(out) == [1] and not (out / "checkpoint-2").exists()


def test_a_folder_of_something_else_is_left_alone(base, rows, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("ten years of work")
    assert cli.main(command(base, rows, tmp_path, "--fresh")) == 2
    assert "holds files but no config.yaml" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_weights_that_do_not_fit_are_an_error_not_a_silent_start(whole, checkpoint, conversation, examples, tmp_path):
    """transformers would warn and go on from the initial weights."""
    trainer = sft.build_trainer(checkpoint, conversation, examples, SFTConfig(output_dir=str(tmp_path), **QUICK))
    trainer._load_from_checkpoint(str(whole / "checkpoint-2"))
    loaded = trainer.model.state_dict()
    wanted = load_checkpoint(whole / "checkpoint-2").model.state_dict()
    assert all(torch.equal(loaded[key], wanted[key]) for key in wanted)
    shutil.copytree(whole / "checkpoint-2", tmp_path / "other")
    tensors = load_file(tmp_path / "other" / "model.safetensors")
    from safetensors.torch import save_file

    tensors.pop("model.embed_tokens.weight")  # it serves as lm_head.weight too
    save_file(tensors, tmp_path / "other" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="the weights lack 2 tensors"):
        trainer._load_from_checkpoint(str(tmp_path / "other"))


def test_rows_that_will_be_written_again_are_taken_back(tmp_path):
    path = tmp_path / "log.jsonl"
    truncate_log(path, 3)
    assert not path.exists()
    path.write_text('{"step": 1}\n{"step": 2, "train_runtime": 9}\n{"step": 2}\n{"step": 3}\n{"step": 2, "x": tru')
    truncate_log(path, 3)
    assert read_rows(path) == [{"step": 1}, {"step": 2}]
    path.write_text('{"step": 1}\n[]\n{"step": 2}\n')
    truncate_log(path, 9)
    assert read_rows(path) == [{"step": 1}]


def test_the_log_is_strict_json(tmp_path):
    class State:
        is_world_process_zero, global_step = True, 4

    LogFile(tmp_path).on_log(None, State, None, logs={"loss": float("nan"), "grad_norm": float("inf"), "epoch": 1.5})
    (row,) = read_rows(tmp_path / "log.jsonl")
    assert (row["step"], row["loss"], row["grad_norm"], row["epoch"]) == (4, None, None, 1.5)
    assert json.loads(Path(tmp_path / "log.jsonl").read_text()) == row
