"""Referring expressions: VLM-R1's files, one-box answers, the IoU reward, accuracy, and the rows of our own."""

from __future__ import annotations

import copy
import json

import pytest

from data.detection_folders import write_json
from data.published_folders import write_image
from scenerl import data
from scenerl.answers import OutputFormat
from scenerl.answers.dialogue import Conversation
from scenerl.commands.eval import EvalOptions
from scenerl.data.rows import example_to_row, read_row
from scenerl.errors import DataError
from scenerl.evaluate import run_eval
from scenerl.rewards import score_text

LADY = {  # the row that VLM-R1's issue 11 shows, in a smaller image
    "height": 640, "width": 427, "id": 0, "original_id": 1719310, "dataset_name": "refcoco", "area": 14863.6,
    "iscrowd": 0, "image_id": 0, "category_id": 1, "bbox_list": [[103.93, 299.99, 237.15, 476.41]],
    "text_type": "caption", "image": "train2014/COCO_train2014_000000581857.jpg",
    "problem": "Please provide the bounding box coordinate of the region this sentence describes: the lady, in blue.",
    "normal_caption": "the lady, in blue", "solution": [103.93, 299.99, 238.15, 477.41],
    "normalized_solution": [243, 468, 557, 745],
}  # fmt: skip
SHIRT = {
    "id": 1,
    "image": "train2014/COCO_train2014_000000581857.jpg",
    "conversations": [
        {"from": "human", "value": "<image>Please provide the bounding box coordinate of the region this sentence "
         "describes: navy blue shirt."},
        {"from": "gpt", "value": "[10, 20, 110, 220]"},
    ],
}  # fmt: skip
BOX = (103.93, 299.99, 238.15, 477.41)


def write_images(folder):
    write_image(folder / "train2014" / "COCO_train2014_000000581857.jpg", (427, 640))


def write_lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_released_forms(tmp_path):
    write_images(tmp_path / "coco")
    (lady,) = data.load(f"rec:{write_json(tmp_path / 'refcoco_val.json', [LADY])}", need_images=True)
    assert (lady.image_id, lady.query, lady.image_wh, lady.referring) == ("0", ("the lady, in blue",), (427, 640), True)
    assert [(item.label, item.box) for item in lady.graph.objects] == [("the lady, in blue", BOX)]
    (shirt,) = data.load(f"rec:{write_lines(tmp_path / 'refcoco_train.jsonl', SHIRT)}", need_images=True)
    assert (shirt.query, shirt.image_wh) == (("navy blue shirt",), (427, 640))
    assert shirt.graph.objects[0].box == (10, 20, 110, 220)


@pytest.mark.parametrize(
    "change",
    [
        {"normal_caption": None},
        {"problem": "Where is it? This sentence describes: <ref>the lady, in blue</ref>", "normal_caption": ""},
        {"solution": "[103.93, 299.99, 238.15, 477.41]"},
        {"solution": '<answer>{"bbox_2d": [103.93, 299.99, 238.15, 477.41], "label": "it"}</answer>'},
    ],
)
def test_neighbouring_forms(tmp_path, change):
    (example,) = data.load(f"rec:{write_json(tmp_path / 'x.json', [LADY | change])}")
    assert example.query == ("the lady, in blue",) and example.graph.objects[0].box == BOX


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"solution": [1, 2, 3]}, "must be one box"),
        ({"solution": [[1, 2, 3, 4], [1, 2, 3, 4]]}, "must be one box"),
        ({"solution": None}, "must be one box"),
        ({"problem": None}, "needs problem and solution"),
        ({"normal_caption": None, "problem": "What is there?"}, "must name one sentence"),
        ({"solution": [9, 2, 3, 4]}, "x1 < x2"),
        ({"width": None}, "no such image file"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path, change, message):
    (tmp_path / "coco").mkdir()
    (record,) = data.read(f"rec:{write_json(tmp_path / 'x.json', [LADY | change])}")
    assert message in record.errors[0]


def test_splits_of_a_folder(tmp_path):
    for name in ("refcoco_val", "refcocop_val", "lisa_test", "refcoco_train"):
        write_json(tmp_path / f"{name}.json", [LADY])
    write_lines(tmp_path / "refcoco_train.jsonl", LADY, LADY)
    ids = {split: [one.image_id for one in data.load(f"rec:{tmp_path}", split=split)] for split in
           ("val", "refcocop_val", "test", "train")}  # fmt: skip
    assert ids == {"val": ["refcoco_val/0", "refcocop_val/0"], "refcocop_val": ["0"], "test": ["0"],
                   "train": ["0", "0 row 2"]}  # fmt: skip
    with pytest.raises(DataError, match="needs a split; allowed: lisa_test, refcoco_train, refcoco_val"):
        list(data.load(f"rec:{tmp_path}"))


def test_files_made_for_internvl(tmp_path):
    row = LADY | {"solution": LADY["normalized_solution"]}
    (example,) = data.load(f"rec:{write_json(tmp_path / 'x.json', [row])},frame=norm1000")
    assert example.graph.objects[0].box == pytest.approx((243 * 0.427, 468 * 0.64, 557 * 0.427, 745 * 0.64))


def lady(tmp_path):
    (example,) = data.load(f"rec:{write_json(tmp_path / 'x.json', [LADY])}")
    return example


def test_the_prompt_requests_one_box_and_any_label_answers_it(tmp_path):
    example = lady(tmp_path)
    conversation = Conversation(OutputFormat("detections", box_format="pixels"))
    text = conversation.prompt(example, None)[0]["content"][1]["text"]
    assert "Find the one object in the image that this sentence describes: the lady, in blue\n" in text
    assert "absent" not in text and "None" not in text
    for answer in ('[{"bbox_2d": [1, 2, 3, 4], "label": "woman"}]', '{"bbox_2d": [1, 2, 3, 4]}', "[1, 2, 3, 4]"):
        result = conversation.parse(answer, example)
        assert [(item.label, item.box) for item in result.graph.objects] == [("the lady, in blue", (1, 2, 3, 4))]
        assert not result.issues
    answer = '[{"bbox_2d": [1, 2, 3, 4], "label": "woman"}]'
    (place,) = conversation.locate(answer, example).objects
    assert [answer[slice(*span)] for span in place["box"]] == ["1", "2", "3", "4"]
    written = conversation.completion(example)[0]["content"][0]["text"]
    assert conversation.parse(written, example).graph.objects[0].label == "the lady, in blue"


def test_rows_keep_it(tmp_path):
    example = lady(tmp_path)
    row = example_to_row(example)
    assert row["referring"] is True and read_row(row, "here").unwrap().referring
    for change in ({"referring": "yes"}, {"query": ["a", "the lady, in blue"]}, {"detections": []}):
        assert "referring must be true or false" in read_row({**row, **change}, "here").errors[0]
    assert not read_row({**row, "referring": False}, "here").unwrap().referring


@pytest.mark.parametrize(
    ("answer", "reward"),
    [
        ('[{"bbox_2d": [10, 20, 110, 220], "label": "x"}]', 1),
        ('[{"bbox_2d": [10, 20, 110, 120], "label": "x"}]', 0.5),  # half of the box
        ('[{"bbox_2d": [10, 20, 110, 120]}, {"bbox_2d": [10, 20, 110, 220]}]', 0.5),  # the first counts
        ('[{"bbox_2d": [200, 300, 300, 400], "label": "x"}]', 0),
        ("None", 0),
        ("there is no shirt", 0),
    ],
)
def test_the_reward_is_the_iou_of_the_first_box(answer, reward):
    row = {"image_id": "1", "width": 427, "height": 640, "query": ["shirt"], "referring": True,
           "detections": [{"label": "shirt", "bbox_2d": [10, 20, 110, 220]}]}  # fmt: skip
    found = score_text(answer, row, ["iou"], OutputFormat("detections", box_format="pixels"))
    assert found["iou"] == pytest.approx(reward)


def evaluate(tmp_path, rows, truth, **options):
    out = tmp_path / "metrics.json"
    pred = write_lines(tmp_path / "answers.jsonl", *rows)
    run_eval(EvalOptions(pred=pred, data=str(truth), out=out, task="det", format="detections", frame="pixels",
                         resamples=0, **options))  # fmt: skip
    return json.loads(out.read_text())["metrics"]


def test_accuracy_at_iou_half(tmp_path):
    rows = [SHIRT | {"id": n, "width": 427, "height": 640} for n in range(5)]
    truth = f"rec:{write_lines(tmp_path / 'x.jsonl', *copy.deepcopy(rows))}"
    texts = [
        '[{"bbox_2d": [10, 20, 110, 220], "label": "woman"}]',  # right, under another label
        '[{"bbox_2d": [10, 20, 110, 120]}]',  # IoU 0.5 exactly
        '[{"bbox_2d": [10, 20, 110, 119]}]',  # 0.495
        '[{"bbox_2d": [200, 300, 300, 400]}, {"bbox_2d": [10, 20, 110, 220]}]',  # the first is wrong
        "no idea",
    ]
    metrics = evaluate(tmp_path, [{"image_id": str(n), "answer": text} for n, text in enumerate(texts)], truth)
    assert metrics["Acc@0.5"]["value"] == pytest.approx(2 / 5)
    boxes = [{"id": "a.1", "bbox": [200, 300, 300, 400], "score": 0.2}, {"id": "b.2", "bbox": [10, 20, 110, 220],
             "score": 0.9}]  # fmt: skip
    scored = [{"image_id": "3", "graph": {"objects": boxes}}]  # the best box of a detector
    assert evaluate(tmp_path, scored, truth)["Acc@0.5"]["value"] == pytest.approx(1 / 5)


def test_detection_has_no_such_accuracy(tmp_path):
    row = {"image_id": "1", "width": 50, "height": 50, "query": ["dog", "cat"],
           "detections": [{"label": "dog", "bbox_2d": [0, 0, 9, 9]}]}  # fmt: skip
    truth = write_lines(tmp_path / "truth.jsonl", row)
    assert "Acc@0.5" not in evaluate(tmp_path, [{"image_id": "1", "answer": "None"}], truth)
