"""The page as a whole: its structure, that it needs no network, that model text stays text, and its size."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import re
from pathlib import Path

import pytest
from PIL import Image

from data.detection_folders import write_ovdeval
from data.published_folders import write_psg
from report.html_tree import Page, read
from report.report_run import COMPLETE, HOSTILE, SPARSE, STAGES, build_run, make_hostile, rows_of, write_rows
from scenerl import cli
from scenerl.commands.report import ReportOptions
from scenerl.data.ground_truth import load_ground_truth
from scenerl.metrics import MetricOptions, Pair, evaluate
from scenerl.predictions.notes import Notes
from scenerl.predictions.row import decode_graph, decode_parsed
from scenerl.report.build import build_report
from scenerl.report.card import encode_image
from scenerl.report.command import run
from scenerl.report.inputs import named_files, read_run
from scenerl.types import ParseResult


def report(folder: Path, **options) -> str:
    return build_report(read_run(folder), **options)


def gallery_of(html: str) -> dict:
    """What the page's script draws the gallery from."""
    return json.loads(read(html).all("script", "id", "gallery-data")[0].text)


def texts_in(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for part in parts for text in texts_in(part)]


def assert_needs_no_network(page: Page) -> None:
    for element in page.elements:
        assert element.tag not in ("link", "iframe", "object", "embed", "base", "form"), element.tag
        for name, value in element.attributes.items():
            assert not name.startswith("on"), f"<{element.tag} {name}>"
            if name in ("src", "href", "xlink:href", "action", "srcset", "poster"):
                assert value.startswith("#"), f"<{element.tag} {name}={value[:60]!r}>"


def test_page_has_every_section_stage_and_target(page):
    tree = read(page)
    ids = [element.attributes["id"] for element in tree.elements if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    assert {"results", "training", "predicates", "failures", "gallery"} <= set(ids)
    metrics = tree.all("table", "class", "metrics")
    assert len(metrics) == 2
    for table, target in zip(metrics, (SPARSE, COMPLETE), strict=True):
        assert f"Against {target}" in table.text
        for stage in STAGES:
            assert stage in table.text
        for title in ("Failure rate", "Recall", "R@50", "mR@50", "Triplet precision", "Triplet F1", "AP50"):
            assert title in table.text
        assert "Relations per image" in table.text and "27.4\u201333.3" in table.text or target == SPARSE
    for element in tree.all("a"):
        assert element.attributes["href"].removeprefix("#") in ids


def test_tables_have_scoped_headers_and_every_row_is_full(page):
    tree = read(page)
    assert all(element.attributes.get("scope") in ("col", "row") for element in tree.all("th"))
    for table in re.findall(r"<table.*?</table>", page, re.DOTALL):
        rows = [len(re.findall(r"<t[hd][ >]", row)) for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL)]
        assert len(set(rows)) == 1, rows


def test_page_needs_no_network_and_allows_only_its_own_script(page):
    tree = read(page)
    assert_needs_no_network(tree)
    assert "http://" not in page and "https://" not in page and "@import" not in page and "url(" not in page
    scripts = tree.all("script")
    types = [element.attributes.get("type") for element in scripts]
    assert types == ["application/json"] + ["text/plain"] * 12 + [None]  # the last alone is run
    (policy,) = [meta.attributes["content"] for meta in tree.all("meta", "http-equiv")]
    for name, element in (("script", scripts[-1]), ("style", tree.all("style")[0])):
        digest = base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not [element for element in tree.elements if "style" in element.attributes]


def test_chart_data_fits_the_charts(page):
    tree = read(page)
    for figure in tree.all("figure"):
        for line in json.loads(figure.attributes["data-chart"])["lines"]:
            assert len(line["steps"]) == len(line["values"]) > 1
    titles = [element.text for element in tree.all("figcaption")]
    assert "Loss" in titles and "Reward, weighted total" in titles and "Reward: triplet f1" in titles


def test_every_image_is_embedded_once(page):
    pictures = read(page).all("script", "type", "text/plain")
    assert [picture.attributes["id"] for picture in pictures] == [f"picture-{n}" for n in range(12)]
    for picture in pictures:
        assert max(Image.open(io.BytesIO(base64.b64decode(picture.text))).size) <= 640


def test_pictures_get_coarser_to_fit_and_never_fail():
    noise = Image.frombytes("RGB", (640, 480), random.Random(0).randbytes(640 * 480 * 3))
    full, fine, coarse, least = (len(encode_image(noise, size)) * 3 / 4 for size in (10**6, 60_000, 40_000, 10))
    assert full > 200_000 and 40_000 < fine <= 60_000 and coarse <= 40_000 and least <= coarse


def test_same_inputs_give_the_same_page(run_folder):
    assert report(run_folder) == report(run_folder)


def test_hostile_text_stays_text_everywhere(run_folder):
    path = run_folder / "predictions" / "rl.jsonl"
    make_hostile(path, "</title>")
    manifest = json.loads((run_folder / "report.json").read_text())
    manifest["title"] = HOSTILE
    for stage in manifest["stages"]:
        stage["name"] += HOSTILE
    manifest["predicate_counts"][HOSTILE] = 3
    (run_folder / "report.json").write_text(json.dumps(manifest))
    metrics = json.loads((run_folder / "metrics/rl.sparse.json").read_text())
    for part in ("metrics", "options", "counts", "failures", "per_predicate"):
        metrics[part][HOSTILE] = {"metrics": {"value": 0.5}, "failures": 3, "per_predicate": {"recall": 0.1}}.get(
            part, HOSTILE
        )
    (run_folder / "metrics/rl.sparse.json").write_text(json.dumps(metrics))
    log = rows_of(run_folder / "rl/log.jsonl")
    write_rows(run_folder / "rl/log.jsonl", [{**row, f"rewards/{HOSTILE}/mean": 0.1, HOSTILE: 2} for row in log])

    html = report(run_folder)
    html.encode("utf-8")
    tree = read(html)
    assert_needs_no_network(tree)
    assert len(tree.all("script")) == 1 + 6 + 1 and not tree.all("img") and not tree.all("b")
    assert "{{ 7*7 }}" in html
    unshowable = "[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
    assert not re.search(unshowable, html)
    assert all(json.loads(figure.attributes["data-chart"]) for figure in tree.all("figure", "data-chart"))
    gallery = gallery_of(html)
    assert not any(re.search(unshowable, text) for text in texts_in(gallery))
    answer = gallery["cards"][0]["stages"][2]["answer"]
    assert '<script>alert("x")</script><img src=x onerror=alert(1)>"' in answer
    assert "\u27e8U+202E\u27e9" in answer and "\u2400" in answer
    # In the file none of it is markup, not even where a parser looks for the end of a script.
    assert "<script>alert" not in html and "<img" not in html


def test_a_long_answer_is_cut_and_the_page_stays_small(run_folder):
    path = run_folder / "predictions" / "sft.jsonl"
    rows = rows_of(path)
    for row in rows:
        row["answer"] = "<a>&\x00" * 250_000
    write_rows(path, rows)
    html = report(run_folder)
    assert "cut: the first 20,000 of 1,250,000 characters" in html
    assert len(html.encode()) < 2_500_000


def test_a_graph_of_thousands_is_bounded_and_says_so(run_folder):
    path = run_folder / "predictions" / "sft.jsonl"
    rows = rows_of(path)
    objects = [{"id": f"thing.{n}", "bbox": [0, 0, 20, 20]} for n in range(2000)]
    relations = [{"subject": "thing.0", "predicate": f"p{n}", "object": "thing.1"} for n in range(2000)]
    rows[0].update(status="ok", graph={"objects": objects, "relationships": relations})
    rows[0]["issues"] = [{"kind": "too_many", "where": "objects", "detail": "x" * 9999}] * 2000
    write_rows(path, rows)
    html = report(run_folder)
    stage = gallery_of(html)["cards"][0]["stages"][1]
    assert stage["n"] == [2000, 2000] and stage["counts"]["false"] == 2000 and stage["numIssues"] == 2000
    assert [len(stage[key]) for key in ("objects", "relations", "issues")] == [100, 60, 20]
    assert len(html) < 1_000_000


def test_size_of_a_full_gallery(tmp_path):
    folder = build_run(tmp_path / "run", num_images=48, side=640)
    html = report(folder)
    assert len(html.encode()) < 3_000_000


def test_gallery_size_and_choice(run_folder):
    html = report(run_folder, num_images=3, seed=1)
    assert len(gallery_of(html)["cards"]) == 3
    assert "3 of 6 test images" in html


def test_relations_have_their_states(run_folder):
    rows = rows_of(run_folder / "data" / "test_complete.jsonl")
    row = next(row for row in rows if len(row["relationships"]) >= 2)
    relations = [dict(relation) for relation in row["relationships"]]
    wrong = dict(relations[1], predicate="never", score=0.5)
    path = run_folder / "predictions" / "sft.jsonl"
    predictions = rows_of(path)
    for prediction in predictions:
        if prediction["image_id"] == row["image_id"]:
            prediction.update(
                status="ok",
                issues=[],
                graph={"objects": row["objects"], "relationships": [relations[0], relations[0], wrong]},
            )
    write_rows(path, predictions)
    card = next(card for card in gallery_of(report(run_folder))["cards"] if card["id"] == row["image_id"])
    stage = card["stages"][1]
    assert [(state, score) for _, _, _, state, score, _ in stage["relations"]] == [
        ("hit", None),
        ("repeat", None),
        ("false", 0.5),
    ]
    assert stage["counts"] == {"hit": 1, "repeat": 1, "false": 1, "miss": len(relations) - 1}
    assert [relation[3][1] for relation in card["target"]["relations"]] == [1] + [0] * (len(relations) - 1)
    # One hit among three predicted and so many annotated relations; all objects are right.
    assert stage["f1"] == [round(2 / (3 + len(relations)), 4), 1.0]


def test_scores_and_votes_are_told_where_they_are(run_folder):
    path = run_folder / "predictions" / "rl.jsonl"
    rows = rows_of(path)
    first, second = {"id": "a.1", "bbox": [0, 0, 9, 9]}, {"id": "b.2", "bbox": [5, 5, 30, 30]}
    relation = {"subject": "a.1", "predicate": "on", "object": "b.2"}
    rows[0].update(
        status="ok",
        answers=8,
        graph={
            "objects": [{**first, "score": 0.87654, "votes": 7}, {**second, "score": float("nan"), "votes": True}],
            "relationships": [{**relation, "score": 0.25, "votes": 2}],
        },
    )
    write_rows(path, rows)
    stage = gallery_of(report(run_folder))["cards"][0]["stages"][2]
    assert [entry[3:5] for entry in stage["objects"]] == [[0.877, 7], [None, None]]
    assert stage["relations"][0][4:] == [0.25, 2] and stage["answers"] == 8


def test_relations_that_other_annotations_lack_say_so(run_folder):
    sparse, complete = (rows_of(run_folder / "data" / name) for name in ("test.jsonl", "test_complete.jsonl"))
    left_out = sum(len(row["relationships"]) for row in complete) - sum(len(row["relationships"]) for row in sparse)
    assert left_out > 0
    gallery = gallery_of(report(run_folder))
    lacking = [relation[4] for card in gallery["cards"] for relation in card["target"]["relations"]]
    assert gallery["others"] == [SPARSE] and lacking.count([0]) == left_out


def test_a_failed_answer_says_why_and_all_its_targets_are_missed(run_folder):
    path = run_folder / "predictions" / "rl.jsonl"
    rows = rows_of(path)
    for row in rows:
        row.update(status="no_answer", answer=None, graph=None, issues=[], error="the image cannot be decoded")
    write_rows(path, rows)
    for card in gallery_of(report(run_folder))["cards"]:
        stage = card["stages"][2]
        assert (stage["status"], stage["error"]) == ("no_answer", "the image cannot be decoded")
        assert "answer" not in stage and stage["counts"]["miss"] == card["target"]["n"][1]


def test_zero_relations_and_empty_graphs(run_folder):
    for name in ("test.jsonl", "test_complete.jsonl"):
        path = run_folder / "data" / name
        write_rows(path, [{**row, "relationships": [], "objects": []} for row in rows_of(path)])
    for name in ("base", "sft", "rl"):
        path = run_folder / "predictions" / f"{name}.jsonl"
        write_rows(
            path,
            [
                {**row, "status": "ok", "graph": {"objects": [], "relationships": []}, "issues": []}
                for row in rows_of(path)
            ],
        )
    for card in gallery_of(report(run_folder))["cards"]:
        assert card["target"]["n"] == [0, 0]
        assert [stage["f1"] for stage in card["stages"]] == [[1.0, 1.0]] * 3  # nothing to find, nothing claimed


def test_detection_rows_show_boxes_and_the_query(run_folder):
    rows = []
    for row in rows_of(run_folder / "data" / "test.jsonl"):
        detections = [{"label": item["id"].split(".")[0], "bbox_2d": item["bbox"]} for item in row["objects"]]
        query = sorted({item["label"] for item in detections} | {"zebra"})
        rows.append(
            {
                **{key: row[key] for key in ("image_id", "file_name", "width", "height")},
                "detections": detections,
                "query": query,
            }
        )
    write_rows(run_folder / "data" / "test.jsonl", rows)
    write_rows(run_folder / "data" / "test_complete.jsonl", rows)
    for name in ("base", "sft", "rl"):
        path = run_folder / "predictions" / f"{name}.jsonl"
        write_rows(
            path, [{**row, "graph": row["graph"] and {"objects": row["graph"]["objects"]}} for row in rows_of(path)]
        )
    for card in gallery_of(report(run_folder))["cards"]:
        assert "zebra" in card["query"] and card["target"]["n"][1] == 0 < card["target"]["n"][0]


def test_an_image_that_is_missing_or_broken_leaves_a_blank(run_folder):
    images = sorted((run_folder / "data" / "images").iterdir())
    images[0].unlink()
    images[1].write_bytes(images[1].read_bytes()[:60])
    html = report(run_folder)
    problems = [card["problem"] for card in gallery_of(html)["cards"]]
    assert len(read(html).all("script", "type", "text/plain")) == 4
    assert "no such image file" in problems[0] and "cannot be decoded" in problems[1] and not any(problems[2:])
    assert str(run_folder) not in html


def test_stages_without_metrics_log_or_predictions(run_folder):
    manifest = json.loads((run_folder / "report.json").read_text())
    manifest["stages"] = [
        {"name": "only a name"},
        {"name": "log only", "log": "rl/log.jsonl"},
        {"name": "predictions only", "predictions": "predictions/rl.jsonl"},
    ]
    del manifest["predicate_counts"]
    (run_folder / "report.json").write_text(json.dumps(manifest))
    html = report(run_folder)
    read(html)
    assert "There are no metrics" in html and "only a name" in html and 'id="predicates"' not in html


def test_predictions_that_do_not_fit_the_data_are_told(run_folder):
    path = run_folder / "predictions" / "sft.jsonl"
    rows = rows_of(path)[1:]
    rows[0]["image_id"] = "elsewhere"
    write_rows(path, rows)
    html = report(run_folder)
    assert "SFT: 1 predictions are of images that complete annotations does not have." in html
    assert "SFT: 2 of 6 images have no prediction." in html
    missing = [card["stages"][1]["status"] == "missing" for card in gallery_of(html)["cards"]]
    assert sum(missing) == 2


def test_only_the_first_sample_of_an_image_is_shown(run_folder):
    path = run_folder / "predictions" / "sft.jsonl"
    rows = rows_of(path)
    write_rows(path, [copy for row in rows for copy in (row, {**row, "sample": 1, "answer": "the second sample"})])
    assert "the second sample" not in report(run_folder)


def test_command_writes_into_the_run_folder(run_folder, capsys):
    run(ReportOptions(run=[run_folder], num_images=2, title="Another title"))
    html = (run_folder / "report.html").read_text(encoding="utf-8")
    assert "<h1>Another title</h1>" in html
    assert str(run_folder / "report.html") in capsys.readouterr().out
    assert [path.name for path in run_folder.iterdir() if path.name.startswith(".")] == []


def test_command_from_loose_files(run_folder, tmp_path):
    out = tmp_path / "new" / "page.html"
    run(
        ReportOptions(
            data=run_folder / "data/test.jsonl",
            predictions=[f"A={run_folder}/predictions/sft.jsonl", f"{run_folder}/predictions/rl.jsonl"],
            metrics=[f"A={run_folder}/metrics/sft.sparse.json"],
            logs=[f"A={run_folder}/sft/log.jsonl"],
            out=out,
        )
    )
    tree = read(out.read_text(encoding="utf-8"))
    assert [element.text for element in tree.all("h1")] == ["Predictions on test"]
    assert {"A", "rl"} <= {element.text.strip() for element in tree.all("bdi")}


def test_ground_truth_may_be_any_data_source(tmp_path):
    """As a COCO file, by name and by its path, with a detection's metrics: the gallery's F1 is that of the metrics."""
    (tmp_path / "coco.json").write_text(
        json.dumps(
            {
                "images": [{"id": 7, "file_name": "7.jpg", "width": 60, "height": 40}],
                "annotations": [{"id": 1, "image_id": 7, "category_id": 3, "bbox": [0, 0, 20, 20], "iscrowd": 0}],
                "categories": [{"id": 3, "name": "dog"}],
            }
        )
    )
    graph = {"objects": [{"id": "dog.1", "bbox": [0, 0, 20, 21]}, {"id": "cat.2", "bbox": [0, 0, 9, 9]}]}
    write_rows(tmp_path / "p.jsonl", [{"image_id": 7, "status": "ok", "graph": graph, "issues": []}])
    cards = []
    for source in (f"coco:{tmp_path}/coco.json", f"{tmp_path}/coco.json"):
        run(ReportOptions(data=source, predictions=[f"A={tmp_path}/p.jsonl"], out=tmp_path / "report.html"))
        (card,) = gallery_of((tmp_path / "report.html").read_text())["cards"]
        assert card["stages"][0]["f1"][1] == 0.6667 and card["target"]["n"] == [1, 0]
        cards.append(card)
        truth = load_ground_truth(source).examples[0]
        pair = Pair("7", ParseResult("ok", decode_graph(graph, "", Notes(""))), truth.graph, (60, 40))
        value = evaluate([pair], MetricOptions(task="det")).metrics["object_f1"].value
        assert card["stages"][0]["f1"][1] == round(value, 4)
    assert cards[0] == cards[1]


@pytest.mark.parametrize(
    ("source", "split", "image_id", "labels"),
    [
        ("psg:{}", "test", "109", ["grass-merged", "person"]),
        ("psg:{}/psg.json", "test", "109", ["grass-merged", "person"]),
        ("ovdeval:{}", "negation", "0", ["computer without screen on"]),
        ("ovdeval:{}/negation.json", None, "0", ["computer without screen on"]),
    ],
)
def test_eval_and_report_read_released_sets(tmp_path, source, split, image_id, labels):
    """Ground truth written as predictions is perfect in the metrics, and in the gallery."""
    source = source.format(write_psg(tmp_path) if source.startswith("psg") else write_ovdeval(tmp_path))
    truth = {example.image_id: example.graph for example in load_ground_truth(source, split).examples}
    assert [found.label for found in truth[image_id].objects] == labels
    graph = {
        "objects": [{"id": f"{found.label}.{n}", "bbox": found.box} for n, found in enumerate(truth[image_id].objects)]
    }
    write_rows(tmp_path / "p.jsonl", [{"image_id": image_id, "status": "ok", "graph": graph, "issues": []}])
    where = ["--data", source, *(["--split", split] if split else [])]
    pred, metrics, out = (str(tmp_path / name) for name in ("p.jsonl", "metrics.json", "report.html"))
    assert cli.main(["eval", pred, *where, "--task", "det", "--out", metrics, "--resamples", "0"]) == 0
    assert json.loads(Path(metrics).read_text())["metrics"]["object_f1"]["value"] == 1
    assert cli.main(["report", *where, "--predictions", f"A={pred}", "--out", out]) == 0
    (card,) = gallery_of(Path(out).read_text())["cards"]
    assert card["target"]["n"][0] == len(labels) and card["stages"][0]["f1"][1] == 1


def test_the_gallery_counts_as_the_metrics_do(tmp_path):
    """Two dogs, of which the first answer fits both: in the order of the answer it would take the other's only match.
    The conventions are those of metrics.json, and a dropped element is a prediction."""
    size = {"file_name": "7.jpg", "width": 60, "height": 40}
    dogs = [{"id": "dog.1", "bbox": [0, 0, 10, 10]}, {"id": "dog.2", "bbox": [3, 0, 13, 10]}]
    write_rows(tmp_path / "d.jsonl", [{"image_id": "7", **size, "objects": dogs, "relationships": []}])
    answer = {"objects": [{"id": "dog.1", "bbox": [1, 0, 11, 10]}, {"id": "dog.2", "bbox": [-3, 0, 7, 10]}]}
    issue = {"kind": "bad_box", "where": "objects[2]", "detail": ""}
    for issues, threshold, f1 in (([], 0.5, 1.0), ([issue], 0.5, 0.8), ([], 0.7, 0.5)):
        row = {"image_id": "7", "status": "ok", "graph": answer, "issues": issues}
        write_rows(tmp_path / "p.jsonl", [row])
        result = decode_parsed(row, "", Notes(""))
        (example,) = load_ground_truth(tmp_path / "d.jsonl").examples
        options = MetricOptions(task="det", iou_threshold=threshold)
        found = evaluate([Pair("7", result, example.graph, (60, 40))], options).to_json()
        (tmp_path / "m.json").write_text(json.dumps(found))
        inputs = named_files(str(tmp_path / "d.jsonl"), [f"A={tmp_path}/p.jsonl"], [f"A={tmp_path}/m.json"])
        (card,) = gallery_of(build_report(inputs))["cards"]
        assert card["stages"][0]["f1"][1] == pytest.approx(found["metrics"]["object_f1"]["value"], abs=1e-4) == f1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give a run folder, or --data"),
        ({"data": Path("x.jsonl")}, "with --predictions"),
        ({"run": [Path("x")], "data": Path("y")}, "not both"),
    ],
)
def test_command_says_which_options_go_together(options, message):
    with pytest.raises(ValueError, match=message):
        run(ReportOptions(**options))


def test_an_output_that_cannot_be_written_is_named(run_folder):
    (run_folder / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        run(ReportOptions(run=[run_folder], out=run_folder / "file" / "report.html"))
