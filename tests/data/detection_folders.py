"""COCO, D³, OVDEval and VLM-R1's rows in their real schema, small, written by the tests."""

from __future__ import annotations

import copy
import json
from pathlib import Path

from data.published_folders import write_image

COCO = {
    "info": {"year": 2017},
    "licenses": [],
    "images": [
        {"id": 139, "file_name": "000000000139.jpg", "width": 640, "height": 426, "license": 2},
        {"id": 285, "file_name": "000000000285.jpg", "width": 586, "height": 640, "license": 4},
    ],
    "annotations": [
        {"id": 1, "image_id": 139, "category_id": 1, "bbox": [412.8, 157.61, 53.05, 138.01], "iscrowd": 0, "area": 1.0},
        {"id": 2, "image_id": 139, "category_id": 18, "bbox": [10, 20, 30, 40], "iscrowd": 0, "segmentation": [[1, 2]]},
        {"id": 3, "image_id": 139, "category_id": 1, "bbox": [0, 0, 600, 100], "iscrowd": 1, "area": 1.0},
        {"id": 4, "image_id": 285, "category_id": 23, "bbox": [1, 69, 585, 571], "iscrowd": 0, "area": 1.0},
        {"id": 5, "image_id": 285, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1, "area": 1.0},
        {"id": 6, "image_id": 285, "category_id": 18, "bbox": [5, 5, 0, 7], "iscrowd": 0, "area": 0.0},
    ],
    "categories": [
        {"supercategory": "person", "id": 1, "name": "person"},
        {"supercategory": "animal", "id": 18, "name": "dog"},
        {"supercategory": "animal", "id": 23, "name": "bear"},
        {"supercategory": "kitchen", "id": 47, "name": "cup"},
    ],
}
"""A person, a dog and a crowd of persons; a bear, a crowd and a dog without area."""

D3 = {
    "images": [
        {"id": 0, "file_name": "equestrian/001.jpg", "width": 800, "height": 533},
        {"id": 1, "file_name": "equestrian/002.jpg", "width": 800, "height": 533},
        {"id": 2, "file_name": "dog_walking/003.jpg", "width": 640, "height": 480},
    ],
    "annotations": [
        {"id": 1, "image_id": 0, "category_id": 1, "bbox": [3, 218, 796, 315], "iscrowd": 0, "area": 1.0},
        {"id": 2, "image_id": 0, "category_id": 2, "bbox": [247, 118, 293, 415], "iscrowd": 0, "area": 1.0},
        {"id": 3, "image_id": 1, "category_id": 3, "bbox": [10, 10, 20, 20], "iscrowd": 0, "area": 1.0},
        {"id": 4, "image_id": 2, "category_id": 4, "bbox": [5, 6, 70, 80], "iscrowd": 0, "area": 1.0},
    ],
    "categories": [
        {"id": 1, "name": "railings being crossed by horses"},
        {"id": 2, "name": "a horse running or jumping"},
        {"id": 3, "name": "horseman without helmet"},
        {"id": 4, "name": "outdoor dog led by rope"},
        {"id": 5, "name": "dog not led by ropes outside"},
    ],
}
"""Two groups by folder: of sentences 1, 2, 3 and of 4, 5."""

OVDEVAL = {
    "categories": [
        {"supercategory": "object", "id": 0, "name": "computer without screen on"},
        {"supercategory": "object", "id": 1, "name": "computer with screen on"},
    ],
    "annotations": [{"id": 0, "bbox": [111, 117, 99, 75], "category_id": 0, "image_id": 0, "iscrowd": 0, "area": 7523}],
    "images": [
        {
            "file_name": "64d2.jpg",
            "id": 0,
            "height": 254,
            "width": 340,
            "text": ["computer without screen on"],
            "neg_text": ["computer with screen on"],
        }
    ],
}

VLMR1 = {
    "id": 1,
    "image": "equestrian/006.jpg",
    "conversations": [
        {
            "from": "human",
            "value": "Check the image and detect the following objects: ['railings being crossed by horses', "
            "\"equestrian rider's helmet\", 'person holding a torch']. Give boxes in this form: \n```json\n"
            '[{"bbox_2d": [x1, y1, x2, y2], "label": "object name"}]\n```\n. If there are none, say "None".',
        },
        {
            "from": "gpt",
            "value": '```json\n[{"bbox_2d": [3, 218, 799, 533], "label": "railings being crossed by horses"}, '
            '{"bbox_2d": [377, 59, 416, 109], "label": "equestrian rider\'s helmet"}]\n```',
        },
    ],
}


def write_json(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_coco(folder: Path, **changes) -> Path:
    """``annotations/instances_val2017.json`` and the images in ``val2017``."""
    value = {**copy.deepcopy(COCO), **changes}
    for image in COCO["images"]:
        write_image(folder / "val2017" / image["file_name"], (image["width"], image["height"]))
    return write_json(folder / "annotations" / "instances_val2017.json", value)


def write_d3(folder: Path) -> Path:
    """The three annotation files and the images; sentences 3 and 5 say what is absent."""
    for split, numbers in (("full", (1, 2, 3, 4, 5)), ("pres", (1, 2, 4)), ("abs", (3, 5))):
        value = dict(D3)
        value["categories"] = [found for found in D3["categories"] if found["id"] in numbers]
        value["annotations"] = [found for found in D3["annotations"] if found["category_id"] in numbers]
        write_json(folder / "d3_json" / f"d3_{split}_annotations.json", value)
    for image in D3["images"]:
        write_image(folder / "d3_images" / image["file_name"], (image["width"], image["height"]))
    return folder


def write_ovdeval(folder: Path) -> Path:
    """Two subsets, one of them with its images below ``images``."""
    write_json(folder / "negation.json", OVDEVAL)
    other = copy.deepcopy(OVDEVAL)
    other["images"][0] |= {"text": ["screen"], "neg_text": []}  # a label without a box, and a box without its label
    write_json(folder / "material.json", other)
    write_image(folder / "negation" / "64d2.jpg", (340, 254))
    write_image(folder / "images" / "material" / "64d2.jpg", (340, 254))
    return folder


def write_vlmr1(folder: Path, *rows: dict) -> Path:
    """``train.jsonl`` with the image of :data:`VLMR1` in ``images``."""
    write_image(folder / "images" / VLMR1["image"], (800, 533))
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows or (VLMR1,)), encoding="utf-8")
    return path
