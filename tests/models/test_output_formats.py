"""The output format of a run: its options, then its checkpoint's, then the default."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest

pytest.importorskip("transformers")

import huggingface_hub

from hub_cache import fill_cache
from scenerl.answers import OutputFormat
from scenerl.answers.dialogue import FILE_NAME, save_output_format
from scenerl.models.output_formats import output_format_for, saved_output_format
from scenerl.models.qwen2_vl import FAMILY
from training.small_run import STYLE


@pytest.mark.parametrize(
    "output_format",
    [
        OutputFormat(),
        OutputFormat("compact", "think", ("dog", "Größe", "犬"), ("on",), "resized", 20),
        OutputFormat("detections", objects=()),
    ],
)
def test_an_output_format_survives(output_format, tmp_path):
    save_output_format(output_format, tmp_path / "new" / "folder")
    assert saved_output_format(tmp_path / "new" / "folder") == output_format


def test_a_checkpoint_that_is_not_ours_has_no_output_format(tmp_path):
    assert saved_output_format(tmp_path) is None
    assert saved_output_format("tiny") is None


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"style": []}',
        '{"style": null}',
        '{"style": {"format": "xml"}}',
        '{"style": {"grid": 0}}',
        '{"style": {"objects": "dog"}}',
        '{"style": {"objects": 3}}',
        '{"style": {"colour": "red"}}',
        "\xff",
    ],
)
def test_a_damaged_file_is_named(content, tmp_path):
    (tmp_path / FILE_NAME).write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=rf"{FILE_NAME}: ") as caught:
        saved_output_format(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_output_format_of_a_checkpoint_on_the_hub(base, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert saved_output_format(fill_cache(tmp_path, base, "owner/small-1.5")) == STYLE
    assert saved_output_format("owner/unknown") is None


def options(model, **provided):
    return SimpleNamespace(
        **{
            "model": str(model),
            "format": None,
            "envelope": None,
            "vocabulary": None,
            "grid": None,
            "task": None,
            "boxes": None,
        }
        | provided
    )


def test_nothing_given_is_as_trained(tmp_path, caplog):
    output_format = OutputFormat("compact", "think", ("dog", "ball"), ("on",), "norm1000", 20)
    save_output_format(output_format, tmp_path)
    with caplog.at_level(logging.WARNING):
        assert output_format_for(options(tmp_path), FAMILY) == output_format
    assert not caplog.records


def test_what_is_given_comes_first_and_is_warned_about(tmp_path, caplog):
    save_output_format(OutputFormat("compact", "think", ("dog",), ("on",), "norm1000", 20), tmp_path)
    (tmp_path / "vocabulary.json").write_text('{"objects": ["cat", "sofa"], "predicates": ["under"]}')
    provided = options(tmp_path, format="json", envelope="plain", grid=5, vocabulary=tmp_path / "vocabulary.json")
    with caplog.at_level(logging.WARNING):
        output_format = output_format_for(provided, FAMILY)
    assert output_format == OutputFormat("json", "plain", ("cat", "sofa"), ("under",), "norm1000", 5)
    [record] = caplog.records
    assert record.getMessage().endswith(
        "was trained with format compact, template think, other objects, other predicates, step 20"
    )


def test_a_model_that_is_not_ours_gets_the_defaults_and_its_familys_box_format(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_vl"}))
    assert output_format_for(options(tmp_path), FAMILY) == OutputFormat(box_format=FAMILY.box_format)


@pytest.mark.parametrize(
    ("task", "saved", "fmt", "provided"),
    [
        (None, OutputFormat(), "json", None),
        (None, OutputFormat("compact", provided="boxes"), "compact", "boxes"),  # as trained
        ("sgdet", OutputFormat("compact", provided="boxes"), "compact", None),
        ("predcls", OutputFormat("compact"), "compact", "objects"),
        ("sgcls", OutputFormat("detections"), "json", "boxes"),
        ("det", OutputFormat("compact", provided="boxes"), "detections", None),
    ],
)
def test_the_task_decides_what_is_given(tmp_path, task, saved, fmt, provided):
    save_output_format(saved, tmp_path)
    output_format = output_format_for(options(tmp_path, task=task), FAMILY)
    assert (output_format.format, output_format.provided) == (fmt, provided)


def test_tasks_that_do_not_fit(tmp_path):
    save_output_format(OutputFormat(), tmp_path)
    for task, fmt in (("det", "json"), ("predcls", "detections"), ("sgdet", "detections")):
        with pytest.raises(ValueError, match=f"task {task} and format {fmt} do not go together"):
            output_format_for(options(tmp_path, task=task, format=fmt), FAMILY)
    with pytest.raises(ValueError, match="boxes are for the tasks sgcls and predcls"):
        output_format_for(options(tmp_path, boxes=tmp_path / "boxes.json"), FAMILY)
    with pytest.raises(ValueError, match="unknown provided 'labels'; allowed: None, boxes, objects"):
        OutputFormat(provided="labels")
    with pytest.raises(ValueError, match="the task predcls needs relations, which 'detections' cannot hold"):
        OutputFormat("detections", provided="objects")


def test_checkpoints_from_before_there_were_tasks_give_nothing(tmp_path):
    save_output_format(OutputFormat("compact"), tmp_path)
    saved = json.loads((tmp_path / FILE_NAME).read_text())
    del saved["output_format"]["provided"]
    (tmp_path / FILE_NAME).write_text(json.dumps(saved))
    assert saved_output_format(tmp_path) == OutputFormat("compact")
