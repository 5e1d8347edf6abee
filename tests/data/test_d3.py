"""D³: sentences that are there, hard negatives of the same group, subsets."""

from __future__ import annotations

import json
import pickle

import pytest

from data.detection_folders import D3, write_d3, write_json
from scenerl import data
from scenerl.errors import DataError

HORSES = {"railings being crossed by horses", "a horse running or jumping", "horseman without helmet"}


def test_absent_sentences_of_the_group_come_first(tmp_path):
    first, second, dog = data.load(f"d3:{write_d3(tmp_path)},negatives=1", need_images=True)
    assert [(found.label, found.box) for found in first.graph.objects] == [
        ("railings being crossed by horses", (3, 218, 799, 533)),
        ("a horse running or jumping", (247, 118, 540, 533)),
    ]
    assert set(first.query) == HORSES  # two present ones, and the absent one that another image of the group has
    assert len(second.query) == 2 and set(second.query) < HORSES
    assert set(dog.query) > {"outdoor dog led by rope"} and len(dog.query) == 2
    assert first.image.parts[-2:] == ("equestrian", "001.jpg")


def test_subsets(tmp_path):
    write_d3(tmp_path)
    names = {
        split: next(iter(data.load(f"d3:{tmp_path},query=all", split=split))).query for split in ("pres", "abs", "full")
    }
    assert names["abs"] == ("horseman without helmet", "dog not led by ropes outside")
    assert len(names["pres"]) == 3 and len(names["full"]) == 5
    assert len(next(iter(data.load(f"d3:{tmp_path}", split="abs"))).graph.objects) == 0
    with pytest.raises(DataError, match="allowed: full, pres, abs"):
        list(data.load(f"d3:{tmp_path}", split="train"))


def test_the_sentences_of_a_group_need_its_file(tmp_path):
    write_d3(tmp_path)
    with pytest.raises(DataError, match=r"holds none of: groups.json.*query=group needs it"):
        list(data.load(f"d3:{tmp_path},query=group"))
    value = json.loads((tmp_path / "d3_json" / "d3_full_annotations.json").read_text())
    value["annotations"].append({"id": 9, "image_id": 0, "category_id": 4, "bbox": [1, 1, 5, 5], "iscrowd": 0})
    write_json(tmp_path / "d3_json" / "d3_full_annotations.json", value)  # a dog of the other group in the first image
    groups = {
        "1": {"id": 1, "img_id": [0, 1], "inner_sent_id": [1, 2, 3], "group_name": "equestrian"},
        "2": {"id": 2, "img_id": [2], "inner_sent_id": [4, 5]},
    }
    write_json(tmp_path / "groups.json", groups)
    queries = [example.query for example in data.load(f"d3:{tmp_path},query=group")]
    names = [category["name"] for category in D3["categories"]]
    assert queries == [tuple(names[:3]), tuple(names[:3]), tuple(names[3:])]
    first = next(iter(data.load(f"d3:{tmp_path},query=group")))
    assert [found.label for found in first.graph.objects] == names[:2]  # the intra-group setting does not ask for it
    write_json(tmp_path / "groups.json", {"1": groups["1"]})
    *_, last = data.read(f"d3:{tmp_path},query=group")
    assert last.errors == ("groups.json names the image in no group",)
    write_json(tmp_path / "groups.json", {"1": {"img_id": 3}})
    with pytest.raises(DataError, match="group '1' has no such lists"):
        list(data.load(f"d3:{tmp_path},query=group"))


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_pickles_are_not_loaded(tmp_path):
    for name in ("sentences", "annotations", "images", "groups"):
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError, match="the pickles there are not loaded, since a pickle can run any code"):
        list(data.load(f"d3:{tmp_path}"))
    write_d3(tmp_path)
    assert len(list(data.load(f"d3:{tmp_path}"))) == 3


def test_the_draw_depends_on_the_seed_alone(tmp_path):
    write_d3(tmp_path)
    queries = [[example.query for example in data.load(f"d3:{tmp_path},seed={seed}")] for seed in (0, 0, 1)]
    assert queries[0] == queries[1] != queries[2]
