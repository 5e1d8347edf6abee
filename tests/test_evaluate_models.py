"""The command `eval` with several models, each with its own way of writing, and its tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from scenerl.cli import main
from scenerl.commands.eval import EvalOptions
from scenerl.commands.report import ReportOptions
from scenerl.evaluate import run_eval
from scenerl.evaluate.models import read_model
from scenerl.metrics import MetricOptions, Pair, compare, compare_all
from scenerl.report.command import run as run_report
from scenerl.types import ParseResult, SceneGraph, SceneObject

NAMES = ["dog", "cat", "cow"]
WIDTH, HEIGHT, IMAGES = 640, 480, 12


def boxes() -> list[list[tuple[str, list[int]]]]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(IMAGES):
        corners = rng.integers(0, 300, (3, 2)).tolist()
        found.append([(NAMES[n], [x, y, x + 150, y + 120]) for n, (x, y) in enumerate(corners)])
    return found


TRUTH = boxes()


def norm(box):
    return [round(1000 * value / side) for value, side in zip(box, (WIDTH, HEIGHT) * 2, strict=True)]


WRITERS = {
    "qwen25": lambda found: json.dumps([{"bbox_2d": box, "label": label} for label, box in found]),  # pixels
    "qwen3": lambda found: json.dumps([{"bbox_2d": norm(box), "label": label} for label, box in found]),
    "gemini": lambda found: json.dumps(
        [{"box_2d": [norm(box)[n] for n in (1, 0, 3, 2)], "label": label} for label, box in found]
    ),
    "internvl": lambda found: "".join(f"<ref>{label}</ref><box>[{norm(box)}]</box>" for label, box in found),
    "prose": lambda found: f"I see a {found[0][0]}.",
    "half": lambda found: json.dumps([{"bbox_2d": norm(box), "label": label} for label, box in found[:2]]),
}


@pytest.fixture
def folder(tmp_path) -> Path:
    rows, instances = [], []
    for number, found in enumerate(TRUTH):
        detections = [{"label": label, "bbox_2d": box} for label, box in found]
        row = {"image_id": str(number), "width": WIDTH, "height": HEIGHT, "detections": detections, "query": NAMES}
        rows.append(row)
        for label, (x1, y1, x2, y2) in found:
            box = [x1, y1, x2 - x1, y2 - y1]
            instances.append({"image_id": number, "category_id": NAMES.index(label) + 1, "bbox": box})
    (tmp_path / "truth.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name, write in WRITERS.items():
        answers = [{"image_id": str(number), "answer": write(found)} for number, found in enumerate(TRUTH)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, answers)))
    images = [{"id": n, "file_name": f"{n}.jpg", "width": WIDTH, "height": HEIGHT} for n in range(IMAGES)]
    categories = [{"id": n, "name": name} for n, name in enumerate(NAMES, 1)]
    coco = {"images": images, "annotations": instances, "categories": categories}
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    write_results(tmp_path / "yolo.json", instances, lambda number: number - 1)
    return tmp_path


def write_results(path: Path, instances, category):
    rows = [{**row, "category_id": category(row["category_id"]), "score": 0.5} for row in instances]
    path.write_text(json.dumps(rows))


def evaluate(folder, *specs, data="truth.jsonl", out="m.json", code=0, **options):
    pred, *others = (f"{spec.partition('=')[0]}={folder / spec.partition('=')[2]}" for spec in specs)
    options = {"task": "det", "resamples": 50, **options}
    found = EvalOptions(pred=Path(pred), others=others, data=str(folder / data), out=folder / out, **options)
    assert run_eval(found) == code
    text = (folder / out).read_text()
    return json.loads(text) if out.endswith(".json") else text


def test_every_model_with_its_own_way_of_writing(folder, capsys):
    found = evaluate(
        folder,
        "Qwen2.5=qwen25.jsonl:format=detections,frame=pixels",
        "Qwen3=qwen3.jsonl:format=detections,frame=norm1000",
        "Gemini=gemini.jsonl:format=gemini",
        "InternVL=internvl.jsonl:format=internvl",
        f"YOLO=yolo.json:input=coco,names={folder / 'names.txt'}",
    )
    assert list(found["models"]) == ["Qwen2.5", "Qwen3", "Gemini", "InternVL", "YOLO"]
    for model in found["models"].values():
        assert model["metrics"]["AP50"]["value"] == 1 and model["metrics"]["failure_rate"]["value"] == 0
    assert len(found["pairs"]) == 10
    shown = capsys.readouterr().out
    assert "YOLO: category ids are read as places in" in shown and "from 0: 100%" in shown
    assert found["models"]["Qwen2.5"]["frame"] == "pixels" and found["options"]["task"] == "det"


def test_tables_in_files_are_whole(folder, capsys):
    """A terminal wraps and cuts what does not fit; a file is read by other programs."""
    names = [f"a_checkpoint_with_a_long_name_{n}" for n in range(4)]
    files = [f"{name}={folder}/{('qwen3', 'half')[n % 2]}.jsonl:format=detections" for n, name in enumerate(names)]
    assert main(["eval", *files, "--data", str(folder / "truth.jsonl"), "--task", "det", "--resamples", "20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(name in next(line for line in lines if "metric" in line) for name in names)
    assert not any("…" in line for line in lines)
    assert any("object_recall" in line and line.count("long_name") == 2 for line in lines)


def test_auto_says_what_it_recognised_and_in_which_boxes(folder, capsys):
    specs = [f"{name}={name}.jsonl:format=auto" for name in ("qwen25", "qwen3", "gemini", "internvl")]
    found = evaluate(folder, *specs)
    assert [model["metrics"]["AP50"]["value"] for model in found["models"].values()] == [1, 1, 1, 1]
    shown = capsys.readouterr().out
    for name, sentence in (
        ("qwen25", f"read as detections, which explains {IMAGES} of the {IMAGES} answers"),
        (
            "gemini",
            f"read as gemini, which explains {IMAGES} of the {IMAGES} answers that were tried; the format fixes",
        ),
        ("internvl", "read as internvl"),
    ):
        assert f"{name}: {sentence}" in shown
    assert "boxes read as pixels (mean IoU with the best target: pixels 1.00" in shown
    assert "boxes read as norm1000" in shown
    assert found["options"]["recognised"]["qwen3"][0].startswith("read as detections")


def test_auto_does_not_hide_that_boxes_cannot_be_told(folder, capsys):
    rows = [json.loads(line) for line in (folder / "truth.jsonl").read_text().splitlines()]
    (folder / "square.jsonl").write_text("\n".join(json.dumps({**row, "width": 1000, "height": 1000}) for row in rows))
    evaluate(folder, "qwen25=qwen25.jsonl:format=auto", data="square.jsonl")
    assert "boxes read as norm1000" in (shown := capsys.readouterr().out) and "which is not certain" in shown
    evaluate(folder, "qwen25=qwen25.jsonl:format=auto,frame=pixels")
    assert "boxes as --frame says: pixels" in capsys.readouterr().out


def test_a_file_of_mixed_quality(folder, capsys):
    lines = (folder / "internvl.jsonl").read_text().splitlines()
    others = [(folder / name).read_text().splitlines() for name in ("gemini.jsonl", "prose.jsonl")]
    (folder / "mixed.jsonl").write_text("\n".join([*lines[:7], *others[0][7:9], *others[1][9:]]))
    found = evaluate(folder, "mixed=mixed.jsonl:format=auto")
    shown = capsys.readouterr().out
    assert "read as internvl, which explains 7 of the 12 answers that were tried (gemini: 2)" in shown
    assert found["closest"] == {"mixed": {"it is text without boxes": 3, "it reads as gemini": 2}}
    assert "Failed answers of mixed: it is text without boxes (3); it reads as gemini (2)" in shown


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (
            "M=gemini.jsonl:format=detections",
            "12 of 12 that were tried can be read as 'gemini': is format gemini meant?",
        ),
        ("M=prose.jsonl:format=detections", "of 12 that were tried, 12 look alike: it is text without boxes"),
    ],
)
def test_a_model_whose_answers_cannot_be_read_fails_with_the_likeliest_reason(folder, spec, reason, capsys):
    found = evaluate(folder, "good=qwen3.jsonl:format=detections", spec, code=1)
    assert found["models"]["good"]["metrics"]["AP50"]["value"] == 1
    error = capsys.readouterr().err
    assert "12 of 12 answers could not be read as 'detections'" in error and reason in error


def test_the_command_line(folder, capsys):
    words = ["--data", str(folder / "truth.jsonl"), "--task", "det", "--resamples", "20"]
    files = [f"A={folder}/qwen25.jsonl:frame=pixels", f"B={folder}/qwen3.jsonl"]
    assert main(["eval", *files, *words, "--format", "detections"]) == 0
    assert " AP50 " in capsys.readouterr().out
    assert main(["eval", f"A={folder}/prose.jsonl:format=detections", *words]) == 1
    capsys.readouterr()
    for file, message in (
        (f"A={folder}/qwen3.jsonl:fromat=json", "unknown setting 'fromat=json' (did you mean format?)"),
        (f"A={folder}/qwen3.jsonl:format=jsn", "format: "),
        (f"A={folder}/qwen4.jsonl", "qwen4.jsonl"),
    ):
        assert main(["eval", file, *words]) == 2
        assert message in capsys.readouterr().err
    assert main(["eval", str(folder / "qwen3.jsonl"), str(folder / "qwen3.jsonl"), *words]) == 2
    assert "two files are called 'qwen3'; give each a name of its own, as NAME=FILE" in capsys.readouterr().err


def test_names_of_models(tmp_path):
    options = EvalOptions(pred=Path("p"), data="d")
    for text, name, path in (
        ("a/b.jsonl", "b", "a/b.jsonl"),
        ("A=a/b.jsonl", "A", "a/b.jsonl"),
        ("A B=b.jsonl:frame=pixels", "A B", "b.jsonl"),
        ("x=1/b.jsonl:format=toon,frame=resized,envelope=think", "x", "1/b.jsonl"),
        ("runs/lr=1/b.jsonl", "b", "runs/lr=1/b.jsonl"),
    ):
        model = read_model(text, options)
        assert (model.name, str(model.path)) == (name, path)
    assert model.options.format == "json" and read_model("b:format=toon", options).options.format == "toon"
    odd = tmp_path / "A=b.jsonl:format=toon"
    odd.write_text("")
    assert read_model(str(odd), options).path == odd


def test_image_ids_that_name_files(folder, capsys):
    coco = json.loads((folder / "coco.json").read_text())
    coco["images"] = [image | {"file_name": f"photos/frame_{image['id']}.jpg"} for image in coco["images"]]
    (folder / "coco.json").write_text(json.dumps(coco))
    rows = json.loads((folder / "yolo.json").read_text())
    rows = [row | {"image_id": f"frame_{row['image_id']}"} for row in rows]  # as ultralytics writes them
    answers = [json.loads(line) for line in (folder / "qwen3.jsonl").read_text().splitlines()]
    answers = [row | {"image_id": f"val/frame_{row['image_id']}.jpg"} for row in answers]
    (folder / "qwen3.jsonl").write_text("\n".join(map(json.dumps, answers)))
    (folder / "yolo.json").write_text(json.dumps(rows))
    found = evaluate(folder, "YOLO=yolo.json", "Qwen=qwen3.jsonl:format=detections", data="coco.json")
    assert [model["metrics"]["AP50"]["value"] for model in found["models"].values()] == [1, 1]
    assert capsys.readouterr().out.count("image ids are read as names of image files") == 2
    coco["images"] = [image | {"file_name": f"{image['id']}/frame_0.jpg"} for image in coco["images"]]
    (folder / "coco.json").write_text(json.dumps(coco))
    with pytest.raises(ValueError, match="none of its 12 image ids is in the data"):  # a name of several images
        evaluate(folder, "YOLO=yolo.json", data="coco.json")


def test_only_kinds_of_files_that_can_be_written(folder):
    with pytest.raises(ValueError, match=r"out: \.txt cannot be written; allowed: \.json, \.csv, \.tex, \.md"):
        evaluate(folder, "YOLO=yolo.json", data="coco.json", out="m.txt")


@pytest.mark.parametrize("base", [0, 1])
def test_detections_by_number_against_names(folder, base, capsys):
    instances = json.loads((folder / "coco.json").read_text())["annotations"]
    write_results(folder / "yolo.json", instances, lambda number: number - 1 + base)
    assert evaluate(folder, "YOLO=yolo.json", data="coco.json")["metrics"]["AP50"]["value"] == 1
    assert ("category ids are read as places in the categories from 0" in capsys.readouterr().out) == (base == 0)
    spec = f"YOLO=yolo.json:names={folder / 'names.txt'}"
    assert evaluate(folder, spec)["metrics"]["AP50"]["value"] == 1
    for name, content in (
        ("names.json", json.dumps(NAMES)),
        ("data.yaml", f"nc: 3\nnames: {NAMES}\n"),
        ("coco_names.json", json.dumps({"categories": [{"id": n + base, "name": x} for n, x in enumerate(NAMES)]})),
        ("ids.json", json.dumps({n + base: name for n, name in enumerate(NAMES)})),
    ):
        (folder / name).write_text(content)
        found = evaluate(folder, f"YOLO=yolo.json:names={folder / name}")
        assert found["metrics"]["AP50"]["value"] == 1, name


def test_detections_by_number_without_names_are_refused(folder):
    with pytest.raises(ValueError, match=r"yolo\.json: its categories are numbers and the ground truth has none; name"):
        evaluate(folder, "YOLO=yolo.json")
    for content in ("7", "[]", '{"a": "dog"}'):
        (folder / "odd.json").write_text(content)
        with pytest.raises(ValueError, match=r"odd\.json: names of categories are COCO instances, a list"):
            evaluate(folder, f"YOLO=yolo.json:names={folder / 'odd.json'}")
    with pytest.raises(ValueError, match=r"none\.txt: cannot be read"):
        evaluate(folder, f"YOLO=yolo.json:names={folder / 'none.txt'}")
    rows = json.loads((folder / "yolo.json").read_text())
    own = [{**row, "category_name": NAMES[row["category_id"]]} for row in rows]
    (folder / "own.json").write_text(json.dumps(own))
    assert evaluate(folder, "YOLO=own.json")["metrics"]["AP50"]["value"] == 1


def pairs_of(hits) -> list[Pair]:
    target = SceneGraph((SceneObject("dog", (0, 0, 10, 10)),))
    return [
        Pair(str(n), ParseResult("ok", target if hit else SceneGraph()), target, (100, 100))
        for n, hit in enumerate(hits)
    ]


def test_all_pairs_are_compared_as_two_are():
    rng = np.random.default_rng(0)
    options = MetricOptions(task="det", bootstrap_samples=200)
    models = {name: pairs_of(rng.random(40) < share) for name, share in (("a", 0.2), ("b", 0.5), ("c", 0.9))}
    found = compare_all(models, options)
    assert list(found.pairs) == [("a", "b"), ("a", "c"), ("b", "c")]
    for (a, b), differences in found.pairs.items():
        alone = compare(models[a], models[b], options).metrics["object_recall"]
        entry = differences["object_recall"]
        assert (entry.difference, entry.interval, entry.p_value) == (alone.difference, alone.interval, alone.p_value)
    # all three at the smallest p-value, 2 / 201, or near it; Holm: the smallest counts three times
    ps = sorted(differences["object_recall"].p_value for differences in found.pairs.values())
    assert min(d["object_recall"].p_holm for d in found.pairs.values()) == pytest.approx(3 * ps[0])
    assert found.is_best("c", "object_recall", "higher") and not found.is_best("b", "object_recall", "higher")
    assert found.is_best("a", "object_recall", "lower") and not found.is_best("a", "object_recall", "")
    same = compare_all({"a": models["a"], "b": models["a"]}, options)
    assert same.pairs["a", "b"]["object_recall"].p_holm == 1
    with pytest.raises(ValueError, match="not of the same images"):
        compare_all({"a": models["a"], "b": models["b"][::-1]})


def test_tables_for_papers(folder, capsys):
    specs = ("A_1=qwen3.jsonl:format=detections", "B|2=half.jsonl:format=detections")
    rows = list(csv.DictReader(evaluate(folder, *specs, out="t.csv", resamples=200).splitlines()))
    assert [row["model"] for row in rows] == ["A_1", "B|2"] and rows[0]["images"] == "12"
    assert float(rows[1]["object_recall"]) == pytest.approx(2 / 3)
    assert float(rows[1]["object_recall_low"]) <= 2 / 3 <= float(rows[1]["object_recall_high"])
    tex = evaluate(folder, *specs, out="t.tex", resamples=200, metrics=["object_recall", "AP50"])
    assert r"A\_1 & \textbf{100.0} {\scriptsize [100.0, 100.0]} & \textbf{100.0}" in tex and r"\toprule" in tex
    assert r"Model & Object recall (\%) & AP50 (\%) \\" in tex and "B|2 & 66.7" in tex
    markdown = evaluate(folder, *specs, out="t.md", resamples=200, metrics=["object_recall"]).splitlines()
    assert markdown[:2] == ["| Model | Object recall (%) |", "| --- | ---: |"]
    assert markdown[2] == "| A_1 | **100.0** [100.0, 100.0] |" and markdown[3].startswith("| B\\|2 | 66.7 [66.7, 66.7]")
    one = evaluate(folder, "A=qwen3.jsonl:format=detections", out="one.md", metrics=["AP50"]).splitlines()
    assert one[2] == "| A | 100.0 [100.0, 100.0] |"
    with pytest.raises(ValueError, match="compare writes JSON"):
        evaluate_compare = EvalOptions(
            compare=[folder / "qwen3.jsonl"] * 2, data=str(folder / "truth.jsonl"), out=folder / "x.csv"
        )
        run_eval(evaluate_compare)


def test_two_files_that_are_compared_may_differ_in_their_boxes(folder, capsys):
    compared = [f"{folder}/qwen25.jsonl:frame=pixels", f"{folder}/qwen3.jsonl:frame=norm1000"]
    options = {"data": str(folder / "truth.jsonl"), "task": "det", "resamples": 20, "format": "detections"}
    run_eval(EvalOptions(compare=list(map(Path, compared)), out=folder / "c.json", **options))
    entry = json.loads((folder / "c.json").read_text())["compare"]["metrics"]["AP50"]
    assert (entry["a"], entry["b"]) == (1, 1)


def test_the_report_takes_what_eval_takes(folder, capsys):
    evaluate(folder, "Qwen=qwen3.jsonl:format=detections", "YOLO=yolo.json", data="coco.json")
    predictions = [f"Qwen={folder}/qwen3.jsonl:format=auto", f"YOLO={folder}/yolo.json"]
    metrics = [f"{name}={folder}/m.json" for name in ("Qwen", "YOLO")]
    options = {"data": str(folder / "coco.json"), "out": folder / "r.html", "predictions": predictions}
    run_report(ReportOptions(**options, metrics=metrics))
    page = (folder / "r.html").read_text()
    assert '"status":"ok"' in page and "Qwen" in page and "YOLO" in page
    assert "Qwen: read as detections" in capsys.readouterr().out
    with pytest.raises(ValueError, match="there is no model 'other'; it has 'Qwen', 'YOLO'"):
        run_report(ReportOptions(**options, metrics=[f"other={folder}/m.json"]))


def test_detections_on_scene_graphs_are_shown_by_their_objects(folder, capsys):
    objects = [{"id": f"{label}.{n}", "bbox": box} for n, (label, box) in enumerate(TRUTH[0], 1)]
    relations = [{"subject": "dog.1", "predicate": "near", "object": "cat.2"}]
    row = {"image_id": "0", "width": WIDTH, "height": HEIGHT, "objects": objects, "relationships": relations}
    (folder / "graphs.jsonl").write_text(json.dumps(row))
    options = {"data": str(folder / "graphs.jsonl"), "out": folder / "r.html"}
    run_report(ReportOptions(**options, predictions=[f"Qwen={folder}/qwen3.jsonl:format=detections"]))
    assert '"ofRelations":false' in (folder / "r.html").read_text()
