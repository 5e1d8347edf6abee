"""``--smoke``: what is replaced in a run and what is not; the recipes' own smoke runs are in tests/test_recipes.py."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from scenerl import cli, tiny
from scenerl.answers import OutputFormat
from scenerl.commands import parse
from scenerl.config import plain
from scenerl.launch.job import make_job
from scenerl.launch.profiles import find_profile
from scenerl.models.loading import family_named
from scenerl.models.output_formats import saved_output_format
from scenerl.training import smoke
from training.small_run import SHAPE, STYLE, read_rows


@pytest.fixture
def small(monkeypatch):
    """Models of a hundred thousand weights."""
    monkeypatch.setattr(tiny, "TinyShape", lambda **sizes: replace(SHAPE, **sizes))


def options_of(command: str, *words: str):
    return parse(command, ["--model", "tiny", "--data", "d.jsonl", "--out", "runs/x", *words])


@pytest.mark.parametrize(("asked", "done"), [(0, 0), (250, 2)])
def test_a_warm_up_is_short_too(asked, done):
    shrunk, _ = smoke.shrink(*options_of("sft", "--smoke", "--tiny_warmup_steps", str(asked)))
    assert shrunk.tiny_warmup_steps == done


def test_other_runs_stay_as_they_are():
    options, extra = options_of("sft", "--max_steps", "70")
    assert smoke.shrink(options, extra) == (options, extra) and smoke.shrink(options, extra)[0] is options


def test_only_sizes_data_and_places_change(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    more = ["--beta", "0.04", "--use_peft", "--rewards", "format", "triplet_f1", "--max_pixels", "401408"]
    words = ["--max_steps", "70", "--push_to_hub", "true", "--gradient_accumulation_steps", "9", "--limit", "2", *more]
    options, extra = options_of("grpo", *words, "--smoke")
    shrunk, fields = smoke.shrink(options, extra)
    changed = {key for key, value in plain(shrunk).items() if value != plain(options)[key]}
    assert changed == {"out", "fresh", "limit", "global_batch_size", "max_pixels"}
    assert (shrunk.out.as_posix(), shrunk.global_batch_size) == ("runs/x_smoke", 12)
    assert len(smoke.draw_examples(shrunk, OutputFormat())) == 12
    assert fields["beta"] == "0.04" and fields["max_steps"] == 2 and fields["push_to_hub"] is False
    assert "gradient_accumulation_steps" not in fields


def test_detection_has_queries():
    options, _ = smoke.shrink(*options_of("sft", "--smoke"))
    assert all(example.query for example in smoke.draw_examples(options, OutputFormat("detections")))
    assert not any(example.query for example in smoke.draw_examples(options, OutputFormat()))


@pytest.mark.parametrize("name", ["json", "detections"])
def test_drawn_examples_use_the_vocabulary(name):
    options, _ = smoke.shrink(*options_of("sft", "--smoke"))
    output_format = OutputFormat(name, objects=("man", "dog"), predicates=("on",))
    examples = smoke.draw_examples(options, output_format)
    for example in examples:
        assert {item.label for item in example.graph.objects} <= {*(example.query or ("man", "dog"))}
        assert {edge.predicate for edge in example.graph.relations} <= {"on"}
    assert any(example.graph.relations for example in examples) == (name == "json")
    (example, *_) = smoke.draw_examples(options, OutputFormat(objects=("man",), predicates=()))
    assert example.graph.relations == () and {item.label for item in example.graph.objects} == {"man"}


def test_a_checkpoint_at_hand_keeps_its_output_format(examples, tmp_path, small):
    """Of a family that no recipe has; the run's own folder is not touched, and a second smoke run starts over."""
    base, out = tmp_path / "base", tmp_path / "run"
    output_format = replace(STYLE, box_format=family_named("qwen3_vl").box_format, template="think")
    tiny.create(base, examples, output_format, SHAPE, model_type="qwen3_vl")
    for _ in range(2):
        command = ["sft", "--model", str(base), "--data", "none.jsonl", "--out", str(out), "--smoke"]
        assert cli.main(command) == 0
    assert not out.exists()
    made = tmp_path / "run_smoke"
    assert saved_output_format(made) == output_format
    assert json.loads((made / "config.json").read_text())["model_type"] == "qwen3_vl"
    assert [row["step"] for row in read_rows(made / "log.jsonl") if "loss" in row] == [1, 2]


def test_without_a_family_there_is_no_small_model(tmp_path, capsys):
    for model, message in (
        ("nothing", "no such folder, and not a hub name"),
        ("tiny:gpt", "no small model of family 'gpt'; allowed: qwen2_vl"),
    ):
        command = ["grpo", "--model", model, "--data", "none.jsonl", "--out", str(tmp_path / "run"), "--smoke"]
        assert cli.main(command) == 2
        assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_launch_can_be_a_smoke_run():
    from test_recipes import FOLDER

    recipe = FOLDER / "r1_sgg" / "sft_qwen2vl2b_psg.yaml"
    job = make_job([recipe], find_profile("4x80gb", recipe), ["smoke=true"])
    assert job.options.smoke and "--smoke=true" in job.arguments
