"""Folders of published data sets in their real schema, small, written by the tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Size = tuple[int, int]


def write_image(path: Path, size: Size) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 150)).save(path, "JPEG")


def write_vg150(
    folder: Path,
    images: Sequence[dict],
    labels: Sequence[str] = ("man", "horse", "hat"),
    predicates: Sequence[str] = ("on", "wearing"),
    attributes: bool = True,
) -> Path:
    """VG-SGG's h5 file, its dictionaries and image_data.json.

    Args:
        images: for each ``image_id``, ``size``, ``split`` (0 or 2), ``boxes`` (class from 1, then centre x, centre y,
            width, height at 1024), ``relations`` (subject, object, predicate from 1, by place in the image).
        attributes: with the file names that hold attributes.
    """
    import h5py

    folder.mkdir(parents=True, exist_ok=True)
    first_box, last_box, first_rel, last_rel = [], [], [], []
    boxes, relations = [], []
    for image in images:
        start = len(boxes)
        found, edges = image.get("boxes", []), image.get("relations", [])
        first_box.append(start if found else -1)
        last_box.append(start + len(found) - 1 if found else -1)
        first_rel.append(len(relations) if edges else -1)
        last_rel.append(len(relations) + len(edges) - 1 if edges else -1)
        boxes += found
        relations += [(start + subject, start + object_, predicate) for subject, object_, predicate in edges]
    boxes, relations = (
        np.array(rows, dtype=np.int32).reshape(-1, width) for rows, width in ((boxes, 5), (relations, 3))
    )
    with h5py.File(folder / f"VG-SGG{'-with-attri' * attributes}.h5", "w") as file:
        file["split"] = np.array([image["split"] for image in images], dtype=np.int32)
        file["img_to_first_box"], file["img_to_last_box"] = np.int32(first_box), np.int32(last_box)
        file["img_to_first_rel"], file["img_to_last_rel"] = np.int32(first_rel), np.int32(last_rel)
        file["labels"], file["boxes_1024"] = boxes[:, :1].astype(np.int64), boxes[:, 1:]
        file["boxes_512"] = boxes[:, 1:] // 2
        file["relationships"], file["predicates"] = relations[:, :2], relations[:, 2:].astype(np.int64)
        file["active_object_mask"] = np.ones((len(boxes), 1), dtype=bool)
        if attributes:
            file["attributes"] = np.zeros((len(boxes), 10), dtype=np.int64)
    write_vg150_names(folder, labels, predicates, attributes)
    rows = [
        {
            "width": image["size"][0],
            "height": image["size"][1],
            "url": f"https://example.org/VG_100K_2/{image['image_id']}.jpg",
            "image_id": image["image_id"],
            "coco_id": None,
            "flickr_id": None,
        }
        for image in images
    ]
    corrupted = [{"image_id": number, "width": 5, "height": 5} for number in (1592, 4617)]
    (folder / "image_data.json").write_text(json.dumps([*rows[:1], corrupted[0], *rows[1:], corrupted[1]]))
    return folder


def write_vg150_names(folder: Path, labels: Sequence[str], predicates: Sequence[str], attributes: bool = True) -> None:
    value = {}
    for kind, names in (("label", labels), ("predicate", predicates), ("attribute", ["red"])):
        value[f"idx_to_{kind}"] = {str(number): name for number, name in enumerate(names, start=1)}
        value[f"{kind}_to_idx"] = {name: number for number, name in enumerate(names, start=1)}
    (folder / f"VG-SGG-dicts{'-with-attri' * attributes}.json").write_text(json.dumps(value))


VG150_IMAGES = (
    # 800 x 600: a unit of the 1024 scale is 0.78125 pixels
    {
        "image_id": 11,
        "size": (800, 600),
        "split": 0,
        "boxes": [(1, 256, 256, 128, 256), (2, 512, 512, 512, 256)],
        "relations": [(0, 1, 1)],
    },
    {"image_id": 12, "size": (100, 100), "split": 0, "boxes": [(3, 512, 512, 100, 100)]},  # no relation
    {"image_id": 13, "size": (100, 100), "split": 0},  # nothing at all
    {
        "image_id": 14,
        "size": (512, 1024),
        "split": 2,
        "boxes": [(1, 100, 900, 200, 249), (3, 100, 800, 51, 51)],
        "relations": [(0, 1, 2), (0, 1, 2), (1, 0, 1)],
    },
    {
        "image_id": 15,
        "size": (1024, 1024),
        "split": 0,
        "boxes": [(1, 10, 10, 20, 20), (1, 30, 30, 20, 20)],
        "relations": [(1, 0, 2)],
    },
)
"""Train 15 (and 11, which is for validation), test 14."""


def psg_value(rows: Sequence[dict], test_image_ids: Sequence[str] = ()) -> dict:
    """psg.json with a few classes."""
    return {
        "data": list(rows),
        "thing_classes": ["person", "horse"],
        "stuff_classes": ["grass-merged"],
        "predicate_classes": ["over", "in front of", "riding"],
        "test_image_ids": list(test_image_ids),
    }


PSG_ROWS = (
    {
        "image_id": "107",
        "coco_image_id": "9",
        "file_name": "train2017/000000000009.jpg",
        "height": 60,
        "width": 80,
        "pan_seg_file_name": "panoptic_train2017/000000000009.png",
        "segments_info": [{"id": 1, "category_id": 0, "iscrowd": 0, "isthing": 1, "area": 10}],
        "annotations": [
            {"bbox": [10, 5, 30, 50], "bbox_mode": 0, "category_id": 0},
            {"bbox": [5, 20, 60, 60], "bbox_mode": 0, "category_id": 1},
            {"bbox": [0, 40, 80, 60], "bbox_mode": 0, "category_id": 2},
            {"bbox": [7, 9, 7, 12], "bbox_mode": 0, "category_id": 1},  # no width
        ],
        "relations": [[0, 1, 2], [0, 1, 0], [0, 1, 2], [3, 2, 0], [1, 2, 0]],
    },
    {
        "image_id": "108",
        "file_name": "val2017/000000000010.jpg",
        "height": 60,
        "width": 80,
        "annotations": [{"bbox": [10, 5, 30, 50], "bbox_mode": 0, "category_id": 0}],
        "relations": [],
    },
    {
        "image_id": "109",
        "file_name": "val2017/000000000011.jpg",
        "height": 60,
        "width": 80,
        "annotations": [
            {"bbox": [0, 0, 80, 60], "bbox_mode": 0, "category_id": 2},
            {"bbox": [10, 5, 30, 50], "bbox_mode": 0, "category_id": 0},
        ],
        "relations": [[1, 0, 1]],
    },
)
"""Train 107 and 108, test 109."""


def write_psg(folder: Path, rows: Sequence[dict] = PSG_ROWS, test_image_ids: Sequence[str] = ("109",)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "psg.json").write_text(json.dumps(psg_value(rows, test_image_ids)))
    return folder


VCOCO_ACTIONS = (
    {
        "image_id": [30, 20, 20, 20],
        "role_object_id": [301, 201, 202, 202, 302, 203, 0, 203],  # agents, then objects
        "ann_id": [301, 201, 202, 202],
        "label": [1, 1, 1, 0],
        "action_name": "hold",
        "role_name": ["agent", "obj"],
        "include": [[], []],
    },
    {
        "image_id": [20],
        "role_object_id": [201],
        "ann_id": [201],
        "label": [1],
        "action_name": "walk",
        "role_name": ["agent"],
    },
    {
        "image_id": [20, 40],
        "role_object_id": [202, 401, 203, 0, 201, 0],
        "ann_id": [202, 401],
        "label": [1, 1],
        "action_name": "cut",
        "role_name": ["agent", "instr", "obj"],
        "include": [[], [], []],
    },
)
"""20: 201 hold obj 203, 202 cut instr 203, 202 cut obj 201; 30: 301 hold obj 302; 40: no relation."""

COCO_INSTANCES = {
    "info": {"description": "small"},
    "images": [
        {"id": number, "width": 640, "height": 480, "file_name": f"COCO_val2014_{number:012}.jpg"}
        for number in (20, 30, 40, 50)
    ],
    "annotations": [
        {"id": number, "image_id": number // 100 * 10, "category_id": category, "bbox": box, "iscrowd": 0}
        for number, category, box in (
            (201, 1, [10.5, 20, 100.25, 200]),
            (202, 1, [300, 20, 100, 200]),
            (203, 87, [150, 100, 20, 30]),
            (301, 1, [1, 2, 3, 4]),
            (302, 87, [600, 400, 41, 80]),
            (401, 1, [1, 2, 3, 4]),
            (501, 1, [1, 2, 3, 4]),
        )
    ],
    "categories": [{"id": 1, "name": "person"}, {"id": 87, "name": "scissors"}],
}


def write_vcoco(folder: Path, flat: bool = False) -> Path:
    """As a clone of V-COCO has it, or all files in one folder with COCO's own instances."""
    labels, instances = folder / "data" / "vcoco", folder / "data"
    if flat:
        labels = instances = folder
    labels.mkdir(parents=True, exist_ok=True)
    (labels / "vcoco_test.json").write_text(json.dumps(VCOCO_ACTIONS))
    if flat:
        half = len(COCO_INSTANCES["annotations"]) // 2
        for part, chosen in (("train", slice(None, half)), ("val", slice(half, None))):
            value = {**COCO_INSTANCES, "annotations": COCO_INSTANCES["annotations"][chosen]}
            (instances / f"instances_{part}2014.json").write_text(json.dumps(value))
    else:
        (instances / "instances_vcoco_all_2014.json").write_text(json.dumps(COCO_INSTANCES))
    return folder
