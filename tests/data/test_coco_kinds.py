"""Files of COCO's schema as other tools write them: ids, crowds, categories, labels, and where images are."""

from __future__ import annotations

import copy
import json
import unicodedata

import pytest

from data.detection_folders import COCO, OVDEVAL, write_coco, write_json
from data.published_folders import write_image
from scenerl import data
from scenerl.commands.eval import EvalOptions
from scenerl.data.ground_truth import load_ground_truth
from scenerl.data.inspect.check import Checker
from scenerl.errors import DataError
from scenerl.evaluate import run_eval

DOG = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40], "iscrowd": 0}
SMALL = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}],
    "annotations": [DOG],
    "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
}


def small(tmp_path, **changes):
    return write_json(tmp_path / "small.json", {**copy.deepcopy(SMALL), **changes})


def only(path):
    (example,) = data.load(f"coco:{path}")
    return example


@pytest.mark.parametrize("value", [0, 0.0, False, None, "0", "0.0", "no", "No ", "false", "FALSE", ""])
def test_what_is_no_crowd(tmp_path, value):
    example = only(small(tmp_path, annotations=[DOG | {"iscrowd": value}]))
    assert len(example.graph.objects) == 1 and not example.crowds


@pytest.mark.parametrize("value", [1, 1.0, True, "1", "yes", "True"])
def test_what_is_a_crowd(tmp_path, value):
    example = only(small(tmp_path, annotations=[DOG, DOG | {"iscrowd": value}]))
    assert len(example.graph.objects) == len(example.crowds) == 1


@pytest.mark.parametrize("value", [2, -1, 0.5, "maybe", [], {}])
def test_what_is_neither(tmp_path, value):
    with pytest.raises(DataError, match="an iscrowd other than 0 and 1"):
        only(small(tmp_path, annotations=[DOG | {"iscrowd": value}]))


def test_crowds_alone_are_refused_for_training_and_checking_and_evaluated_as_pycocotools_does(tmp_path):
    path = small(tmp_path, annotations=[DOG | {"iscrowd": 1}] * 2)
    with pytest.raises(DataError, match=r"nothing but crowd regions \(2 annotations"):
        only(path)
    with pytest.raises(DataError, match=r"nothing but crowd regions \(2 annotations"):
        list(Checker(images=False).problems(data.read(str(path))))
    (example,) = load_ground_truth(path).examples
    assert len(example.crowds) == 2
    assert only(small(tmp_path, annotations=[])).graph.objects == ()  # no annotation at all: an image without objects


@pytest.mark.parametrize("missing", [["annotations"], ["categories"], ["images"], ["images", "categories"]])
def test_a_list_that_is_missing(tmp_path, missing):
    path = write_json(tmp_path / "x.json", {key: value for key, value in SMALL.items() if key not in missing})
    with pytest.raises(DataError, match=" and ".join(f"'{key}'" for key in missing) + " missing; expected COCO"):
        list(data.load(f"coco:{path}"))


def test_ids_as_pandas_writes_them(tmp_path):
    annotation = DOG | {"image_id": 1.0, "category_id": 1.0}
    path = small(tmp_path, annotations=[annotation], images=[SMALL["images"][0] | {"id": 1.0, "width": 100.0}],
                 categories=[{"id": 1.0, "name": "dog"}, {"id": 2.0, "name": "cat"}])  # fmt: skip
    example = only(path)
    assert (example.image_id, example.query) == ("1", ("dog", "cat")) and example.graph.objects[0].label == "dog"
    results = write_json(tmp_path / "results.json", [annotation | {"score": 0.9}])
    out = tmp_path / "metrics.json"
    run_eval(EvalOptions(pred=results, data=str(path), task="det", out=out, resamples=0))
    assert json.loads(out.read_text())["metrics"]["AP50"]["value"] == 1
    for wrong in (1.5, True, [1]):
        with pytest.raises(DataError, match="must name an image and a category"):
            only(small(tmp_path, annotations=[DOG | {"category_id": wrong}]))


@pytest.mark.parametrize(
    "change, found",
    [
        ({"category_id": "wolf"}, "a 'category_id' that is no category's id or name: 'wolf'$"),
        ({"category_id": 9}, "a 'category_id' that is no category's id or name: 9$"),
        ({"image_id": 77}, "an 'image_id' that is no image's id: '77'$"),
        ({"bbox": None}, r"'bbox': None$"),
        ({"bbox": [1, 2, 3], "category_id": True}, r"'category_id': True, 'bbox': \[1, 2, 3\]$"),
    ],
)
def test_an_annotation_that_cannot_be_used_names_the_field(tmp_path, change, found):
    entry = {"segmentation": [list(range(60))], "area": 3.0} | DOG | change  # long before what matters
    with pytest.raises(DataError, match=found):
        only(small(tmp_path, annotations=[entry]))
    entry = {key: value for key, value in DOG.items() if key not in change}
    if len(entry) < len(DOG) and None in change.values():
        with pytest.raises(DataError, match=rf"found no '{next(iter(change))}'"):
            only(small(tmp_path, annotations=[entry]))


def evaluated(tmp_path, truth, results):
    out = tmp_path / "metrics.json"
    pred = write_json(tmp_path / "results.json", results)
    run_eval(EvalOptions(pred=pred, data=str(truth), task="det", out=out, resamples=0))
    return json.loads(out.read_text())["metrics"]["AP50"]["value"]


@pytest.mark.parametrize("written", [2, "2", "2.0", " 2", "cat", "cat "])
@pytest.mark.parametrize("listed", [2, 2.0, "2"])
def test_a_category_id_that_is_text_is_an_id_or_a_name_on_both_sides(tmp_path, written, listed):
    categories = [{"id": 1, "name": "dog"}, {"id": listed, "name": "cat"}]
    path = small(tmp_path, annotations=[DOG | {"category_id": written}], categories=categories)
    assert [item.label for item in only(path).graph.objects] == ["cat"]
    for other in (2, written):
        assert evaluated(tmp_path, path, [DOG | {"category_id": other, "score": 0.5}]) == 1


def test_categories_whose_ids_are_texts(tmp_path):
    categories = [{"id": "c1", "name": "dog"}, {"id": "c2", "name": "cat"}]
    path = small(tmp_path, annotations=[DOG | {"category_id": "c2"}], categories=categories)
    assert [item.label for item in only(path).graph.objects] == ["cat"] and only(path).query == ("dog", "cat")
    for category, value in (("c2", 1), ("cat", 1), ("c1", 0)):
        assert evaluated(tmp_path, path, [DOG | {"category_id": category, "score": 0.5}]) == value


def test_a_text_that_is_an_id_and_the_name_of_another_category(tmp_path):
    """As in a set of digits."""
    digits = [{"id": 1, "name": "0"}, {"id": 2, "name": "1"}]
    fault = "the 'category_id' '1' is the id of '0' and the name of another category"
    with pytest.raises(DataError, match=rf"small.json: annotations\[0\]: {fault}"):
        only(small(tmp_path, annotations=[DOG | {"category_id": "1"}], categories=digits))
    path = small(tmp_path, categories=digits)
    with pytest.raises(DataError, match=rf"results.json: entry 0: {fault}"):
        evaluated(tmp_path, path, [DOG | {"category_id": "1", "score": 0.5}])
    with pytest.raises(DataError, match=r"categories\[2\]: the id 1 has the name 'dog' already, found 'cow'"):
        only(small(tmp_path, categories=[*SMALL["categories"], {"id": "1", "name": "cow"}]))


NAN = float("nan")


def test_nan_in_fields_that_are_not_needed(tmp_path):
    """As Python writes the empty cells of a table."""
    annotation = DOG | {"area": NAN, "segmentation": NAN, "iscrowd": NAN, "score": NAN, "attributes": {"age": NAN}}
    image = {"id": 1, "file_name": "a.jpg", "license": NAN, "coco_url": NAN, "width": NAN, "height": NAN, "text": NAN}
    write_image(tmp_path / "a.jpg", (100, 80))
    path = small(tmp_path, annotations=[annotation], images=[image],
                 categories=[one | {"supercategory": NAN} for one in SMALL["categories"]])  # fmt: skip
    for source in (path, f"coco:{path}"):
        (example,) = data.load(source)
        assert example.image_wh == (100, 80) and not example.crowds
        assert [(item.label, item.box) for item in example.graph.objects] == [("dog", (10, 20, 40, 60))]
    assert evaluated(tmp_path, path, [DOG | {"score": 0.5, "area": NAN, "caption": NAN}]) == 1


@pytest.mark.parametrize("key, value", [("score", NAN), ("bbox", [10, 20, NAN, 40]), ("bbox", NAN)])
def test_nan_where_a_number_is_needed(tmp_path, key, value):
    results = [DOG | {"score": 0.5}, DOG | {"score": 0.5, key: value}]
    with pytest.raises(DataError, match=rf"results\.json: entry 1: '{key}' must hold numbers, found NaN"):
        evaluated(tmp_path, small(tmp_path), results)
    if key == "bbox":
        with pytest.raises(DataError, match=rf"small\.json, image 1: annotations\[1\] .* '{key}': .*nan"):
            only(small(tmp_path, annotations=results))
    with pytest.raises(DataError, match=r"annotations\[0\] .* 'category_id': nan"):
        only(small(tmp_path, annotations=[DOG | {"category_id": NAN}]))


def test_label_studio_puts_a_prefix_before_the_names_of_uploads(tmp_path):
    """The photos themselves have none; a date is no prefix."""
    write_image(tmp_path / "photo.jpg", (100, 80))
    image = SMALL["images"][0]
    for name in ("3f2a9c1b-photo.jpg", "images\\3f2a9c1b-photo.jpg", "/data/upload/1/3f2a9c1b-photo.jpg"):
        assert only(small(tmp_path, images=[image | {"file_name": name}])).image == tmp_path / "photo.jpg"
    for name in ("20260131-photo.jpg", "3f2a9c1-photo.jpg", "3F2A9C1Bphoto.jpg"):
        with pytest.raises(DataError, match=name):
            list(data.load(small(tmp_path, images=[image | {"file_name": name}]), need_images=True))


def test_a_category_id_given_twice(tmp_path):
    twice = [*SMALL["categories"], {"id": 1, "name": "wolf"}]
    with pytest.raises(DataError, match=r"categories\[2\]: the id 1 has the name 'dog' already, found 'wolf'"):
        only(small(tmp_path, categories=twice))
    assert only(small(tmp_path, categories=[*SMALL["categories"], {"id": 1, "name": " dog"}])).query == ("dog", "cat")


@pytest.mark.parametrize(
    ("root", "of_others", "query"),
    [
        ({"id": 0, "name": "pets", "supercategory": "none"}, "pets", ("dog", "cat")),
        ({"id": 3, "name": "pets"}, "pets", ("dog", "cat")),
        ({"id": 0, "name": "_background_"}, "none", ("dog", "cat")),
        ({"id": 0, "name": "background"}, None, ("dog", "cat")),
        ({"id": 0, "name": "pets", "supercategory": "pets"}, "pets", ("pets", "dog", "cat")),
        ({"id": 0, "name": "horse", "supercategory": "none"}, "pets", ("horse", "dog", "cat")),
    ],
)
def test_a_category_that_stands_for_the_others(tmp_path, root, of_others, query):
    categories = [root, *(one | {"supercategory": of_others} for one in SMALL["categories"])]
    assert set(only(small(tmp_path, categories=categories)).query) == set(query)
    used = [DOG, DOG | {"category_id": root["id"]}]  # one that has a box is a category like others
    assert root["name"] in only(small(tmp_path, categories=categories, annotations=used)).query


def test_labels_are_normalised_on_both_sides(tmp_path):
    decomposed = unicodedata.normalize("NFD", " café  table\u00a0")
    assert decomposed != "café table"
    path = small(tmp_path, categories=[{"id": 1, "name": decomposed}, {"id": 2, "name": "cat"}])
    assert only(path).query[0] == only(path).graph.objects[0].label == "café table"
    box = {"bbox_2d": [10, 20, 40, 60], "label": "café   table"}
    files = {
        "results.json": [{"image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40], "score": 0.9}],
        "named.json": [{"image_id": 1, "category_name": decomposed, "bbox": [10, 20, 30, 40], "score": 0.9}],
        "answers.jsonl": {"image_id": 1, "answer": json.dumps([box])},
        "decomposed.jsonl": {"image_id": 1, "answer": json.dumps([box | {"label": decomposed}])},
        "graphs.jsonl": {"image_id": 1, "graph": {"objects": [{"id": f"{decomposed}.1", "bbox": [10, 20, 40, 60]}]}},
    }
    for name, content in files.items():
        out = tmp_path / "metrics.json"
        options = EvalOptions(pred=write_json(tmp_path / name, content), data=str(path), task="det", out=out,
                              format="detections", frame="pixels", resamples=0)  # fmt: skip
        run_eval(options)
        assert json.loads(out.read_text())["metrics"]["AP50"]["value"] == 1, name


@pytest.mark.parametrize("bbox", [[10, 20, 30, 40, 45], [10, 20, 40, 20, 40, 60, 10, 60]])
def test_boxes_of_five_and_eight_numbers_are_not_cut(tmp_path, bbox):
    with pytest.raises(DataError, match=f"{len(bbox)} numbers, as of a box that is turned"):
        only(small(tmp_path, annotations=[DOG | {"bbox": bbox}]))
    results = write_json(tmp_path / "results.json", [
        {"image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40], "score": 0.9},
        {"image_id": 1, "category_id": 1, "bbox": bbox, "score": 0.8},
    ])  # fmt: skip
    out = tmp_path / "metrics.json"
    run_eval(EvalOptions(pred=results, data=str(small(tmp_path)), task="det", out=out, resamples=0))
    assert json.loads(out.read_text())["counts"]["bad_boxes"] == 1


@pytest.mark.parametrize("text", [{"text": None}, {"neg_text": None}, {"text": None, "neg_text": None}])
def test_lists_of_labels_that_are_null(tmp_path, text):
    value = copy.deepcopy(OVDEVAL)
    value["images"][0] |= text
    (record,) = data.read(f"ovdeval:{write_json(tmp_path / 'subset.json', value)}")
    assert "computer without screen on" in record.example.query
    assert set(record.example.query) <= {"computer without screen on", "computer with screen on"}


@pytest.mark.parametrize("text", [None, "a caption"])
def test_a_text_that_is_no_list_does_not_make_a_file_ovdevals(tmp_path, text):
    path = small(tmp_path, images=[SMALL["images"][0] | {"text": text}])
    (example,) = data.load(str(path))
    assert example.query == ("dog", "cat")


@pytest.mark.parametrize(
    ("entry", "place"),
    [
        ({"file_name": "a.jpg"}, "a.jpg"),
        ({"file_name": "a.jpg"}, "images/a.jpg"),
        ({"file_name": "train/cats/a.jpg"}, "train/cats/a.jpg"),
        ({"file_name": "train/cats/a.jpg"}, "images/cats/a.jpg"),
        ({"file_name": "train/cats/a.jpg"}, "images/a.jpg"),
        ({"file_name": "train\\cats\\a.jpg"}, "train/cats/a.jpg"),
        ({"file_name": "C:\\data\\a.jpg"}, "a.jpg"),
        ({"file_name": "/elsewhere/data/a.jpg"}, "images/a.jpg"),
        ({"file_name": "../../media/upload/1/a.jpg"}, "images/a.jpg"),
        ({"file_name": None, "coco_url": "http://images.cocodataset.org/train2017/a.jpg"}, "train2017/a.jpg"),
        ({"file_name": None, "coco_url": "http://images.cocodataset.org/train2017/a.jpg"}, "images/a.jpg"),
        ({"file_name": "https://host/x/a%20b.jpg?size=big"}, "images/a b.jpg"),
        ({"file_name": "other.jpg", "coco_url": "http://images.cocodataset.org/val2017/a.jpg"}, "val2017/a.jpg"),
    ],
)
def test_where_images_are(tmp_path, entry, place):
    write_image(tmp_path / place, (100, 80))
    path = small(tmp_path, images=[{"id": 1, "width": 100, "height": 80, **entry}])
    (example,) = data.load(f"coco:{path}", need_images=True)
    assert example.image.resolve() == (tmp_path / place).resolve() and example.tried == ()


def test_a_file_beside_the_json_comes_before_one_in_a_folder(tmp_path):
    for place in ("images/a.jpg", "a.jpg"):
        write_image(tmp_path / place, (100, 80))
    assert only(small(tmp_path)).image == tmp_path / "a.jpg"


def test_the_message_of_a_missing_image_names_the_paths_tried(tmp_path):
    path = small(tmp_path, images=[SMALL["images"][0] | {"file_name": "train/a.jpg"}])
    tried = [tmp_path / "train/a.jpg", tmp_path / "a.jpg"]
    with pytest.raises(DataError, match="no such image file; tried: " + ", ".join(map(str, tried))):
        list(data.load(f"coco:{path}", need_images=True))
    assert only(path).image is None  # nothing that needs no images minds
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=str(tmp_path / "images/a.jpg")):
        list(data.load(f"coco:{path}", need_images=True))
    with pytest.raises(DataError, match="no such image file; tried"):
        list(data.load(f"coco:{path},images={tmp_path / 'images'}", need_images=True))


@pytest.mark.parametrize("size", [{}, {"width": None, "height": None}, {"width": 0, "height": 0}])
def test_sizes_that_are_not_stated_are_those_of_the_upright_pictures(tmp_path, size):
    path = small(tmp_path, images=[{"id": 1, "file_name": "a.jpg", **size}])
    with pytest.raises(DataError, match="width must be a whole number"):
        list(data.load(f"coco:{path}"))
    write_image(tmp_path / "a.jpg", (100, 80))
    assert only(path).image_wh == (100, 80)
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match="image '1': not an image that can be read"):
        list(data.load(f"coco:{path}"))


def test_the_real_layout_still_works(tmp_path):
    path = write_coco(tmp_path)
    names = [example.image.name for example in data.load(f"coco:{path}", need_images=True)]
    assert names == [image["file_name"] for image in COCO["images"]]
