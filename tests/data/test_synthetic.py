"""The synthetic scenes: exact, reproducible, long-tailed, and incompletely annotated on purpose."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from scenerl import data
from scenerl.boxes import as_boxes, iou_matrix
from scenerl.data import synthetic


@pytest.fixture(scope="module")
def scenes():
    return [synthetic.scene(f"test/{number}") for number in range(300)]


def test_same_seed_same_scene():
    first, second = synthetic.scene("a"), synthetic.scene("a")
    assert first[1] == second[1] and np.array_equal(np.asarray(first[0]), np.asarray(second[0]))
    assert synthetic.scene("b")[1] != first[1]


def test_boxes_stand_on_the_raster_and_in_the_image(scenes):
    for image, graph in scenes:
        cells = as_boxes([obj.box for obj in graph.objects]) * synthetic.CELLS / image.width
        assert np.allclose(cells, cells.round(), atol=0.01)
        assert (cells >= 0).all() and (cells <= synthetic.CELLS).all()


def test_every_pair_has_one_relation(scenes):
    for _, graph in scenes:
        pairs = Counter(frozenset((relation.subject, relation.object)) for relation in graph.relations)
        assert set(pairs) == {frozenset(pair) for pair in combinations(range(len(graph.objects)), 2)}
        assert set(pairs.values()) == {1}


def test_objects_are_listed_by_class_then_place(scenes):
    for _, graph in scenes:
        listed = [(obj.label, obj.box) for obj in graph.objects]
        assert listed == sorted(listed)


def test_predicates_say_what_the_boxes_show(scenes):
    for image, graph in scenes:
        for relation in graph.relations:
            a, b = graph.objects[relation.subject].box, graph.objects[relation.object].box
            right, down = b[0] + b[2] - a[0] - a[2], b[1] + b[3] - a[1] - a[3]
            gap = max(b[0] - a[2], a[0] - b[2], b[1] - a[3], a[1] - b[3]) * synthetic.CELLS / image.width
            if relation.predicate == "left of":
                assert right >= 1.49 * abs(down) and gap > 2.9
            elif relation.predicate == "above":
                assert down >= 1.49 * abs(right) and gap > 2.9
            elif relation.predicate == "near":
                assert gap == pytest.approx(1, abs=0.01)
            elif relation.predicate == "on":
                assert a[3] == b[1]
            elif relation.predicate == "in":
                assert b[0] < a[0] and b[1] < a[1] and a[2] < b[2] and a[3] < b[3]
            elif relation.predicate == "behind":
                assert iou_matrix(as_boxes([a]), as_boxes([b]))[0, 0] > 0


def test_objects_are_drawn_where_their_boxes_are(scenes):
    for image, graph in scenes[:50]:
        pixels = np.asarray(image).astype(int)
        for obj in graph.objects:
            if obj.label == "book" and not any(
                relation.predicate == "behind" and graph.objects[relation.subject] is obj
                for relation in graph.relations
            ):
                x, y = int((obj.box[0] + obj.box[2]) / 2), int((obj.box[1] + obj.box[3]) / 2)
                assert abs(pixels[y, x] - np.array(synthetic._COLOUR["book"])).max() <= 15


def test_classes_and_predicates_are_many_and_long_tailed():
    graphs = [synthetic.scene(f"share/{number}")[1] for number in range(1500)]
    share = Counter(relation.predicate for graph in graphs for relation in graph.relations)
    assert set(share) == set(synthetic.PREDICATES) and len(synthetic.CLASSES) >= 6
    assert min(share.values()) > 0
    assert max(share.values()) / min(share.values()) > 10


def test_sparse_annotation_leaves_out_half(scenes):
    kept = [len(synthetic.sparse(graph, f"{n}").relations) for n, (_, graph) in enumerate(scenes)]
    whole = [len(graph.relations) for _, graph in scenes]
    # half, and a little more because one relation is always kept
    assert 0.45 < sum(kept) / sum(whole) < 0.6
    assert all(count >= 1 for count, full in zip(kept, whole, strict=True) if full)
    for n, (_, graph) in enumerate(scenes[:50]):
        assert set(synthetic.sparse(graph, f"{n}").relations) <= set(graph.relations)


def test_made_files_hold_both_annotations(tmp_path):
    ticks = []
    synthetic.make(tmp_path, num_train=6, num_test=4, seed=3, size=56, progress=ticks.append)
    assert sum(ticks) == 10
    train, test = list(data.load(tmp_path / "train.jsonl")), list(data.load(tmp_path / "test.jsonl"))
    complete = list(data.load(tmp_path / "test_complete.jsonl"))
    assert (len(train), len(test)) == (6, 4)
    assert [row.image_id for row in test] == [row.image_id for row in complete]
    assert all(set(few.graph.relations) <= set(many.graph.relations) for few, many in zip(test, complete, strict=True))
    assert not {row.graph for row in train} & {row.graph for row in test}
    for queried, graph in zip(data.load(tmp_path / "test_det.jsonl"), complete, strict=True):
        assert queried.graph.objects == graph.graph.objects
        assert len(set(queried.query) - {item.label for item in graph.graph.objects}) == synthetic.NUM_ABSENT


def test_detection_rows_of_training_lack_boxes(tmp_path):
    synthetic.make_detection(tmp_path, num_train=200, num_test=20, seed=3, size=56)
    train, test = list(data.load(tmp_path / "train.jsonl")), list(data.load(tmp_path / "test.jsonl"))
    complete = [synthetic.scene(f"3/crowded/{row.image_id}", 56, synthetic.CROWDED)[1] for row in train]
    for found, graph in zip(train, complete, strict=True):
        assert set(found.graph.objects) <= set(graph.objects) and found.graph.objects
        assert {item.label for item in graph.objects} <= set(found.query) <= set(synthetic.CLASSES)
    kept, whole = (sum(len(row.objects) for row in rows) for rows in ([row.graph for row in train], complete))
    assert 0.55 < kept / whole < 0.68  # 0.6, and a little more because one is always kept
    assert any(len({item.label for item in row.graph.objects}) < len(row.graph.objects) for row in test)
    assert sum(len(row.graph.objects) for row in test) / len(test) > 3.8


@pytest.mark.parametrize(("name", "value"), [("num_train", 0), ("num_test", 0), ("size", 20)])
def test_bad_numbers_are_refused(tmp_path, name, value):
    settings = {"num_train": 2, "num_test": 2, "size": 56, name: value}
    with pytest.raises(ValueError, match=name):
        synthetic.make(tmp_path / "out", **settings)
