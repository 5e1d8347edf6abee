"""Options: conversion, recipes, command lines, near misses, TRL's fields, run folders."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scenerl import runs
from scenerl.commands import COMMANDS, options_of, parse
from scenerl.commands.demo import DemoOptions
from scenerl.commands.eval import EvalOptions
from scenerl.commands.grpo import GRPOOptions
from scenerl.commands.score import ScoreOptions
from scenerl.config import Extra, dump_yaml, load_yaml, plain, resolve_extra
from scenerl.config.convert import convert
from scenerl.config.options import BoxFormatName, FormatName, TemplateName


class Schedule(Enum):
    LINEAR = "linear"
    COSINE = "cosine"


@dataclass
class TrainerConfig:
    """Field types as TRL's configuration classes have them."""

    learning_rate: float = 1e-6
    max_steps: int = -1
    bf16: bool | None = None
    use_cpu: bool = False
    shuffle: bool = True
    report_to: None | str | list[str] = None
    reward_weights: list[float] | None = None
    lr_scheduler_type: Schedule | str = "linear"
    model_init_kwargs: dict[str, Any] | str | None = None
    loss_type: str = "dapo"
    mode: Literal["server", "colocate"] = "colocate"
    hidden: int = field(default=0, init=False)


def write(folder: Path, text: str, name: str = "recipe.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("value", "kind", "text", "expected"),
    [
        ("5", int, True, 5),
        ("-1", int, True, -1),
        ("1e-5", float, True, 1e-5),
        (3, float, False, 3.0),
        (4.0, int, False, 4),
        ("true", bool, True, True),
        ("No", bool, True, False),
        ("none", int | None, True, None),
        (None, Path | None, False, None),
        ("a/b", Path, False, Path("a/b")),
        (["1", "2"], list[int], True, [1, 2]),
        ("1", list[float] | None, True, [1.0]),
        ("[1, 2.5]", list[float], True, [1.0, 2.5]),
        ([1, 2], list[float], False, [1.0, 2.0]),
        ("none", None | str | list[str], True, "none"),
        (["wandb", "tensorboard"], None | str | list[str], True, ["wandb", "tensorboard"]),
        ('{"a": [1]}', dict | str | None, True, {"a": [1]}),
        ("deepspeed.json", dict | str | None, True, "deepspeed.json"),
        ({"a": 1}, dict[str, Any] | str | None, False, {"a": 1}),
        ({"logit_bias": {7: -100}}, dict | str | None, False, {"logit_bias": {7: -100}}),
        (1e4, list[int], False, [10000]),
        ("cosine", Schedule | str, True, "cosine"),
        ("colocate", Literal["server", "colocate"], True, "colocate"),
        ("2024", str, True, "2024"),
    ],
)
def test_convert(value, kind, text, expected):
    converted = convert(value, kind, text)
    assert converted == expected and type(converted) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind", "text", "said"),
    [
        ("five", int, True, "'five': should be a valid integer"),
        ("5", int, False, "'5': should be a valid integer"),
        (True, int, False, "True: should be a valid integer"),
        (1.5, int, False, "1.5: should be a valid integer"),
        (float("inf"), int, False, "inf: should be a valid integer"),
        ("nan", float, True, "'nan': should be a number"),
        (["1", "nan"], list[float], True, "should be a number"),
        (True, float, False, "True: should be a valid number"),
        (2024, str, False, "put it in quotes"),
        ("yes", bool, False, "'yes': should be a valid boolean"),
        (None, int, False, "None: should be a valid integer"),
        ("jsn", Literal["json", "compact"], True, "'jsn': should be 'json' or 'compact'"),
        ("cosin", Schedule | str, True, "'cosin': should be 'linear' or 'cosine'"),
        ([1, "x"], list[int], False, "'x': should be a valid integer"),
        ({"a": 1}, list[str], False, "should be a valid array"),
        ('{"a": }', dict | str, True, "is not JSON"),
        ("", Path, True, "'': should be a path"),
    ],
)
def test_convert_refuses_with_what_is_allowed(value, kind, text, said):
    with pytest.raises(ValueError, match=".*") as error:
        convert(value, kind, text)
    assert said in str(error.value)


def test_command_line_fills_every_kind_of_option():
    words = (
        "rows.jsonl --format compact --iou-threshold=0.7 --one_to_one --rewards format ap50 --out o.jsonl --no-strict"
    )
    options, extra = parse("score", words.split())
    assert options == ScoreOptions(
        rows=Path("rows.jsonl"),
        format="compact",
        iou_threshold=0.7,
        one_to_one=True,
        rewards=["format", "ap50"],
        out=Path("o.jsonl"),
    )
    assert extra == {}


def test_a_flag_does_not_swallow_a_positional():
    options, _ = parse("score", ["--strict", "rows.jsonl"])
    assert options.strict and options.rows == Path("rows.jsonl")


def test_a_list_may_stand_first_or_be_given_in_parts():
    expected = [Path("a"), Path("b"), Path("c")]
    for words in ("a b c --seed 1", "--run a b --seed 1 --run c", "a --run b c --seed 1", "--run=a --run=b --run=c"):
        assert parse("report", words.split())[0].run == expected, words
    assert parse("report", ["a"])[0].run == [Path("a")]
    assert parse("report", ["--data", "d", "--metrics", "m"])[0].run == []


def test_command_line_wins_over_recipe_and_recipe_over_defaults(tmp_path):
    recipe = write(tmp_path, "data: a.jsonl\nks: [1, 5]\nresamples: 10\nplus_one: true\n")
    options, _ = parse("eval", ["pred.jsonl", "--config", str(recipe), "--resamples", "20"])
    assert options == EvalOptions(pred=Path("pred.jsonl"), data="a.jsonl", ks=[1, 5], resamples=20, plus_one=True)


def test_own_options_and_trl_fields_are_told_apart(tmp_path):
    recipe = write(tmp_path, "model: m\ndata: d\nout: o\nlearning_rate: 1e-5\nreport_to: none\n")
    options, extra = parse(
        "grpo", ["--config", str(recipe), "--max-steps", "3", "--reward_weights", "1", "2", "--bf16"]
    )
    assert options == GRPOOptions(model="m", data="d", out=Path("o"))
    assert resolve_extra(TrainerConfig, extra, own=GRPOOptions) == {
        "learning_rate": 1e-5,
        "report_to": "none",
        "max_steps": 3,
        "reward_weights": [1.0, 2.0],
        "bf16": True,
    }


def test_negated_and_json_trl_fields():
    _, extra = parse(
        "sft",
        ["--model", "m", "--data", "d", "--out", "o", "--no-shuffle", "--model_init_kwargs", '{"dtype": "float32"}'],
    )
    assert resolve_extra(TrainerConfig, extra) == {"shuffle": False, "model_init_kwargs": {"dtype": "float32"}}


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("score", ["r", "--iou_treshold", "1"], "unknown option 'iou_treshold' of score (did you mean iou_threshold?)"),
        (
            "score",
            ["r", "--frame", "norm100"],
            "frame: 'norm100': should be 'pixels', 'norm1000', 'norm1' or 'resized'",
        ),
        ("score", ["r", "--iou_threshold", "1.5"], "iou_threshold: '1.5': should be less than or equal to 1"),
        ("score", ["r", "--format"], "--format needs a value"),
        ("score", ["r", "--config"], "--config needs a value"),
        ("score", ["a", "b"], "'b' belongs to no option"),
        ("score", [], "score needs rows"),
        ("eval", ["p"], "eval needs --data"),
        ("eval", ["p", "--data", "d", "--ks", "20", "0"], "ks: '0': should be greater than 0"),
        ("data", ["mak"], "'mak': should be 'make', 'stats', 'triplets', 'check', 'draw', 'split' or 'convert'"),
        (
            "predict",
            ["--model", "m", "--data", "d", "--out", "o", "--limit", "many"],
            "limit: 'many': should be a valid integer",
        ),
        ("predict", ["--model", "m", "--data", "d", "--out", "o", "--num_samples", "4"], "set a temperature above 0"),
        ("sft", ["--modle", "m"], "unknown option 'modle' of sft (did you mean model?)"),
        ("sft", ["--weight_decay", "0.1"], "sft needs --model, --data, --out"),
        ("sft", ["--output_dir", "o"], "the output folder is called 'out' here"),
    ],
)
def test_wrong_command_lines(command, words, said):
    with pytest.raises(ValueError) as error:
        parse(command, words)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("formt: json", "unknown option 'formt' of score (did you mean format, frame?)"),
        ("iou_threshold: high", "iou_threshold: 'high': should be a valid number"),
        ("strict: 1", "strict: 1: should be a valid boolean"),
        ("beta: 1\nbeta: 2", "line 2: 'beta' is given twice"),
        ("- a\n- b", "is not a mapping"),
        ("1: 2", "is not a mapping"),
        ("a: [1", "line 2: "),
        ("format: [json, compact]", "format: "),
        ("!!python/object:os.system {}", "line 1: "),
    ],
)
def test_wrong_recipes_name_the_file(tmp_path, text, said):
    recipe = write(tmp_path, text + "\n")
    with pytest.raises(ValueError) as error:
        parse("score", ["rows.jsonl", "--config", str(recipe)])
    assert said in str(error.value) and str(recipe) in str(error.value)


def test_recipe_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="none.yaml: cannot be read: No such file"):
        load_yaml(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"model: \xff\n")
    with pytest.raises(ValueError, match="latin.yaml: is not"):
        load_yaml(tmp_path / "latin.yaml")
    with pytest.raises(ValueError, match="cannot be read"):
        load_yaml(tmp_path)


def test_yaml_reads_as_people_mean(tmp_path):
    recipe = write(tmp_path, "a: no\nb: 1e-5\nc: true\nd: off\ne:\nf: 12\n")
    assert load_yaml(recipe) == {"a": "no", "b": 1e-5, "c": True, "d": "off", "e": None, "f": 12}
    assert load_yaml(write(tmp_path, "# nothing\n")) == {}


def test_unknown_trl_field_names_near_misses_of_both_classes():
    extra = Extra({"lerning_rate": "1"}, {"lerning_rate": "my.yaml"})
    with pytest.raises(ValueError, match=r"my.yaml: unknown option 'lerning_rate'.*did you mean learning_rate"):
        resolve_extra(TrainerConfig, extra)
    with pytest.raises(ValueError, match=r"command line: .*did you mean similarity"):
        resolve_extra(TrainerConfig, {"similarty": "exact"}, own=GRPOOptions)
    with pytest.raises(ValueError, match="unknown option 'hidden'"):
        resolve_extra(TrainerConfig, {"hidden": 1})
    with pytest.raises(ValueError, match="recipe: max_steps: 'ten': should be a valid integer"):
        resolve_extra(TrainerConfig, Extra({"max_steps": "ten"}, {"max_steps": "recipe"}))


def example_options(cls: type) -> Any:
    """Options with the required fields filled."""
    hints = typing.get_type_hints(cls)
    required = {
        item.name: {"action": "make", "data": "x", "recipe": [Path("x")], "models": ["x"]}.get(item.name)
        or hints[item.name]("x")
        for item in dataclasses.fields(cls)
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    }
    if cls is options_of("predict"):  # needs images or a data set
        required["images"] = ["x"]
    return cls(**required)


@pytest.mark.parametrize("command", COMMANDS)
def test_saved_options_repeat_the_command(tmp_path, command):
    options = example_options(options_of(command))
    path = tmp_path / "config.yaml"
    runs.save_resolved(options, path)
    again, extra = parse(command, ["--config", str(path)])
    assert again == options and extra == {}


@pytest.mark.parametrize("cls", [options_of(command) for command in COMMANDS])
def test_every_option_has_help_and_a_default_that_fits_its_type(cls):
    hints = typing.get_type_hints(cls)
    for item in dataclasses.fields(cls):
        assert item.metadata["help"], item.name
        default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
        if default is not dataclasses.MISSING:
            assert convert(default, hints[item.name]) == default


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(words, values, max_size=5))
@example({"0E0": None, "label": ["1e5", "no", "true"]})
def test_yaml_round_trip(tmp_path_factory, mapping):
    path = write(tmp_path_factory.mktemp("yaml"), dump_yaml(mapping))
    assert load_yaml(path) == plain(mapping)


@given(
    st.lists(words | st.sampled_from(["--strict", "--rewards", "--out", "--config", "--no-strict", "--"]), max_size=6)
)
def test_any_command_line_gives_options_or_one_clear_line(argv):
    try:
        options, _ = parse("score", argv)
    except ValueError as error:
        assert str(error)
    else:
        assert isinstance(options, ScoreOptions)


def test_choices_match_the_rooms_they_name():
    from scenerl.answers import FORMATS, TEMPLATES
    from scenerl.box_formats import BOX_FORMATS

    assert set(typing.get_args(FormatName)) == set(FORMATS)
    assert set(typing.get_args(TemplateName)) == set(TEMPLATES)
    assert set(typing.get_args(BoxFormatName)) == set(BOX_FORMATS)


def test_default_rewards_exist():
    from scenerl.rewards import REWARDS

    assert set(GRPOOptions(model="m", data="d", out=Path("o")).rewards) <= set(REWARDS)
    choices, _ = typing.get_args(typing.get_type_hints(DemoOptions)["reward"])
    assert set(typing.get_args(choices)) <= set(REWARDS)


@pytest.mark.parametrize("command", ["sft", "grpo"])
def test_trl_fields_are_reachable_and_never_hidden_by_ours(command):
    trl = pytest.importorskip("trl")
    cls = getattr(trl, {"sft": "SFTConfig", "grpo": "GRPOConfig"}[command])
    theirs = {item.name for item in dataclasses.fields(cls)}
    assert not theirs & {item.name for item in dataclasses.fields(options_of(command))}
    provided = {"learning_rate": "1e-5", "lr_scheduler_type": "cosine", "gradient_checkpointing_kwargs": '{"a": 1}'}
    resolved = resolve_extra(cls, provided)
    assert resolved["learning_rate"] == 1e-5 and resolved["gradient_checkpointing_kwargs"] == {"a": 1}
    # Every field's own default passes through, so no annotation is beyond the converter.
    for item in dataclasses.fields(cls):
        if item.init and item.default not in (dataclasses.MISSING, None):
            value = item.default.value if isinstance(item.default, Enum) else item.default
            assert resolve_extra(cls, Extra({item.name: value}, {item.name: "default"})) == {item.name: value}


def test_of_several_recipes_the_later_wins_and_the_command_line_over_all(tmp_path):
    first = write(tmp_path, "model: a\ndata: d\nout: o\ngrid: 5\nlearning_rate: 1e-5\n", "first.yaml")
    second = write(tmp_path, "grid: 7\nlearning_rate: 2e-5\nformat: compact\n", "second.yaml")
    words = ["--config", str(first), "--config", str(second)]
    options, extra = parse("sft", words)
    assert (options.model, options.grid, options.format, extra["learning_rate"]) == ("a", 7, "compact", 2e-5)
    assert extra.where["learning_rate"] == str(second)
    assert parse("sft", [*words, "--grid", "9"])[0].grid == 9
    assert parse("sft", ["--config", str(second), "--config", str(first)])[0].grid == 5


def test_grpo_and_score_have_the_same_reward_options():
    """A convention that one of them can set, the other can: what is scored is what is trained on."""
    from scenerl.commands.groups import RewardFlags
    from scenerl.rewards import options as conventions

    names = {item.name for item in dataclasses.fields(RewardFlags)}
    for command in ("grpo", "score"):
        own = {item.name for item in dataclasses.fields(options_of(command)) if item.metadata["group"] == "Rewards"}
        assert own == names, command
    changed = {
        "similarity": "exact", "iou_threshold": 0.25, "one_to_one": True, "f_beta": 2.0, "strict": True,
        "cosine_max_tokens": 7, "cosine_correct": 0.5,
    }  # fmt: skip
    made = conventions.reward_options_of(RewardFlags(**changed))
    usual = conventions.RewardOptions()
    assert names == {*changed, "rewards", "predicate_counts"}
    unchanged = {
        item.name for item in dataclasses.fields(usual) if getattr(made, item.name) == getattr(usual, item.name)
    }
    assert unchanged <= {"similarity", "predicate_weights"}, "every convention can be set"


def test_shipped_recipes_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options, _ = parse("sft", ["--config", "recipes/r1_sgg/sft_qwen2vl7b_psg.yaml"])
    assert options.model == "Qwen/Qwen2-VL-7B-Instruct"
    with pytest.raises(ValueError, match="recipes/none.yaml: cannot be read"):
        parse("sft", ["--config", "recipes/none.yaml"])
