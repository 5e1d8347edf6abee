"""Time and memory of going through a large data set: iterated, checked and counted, beside reading it whole.

    OMP_NUM_THREADS=1 python bench/data.py [--rows 100000] [--folder FOLDER] [--sets SET …] [--smoke]

Needs the package and h5py (`pip install -e .[h5]`), no torch, and about two gigabytes of disk. It writes generated sets
of VG150's shape (11 objects and 6 relations an image, no images) as JSONL, psg.json, VG150's h5 file and COCO instances
(with polygons, without relations), of a tenth of the rows and of all. Every figure is of a process of its own: its CPU
time, and the most memory it held, Python and packages included. `whole` is the usual way: everything in Python objects
or arrays before the first row is used.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import print_conditions, print_head, print_row

from scenerl import data
from scenerl.data.inspect.check import Checker
from scenerl.data.inspect.statistics import Statistics
from scenerl.data.vocabulary import Vocabulary

OBJECTS, RELATIONS = 11, 6
SIZE = (800, 600)
VOCABULARY = Vocabulary.read("vg150")
ACTIONS = ("iterate", "check", "count", "whole")
SPLIT = {"jsonl": None, "psg": "train", "vg150": "train", "coco": None}


def graphs(count: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Labels, boxes (whole xyxy) and relations (subject, object, predicate) of so many images, labels from 0."""
    rng = np.random.default_rng(0)
    for start in range(0, count, 1000):
        block = min(1000, count - start)
        labels = np.minimum(rng.zipf(1.3, (block, OBJECTS)), 150) - 1
        corners = rng.integers(0, (600, 400), (block, OBJECTS, 2))
        boxes = np.concatenate([corners, corners + rng.integers(20, 200, (block, OBJECTS, 2))], axis=-1)
        subjects = rng.integers(0, OBJECTS, (block, RELATIONS))
        objects = (subjects + rng.integers(1, OBJECTS, (block, RELATIONS))) % OBJECTS
        predicates = np.minimum(rng.zipf(1.3, (block, RELATIONS)), 50) - 1
        yield from zip(labels, boxes, np.stack([subjects, objects, predicates], axis=-1), strict=True)


def write_jsonl(folder: Path, count: int) -> str:
    with open(folder / "rows.jsonl", "w") as file:
        for n, (labels, boxes, relations) in enumerate(graphs(count)):
            ids = [f"{VOCABULARY.objects[label]}.{place}" for place, label in enumerate(labels)]
            row = {
                "image_id": str(n),
                "width": SIZE[0],
                "height": SIZE[1],
                "objects": [{"id": name, "bbox": box} for name, box in zip(ids, boxes.tolist(), strict=True)],
                "relationships": [
                    {"subject": ids[s], "predicate": VOCABULARY.predicates[p], "object": ids[o]}
                    for s, o, p in relations
                ],
            }
            file.write(json.dumps(row) + "\n")
    return f"jsonl:{folder / 'rows.jsonl'}"


def write_psg(folder: Path, count: int) -> str:
    with open(folder / "psg.json", "w") as file:
        file.write('{"data": [')
        for n, (labels, boxes, relations) in enumerate(graphs(count)):
            row = {
                "image_id": str(n),
                "file_name": f"train2017/{n:012}.jpg",
                "width": SIZE[0],
                "height": SIZE[1],
                "segments_info": [
                    {"id": n + place, "category_id": label, "iscrowd": 0, "isthing": 1, "area": 4000}
                    for place, label in enumerate(labels.tolist())
                ],
                "annotations": [
                    {"bbox": box, "bbox_mode": 0, "category_id": label}
                    for box, label in zip(boxes.tolist(), labels.tolist(), strict=True)
                ],
                "relations": relations.tolist(),
            }
            file.write(", " * (n > 0) + json.dumps(row))
        names = {"thing_classes": VOCABULARY.objects, "stuff_classes": [], "predicate_classes": VOCABULARY.predicates}
        file.write("], " + json.dumps({**names, "test_image_ids": []})[1:])
    return f"psg:{folder}"


def write_vg150(folder: Path, count: int) -> str:
    """As many images as asked for in training, after those for validation."""
    import h5py

    from scenerl.data.vg150 import NUM_VALIDATION

    count += NUM_VALIDATION
    parts = [np.stack(part) for part in zip(*graphs(count), strict=True)]
    labels, boxes, relations = parts[0], parts[1] * (1024 / SIZE[0]), parts[2]
    first = np.arange(count)
    extent = boxes[..., 2:] - boxes[..., :2]
    centred = np.concatenate([boxes[..., :2] + extent / 2, extent], axis=-1).astype(np.int32)
    with h5py.File(folder / "VG-SGG-with-attri.h5", "w") as file:
        file["split"] = np.zeros(count, np.int32)
        for name, number in (("box", OBJECTS), ("rel", RELATIONS)):
            file[f"img_to_first_{name}"], file[f"img_to_last_{name}"] = first * number, (first + 1) * number - 1
        file["labels"], file["boxes_1024"] = labels.reshape(-1, 1) + 1, centred.reshape(-1, 4)
        ends = relations[..., :2] + first[:, None, None] * OBJECTS
        file["relationships"], file["predicates"] = ends.reshape(-1, 2), relations[..., 2].reshape(-1, 1) + 1
    images = [{"image_id": n + 10_000, "width": SIZE[0], "height": SIZE[1], "url": f"{n}.jpg"} for n in range(count)]
    (folder / "image_data.json").write_text(json.dumps(images))
    names = {"label": VOCABULARY.objects, "predicate": VOCABULARY.predicates}
    value = {f"idx_to_{kind}": {str(n): name for n, name in enumerate(found, 1)} for kind, found in names.items()}
    (folder / "VG-SGG-dicts-with-attri.json").write_text(json.dumps(value))
    return f"vg150:{folder}"


def write_coco(folder: Path, count: int) -> str:
    """Instances with a polygon each, annotations before images as in COCO's own files; no relations."""
    polygon = [[round(n * 7.31, 2) for n in range(40)]]
    with open(folder / "instances.json", "w") as file:
        file.write('{"annotations": [')
        for n, (labels, boxes, _) in enumerate(graphs(count)):
            for place, (label, (x1, y1, x2, y2)) in enumerate(zip(labels.tolist(), boxes.tolist(), strict=True)):
                row = {
                    "segmentation": polygon,
                    "area": 4000.5,
                    "iscrowd": 0,
                    "image_id": n,
                    "bbox": [x1 + 0.25, y1 + 0.5, x2 - x1, y2 - y1],
                    "category_id": label,
                    "id": n * OBJECTS + place,
                }
                file.write(", " * (n + place > 0) + json.dumps(row))
        images = [
            {"id": n, "file_name": f"{n:012}.jpg", "width": SIZE[0], "height": SIZE[1], "license": 3}
            for n in range(count)
        ]
        names = [{"id": n, "name": name} for n, name in enumerate(VOCABULARY.objects)]
        file.write("], " + json.dumps({"images": images, "categories": names})[1:])
    return f"coco:{folder / 'instances.json'},query=sampled"


WRITERS = {"jsonl": write_jsonl, "psg": write_psg, "vg150": write_vg150, "coco": write_coco}


def read_whole(name: str, path: Path) -> int:
    """The number of images, after everything is in memory."""
    if name == "jsonl":
        with open(path) as file:
            return len([json.loads(line) for line in file])
    if name == "psg":
        return len(json.loads((path / "psg.json").read_text())["data"])
    if name == "coco":
        return len(json.loads(Path(str(path).partition(",")[0]).read_text())["images"])
    import h5py

    with h5py.File(path / "VG-SGG-with-attri.h5") as file:
        arrays = {key: file[key][:] for key in file}
    images = json.loads((path / "image_data.json").read_text())
    cuts = arrays["img_to_first_box"][1:]
    boxes = np.split(arrays["boxes_1024"], cuts)
    return len([(image, found) for image, found in zip(images, boxes, strict=True)])


def run_one(source: str, action: str) -> None:
    """Do it and print what it took."""
    name, _, path = source.partition(":")
    start = time.process_time()
    if action == "iterate":
        count = sum(1 for _ in data.load(source, SPLIT[name]))
    elif action == "check":
        checker = Checker(VOCABULARY, images=False)
        problems = sum(1 for problem in checker.problems(data.read(source, SPLIT[name])) if problem.level == "error")
        count = checker.counts["rows"] if not problems else -problems
    elif action == "count":
        count = Statistics.of(data.load(source, SPLIT[name])).as_dict()["num_images"]
    else:
        count = read_whole(name, Path(path))
    seconds = time.process_time() - start
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"count": count, "seconds": seconds, "megabytes": peak / 1024}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="images of the larger sets")
    parser.add_argument("--folder", type=Path, help="where to write the sets; not given: a temporary folder")
    parser.add_argument("--sets", nargs="+", choices=WRITERS, default=list(WRITERS), help="which; not given: all")
    parser.add_argument("--smoke", action="store_true", help="twenty rows: that it runs, no figures worth keeping")
    parser.add_argument("--one", nargs=2, metavar=("SOURCE", "ACTION"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run_one(*options.one)
        return
    sizes = (20,) if options.smoke else (options.rows // 10, options.rows)

    print_conditions("CPU time, one thread", ("numpy", "h5py", "ijson"))
    print_head(
        "set", "rows", "file", "iterate", "check", "count", "most memory", "whole", "its memory", "share", left=1
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for name in options.sets:
            for rows in sizes:
                place = Path(folder) / f"{name}_{rows}"
                place.mkdir()
                source = WRITERS[name](place, rows)
                taken = {}
                for action in ACTIONS:
                    command = [sys.executable, __file__, "--one", source, action]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    taken[action] = json.loads(done.stdout)
                    if action != "whole" and taken[action]["count"] != rows:
                        sys.exit(f"{source}: {action} gave {taken[action]['count']} of {rows} images")
                size = sum(file.stat().st_size for file in place.iterdir()) / 2**20
                most = max(taken[action]["megabytes"] for action in ACTIONS[:3])
                whole = taken["whole"]
                print_row(
                    name,
                    f"{rows:,}",
                    f"{size:.0f} MiB",
                    *(f"{taken[action]['seconds']:.1f} s" for action in ACTIONS[:3]),
                    f"{most:.0f} MiB",
                    f"{whole['seconds']:.1f} s",
                    f"{whole['megabytes']:.0f} MiB",
                    f"{most / whole['megabytes']:.2f}",
                )


if __name__ == "__main__":
    main()
