"""OVDEval: subsets, positive and negative labels of each image."""

from __future__ import annotations

import copy

import pytest

from data.detection_folders import OVDEVAL, write_json, write_ovdeval
from scenerl import data
from scenerl.errors import DataError


def test_positive_and_negative_labels_are_asked_for(tmp_path):
    (example,) = data.load(f"ovdeval:{write_ovdeval(tmp_path)}", split="negation", need_images=True)
    assert example.query == ("computer without screen on", "computer with screen on")
    assert [(found.label, found.box) for found in example.graph.objects] == [
        ("computer without screen on", (111, 117, 210, 192))
    ]
    assert (example.image_id, example.image_wh) == ("0", (340, 254))


def test_all_subsets_keep_their_ids_apart(tmp_path):
    examples = list(data.load(f"ovdeval:{write_ovdeval(tmp_path)}", need_images=True))
    assert [example.image_id for example in examples] == ["material/0", "negation/0"]
    assert [example.image.parent.name for example in examples] == ["material", "negation"]


def test_a_label_with_a_box_is_asked_for_in_any_case(tmp_path):
    (record,) = data.read(f"ovdeval:{write_ovdeval(tmp_path)}", "material")
    assert record.example.query == ("screen", "computer without screen on")
    assert "join the query" in record.warnings[0]


def test_what_cannot_be_is_named(tmp_path):
    broken = copy.deepcopy(OVDEVAL)
    broken["images"][0]["neg_text"] = "computer"
    (record,) = data.read(f"ovdeval:{write_json(tmp_path / 'broken.json', broken)}")
    assert "text and neg_text must be lists of labels" in record.errors[0]
    with pytest.raises(DataError, match="has no split 'colour'; allowed: broken"):
        list(data.load(f"ovdeval:{tmp_path}", split="colour"))
    with pytest.raises(DataError, match="none, no such file there"):
        list(data.load(f"ovdeval:{tmp_path / 'nowhere'}"))
