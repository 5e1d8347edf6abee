"""One object asks and reads: the same ids in training, rollout and prediction, and boxes that survive the way."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("transformers")

import huggingface_hub
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hub_cache import fill_cache
from scenerl.answers import OutputFormat
from scenerl.box_formats import BOX_FORMATS, extent_wh
from scenerl.conversation import FILE_NAME, Conversation, output_format_for, saved_output_format
from scenerl.data.images import open_image
from scenerl.data.vocabulary import Vocabulary
from scenerl.errors import DataError
from scenerl.inference.engine import Sampling
from scenerl.inference.hf import HFEngine
from scenerl.models.qwen2_vl import FAMILY, input_wh
from scenerl.types import Example, Relation, SceneGraph, SceneObject
from training.small_run import STYLE, examples_of, load_conversation, save_base, write_data


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Square images and wider ones."""
    return examples_of(write_data(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def base(tmp_path_factory, examples):
    return save_base(tmp_path_factory.mktemp("base") / "checkpoint", examples)


@pytest.fixture(scope="module")
def conversation(base):
    return load_conversation(base)


def without_weights(output_format: OutputFormat, patch: int = 14) -> Conversation:
    """A conversation for everything that needs sizes only."""
    images = SimpleNamespace(patch_size=patch, merge_size=2, size={"shortest_edge": 56 * 56, "longest_edge": 448 * 448})
    processor = SimpleNamespace(image_processor=images)
    return Conversation(output_format, SimpleNamespace(family=FAMILY, processor=processor))


# --- the same ids everywhere ---


def predicted_ids(conversation: Conversation, examples) -> list[list[int]]:
    engine = HFEngine(conversation.checkpoint, Sampling())
    encoded = engine.encode([conversation.prompt(example, open_image(example)) for example in examples])
    return [
        row[mask.bool()].tolist() for row, mask in zip(encoded["input_ids"], encoded["attention_mask"], strict=True)
    ]


def test_training_and_prediction_see_the_same_prompt(conversation, examples, tmp_path):
    pytest.importorskip("trl")
    from trl import SFTConfig

    from scenerl.training.sft import build_trainer

    args = SFTConfig(output_dir=str(tmp_path), report_to="none", bf16=False, gradient_checkpointing=False)
    trainer = build_trainer(conversation, examples, args)
    batch = trainer.data_collator([trainer.train_dataset[index] for index in range(len(examples))])
    tokenizer = conversation.checkpoint.processor.tokenizer
    prompts = predicted_ids(conversation, examples)
    for index, example in enumerate(examples):
        ids, mask, labels = (batch[key][index] for key in ("input_ids", "attention_mask", "labels"))
        learnt = labels != -100
        assert ids[mask.bool() & ~learnt].tolist() == prompts[index]
        # what is learnt is the ideal answer, the end of the turn included, and nothing of the prompt
        answer = tokenizer.decode(ids[learnt])
        assert answer == conversation.completion(example)[0]["content"][0]["text"] + "<|im_end|>\n"
        assert not {*ids[learnt].tolist()} & {*conversation.checkpoint.banned_ids}


def test_rollout_and_prediction_see_the_same_prompt(base, examples, tmp_path):
    """What ``generate`` is given, and what the update is computed on, in a real training step."""
    pytest.importorskip("trl")
    from trl import GRPOConfig

    from scenerl.training.grpo import build_trainer
    from training.small_run import QUICK_GRPO

    conversation = load_conversation(base)
    prompts = predicted_ids(conversation, examples)
    args = GRPOConfig(output_dir=str(tmp_path), **{**QUICK_GRPO, "max_steps": 1, "per_device_train_batch_size": 4})
    trainer = build_trainer(conversation, examples, args, ["format"])
    rolled_out, updated = [], []
    generate, logps = trainer.model.generate, trainer._get_per_token_logps_and_entropies

    def watched_generate(*args, **kwargs):
        rolled_out.extend(unpadded(kwargs["input_ids"], kwargs["attention_mask"]))
        assert {*conversation.checkpoint.banned_ids} <= {*kwargs["generation_config"].suppress_tokens}
        return generate(*args, **kwargs)

    def watched_logps(model, input_ids, attention_mask, logits_to_keep, *args, **kwargs):
        updated.extend(unpadded(input_ids[:, :-logits_to_keep], attention_mask[:, :-logits_to_keep]))
        return logps(model, input_ids, attention_mask, logits_to_keep, *args, **kwargs)

    trainer.model.generate, trainer._get_per_token_logps_and_entropies = watched_generate, watched_logps
    trainer.train()
    # a rollout may read the prompt of a group once, and the update may be checked on a group besides
    assert len(rolled_out) >= 2 and len(updated) >= 4
    assert all(ids in prompts for ids in rolled_out + updated)
    assert {*map(tuple, rolled_out)} == {*map(tuple, updated)}


def unpadded(ids, mask) -> list[list[int]]:
    return [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]


def test_the_prompt_is_the_image_and_the_question(conversation, examples):
    [ids] = predicted_ids(conversation, examples[:1])
    text = conversation.checkpoint.processor.tokenizer.decode(ids)
    start, image, rest = text.partition("<|vision_start|>" + "<|image_pad|>" * 4 + "<|vision_end|>")
    assert start == "<|im_start|>user\n" and image
    question = conversation.prompt(examples[0], None)[0]["content"][1]["text"]
    assert rest == f"{question}<|im_end|>\n<|im_start|>assistant\n"


# --- boxes ---


@st.composite
def scenes(draw):
    """An image of any size with objects that are at least a pixel wide."""
    width, height = draw(st.integers(20, 2000)), draw(st.integers(20, 2000))
    objects = []
    for _ in range(draw(st.integers(1, 4))):
        x1, y1 = draw(st.floats(0, width - 8)), draw(st.floats(0, height - 8))
        box = (x1, y1, draw(st.floats(x1 + 8, width)), draw(st.floats(y1 + 8, height)))
        objects.append(SceneObject(draw(st.sampled_from(["dog", "red ball", "tree 2"])), box))
    relations = (Relation(0, "left of", 1),) if len(objects) > 1 else ()
    return Example("a", width, height, SceneGraph(tuple(objects), relations))


@settings(max_examples=25)
@given(
    scenes(),
    st.sampled_from(["json", "compact"]),
    st.sampled_from(["plain", "think"]),
    st.sampled_from(list(BOX_FORMATS)),
)
def test_boxes_survive_the_way_through_the_answer(example, name, template, box_format):
    conversation = without_weights(OutputFormat(name, template, box_format=box_format))
    text = conversation.completion(example)[0]["content"][0]["text"]
    result = conversation.parse(text, example)
    assert result.ok and not result.issues and result.in_template
    assert [obj.label for obj in result.graph.objects] == [obj.label for obj in example.graph.objects]
    assert result.graph.relations == example.graph.relations
    unit = 1e-4 if box_format == "norm1" else 1
    across, down = extent_wh(box_format, example.image_wh, conversation.input_wh(example))
    # half a unit of the frame, in pixels of the original
    half = np.array([example.width / across, example.height / down] * 2) * unit / 2
    for found, wanted in zip(result.graph.objects, example.graph.objects, strict=True):
        assert (np.abs(np.subtract(found.box, wanted.box)) <= half * (1 + 1e-9) + 1e-9).all()


@pytest.mark.parametrize("size", [(641, 427), (333, 999), (29, 31), (1, 57)])
def test_the_frame_of_the_resized_input_is_that_of_the_processor(size):
    """A box over the whole image has the resized input's own size in that frame."""
    conversation = without_weights(OutputFormat("compact", box_format="resized"))
    example = Example("a", *size, SceneGraph((SceneObject("dog", (0, 0, *size)),)))
    width, height = input_wh(conversation.checkpoint.processor, size)
    assert conversation.input_wh(example) == (width, height)
    assert conversation.completion(example)[0]["content"][0]["text"] == f"dog 0 0 {width} {height}\nend"


def test_an_image_the_model_cannot_take_is_named():
    conversation = without_weights(STYLE)
    with pytest.raises(DataError, match=r"image 'thin': 3000 x 10 is no size for the model \(.*200"):
        conversation.completion(Example("thin", 3000, 10, SceneGraph()))


def test_a_query_closes_the_vocabulary_of_its_answer():
    conversation = without_weights(OutputFormat("detections", objects=("cat",)))
    example = Example("a", 100, 100, SceneGraph((SceneObject("dog", (0, 0, 50, 50)),)), query=("dog", "bird"))
    assert "dog, bird" in conversation.prompt(example, None)[0]["content"][1]["text"]
    text = conversation.completion(example)[0]["content"][0]["text"]
    assert conversation.parse(text, example).graph == example.graph
    other = conversation.parse(text, replace(example, query=("bird",)))
    assert [issue.kind for issue in other.issues] == ["unknown_label"]


# --- what is saved with a checkpoint ---


@pytest.mark.parametrize(
    "output_format",
    [
        OutputFormat(),
        OutputFormat("compact", "think", ("dog", "Größe", "犬"), ("on",), "resized", 20),
        OutputFormat("detections", objects=()),
    ],
)
def test_a_style_survives(output_format, tmp_path):
    without_weights(output_format).save(tmp_path / "new" / "folder")
    assert saved_output_format(tmp_path / "new" / "folder") == output_format


def test_a_checkpoint_that_is_not_ours_has_no_style(tmp_path):
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
def test_a_damaged_style_is_named(content, tmp_path):
    (tmp_path / FILE_NAME).write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=rf"{FILE_NAME}: ") as caught:
        saved_output_format(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_style_of_a_checkpoint_on_the_hub(base, tmp_path, monkeypatch):
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
    without_weights(output_format).save(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert output_format_for(options(tmp_path), FAMILY) == output_format
    assert not caplog.records


def test_what_is_given_comes_first_and_is_warned_about(tmp_path, caplog):
    without_weights(OutputFormat("compact", "think", ("dog",), ("on",), "norm1000", 20)).save(tmp_path)
    Vocabulary(("cat", "sofa"), ("under",)).write(tmp_path / "vocabulary.json")
    provided = options(tmp_path, format="json", envelope="plain", grid=5, vocabulary=tmp_path / "vocabulary.json")
    with caplog.at_level(logging.WARNING):
        output_format = output_format_for(provided, FAMILY)
    assert output_format == OutputFormat("json", "plain", ("cat", "sofa"), ("under",), "norm1000", 5)
    [record] = caplog.records
    assert record.getMessage().endswith("another format and template and objects and predicates and step")


def test_a_model_that_is_not_ours_gets_the_defaults_and_its_familys_frame(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_vl"}))
    assert output_format_for(options(tmp_path), FAMILY) == OutputFormat(box_format=FAMILY.box_format)


# --- tasks whose prompt gives objects ---

SCENE = Example(
    "7",
    448,
    224,
    SceneGraph(
        (SceneObject("dog", (0, 0, 224, 112)), SceneObject("red ball", (224, 112, 448, 224))), (Relation(0, "on", 1),)
    ),
)


def prompt_text(output_format: OutputFormat, example: Example) -> str:
    return without_weights(output_format).prompt(example, None)[0]["content"][1]["text"]


@pytest.mark.parametrize("fmt", ["json", "compact"])
@pytest.mark.parametrize("template", ["plain", "think"])
def test_given_objects_stand_in_the_prompt_in_the_models_frame(fmt, template):
    nothing = prompt_text(OutputFormat(fmt, template), SCENE)
    boxes = prompt_text(OutputFormat(fmt, template, provided="boxes"), SCENE)
    objects = prompt_text(OutputFormat(fmt, template, provided="objects"), SCENE)
    assert "\n1 0 0 500 500\n2 500 500 1000 1000\n" in boxes and "red ball" not in boxes.replace(nothing, "")
    assert "\n1 dog 0 0 500 500\n2 red ball 500 500 1000 1000\n" in objects
    assert "given" not in nothing
    in_pixels = prompt_text(OutputFormat(fmt, template, box_format="pixels", provided="boxes"), SCENE)
    assert "\n2 224 112 448 224\n" in in_pixels
    coarse = prompt_text(OutputFormat(fmt, template, step=100, provided="boxes"), replace(SCENE, width=450))
    assert "\n1 0 0 500 500\n" in coarse


@pytest.mark.parametrize("fmt", ["json", "compact"])
def test_the_ideal_answer_repeats_what_was_given(fmt):
    """Its boxes are the prompt's numbers, so that a model can copy them, and it reads back as the ground truth."""
    for example in (SCENE, replace(SCENE, provided=SCENE.graph.objects[::-1])):
        conversation = without_weights(OutputFormat(fmt, provided="objects"))
        answer = conversation.completion(example)[0]["content"][0]["text"]
        parsed = conversation.parse(answer, example).graph
        order = [item.label for item in example.provided or SCENE.graph.objects]
        assert [item.label for item in parsed.objects] == order
        assert [parsed.triplet(edge) for edge in parsed.relations] == [("dog", "on", "red ball")]
        for number, item in enumerate(parsed.objects, start=1):
            box = " ".join(str(round(n * 1000 / side)) for n, side in zip(item.box, SCENE.image_wh * 2, strict=True))
            assert f"\n{number} {item.label} {box}\n" in prompt_text(conversation.output_format, example)


def test_a_detectors_objects_take_the_place_of_the_ground_truths():
    found = replace(SCENE, provided=(SceneObject("cat", (0, 0, 44.8, 22.4), 0.9),))
    text = prompt_text(OutputFormat("compact", provided="objects"), found)
    assert "\n1 cat 0 0 100 100\n" in text and "dog 0" not in text
    assert "red ball" not in prompt_text(OutputFormat("compact", provided="objects"), replace(SCENE, provided=()))


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
    without_weights(saved).save(tmp_path)
    output_format = output_format_for(options(tmp_path, task=task), FAMILY)
    assert (output_format.format, output_format.provided) == (fmt, provided)


def test_tasks_that_do_not_fit(tmp_path):
    without_weights(OutputFormat()).save(tmp_path)
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
    without_weights(OutputFormat("compact")).save(tmp_path)
    saved = json.loads((tmp_path / FILE_NAME).read_text())
    del saved["output_format"]["provided"]
    (tmp_path / FILE_NAME).write_text(json.dumps(saved))
    assert saved_output_format(tmp_path) == OutputFormat("compact")
