"""Label Studio's own JSON, as its exporter writes it: regions, relations, where images are, what is no task."""

from __future__ import annotations

import pytest

from data.detection_folders import write_json
from data.published_folders import write_image
from scenerl import data
from scenerl.errors import DataError
from scenerl.types import Relation


def region(number, label, x, y, width, height, kind="rectanglelabels", **more):
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": more.pop("rotation", 0), kind: [label]}
    return {"original_width": 200, "original_height": 100, "image_rotation": 0, "value": value | more, "id": number,
            "from_name": "label", "to_name": "image", "type": kind, "origin": "manual"}  # fmt: skip


def shape(kind, **value):
    return region("c", "x", 0, 0, 0, 0) | {"type": kind, "value": value}


def relation(start, end, *labels, direction="right"):
    return {"from_id": start, "to_id": end, "type": "relation", "direction": direction, "labels": list(labels)}


MAN = region("a", "man", 10, 20, 20, 60)  # (20, 20, 60, 80) of 200 x 100
HORSE = region("b", "horse", 25, 40, 50, 50)  # (50, 40, 150, 90)


def annotation(*results, **more):
    times = {"created_at": "2024-05-07T12:34:36.829143Z", "updated_at": "2024-05-07T16:27:17.914777Z"}
    kind = {"was_cancelled": False, "ground_truth": False}
    return {"id": 1, "completed_by": 1, "result": list(results), **kind, **times, **more}


def task(*annotations, number=7, image="/data/upload/3/3f2a9c1b-photo.jpg", **more):
    return {"id": number, "annotations": list(annotations), "file_upload": "3f2a9c1b-photo.jpg", "drafts": [],
            "predictions": [], "data": {"image": image}, "meta": {}, "project": 3, **more}  # fmt: skip


def write(folder, *tasks):
    path = folder / "project-3-at-2024-05-07.json"
    write_json(path, list(tasks))
    return path


def only(source, **options):
    (example,) = data.load(source, **options)
    return example


def found(example):
    return [(item.label, item.box) for item in example.graph.objects]


BOXES = [("man", (20, 20, 60, 80)), ("horse", (50, 40, 150, 90))]


@pytest.mark.parametrize(
    "direction, expected",
    [
        ("right", {Relation(0, "riding", 1)}),
        ("left", {Relation(1, "riding", 0)}),
        ("bi", {Relation(0, "riding", 1), Relation(1, "riding", 0)}),
    ],
)
def test_relations_make_scene_graphs(tmp_path, direction, expected):
    path = write(tmp_path, task(annotation(MAN, HORSE, relation("a", "b", "riding", direction=direction))))
    for source in (path, f"label_studio:{path}"):
        example = only(source)
        assert (example.image_id, example.image_wh, example.query) == ("7", (200, 100), None)
        assert found(example) == BOXES and set(example.graph.relations) == expected
    assert only(f"label_studio:{path},query=present").query == ("man", "horse")


def test_without_relations_it_is_detection(tmp_path):
    path = write(tmp_path, task(annotation(MAN)), task(annotation(HORSE), number=8), task(annotation(), number=9))
    write_image(tmp_path / "photo.jpg", (200, 100))
    man, horse, nothing = data.load(path, need_images=True)
    assert man.query == horse.query == nothing.query == ("man", "horse")
    assert found(man) == BOXES[:1] and found(horse) == BOXES[1:] and found(nothing) == []
    assert nothing.image_wh == (200, 100)  # without a region nothing but the image says so


def test_several_labels_of_a_relation_and_one_without(tmp_path):
    results = [MAN, HORSE, relation("a", "b", "on", "riding"), relation("b", "a"), relation("a", "z", "near")]
    path = write(tmp_path, task(annotation(*results)))
    (record,) = data.read(path)
    assert set(record.example.graph.relations) == {Relation(0, "on", 1), Relation(0, "riding", 1)}
    assert [warning.split(":")[0] for warning in record.warnings] == [
        "a relation without a label or without its regions is left out"
    ] * 2


@pytest.mark.parametrize(
    "result, box",
    [
        # Label Studio's issue 2293 says what box this is.
        (region("a", "x", 30, 20, 30, 20, rotation=90), (40, 20, 60, 80)),
        (shape("polygonlabels", points=[[10, 20], [30, 50], [5, 60]], polygonlabels=["x"]), (10, 20, 60, 60)),
        (
            shape("ellipselabels", x=50, y=50, radiusX=10, radiusY=10, rotation=0, ellipselabels=["x"]),
            (80, 40, 120, 60),
        ),
        (
            shape("ellipselabels", x=50, y=50, radiusX=10, radiusY=10, rotation=90, ellipselabels=["x"]),
            (90, 30, 110, 70),
        ),
        (shape("labels", x=10, y=20, width=20, height=60, rotation=0, labels=["x"]), (20, 20, 60, 80)),
    ],
)
def test_regions_count_by_the_upright_box_around_them(tmp_path, result, box):
    assert found(only(write(tmp_path, task(annotation(result))))) == [("x", pytest.approx(box))]


def test_labels_apart_from_their_rectangle_and_answers_about_a_region(tmp_path):
    """With <Rectangle> and <Labels> a region is two results; per-region choices and texts are more."""
    rectangle = shape("rectangle", x=10, y=20, width=20, height=60)
    choice = shape("choices", x=10, y=20, width=20, height=60, choices=["old"])
    results = [
        rectangle,
        region("c", "man", 10, 20, 20, 60, "labels"),
        choice,
        {"type": "rating", "value": {"rating": 3}},
    ]
    assert found(only(write(tmp_path, task(annotation(*results))))) == BOXES[:1]


@pytest.mark.parametrize(
    "result, message",
    [
        (shape("brushlabels", format="rle", rle=[1, 2], brushlabels=["x"]), "a region of 'x' has no box"),
        (shape("keypointlabels", x=1, y=2, width=0.3, keypointlabels=["x"]), "a region of 'x' has no box"),
        (shape("rectangle", x=1, y=2, width=3, height=4), "a region without a label"),
        (region("a", "x", "1", 2, 3, 4), "a region of 'x' has no box"),
        (region("a", "x", 1e300, 2, 3, 4), "a region of 'x' has no box"),
        (region("a", "x", 1, 2, 3, 4, rotation="left"), "a region of 'x' has no box"),
        (MAN | {"image_rotation": 90}, "was drawn while the image was turned by 90 degrees"),
        (MAN | {"original_width": "200"}, "a region of 'man' has no box"),
    ],
)
def test_what_has_no_box_is_an_error_of_its_image(tmp_path, result, message):
    path = write(tmp_path, task(annotation(result)), task(annotation(MAN), number=8))
    with pytest.raises(DataError, match=f"entry 0: result 0: .*{message}|entry 0: {message}"):
        list(data.load(path))
    assert [example.image_id for example in data.load(path, skip_bad=True)] == ["8"]


def test_of_several_annotations_the_ground_truth_counts_else_the_last(tmp_path):
    old, new = annotation(MAN, updated_at="2024-01-01"), annotation(HORSE, updated_at="2024-01-02")
    passed = "1 other annotation of the image passed over"
    for done, expected, warnings in [
        ([old, new], BOXES[1:], (passed,)),
        ([new, old], BOXES[1:], (passed,)),
        ([old | {"ground_truth": True}, new], BOXES[:1], (passed,)),
        ([old, new | {"was_cancelled": True}], BOXES[:1], ()),
    ]:
        (record,) = data.read(write(tmp_path, task(*done)))
        assert found(record.example) == expected and record.warnings == warnings


def test_tasks_without_annotations_are_left_out(tmp_path):
    (record,) = data.read(write(tmp_path, task(number=6), task(annotation(MAN)), task(annotation(was_cancelled=True))))
    assert record.example.image_id == "7"
    assert record.warnings == ("of the file, 2 tasks without an annotation left out",)
    with pytest.raises(DataError, match=r"no task has an annotation \(of 1\)"):
        list(data.load(write(tmp_path, task())))


@pytest.mark.parametrize(
    "image, file",
    [
        ("/data/upload/3/3f2a9c1b-photo.jpg", "images/3f2a9c1b-photo.jpg"),
        ("/data/upload/3/3f2a9c1b-photo.jpg", "photo.jpg"),
        ("/data/local-files/?d=set%20a/photo.jpg", "images/set a/photo.jpg"),
        ("s3://bucket/set/photo.jpg", "images/photo.jpg"),
        ("https://example.com/set/photo.jpg?X-Amz-Signature=1", "photo.jpg"),
        ("data:image/jpeg;base64,/9j/4AAQ" + "A" * 5000, "3f2a9c1b-photo.jpg"),
    ],
)
@pytest.mark.parametrize("key", ["image", "img_url"])
def test_where_images_are(tmp_path, image, file, key):
    write_image(tmp_path / file, (200, 100))
    path = write(tmp_path, task(annotation(MAN), data={"caption": "a man", key: image}))
    assert only(path, need_images=True).image == (tmp_path / file).absolute()


def test_the_folder_of_uploads_may_be_given(tmp_path):
    write_image(tmp_path / "media" / "3" / "3f2a9c1b-photo.jpg", (200, 100))
    path = write(tmp_path, task(annotation(MAN)))
    assert only(f"label_studio:{path},images={tmp_path / 'media'}", need_images=True).image_id == "7"
    with pytest.raises(DataError, match=r"there is no such image file; tried: .*3f2a9c1b-photo\.jpg"):
        only(path, need_images=True)


def test_json_min(tmp_path):
    sides = {"original_width": 200, "original_height": 100}
    values = [one["value"] | sides for one in (MAN, HORSE)]
    entry = {"image": "/data/upload/3/3f2a9c1b-photo.jpg", "id": 7, "label": values, "annotator": 1, "annotation_id": 2,
             "created_at": "2024-05-07", "updated_at": "2024-05-07", "lead_time": 3.5}  # fmt: skip
    example = only(write(tmp_path, entry))
    assert found(example) == BOXES and example.query == ("man", "horse") and example.image_wh == (200, 100)


@pytest.mark.parametrize(
    "content, message",
    [
        ([1, 2], "not JSON as expected.*no JSON object"),
        ([], "not JSON as expected.*no JSON object"),
        ([{"label": "dog"}], "not JSON as expected.*no JSON object"),
        ([task(annotation(MAN)), {"id": 3}], "entry 1: found {'id': 3}; expected Label Studio's JSON"),
        ([task(annotation(MAN)), 3], "entry 1: found 3; expected Label Studio's JSON"),
        ([{"data": [], "annotations": [{"result": [MAN, 3, None]}]}], "image_id must be a text"),
        ([{"data": {}, "annotations": {}}], "no task has an annotation"),
        ([task(annotation({"type": "relation"}))], "width must be a whole number"),
    ],
)
def test_lists_that_are_no_tasks(tmp_path, content, message):
    path = tmp_path / "list.json"
    write_json(path, content)
    with pytest.raises(DataError, match=message):
        list(data.load(path))
