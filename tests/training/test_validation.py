"""Validation while a model trains: numbers as of `predict` and `eval`, training as without it, the best checkpoint."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import load_file
from transformers import TrainerCallback
from trl import SFTConfig

from scenerl import cli
from scenerl.report.curves import curve_groups, read_log
from scenerl.training import sft, validation
from scenerl.training.mixture import Part
from scenerl.training.validation import Validation, check_metric, sampled, warn_of_overlap
from scenerl.types import SceneGraph
from training.processes import run
from training.small_run import QUICK, QUICK_GRPO, read_rows, words, write_rows

BEST = {"metric_for_best_model": "triplet_f1", "load_best_model_at_end": "true"}
LEARN = {**QUICK, "max_steps": 40, "per_device_train_batch_size": 6, "learning_rate": 5e-3, "logging_steps": 20}
TIMES = ("time", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")


def sft_words(base, rows, out, **fields) -> list[str]:
    fields = {**QUICK, "save_strategy": "steps", "save_steps": 1, "max_steps": 5, **fields}
    return ["sft", "--model", str(base), "--data", str(rows), "--out", str(out), *words(fields)]


def evaluations(out) -> list[dict]:
    rows = [row for row in read_rows(out / "log.jsonl") if "eval_failure_rate" in row]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


@pytest.fixture(scope="module")
def taught(base, rows, tmp_path_factory):
    """A run with validation on its own training images, at the end of which most answers are right."""
    out = tmp_path_factory.mktemp("taught") / "run"
    fields = {**LEARN, "save_strategy": "steps", "save_steps": 20}
    more = ["--muon", "--eval_data", str(rows), "--eval_max_new_tokens", "60"]
    assert cli.main([*sft_words(base, rows, out, **fields, **BEST), *more]) == 0
    return out


@pytest.fixture
def scripted(monkeypatch):
    """Values of triplet_f1 by step, in place of those of answers."""
    values = {}

    def metrics(self, trainer):
        value = values[trainer.state.global_step]
        return {"failure_rate": 0.5} | ({} if value is None else {"triplet_f1": value})

    monkeypatch.setattr(Validation, "metrics", metrics)
    return values


class Killed(BaseException):
    pass


class KillAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


def killed_at(monkeypatch, step, argv):
    build = sft.build_trainer

    def build_doomed(*args, **settings):
        trainer = build(*args, **settings)
        trainer.add_callback(KillAt(step))
        return trainer

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(sft, "build_trainer", build_doomed)
        cli.main(argv)


def test_the_numbers_are_those_of_predict_and_eval(taught, rows, tmp_path):
    first, last = evaluations(taught)
    assert (first["step"], last["step"]) == (20, 40) and last["eval_triplet_f1"] > first["eval_triplet_f1"]
    for row in (first, last):
        pred, metrics = tmp_path / f"{row['step']}.jsonl", tmp_path / f"{row['step']}.json"
        model = str(taught / f"checkpoint-{row['step']}")
        predict = ["predict", "--model", model, "--data", str(rows), "--out", str(pred), "--max_new_tokens", "60"]
        assert cli.main(predict) == 0
        assert cli.main(["eval", str(pred), "--data", str(rows), "--out", str(metrics), "--resamples", "0"]) == 0
        found = {name: entry["value"] for name, entry in json.loads(metrics.read_text())["metrics"].items()}
        logged = {key.removeprefix("eval_"): value for key, value in row.items() if key.startswith("eval_")}
        shared = logged.keys() & found.keys()
        assert {"failure_rate", "Recall", "mRecall", "triplet_f1", "AP50", "R@50"} <= shared
        assert {name: logged[name] for name in shared} == pytest.approx({name: found[name] for name in shared})
        assert logged["loss"] > 0
    charts = curve_groups([("SFT", 0, read_log(taught / "log.jsonl"))])[0]
    assert "Triplet F1 on validation images" in {curve.title for curve in charts.shown}


@pytest.mark.parametrize("command", ["sft", pytest.param("grpo", marks=pytest.mark.slow)])
def test_training_does_not_notice_it(taught, rows, tmp_path, command):
    """The same losses, rewards, gradients and weights with it and without; dropout draws random numbers."""
    fields = {**(QUICK_GRPO if command == "grpo" else QUICK), "max_steps": 3, "learning_rate": 1e-3}
    fields |= {"use_peft": "true", "lora_dropout": 0.5}
    if command == "grpo":
        fields |= {"generation_kwargs": '{"no_repeat_ngram_size": 2}', "max_completion_length": 40}
    logs = []
    for name, more in (("with", ["--eval_data", str(rows), "--eval_steps", "1"]), ("without", [])):
        out = tmp_path / name
        line = [command, "--model", str(taught), "--data", str(rows), "--out", str(out), *words(fields), *more]
        assert cli.main(line) == 0
        kept = [row for row in read_rows(out / "log.jsonl") if "loss" in row]
        logs.append([{k: v for k, v in row.items() if k not in ("time", "step_time")} for row in kept])
    assert logs[0] == logs[1] and len(logs[0]) == 3
    assert len(evaluations(tmp_path / "with")) == 3
    a, b = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("with", "without"))
    assert all(a[key].equal(b[key]) for key in a)


@pytest.mark.parametrize("shared_prefix", ["on", pytest.param("off", marks=pytest.mark.slow)])
def test_grpo_validates_greedily_whatever_its_rollouts_are(taught, rows, tmp_path, shared_prefix):
    """It starts with the model that SFT left: before the first step the numbers are those of SFT's validation."""
    fields = {**QUICK_GRPO, "max_steps": 1, "temperature": 5.0, "eval_on_start": "true", "max_completion_length": 60}
    more = ["--eval_data", str(rows), "--eval_steps", "1", "--shared_prefix", shared_prefix]
    out = tmp_path / "run"
    line = ["grpo", "--model", str(taught), "--data", str(rows), "--out", str(out), *words(fields), *more]
    assert cli.main(line) == 0
    start, end = evaluations(out)
    assert (start["step"], end["step"]) == (0, 1)
    best = max(evaluations(taught), key=lambda row: row["eval_triplet_f1"])
    shared = [key for key in start if key.startswith("eval_") and "loss" not in key]
    assert {key: start[key] for key in shared} == pytest.approx({key: best[key] for key in shared})
    trained = [row for row in read_rows(out / "log.jsonl") if "loss" in row]
    assert "reward" in trained[0] and not any(key.startswith("eval_") for key in trained[0])


def test_the_best_checkpoint_is_the_final_model(base, rows, tmp_path, scripted):
    scripted |= {1: 0.2, 2: 0.7, 3: 0.1, 4: None, 5: 0.6}
    out = tmp_path / "run"
    argv = [*sft_words(base, rows, out, save_total_limit=1, **BEST), "--eval_data", str(rows)]
    assert cli.main(argv) == 0
    state = json.loads((out / "checkpoint-5" / "trainer_state.json").read_text())
    assert (state["best_global_step"], state["best_metric"]) == (2, 0.7)
    assert Path(state["best_model_checkpoint"]) == out / "checkpoint-2"
    assert sorted(path.name for path in out.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-5"]
    final, best = load_file(out / "model.safetensors"), load_file(out / "checkpoint-2" / "model.safetensors")
    assert all(final[key].equal(best[key]) for key in final | best)
    last = load_file(out / "checkpoint-5" / "model.safetensors")
    assert not all(final[key].equal(last[key]) for key in final)
    # A run that was killed before it had saved the final model finishes with the same.
    (out / "model.safetensors").unlink()
    assert cli.main(argv) == 0
    again = load_file(out / "model.safetensors")
    assert all(again[key].equal(best[key]) for key in best)


def test_a_killed_run_keeps_the_same_best_and_goes_on_counting(base, rows, tmp_path, scripted, monkeypatch, capsys):
    scripted |= {1: 0.2, 2: 0.7, 3: 0.1, 4: 0.7, 5: 0.3, 6: 0.9, 7: 1.0}
    out = tmp_path / "run"
    more = ["--eval_data", str(rows), "--early_stopping_patience", "3"]
    argv = [*sft_words(base, rows, out, max_steps=7, **BEST), *more]
    killed_at(monkeypatch, 4, argv)
    moved = tmp_path / "moved"
    out.rename(moved)
    argv = [*sft_words(base, rows, moved, max_steps=7, **BEST), *more]
    assert cli.main(argv) == 0
    # 3, 4 and 5 are no better than 2: it stops at 5, before the better ones.
    assert [row["step"] for row in evaluations(moved)] == [1, 2, 3, 4, 5]
    final, best = load_file(moved / "model.safetensors"), load_file(moved / "checkpoint-2" / "model.safetensors")
    assert all(final[key].equal(best[key]) for key in best)
    capsys.readouterr()
    before = (moved / "log.jsonl").read_text()
    assert cli.main(argv) == 0
    assert "5 of 7 steps were done before" in capsys.readouterr().err
    assert (moved / "log.jsonl").read_text() == before


@pytest.mark.parametrize("name, greater", [("eval_failure_rate", False), ("triplet_f1", True), ("eval_loss", None)])
def test_the_metric_says_which_direction_is_better(examples, conversation, tmp_path, name, greater):
    args = SFTConfig(output_dir=str(tmp_path), metric_for_best_model=name, greater_is_better=None, **QUICK)
    args.greater_is_better = None
    parts = [Part("test", examples, conversation)]
    check_metric(args, {}, parts)
    assert args.greater_is_better is greater
    check_metric(args, {"greater_is_better": True}, parts)
    assert args.greater_is_better is greater


@pytest.mark.parametrize(
    "given, said",
    [
        ({"metric_for_best_model": "triplet_f"}, "'triplet_f' is no metric of the validation (did you mean triplet_f1"),
        ({"metric_for_best_model": "zR@50"}, "'zR@50' is no metric of the validation"),
        (
            {"metric_for_best_model": "NMS-AP"},
            "'NMS-AP' is no metric of the validation: it is not computed for task sg",
        ),
        ({"metric_for_best_model": "triplet_recall"}, "'triplet_recall' has no value on bare: no target relations"),
        ({"metric_for_best_model": "objects_per_image"}, "neither more nor less is better; give greater_is_better"),
        ({"early_stopping_patience": 2}, "early_stopping_patience: add --load_best_model_at_end true"),
        ({"eval_data": None, "eval_steps": 2}, "eval_steps: needs validation data; give --eval_data"),
        ({"eval_data": "nowhere.jsonl"}, "nowhere.jsonl"),
        (
            {"metric_for_best_model": "Recall", "eval_steps": 3, "load_best_model_at_end": "true"},
            "to be a round multiple of the evaluation",
        ),
    ],
)
def test_mistakes_are_found_before_training(base, rows, tmp_path, capsys, given, said):
    bare = tmp_path / "bare.jsonl"
    held_out = [{**row, "relationships": [], "file_name": str(rows.parent / "images" / row["file_name"])}
                for row in read_rows(rows)]  # fmt: skip
    write_rows(bare, held_out)
    given = {"eval_data": bare, **given}
    line = sft_words(base, rows, tmp_path / "run", **{key: value for key, value in given.items() if value is not None})
    assert cli.main(line) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].count(said) == 1
    assert not (tmp_path / "run").exists()


def test_grpo_has_no_loss_to_keep_the_best_by(base, rows, tmp_path, capsys):
    fields = {**QUICK_GRPO, "save_strategy": "steps", "load_best_model_at_end": "true", "eval_data": rows}
    line = ["grpo", "--model", str(base), "--data", str(rows), "--out", str(tmp_path / "run"), *words(fields)]
    assert cli.main(line) == 2
    assert "metric_for_best_model: 'loss' is no metric of the validation" in capsys.readouterr().err


def test_images_that_are_trained_on_are_counted(examples, caplog):
    a, b, c, d = examples[:4]
    other = replace(d, image=Path("/elsewhere/3.png"), graph=SceneGraph())
    copied = replace(b, image=b"the same image in a table")
    complete = replace(c, image_id="c", graph=SceneGraph(), image=c.image.parent / ".." / "images" / c.image.name)
    assert warn_of_overlap("test.jsonl", [copied, complete, other], [a, b, c, d]) == 2
    assert "test.jsonl: 2 of 3 validation images are in the training data" in caplog.text
    caplog.clear()
    assert warn_of_overlap("test.jsonl", [other], [a, b, c, d]) == 0 and not caplog.records


def test_the_sample_is_fixed(examples):
    many = [replace(examples[0], image_id=str(number)) for number in range(50)]
    chosen = [int(example.image_id) for example in sampled(many, 10)]
    assert chosen == sorted(set(chosen)) == [int(example.image_id) for example in sampled(many, 10)]
    assert len(chosen) == 10 and chosen != list(range(10))
    assert sampled(many, 0) == sampled(many, 50) == sampled(many, 99) == many


def test_vllm_is_asked_for_greedy_answers_and_gets_its_settings_back(checkpoint, conversation, examples):
    """Its engine samples at temperature 0 without the rollouts' limits and grammar; bans stay."""
    before = {"temperature": 0.9, "top_p": 0.5, "top_k": 3, "min_p": 0.1, "repetition_penalty": 1.2}
    before["max_completion_length"] = 99
    engine = SimpleNamespace(**before, generation_kwargs={"logit_bias": {7: -100.0}, "structured_outputs": {}})
    seen = []

    def single_turn(prompt_ids, images, fields, num_generations):
        seen.append({**vars(engine), "prompts": prompt_ids, "images": images, "num_generations": num_generations})
        return [[1, 2]] * len(prompt_ids), None

    trainer = SimpleNamespace(
        vllm_generation=engine, _generate_single_turn=single_turn, _tokenize_prompts=lambda prompts: (prompts, 1, {})
    )
    held_out = Validation([Part("", examples[:2], conversation)], checkpoint, 24)
    assert validation._vllm_answers(trainer, held_out, examples[:2]) == [[1, 2], [1, 2]]
    (asked,) = seen
    assert [asked[key] for key in (*before, "num_generations")] == [0.0, 1.0, 0, 0.0, 1.0, 24, 1]
    assert asked["generation_kwargs"] == {"logit_bias": {7: -100.0}}
    assert vars(engine) == {**before, "generation_kwargs": {"logit_bias": {7: -100.0}, "structured_outputs": {}}}
    assert [part["type"] for part in asked["prompts"][0][0]["content"]] == ["image", "text"]


@pytest.mark.slow
def test_a_smoke_run_validates_too(base, rows, tmp_path):
    line = sft_words(base, rows, tmp_path / "run", max_steps=9, **BEST)
    assert cli.main([*line, "--eval_data", "nowhere.jsonl", "--smoke"]) == 0
    assert [row["step"] for row in evaluations(tmp_path / "run_smoke")] == [1, 2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_find_what_one_finds(taught, rows, tmp_path):
    """Five images in two processes: three each, one of them answered twice and counted once."""
    script = Path(__file__).with_name("validated.py")
    for count in (1, 2):
        codes, errors = run(count, script, taught, rows, tmp_path / str(count))
        assert codes == [0] * count, errors[0][-2000:]
    one = json.loads((tmp_path / "1" / "found_0.json").read_text())
    first, second = (json.loads((tmp_path / "2" / f"found_{rank}.json").read_text()) for rank in (0, 1))
    assert len(one["answered"]) == 5 and len(first["answered"]) == len(second["answered"]) == 3
    assert {*first["answered"], *second["answered"]} == {*one["answered"]}
    metrics = [key for key in one["found"] if key not in ("eval_loss", "eval_entropy", "eval_mean_token_accuracy",
                                                          "eval_num_tokens", "epoch")]  # fmt: skip
    assert "eval_triplet_f1" in metrics and one["found"]["eval_triplet_f1"] > 0
    assert {key: one["found"][key] for key in metrics} == {key: first["found"][key] for key in metrics}
    assert {key: first["found"][key] for key in metrics} == {key: second["found"][key] for key in metrics}
