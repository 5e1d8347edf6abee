"""Files of other projects, in their real schema: what is read, what is refused, and what is written for their tools."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from scenerl.commands.eval import EvalOptions
from scenerl.data import toon
from scenerl.data.ground_truth import Names, load_ground_truth
from scenerl.errors import DataError
from scenerl.evaluate import run_eval
from scenerl.predictions import arrays, read_predictions, sniff, write_predictions
from scenerl.types import Example, ParseResult, Relation, SceneGraph, SceneObject

DOG, CAT = (0.0, 0.0, 20.0, 20.0), (50.0, 50.0, 90.0, 90.0)
GRAPH = SceneGraph((SceneObject("dog", DOG), SceneObject("cat", CAT)), (Relation(0, "near", 1),))

PSG = {
    "data": [
        {"image_id": "107902", "file_name": "val2017/000000107902.jpg", "width": 100, "height": 100,
         "annotations": [{"bbox": [0, 0, 20, 20], "bbox_mode": 0, "category_id": 0},
                         {"bbox": [50, 50, 90, 90], "bbox_mode": 0, "category_id": 1}],
         "segments_info": [], "relations": [[0, 1, 0], [0, 1, 0], [1, 0, 1]]},
        {"image_id": "2", "width": 50, "height": 50, "annotations": [], "relations": []},
    ],
    "thing_classes": ["dog", "cat"], "stuff_classes": ["sky-other-merged"], "predicate_classes": ["near", "watching"],
    "test_image_ids": ["107902"],
}  # fmt: skip
SGBENCH = {
    "version": 1,
    "images": [{"id": "107902", "seg_filename": None, "triplets": [[1, 0, 1], [0, 1, 1]], "ng_triplets": [],
                "annotation": [{"category": 0, "bbox": [0, 0, 20, 20]}, {"category": 1, "bbox": [50, 50, 90, 90]}]}],
}  # fmt: skip
INSTANCES = {
    "info": {},
    "images": [{"id": 139, "file_name": "000000000139.jpg", "width": 640, "height": 426}, {"id": 285, "width": 100,
                "height": 100}],
    "annotations": [
        {"id": 1, "image_id": 139, "category_id": 18, "bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0},
        {"id": 2, "image_id": 139, "category_id": 18, "bbox": [100, 0, 300, 100], "area": 30000, "iscrowd": 1},
        {"id": 3, "image_id": 285, "category_id": 17, "bbox": [50, 50, 40, 40], "area": 1600, "iscrowd": 0},
    ],
    "categories": [{"supercategory": "animal", "id": 17, "name": "cat"}, {"id": 18, "name": "dog"}],
}  # fmt: skip
RESULTS = [
    {"image_id": 139, "category_id": 18, "bbox": [110, 10, 30, 30], "score": 0.9},  # on the crowd
    {"image_id": 139, "category_id": 18, "bbox": [10, 10, 20, 18], "score": 0.8},  # IoU 0.9
    {"image_id": 139, "category_id": 18, "bbox": [300, 200, 20, 20], "score": 0.7},  # nothing there
    {"image_id": 285, "category_id": 17, "bbox": [50, 50, 40, 30], "score": 0.6},  # IoU 0.75
    {"image_id": 285, "category_id": 18, "bbox": [50, 50, 40, 40], "score": 0.95},  # another label
]


def save(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def run(tmp_path, pred, data, **options):
    out = tmp_path / "metrics.json"
    options.setdefault("resamples", 10)
    run_eval(EvalOptions(pred=pred, data=str(data), out=out, **options))
    return json.loads(out.read_text())


def coco_evaluation(instances, results):
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO(str(instances))
        evaluation = cocoeval.COCOeval(truth, truth.loadRes(str(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(("AP", "AP50", "AP75", "AR100"), evaluation.stats[[0, 1, 2, 8]].tolist(), strict=True))


def test_coco_results_and_instances(tmp_path):
    data, pred = save(tmp_path / "instances_val2017.json", INSTANCES), save(tmp_path / "results.json", RESULTS)
    found = run(tmp_path, pred, data, task="det", input="coco")
    assert found["metrics"]["AP"]["value"] == pytest.approx(coco_evaluation(data, pred)["AP"], abs=1e-9)
    for name, value in coco_evaluation(data, pred).items():
        assert found["metrics"][name]["value"] == pytest.approx(value, abs=1e-9), name
    # dog: wrong, then (the crowd ignored) right, 1/2; cat: 1
    assert found["metrics"]["AP50"]["value"] == (1 / 2 + 1) / 2
    # NMS: of the cat and the dog on the cat's box, the dog of score 0.95 stays, so the cat is lost
    assert found["metrics"]["NMS-AP50"]["value"] == (1 / 2 + 0) / 2
    # the detection on the crowd counts neither way: 2 hits of 4
    assert found["metrics"]["greedy_precision"]["value"] == 2 / 4
    assert run(tmp_path, pred, data, task="det")["metrics"] == found["metrics"]  # by its content
    assert run(tmp_path, pred, f"coco:{data}", task="det")["metrics"] == found["metrics"]


def test_what_is_exported_for_coco_gives_the_same_numbers_there(tmp_path):
    data, pred = save(tmp_path / "instances.json", INSTANCES), save(tmp_path / "results.json", RESULTS)
    found = run(tmp_path, pred, data, task="det", export=[f"coco={tmp_path / 'export.json'}"])["metrics"]
    for name, value in coco_evaluation(tmp_path / "export_instances.json", tmp_path / "export.json").items():
        assert found[name]["value"] == pytest.approx(value, abs=1e-9), name


def test_coco_results_that_cannot_be_used_as_they_stand(tmp_path):
    odd = [
        *RESULTS,
        {"image_id": 139, "category_id": 99, "bbox": [0, 0, 5, 5], "score": 0.5},
        {"image_id": 139, "category_id": 18, "bbox": [0, 0, 5], "score": 0.5},
        {"image_id": 139, "category_id": 18, "bbox": [0, 0, 5, 5], "score": float("inf")},
        {"image_id": 4, "category_id": 18, "bbox": [0, 0, 5, 5], "score": 0.5},
        {"category_id": 18, "bbox": [0, 0, 5, 5], "score": 0.5},
    ]
    data, pred = save(tmp_path / "instances.json", INSTANCES), save(tmp_path / "results.json", odd)
    found = run(tmp_path, pred, data, task="det")
    expected = {"unknown_categories": 1, "bad_boxes": 1, "bad_scores": 1, "unknown_images": 1, "unnamed_rows": 1}
    assert expected.items() <= found["counts"].items()
    assert sum("results.json" in warning for warning in found["warnings"]) >= 4
    assert found["metrics"]["AP50"]["value"] == (1 / 2 + 1) / 2
    # an image without a detection is no failure
    found = run(tmp_path, save(tmp_path / "results.json", RESULTS[:1]), data, task="det")
    assert found["metrics"]["failure_rate"]["value"] == 0 and found["counts"]["failed_answers"] == 0
    with pytest.raises(ValueError, match="expected COCO results, a JSON list"):
        run(tmp_path, save(tmp_path / "results.json", {}), data, task="det", input="coco")
    broken = {**INSTANCES, "annotations": [{"image_id": 139, "category_id": 5, "bbox": [0, 0, 1, 1]}]}
    with pytest.raises(ValueError, match=r"instances\.json, image 139: annotations\[0\] must name an image"):
        run(tmp_path, pred, save(tmp_path / "instances.json", broken), task="det")
    with pytest.raises(ValueError, match="neither COCO instances"):
        run(tmp_path, pred, save(tmp_path / "other.json", {"a": 1}), task="det")


@pytest.mark.parametrize(
    "odd",
    [
        {"category_id": 18, "bbox": [0, 0, 5, 5], "score": 0.5},
        {"image_id": 139, "category_id": 18, "bbox": [0, 0, float("inf"), 5], "score": 0.5},
        {"image_id": 139, "category_id": 18, "bbox": [0, 0, True, 5], "score": 0.5},
        {"image_id": 139, "category_id": 18, "bbox": [0, 0, 10**400, 5], "score": 0.5},
        {"image_id": 139, "category_id": 18, "bbox": [0, 0, 5], "score": 0.5},
        [139, 18],
    ],
)
def test_an_odd_row_does_not_change_how_the_others_are_read(tmp_path, odd):
    """Regular results are read column by column, others row by row."""
    names = Names({17: "cat", 18: "dog"})
    rows = [*RESULTS, {"image_id": 285, "category_id": 17, "bbox": [1.5, 2, 3.25, 4], "score": 1}]
    regular = read_predictions(save(tmp_path / "regular.json", rows), "coco", names)
    mixed = read_predictions(save(tmp_path / "mixed.json", [*rows, odd]), "coco", names)
    assert sum(regular.notes.counts().values()) == 0 and sum(mixed.notes.counts().values()) == 1
    assert {key: entry.result for key, entry in regular.entries.items()} == {
        key: entry.result for key, entry in mixed.entries.items()
    }
    assert regular.entries["285"].result.graph.objects[-1] == SceneObject("cat", (1.5, 2.0, 4.75, 6.0), 1.0)


def test_categories_of_one_name_stay_two(tmp_path):
    twice = {**INSTANCES, "categories": [{"id": 17, "name": "pet"}, {"id": 18, "name": "pet"}]}
    truth = load_ground_truth(str(save(tmp_path / "instances.json", twice)))
    assert truth.names.objects == {17: "pet #17", 18: "pet #18"}


def test_ovdeval_subsets_and_their_mean(tmp_path):
    image = {"id": 0, "file_name": "64d2.jpg", "height": 100, "width": 100, "text": ["lit lamp"],
             "neg_text": ["dark lamp"]}  # fmt: skip
    annotations = {
        "categories": [{"supercategory": "object", "id": 0, "name": "lit lamp"},
                       {"supercategory": "object", "id": 1, "name": "dark lamp"}],
        "annotations": [{"id": 0, "bbox": [10, 10, 40, 40], "category_id": 0, "image_id": 0, "iscrowd": 0,
                         "area": 1600}],
        "images": [image],
    }  # fmt: skip
    both = [{"image_id": 0, "category_id": 1, "bbox": [10, 10, 40, 40], "score": 0.9},
            {"image_id": 0, "category_id": 0, "bbox": [10, 10, 40, 40], "score": 0.8}]  # fmt: skip
    for name, results in (("color", both[1:]), ("negation", both)):
        save(tmp_path / "annotations" / f"{name}.json", annotations)
        save(tmp_path / "results" / f"{name}_results.json", results)
    found = run(tmp_path, tmp_path / "results", tmp_path / "annotations", input="ovdeval")["metrics"]
    # negation: plain AP is inflated, since the wrong label is another class; NMS-AP keeps the surer, wrong one
    assert found["AP/negation"]["value"] == found["NMS-AP/color"]["value"] == 1
    assert found["NMS-AP/negation"]["value"] == 0
    assert found["NMS-AP"]["value"] == found["NMS-AP50"]["value"] == 1 / 2
    assert found["NMS-AP"]["support"] == 2 and found["AP"]["value"] == 1
    assert load_ground_truth(str(tmp_path / "annotations" / "color.json")).examples[0].query == (
        "lit lamp",
        "dark lamp",
    )
    subset, pred = tmp_path / "annotations" / "negation.json", tmp_path / "results" / "negation_results.json"
    alone = run(tmp_path, pred, subset, input="ovdeval", protocol="ovdeval")["metrics"]
    assert alone == run(tmp_path, pred, f"ovdeval:{subset}", input="ovdeval", protocol="ovdeval")["metrics"]
    assert alone["NMS-AP"]["value"] == found["NMS-AP/negation"]["value"]
    with pytest.raises(ValueError, match=r"holds neither color\.json nor color_results\.json"):
        run(tmp_path, tmp_path / "annotations" / "..", tmp_path / "annotations", input="ovdeval")


def test_sgbench_predictions_and_psg(tmp_path):
    data, pred = save(tmp_path / "psg.json", PSG), save(tmp_path / "predictions.json", SGBENCH)
    truth = load_ground_truth(str(data))
    assert [example.image_id for example in truth.examples] == ["107902"]  # the other is no test image
    assert truth.examples[0].graph.relations == (Relation(0, "near", 1), Relation(1, "watching", 0))
    assert sniff(pred) == "sgbench"
    found = run(tmp_path, pred, data, protocol="sgbench")
    assert run(tmp_path, pred, f"psg:{data}", protocol="sgbench", split="test")["metrics"] == found["metrics"]
    # one of two targets, and InstR: both objects are there
    assert found["metrics"]["R@20"]["value"] == 1 / 2 and found["metrics"]["InstR"]["value"] == 1
    assert found["per_predicate"]["watching"]["recall"] == 1 and found["per_predicate"]["near"]["recall"] == 0
    for change, message in (
        ({"test_image_ids": ["5"]}, "is empty"),
        ({"test_image_ids": 5}, "'test_image_ids' must be a list"),
        ({"data": {}}, "no list under 'data'"),
        ({"data": [{"annotations": []}]}, r"data\[0\]: must be an object with an image_id"),
    ):
        with pytest.raises(ValueError, match=rf"other\.json.*{message}"):
            load_ground_truth(str(save(tmp_path / "other.json", {**PSG, **change})))
    with pytest.raises(ValueError, match="their names come from --data psg.json"):
        read_predictions(pred, "sgbench", Names())


def test_sgbench_reads_what_is_written_for_it(tmp_path, monkeypatch):
    pytest.importorskip("sgbench", reason="the reference evaluator sgbench 1.0.0 is not installed")
    if importlib.util.find_spec("tifffile") is None:  # it reads masks with it, which play no part here
        monkeypatch.setitem(sys.modules, "tifffile", SimpleNamespace(COMPRESSION=SimpleNamespace(DEFLATE=0)))
    sgbench_file = importlib.import_module("sgbench.file")
    examples = [Example(str(n), 100, 100, GRAPH) for n in range(3)]
    half = SceneGraph(GRAPH.objects, (Relation(1, "near", 0, 0.9), Relation(0, "near", 1, 0.5)))
    results = [ParseResult("ok", GRAPH), ParseResult("ok", half), ParseResult("invalid_json", None)]
    beside = write_predictions("sgbench", tmp_path / "p.json", examples, results)
    found = sgbench_file.evaluate(beside, tmp_path / "p.json")
    assert found["R@20"] == pytest.approx(2 / 3) and found["InstR"] == pytest.approx(2 / 3)
    again = read_predictions(tmp_path / "p.json", "sgbench", load_ground_truth(str(beside)).names)
    assert again.entries["1"].result.graph.relations == (Relation(1, "near", 0), Relation(0, "near", 1))


def test_coco_reads_what_is_written_for_it(tmp_path):
    examples = [Example("a", 100, 100, GRAPH), Example("b", 100, 100, GRAPH)]
    scored = SceneGraph((SceneObject("dog", DOG, 0.25), SceneObject("bird", CAT, 0.5)))
    results = [ParseResult("ok", GRAPH), ParseResult("ok", scored)]
    pred = tmp_path / "made" / "results.json"
    instances = write_predictions("coco", pred, examples, results)
    # dog: 2 of 2; cat: 1 of 2, the first 51 of 101 recall points
    assert coco_evaluation(instances, pred)["AP50"] == pytest.approx((1 + 51 / 101) / 2)


@pytest.mark.parametrize("ids", [("b", "a"), ("10", "9")])
def test_equal_scores_stand_in_one_order_here_and_in_what_is_exported_for_coco(tmp_path, ids):
    """One target, in the image that is first by its id and second in the file; a box without a score in each."""
    box = {"label": "dog", "bbox_2d": [0, 0, 10, 10]}
    sides = {"width": 100, "height": 100, "query": ["dog"]}
    rows = [{"image_id": ids[0], **sides, "detections": []}, {"image_id": ids[1], **sides, "detections": [box]}]
    data, pred = tmp_path / "data.jsonl", tmp_path / "p.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pred.write_text("".join(json.dumps({"image_id": name, "answer": json.dumps([box])}) + "\n" for name in ids))
    how = {"task": "det", "format": "detections", "frame": "pixels", "export": [f"coco={tmp_path / 'export.json'}"]}
    assert run(tmp_path, pred, data, **how)["metrics"]["AP"]["value"] == 1
    assert coco_evaluation(tmp_path / "export_instances.json", tmp_path / "export.json")["AP"] == pytest.approx(1)


def answer(box):
    objects = [{"id": "dog.1", "bbox": box}, {"id": "cat.2", "bbox": [500, 500, 900, 900]}]
    relations = [{"subject": "dog.1", "predicate": "near", "object": "cat.2"}]
    return "<think>…</think><answer>" + json.dumps({"objects": objects, "relationships": relations}) + "</answer>"


@pytest.fixture
def data(tmp_path):
    rows = [
        {"image_id": image_id, "width": 100, "height": 100,
         "objects": [{"id": "dog.1", "bbox": list(DOG)}, {"id": "cat.2", "bbox": list(CAT)}],
         "relationships": [{"subject": "dog.1", "predicate": "near", "object": "cat.2"}]}
        for image_id in ("2343729", "2343730")
    ]  # fmt: skip
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_r1_sgg_folder_of_answers_in_either_frame(tmp_path, data):
    shared = {"gt_objects": "[]", "gt_relationships": "[]"}
    folder = tmp_path / "outputs"
    save(folder / "2343729.json", {"image_id": "2343729", "response": answer([0, 0, 200, 200]),
                                   "box_scale": [1000.0, 1000.0], **shared})  # fmt: skip
    half = answer([0, 0, 112, 56]).replace("[500, 500, 900, 900]", "[280, 140, 504, 252]")
    save(folder / "2343730.json", {"image_id": "2343730", "response": half, "box_scale": [560, 280], **shared})
    found = run(tmp_path, folder, data, envelope="think")
    assert found["metrics"]["Recall"]["value"] == found["metrics"]["AP"]["value"] == 1
    (folder / "2343730.json").write_text('{"image_id": ')
    found = run(tmp_path, folder, data, envelope="think")
    assert found["counts"]["broken_rows"] == found["counts"]["missing_answers"] == 1
    assert found["metrics"]["Recall"]["value"] == 1 / 2


def gathered(**changes):
    """An entry as R1-SGG's sgg_gather_preds.py writes it: the model's ids in ``names``, mapped labels elsewhere."""
    one_hot = [0] * 51
    one_hot[29] = 1
    boxes = [[0, 0, 20, 20], [50, 50, 90, 90]]
    return {
        "image_id": "2343729", "boxes": boxes, "labels": [37, 27], "scores": [1.0, 1.0],
        "names": ["puppy.1", "cat.2"], "names_target": ["dog", "cat"],
        "relation_tuples": [["dog", boxes[0], "cat", boxes[1], "near"]],
        "graph": {"all_node_pairs": [[0, 1]], "all_relation": [one_hot], "pred_boxes": boxes,
                  "pred_boxes_class": [37, 27], "pred_boxes_score": [1.0, 1.0]},
        **changes,
    }  # fmt: skip


FAILED = {
    "image_id": "2343730", "boxes": [[1e-41, 0.0, 3e10, 4e-41]], "labels": [0], "scores": [0], "names": ["unknown"],
    "names_target": ["unknown"], "relation_tuples": [],
    "graph": {"all_node_pairs": [[0, 0]], "all_relation": [[0.0] * 51], "pred_boxes": [[1e-41, 0.0, 3e10, 4e-41]],
              "pred_boxes_class": [0], "pred_boxes_score": [0]},
}  # fmt: skip


@pytest.mark.parametrize(
    "graph", [gathered()["graph"], {}, {"all_node_pairs": []}], ids=["with pairs", "without", "no pairs"]
)
def test_r1_sgg_gathered_file(tmp_path, data, graph):
    pred = save(tmp_path / "gathered.json", {"2343729": gathered(graph=graph), "2343730": FAILED})
    assert sniff(pred) == "r1-sgg"
    found = run(tmp_path, pred, data)
    assert found["metrics"]["Recall"]["value"] == 1 / 2
    assert found["metrics"]["object_precision"]["value"] == 1  # mapped labels, and nothing of the failed answer
    assert found["counts"]["lost_relations"] == 0 and found["failures"] == {"no_answer": 1}


def test_relations_of_a_gathered_file_do_not_vanish(tmp_path, data):
    strange = gathered(relation_tuples=[["dog", [1, 1, 2, 2], "cat", [50, 50, 90, 90], "near"]] * 2)
    found = run(tmp_path, save(tmp_path / "gathered.json", {"2343729": strange}), data)
    assert found["counts"]["lost_relations"] == 2
    assert any("2 relations name no object of their image" in warning for warning in found["warnings"])


def test_r1_sgg_gathered_file_of_an_older_version(tmp_path, data):
    one_hot = [0] * 151
    one_hot[2] = 1
    entry = gathered(names=["dog.1", "cat.2"], graph={"all_node_pairs": [[0, 1]], "all_relation": [one_hot]})
    del entry["names_target"], entry["relation_tuples"]
    pred = save(tmp_path / "gathered.json", {"2343729": entry})
    vocabulary = save(tmp_path / "vocabulary.json", {"objects": ["dog", "cat"], "predicates": ["above", "near"]})
    found = run(tmp_path, pred, data, vocabulary=vocabulary)
    assert found["metrics"]["Recall"]["value"] == 1 / 2 and found["counts"]["missing_answers"] == 1
    with pytest.raises(ValueError, match="name them with --vocabulary"):
        run(tmp_path, pred, data)


TOON = """<answer>
obj[2]{id,name,x1,y1,x2,y2}:
  1,dog,0,0,20,20
  2,cat,50,50,90,90
rel[1]{subj,pred,obj}:
  1,near,2
</answer>"""


def test_scene_graph_vlm_lines(tmp_path):
    prompt = "Generate a structured scene graph for an image of size (640 x 480) using the specified categories."
    rows = [
        {"messages": [{"role": "user", "content": prompt}], "images": ["frames/107902.png"], "content": TOON,
         "predict": predicted}
        for predicted in ("<think>a, b</think>" + TOON,)
    ]  # fmt: skip
    rows.append({**rows[0], "images": ["frames/2.png"], "predict": "I see a dog."})
    path = tmp_path / "predictions.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert sniff(path) == "toon"
    truth = load_ground_truth(str(path))
    assert truth.examples[0] == Example("107902", 640, 480, GRAPH)
    found = run(tmp_path, path, path)
    assert found["metrics"]["Recall"]["value"] == 1 / 2 and found["failures"] == {"wrong_schema": 1}


def test_rows_without_an_answer_in_the_line_format(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"image_id": "1", "answer": TOON}))
    with pytest.raises(ValueError, match=r"p\.jsonl, row 1: no 'predict'; SceneGraphVLM's rows hold the answer there"):
        read_predictions(path, "toon")


@pytest.mark.parametrize(
    ("line", "issue"),
    [("3,bird,0,0,5", "malformed_object"), ("3,bird,a,0,5,5", "bad_box"), ("3,bird,5,0,5,5", "no_area"),
     ("2,bird,0,0,5,5", "duplicate_id"), ("3,bird,nan,0,5,5", "bad_box"), ("x,bird,0,0,5,5", "malformed_object"),
     ('3,"bird,0,0,5,5', "malformed_object"), ('3, "bird,0,0,5,5', "malformed_object")],
)  # fmt: skip
def test_a_bad_line_costs_that_line(line, issue):
    found = toon.parse(TOON.replace("  2,cat", f"  2,cat,50,50,90,90\n  {line}\n  7,cat", 1))
    assert [entry.kind for entry in found.issues] == [issue]
    assert len(found.graph.objects) == 3 and len(found.graph.relations) == 1


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (TOON.replace("\n", " "), "wrong_schema"),  # all on one line
        (TOON[: TOON.index("rel[1]")], "truncated"),
        (TOON[: TOON.index("rel[1]")] + "</answer>", "wrong_schema"),
        (TOON.replace("  2,cat,50,50,90,90\nrel[1]{subj,pred,obj}:\n  1,near,2\n", ""), "wrong_schema"),
        ("obj[0]{id,name,x1,y1,x2,y2}:\nrel[0]{subj,pred,obj}:", "ok"),
        (TOON.removesuffix("</answer>"), "ok"),
    ],
)
def test_line_answers_without_all_of_their_parts(text, status):
    assert toon.parse(text).status == status


def test_names_in_quotes_and_further_fields():
    text = TOON.replace("1,dog,", r'1,"dog, \"big\"",').replace("1,near,2", '1,"next to",2,0.9')
    found = toon.parse(text)
    assert [item.label for item in found.graph.objects] == ['dog, "big"', "cat"]
    assert found.graph.relations == (Relation(0, "next to", 1),) and found.issues == ()
    wide = TOON.replace("{id,name,x1", "{id,name,color,x1").replace("dog,", "dog,brown,").replace("cat,", "cat,,")
    assert toon.parse(wide).graph == GRAPH


def test_an_element_behind_its_header_is_read():
    assert toon.parse(TOON.replace(":\n  1,near", ": 1,near")).graph == GRAPH


ACTION_GENOME = """<answer>
      obj[3]{id,name,x1,y1,x2,y2}:
        1,person,24,71,259,268
        2,table,222,143,479,244
        3,chair,56,179,249,269
      rel_pairs[2]{subj,attention,spatial,contacting,obj}:
        1,[unsure],[in_front_of],[],2
        1,[not_looking_at],[beneath,behind],[sitting_on,leaning_on],3
</answer>
"""


def test_action_genome_lists_predicates_by_kind():
    found = toon.parse(ACTION_GENOME)
    assert found.issues == ()
    assert {found.graph.triplet(relation) for relation in found.graph.relations} == {
        ("person", "unsure", "table"), ("table", "in_front_of", "person"), ("person", "not_looking_at", "chair"),
        ("chair", "beneath", "person"), ("chair", "behind", "person"), ("person", "sitting_on", "chair"),
        ("person", "leaning_on", "chair"),
    }  # fmt: skip
    quoted = ACTION_GENOME.replace("[unsure]", '["unsure"]').replace("beneath,behind", '"beneath", "behind"')
    assert toon.parse(quoted).graph == found.graph
    bad = toon.parse(ACTION_GENOME.replace("[],2", "2").replace("[unsure]", "unsure").replace(",3\n</", ",9\n</"))
    assert [issue.kind for issue in bad.issues] == ["malformed_relation", "dangling_relation"]


def test_line_answers_never_raise():
    for text in (None, 3, "", " ", "<answer>", "obj[", "obj[9]{}:", TOON * 50, "1," * 10_000, "\x00\ud800"):
        toon.parse(text)
    assert toon.parse(None).status == "no_answer" and toon.parse(" ").status == "empty"
    relations = toon.parse(TOON.replace("1,near,2", "1,near,9\n  1,near,1\n  1,near\n  1,on,2"))
    assert [entry.kind for entry in relations.issues] == ["dangling_relation", "self_relation", "malformed_relation"]


def test_scene_graph_benchmark_arrays(tmp_path, data):
    info = {"idx_to_files": ["/vg/2343729.jpg", "/vg/2343730.jpg"], "ind_to_classes": ["__background__", "dog", "cat"],
            "ind_to_predicates": ["__background__", "on", "near"]}  # fmt: skip
    image = {"bbox": [[0, 0, 20, 20], [50, 50, 90, 90]], "bbox_labels": [1, 2], "bbox_scores": [0.9, 0.5],
             "rel_pairs": [[0, 1], [1, 0]], "rel_labels": [1, 2], "rel_scores": [0.6, 0.8]}  # fmt: skip
    save(tmp_path / "custom_data_info.json", info)
    pred = save(tmp_path / "custom_prediction.json", {"0": image, "1": {key: [] for key in image}})
    assert sniff(pred) == "arrays"
    graph = read_predictions(pred).entries["2343729"].result.graph
    # scores are products, 0.8 * 0.9 * 0.5 ranks first
    assert [(r.subject, r.predicate, r.score) for r in graph.relations] == [
        (1, "near", pytest.approx(0.36)), (0, "on", pytest.approx(0.27))
    ]  # fmt: skip
    assert run(tmp_path, pred, data)["metrics"]["R@20"]["value"] == 0
    # with all scores the second-best predicate of (dog, cat) is there too, for ng-R only
    image["rel_all_scores"] = [[0.1, 0.6, 0.3], [0.1, 0.1, 0.8]]
    save(pred, {"0": image, "1": {key: [] for key in image}})
    found = run(tmp_path, pred, data)["metrics"]
    assert (found["R@20"]["value"], found["ng-R@20"]["value"]) == (0, 1 / 2)

    flat = {key: np.array(value) for key, value in image.items()}
    np.savez(tmp_path / "results.npz", **flat, bbox_image=np.zeros(2, int), rel_image=np.zeros(2, int),
             image_id=np.array(["2343729"]), ind_to_classes=np.array(info["ind_to_classes"]),
             ind_to_predicates=np.array(info["ind_to_predicates"]))  # fmt: skip
    again = read_predictions(tmp_path / "results.npz").entries["2343729"].result.graph
    assert again == read_predictions(pred).entries["2343729"].result.graph
    save(pred, {"9": image})
    with pytest.raises(ValueError, match=r"image '9' is not in idx_to_files \(2 files\)"):
        read_predictions(pred)


@pytest.mark.parametrize(
    ("scale", "said"),
    [(1, "read as pixels"), (6, "read as resized ("), (8, "read as resized to 800-1333 (")],
    ids=["original", "600", "800"],
)
@pytest.mark.parametrize("kind", ["json", "npz"])
def test_arrays_of_the_resized_input(tmp_path, scale, said, kind, capsys):
    # PSG's image is 100 x 100: the benchmark resizes it to 600 x 600, in its default configuration to 800 x 800
    truth = save(tmp_path / "psg.json", PSG)
    image = {"bbox": [[scale * side for side in box] for box in (DOG, CAT)], "bbox_labels": [1, 2],
             "bbox_scores": [0.9, 0.5], "rel_pairs": [[0, 1], [1, 0]], "rel_labels": [1, 2],
             "rel_scores": [0.6, 0.8]}  # fmt: skip
    info = {"idx_to_files": ["/psg/107902.jpg"], "ind_to_classes": ["__background__", "dog", "cat"],
            "ind_to_predicates": ["__background__", "near", "watching"]}  # fmt: skip
    save(tmp_path / "custom_data_info.json", info)
    pred = save(tmp_path / "custom_prediction.json", {"0": image})
    if kind == "npz":
        pred = tmp_path / "results.npz"
        np.savez(pred, **{key: np.array(value) for key, value in image.items()}, bbox_image=np.zeros(2, int),
                 rel_image=np.zeros(2, int), image_id=np.array(["107902"]),
                 **{key: np.array(info[key]) for key in ("ind_to_classes", "ind_to_predicates")})  # fmt: skip
    found = run(tmp_path, pred, truth)
    assert found["metrics"]["R@50"]["value"] == 1 and not found["warnings"]
    assert said in capsys.readouterr().out and said in found["options"]["recognised"][pred.stem][0]
    box_format = "pixels" if scale == 1 else "resized"
    assert run(tmp_path, pred, truth, frame=box_format)["metrics"]["R@50"]["value"] == 1
    if scale == 6:
        assert run(tmp_path, pred, truth, frame="pixels")["metrics"]["R@50"]["value"] == 0


def test_arrays_whose_box_format_cannot_be_told(tmp_path, capsys):
    truth = save(tmp_path / "psg.json", PSG)
    image = {"bbox": [[30, 0, 40, 5]], "bbox_labels": [1], "bbox_scores": [0.9], "rel_pairs": [], "rel_labels": [],
             "rel_scores": []}  # fmt: skip
    info = {"idx_to_files": ["107902.jpg"], "ind_to_classes": ["_", "dog"], "ind_to_predicates": ["_", "near"]}
    save(tmp_path / "custom_data_info.json", info)
    pred = save(tmp_path / "custom_prediction.json", {"0": image})
    run(tmp_path, pred, truth)
    assert "not certain: say it with --frame" in capsys.readouterr().out
    unsized = {**PSG, "data": [{key: row[key] for key in row if key != "width"} for row in PSG["data"]]}
    with pytest.raises(DataError, match="need the image's width and height"):
        run(tmp_path, pred, save(tmp_path / "unsized.json", unsized))


def test_sizes_of_the_resized_input():
    # as Scene-Graph-Benchmark's Resize.get_size: 640 x 480 by 600/480, 500 x 375 by 600/375, 1200 x 400 by 1000/1200
    assert arrays.input_wh((640, 480), 600, 1000) == (800, 600)
    assert arrays.input_wh((375, 500), 600, 1000) == (600, 800)
    assert arrays.input_wh((1200, 400), 600, 1000) == (999, 333)  # 333 = round(1000 / 3), 999 = int(333 * 3)
    assert arrays.input_wh((600, 800), 600, 1000) == (600, 800)


def test_export_from_the_command(tmp_path, data):
    pred = tmp_path / "p.jsonl"
    rows = [{"image_id": "2343729", "answer": answer([0, 0, 200, 200])}, {"image_id": "2343730", "answer": "{"}]
    pred.write_text("\n".join(map(json.dumps, rows)))
    targets = {name: tmp_path / f"{name}.json" for name in ("sgbench", "coco")}
    run(tmp_path, pred, data, envelope="think", export=[f"{name}={path}" for name, path in targets.items()])
    assert len(json.loads(targets["sgbench"].read_text())["images"]) == 1
    assert len(json.loads(targets["coco"].read_text())) == 2
    with pytest.raises(ValueError, match="'coco' is not FORMAT=FILE"):
        run(tmp_path, pred, data, envelope="think", export=["coco"])


def test_a_file_of_no_known_kind(tmp_path):
    (tmp_path / "p.txt").write_text("x")
    with pytest.raises(ValueError, match="choose with --input: jsonl, r1-sgg"):
        sniff(tmp_path / "p.txt")
    with pytest.raises(ValueError, match="looks like no known format"):
        sniff(save(tmp_path / "p.json", {"a": 1}))
