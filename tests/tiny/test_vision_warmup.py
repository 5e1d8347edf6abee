"""The vision warm-up of small models, and the tower frozen in training."""

from __future__ import annotations

import pytest
import torch

from scenerl import tiny
from scenerl.cli import main
from scenerl.models.loading import load
from scenerl.tiny.vision_warmup import cell_targets, warm_up_vision
from scenerl.types import Example, SceneGraph, SceneObject
from training.small_run import QUICK, SHAPE, STYLE, words


def example(*objects: SceneObject, width: int = 40, height: int = 20) -> Example:
    return Example("a", width, height, SceneGraph(objects))


def test_cells_take_the_object_that_covers_most_of_them():
    # Cells are 10 x 10 pixels: four across, two down. The cup covers cell (0, 0) whole and 4 of 10 columns of (0, 1);
    # the dog covers the other 6 columns of (0, 1) and nothing below.
    cup, dog = SceneObject("cup", (0, 0, 14, 10)), SceneObject("dog", (14, 0, 20, 10))
    labels, boxes = cell_targets(example(cup, dog), ["cup", "dog"], (4, 2))
    assert labels.tolist() == [1, 2, 0, 0, 0, 0, 0, 0]
    assert boxes[0].tolist() == pytest.approx([0, 0, 14 / 40, 10 / 20])
    assert boxes[1].tolist() == pytest.approx([14 / 40, 0, 20 / 40, 10 / 20])
    assert boxes[2:].abs().sum() == 0


def test_cells_hardly_covered_are_background():
    # 0.4 of 10 columns is 4 % of the cell; the bound is 5 %
    labels, _ = cell_targets(example(SceneObject("cup", (0, 0, 10.4, 10))), ["cup"], (4, 2))
    assert labels.tolist() == [1, 0, 0, 0, 0, 0, 0, 0]


def test_no_object_is_all_background():
    labels, boxes = cell_targets(example(), ["cup"], (4, 2))
    assert labels.tolist() == [0] * 8 and boxes.shape == (8, 4)


def test_vision_warm_up_learns_and_leaves_the_text_half_alone(examples):
    model, processor = tiny.build(examples, STYLE, SHAPE)
    text = {name: value.clone() for name, value in model.model.language_model.state_dict().items()}
    seen = []
    warm_up_vision(model, processor, examples, steps=30, batch_size=6, progress=lambda _, metrics: seen.append(metrics))
    assert seen[-1]["class_loss"] < 0.7 * seen[0]["class_loss"]
    assert 0 <= seen[-1]["box_l1"] <= 1 and 0 <= seen[-1]["accuracy"] <= 1
    assert all(torch.equal(value, text[name]) for name, value in model.model.language_model.state_dict().items())


@pytest.mark.parametrize("command", ["sft", "grpo"])
def test_freeze_vision_keeps_the_tower(command, base, rows, tmp_path):
    extra = {"num_generations": 2, "max_completion_length": 8} if command == "grpo" else {}
    fields = {"model": base, "data": rows, "out": tmp_path / "run", "learning_rate": 0.1, **QUICK, **extra}
    assert main([command, *words(fields), "--freeze_vision"]) == 0
    before, after = load(base).model, load(tmp_path / "run").model
    for name, value in before.model.visual.state_dict().items():
        assert torch.equal(value, after.model.visual.state_dict()[name]), name
    if command == "sft":  # untrained answers may all be worth the same, and then GRPO changes nothing
        assert not torch.equal(before.lm_head.weight, after.lm_head.weight)
