"""Exports of annotation tools: Pascal VOC, YOLO and LabelMe in the layouts of the tools, and COCO files."""

from __future__ import annotations

import json

import pytest

from data.detection_folders import write_json
from data.published_folders import write_image
from scenerl import data
from scenerl.data.ground_truth import load_ground_truth
from scenerl.errors import DataError

VOC = """<annotation><folder>VOC2007</folder><filename>{name}.jpg</filename><size><width>100</width><height>80</height>
<depth>3</depth></size><object><name>dog</name><pose>Left</pose><truncated>0</truncated><difficult>0</difficult><bndbox>
<xmin>11</xmin><ymin>21</ymin><xmax>40</xmax><ymax>60</ymax></bndbox></object></annotation>"""
LABELME = {"version": "5.5.0", "flags": {}, "imageData": None, "imageWidth": 100, "imageHeight": 80, "shapes": [
    {"label": "dog", "points": [[40, 60], [10, 20]], "group_id": None, "shape_type": "rectangle"}]}  # fmt: skip
BOX = (10, 20, 40, 60)


def write_voc(images, labels, *names):
    for name in names:
        write_image(images / f"{name}.jpg", (100, 80))
        labels.mkdir(parents=True, exist_ok=True)
        (labels / f"{name}.xml").write_text(VOC.format(name=name))


def write_yolo(images, labels, line="1 0.25 0.5 0.3 0.5\n"):
    write_image(images / "a.jpg", (100, 80))
    write_image(images / "empty.jpg", (100, 80))  # without a file of labels: without an object
    labels.mkdir(parents=True, exist_ok=True)
    (labels / "a.txt").write_text(line)


def only(source, split=None, **options):
    example, *_ = data.load(source, split=split, need_images=True, **options)
    return example


def check(example, query):
    assert (example.image_id, example.image_wh, example.query) == ("a", (100, 80), query)
    assert [(item.label, item.box) for item in example.graph.objects] == [("dog", pytest.approx(BOX))]


@pytest.fixture(autouse=True)
def library():
    pytest.importorskip("supervision", reason="the extra graphs is not installed")


@pytest.mark.parametrize("folders", [("JPEGImages", "Annotations"), ("images", "Annotations"), (".", ".")])
def test_voc(tmp_path, folders):
    write_voc(*(tmp_path / name for name in folders), "a")
    check(only(f"annotated:{tmp_path}"), ("dog",))  # VOC counts pixels from 1


def test_voc_with_image_sets(tmp_path):
    write_voc(tmp_path / "JPEGImages", tmp_path / "Annotations", "a", "b")
    for split, text in (("train", "b\n"), ("val", "a  1\n")):
        path = tmp_path / "ImageSets" / "Main" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert [one.image_id for one in data.load(f"annotated:{tmp_path}", split="val")] == ["a"]
    with pytest.raises(DataError, match="needs a split; allowed: train, val"):
        list(data.load(f"annotated:{tmp_path}"))


def test_roboflow_voc(tmp_path):
    for split in ("train", "valid"):
        write_voc(tmp_path / split, tmp_path / split, "a")
    check(only(f"annotated:{tmp_path}", "valid"), ("dog",))


@pytest.mark.parametrize(
    ("images", "labels", "names", "split"),
    [
        ("train/images", "train/labels", "data.yaml", "train"),  # Roboflow
        ("images/train", "labels/train", "data.yaml", "train"),  # Ultralytics, CVAT
        ("images", "labels", "classes.txt", None),  # Label Studio
        ("obj_train_data", "obj_train_data", "obj.names", "obj_train_data"),  # CVAT, YOLO 1.1
    ],
)
def test_yolo(tmp_path, images, labels, names, split):
    write_yolo(tmp_path / images, tmp_path / labels)
    (tmp_path / "README.dataset.txt").write_text("about")
    text = "cat\ndog\n" if not names.endswith("yaml") else "train: ../train/images\nnc: 2\nnames: ['cat', 'dog']\n"
    (tmp_path / names).write_text(text)
    first, second = data.load(f"annotated:{tmp_path}", split=split, need_images=True)
    check(first, ("cat", "dog"))
    assert second.graph.objects == ()
    assert next(iter(data.load(f"annotated:{tmp_path},query=present", split=split))).query == ("dog",)
    assert load_ground_truth(f"annotated:{tmp_path}", split).names.objects == {0: "cat", 1: "dog"}


@pytest.mark.parametrize("kind", ["voc", "yolo"])
def test_label_studio_puts_a_prefix_before_the_names_of_uploads(tmp_path, kind):
    """Its exports without images beside the photos that were uploaded."""
    if kind == "voc":
        write_voc(tmp_path / "images", tmp_path / "Annotations", "a")
        file, query = tmp_path / "Annotations" / "a.xml", ("dog",)
    else:
        write_yolo(tmp_path / "images", tmp_path / "labels")
        (tmp_path / "classes.txt").write_text("cat\ndog\n")
        file, query = tmp_path / "labels" / "a.txt", ("cat", "dog")
    file = file.rename(file.with_name(f"3f2a9c1b-{file.name}"))
    check(only(f"annotated:{tmp_path}"), query)
    twin = file.with_name(file.name.replace("3f2a", "4f2a"))
    twin.write_bytes(file.read_bytes())
    with pytest.raises(DataError, match=f"{twin.name}: annotates the image a, as {file.name} does"):
        only(f"annotated:{tmp_path}")


def test_polygons_and_turned_boxes_of_yolo_count_by_the_box_around_them(tmp_path):
    write_yolo(tmp_path / "images", tmp_path / "labels", "1 0.1 0.25 0.4 0.25 0.4 0.75 0.1 0.75\n")
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\n")
    check(only(f"annotated:{tmp_path}"), ("cat", "dog"))


def test_labelme(tmp_path):
    write_image(tmp_path / "a.jpg", (100, 80))
    write_json(tmp_path / "a.json", LABELME | {"imagePath": "..\\photos\\a.jpg"})
    check(only(f"annotated:{tmp_path}"), ("dog",))
    check(only(f"annotated:{tmp_path},format=labelme"), ("dog",))


def labelme_shape(kind, points, **changes):
    """A shape as LabelMe 5 writes it."""
    return {"label": "dog", "points": points, "group_id": None, "description": "", "shape_type": kind, "flags": {},
            "mask": None, **changes}  # fmt: skip


@pytest.mark.parametrize(
    "shape",
    [
        labelme_shape("rectangle", [[10.0, 60.0], [40.0, 20.0]]),
        labelme_shape("rectangle", [[40, 20], [40, 60], [10, 60], [10, 20]]),  # LabelMe 6 has four corners
        labelme_shape("polygon", [[25, 20], [40, 30], [12, 60], [10, 25]]),
        labelme_shape(None, [[25, 20], [40, 30], [12, 60], [10, 25]]),  # before LabelMe 4
        labelme_shape("oriented_rectangle", [[25, 20], [40, 40], [25, 60], [10, 40]]),
        labelme_shape("rotation", [[25, 20], [40, 40], [25, 60], [10, 40]], direction=0.9),
        labelme_shape("mask", [[10, 20], [40, 60]], mask="iVBORw0KGgo="),
    ],
)
def test_labelmes_shapes_count_by_the_box_around_them(tmp_path, shape):
    write_image(tmp_path / "a.jpg", (100, 80))
    write_json(tmp_path / "a.json", LABELME | {"imagePath": "a.jpg", "shapes": [shape]})
    check(only(f"annotated:{tmp_path}"), ("dog",))


def test_a_circle_of_labelme_is_its_centre_and_a_point_on_it(tmp_path):
    write_image(tmp_path / "a.jpg", (100, 80))
    circle = labelme_shape("circle", [[50, 40], [53, 44]])
    write_json(tmp_path / "a.json", LABELME | {"imagePath": "a.jpg", "shapes": [circle]})
    assert [item.box for item in only(f"annotated:{tmp_path}").graph.objects] == [(45, 35, 55, 45)]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (labelme_shape("point", [[5, 6]]), "a point has no box; allowed: rectangle, polygon"),
        (labelme_shape("line", [[5, 6], [7, 8]]), "a line has no box"),
        (labelme_shape("linestrip", [[5, 6], [7, 8], [9, 9]]), "a linestrip has no box"),
        (labelme_shape("rectangle", [[5, 6]]), "the points of a rectangle must be"),
        (labelme_shape("circle", [[5, 6], [float("nan"), 3]]), "the points of a circle must be"),
        (labelme_shape("polygon", [[5, 6, 7]] * 3), "the points of a polygon must be"),
    ],
)
def test_a_shape_of_labelme_without_a_box_is_an_error_of_its_image(tmp_path, shape, message):
    for name, shapes in (("a", [*LABELME["shapes"], shape]), ("b", LABELME["shapes"])):
        write_image(tmp_path / f"{name}.jpg", (100, 80))
        write_json(tmp_path / f"{name}.json", LABELME | {"imagePath": f"{name}.jpg", "shapes": shapes})
    with pytest.raises(DataError, match=rf"a\.json: shapes\[1\]: {message}"):
        only(f"annotated:{tmp_path}")
    assert [one.image_id for one in data.load(f"annotated:{tmp_path}", skip_bad=True)] == ["b"]


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(DataError, match="there is no such folder"):
        list(data.load(f"annotated:{tmp_path / 'nowhere'}"))
    with pytest.raises(DataError, match="holds no images with annotation files"):
        list(data.load(f"annotated:{tmp_path}"))
    write_yolo(tmp_path / "images", tmp_path / "labels", "1 0.5 zero 0.1 0.1\n")
    with pytest.raises(DataError, match=r"no data\.yaml, classes\.txt or obj\.names names the classes"):
        list(data.load(f"annotated:{tmp_path}"))
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\n")
    with pytest.raises(DataError, match="cannot be read as yolo"):
        list(data.load(f"annotated:{tmp_path}"))
    with pytest.raises(DataError, match="allowed for format: auto, voc, yolo, labelme"):
        list(data.load(f"annotated:{tmp_path},format=csv"))


def test_coco_files_that_the_library_writes(tmp_path):
    from supervision import DetectionDataset

    write_yolo(tmp_path / "images", tmp_path / "labels")
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\n")
    dataset = DetectionDataset.from_yolo(
        str(tmp_path / "images"), str(tmp_path / "labels"), str(tmp_path / "data.yaml")
    )
    path = tmp_path / "out.json"
    dataset.as_coco(annotations_path=str(path))
    by_name = {example.image.name: example for example in data.load(path, need_images=True)}
    assert [(item.label, item.box) for item in by_name["a.jpg"].graph.objects] == [("dog", pytest.approx(BOX))]
    assert by_name["a.jpg"].query == ("cat", "dog") and by_name["empty.jpg"].graph.objects == ()
    assert json.loads(path.read_text())["categories"]
