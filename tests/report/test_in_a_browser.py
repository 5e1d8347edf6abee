"""The report in a headless browser: it works there, loads nothing, and can be used with keys, on a phone, in the dark.

`visit` fails a test whose page has a script error or asks the network for anything.
"""

from __future__ import annotations

import json
import random
from itertools import combinations
from pathlib import Path

import pytest
from PIL import Image

from report.report_run import HOSTILE, STAGES, build_run, make_hostile, write_rows
from scenerl.report.build import build_report, write_report
from scenerl.report.inputs import named_files, read_run

OBJECTS, RELATIONS = 12, 20


@pytest.fixture
def shown(visit, page, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    return lambda **options: visit(path.as_uri(), **options)


def graph_rows(rng: random.Random, number: int, predicates=("on", "next to", "wearing", "in front of")) -> list[dict]:
    """Data rows of the shape that a large scene graph has: 12 objects with names of usual length, 20 relations."""
    labels = ("person", "motorcycle", "traffic light", "dog", "building", "skateboard", "tree")
    rows = []
    for n in range(number):
        objects = []
        for index in range(OBJECTS):
            x, y = rng.randrange(500), rng.randrange(380)
            box = [x, y, x + rng.randrange(20, 140), y + rng.randrange(20, 100)]
            objects.append({"id": f"{rng.choice(labels)}.{index + 1}", "bbox": box})
        pairs = rng.sample([(a, b) for a in range(OBJECTS) for b in range(OBJECTS) if a != b], RELATIONS)
        relations = [
            {"subject": objects[a]["id"], "predicate": rng.choice(predicates), "object": objects[b]["id"]}
            for a, b in pairs
        ]
        size = {"file_name": "photo.jpg", "width": 640, "height": 480}
        rows.append({"image_id": str(n), **size, "objects": objects, "relationships": relations})
    return rows


def graph_report(folder: Path, rows: list[dict], image: Image.Image, stages=("A", "B", "C")) -> Path:
    """A report whose stages answer with the ground truth, every fourth predicate replaced."""
    (folder / "images").mkdir(parents=True)
    image.save(folder / "images" / "photo.jpg", quality=90)
    write_rows(folder / "data.jsonl", rows)
    for stage in stages:
        answers = []
        for row in rows:
            relations = [
                {**relation, "score": 0.5, **({"predicate": stage} if n % 4 == 0 else {})}
                for n, relation in enumerate(row["relationships"])
            ]
            graph = {"objects": row["objects"], "relationships": relations}
            answer = {"status": "ok", "issues": [], "graph": graph, "answer": json.dumps(graph), "num_tokens": 900}
            answers.append({"image_id": row["image_id"], **answer, "finish_reason": "stop"})
        write_rows(folder / f"{stage}.jsonl", answers)
    out = folder / "report.html"
    files = [f"{stage}={folder}/{stage}.jsonl" for stage in stages]
    write_report(named_files(folder / "data.jsonl", files), out, len(rows))
    return out


def test_detections_on_ground_truth_with_relations(visit, tmp_path):
    path = graph_report(tmp_path, graph_rows(random.Random(0), 2), Image.new("RGB", (640, 480)), stages=("A",))
    answers = [json.loads(line) for line in (tmp_path / "A.jsonl").read_text().splitlines()]
    boxes = [row | {"graph": {"objects": row["graph"]["objects"][:9], "relationships": []}} for row in answers]
    write_rows(tmp_path / "A.jsonl", boxes)
    write_report(named_files(tmp_path / "data.jsonl", [f"A={tmp_path}/A.jsonl"]), path, 2)
    gallery = visit(path.as_uri()).locator("#gallery").inner_text()
    assert "F1 is of an image's objects." in gallery and "9 of 9 boxes right, 3 missed" in gallery
    assert "false" not in gallery and "hit" not in gallery and "relation" not in gallery and "Graphs" not in gallery


def counts(page) -> str:
    return page.locator("#summary").text_content()


def control(page, name: str):
    return page.get_by_role("combobox", name=name, exact=True)


def draw_graphs(page, number: int) -> None:
    page.locator(f"#card-{number}").focus()
    page.keyboard.press("g")
    page.locator(f"#card-{number} .graph").first.wait_for()


def cards(page) -> list[str]:
    return page.locator(".card h3").all_text_contents()


def test_every_image_is_there_and_cards_are_drawn_when_they_come_into_view(shown):
    page = shown(height=600)
    assert counts(page) == "12 of 12 images" and len(cards(page)) == 12
    drawn = page.locator(".card .panels")
    assert drawn.count() == 0  # the gallery is far below
    page.locator("#filters").scroll_into_view_if_needed()
    page.locator(".card .panels").first.wait_for()
    assert 1 <= drawn.count() < 12
    panel = page.locator(".card").first.locator(".panel")
    assert panel.count() == 4
    # The embedded picture decodes.
    assert page.locator(".card").first.locator("image").evaluate("image => image.decode().then(() => true)")
    page.locator(".card").last.scroll_into_view_if_needed()
    page.locator(".card").last.locator(".panels").wait_for()


def test_answers_are_filtered_by_failure_and_run(shown, page):
    data = json.loads(page.partition('id="gallery-data">')[2].partition("</script>")[0])
    failed = [card["id"] for card in data["cards"] if card["stages"][0]["status"] == "truncated"]
    readable = [card["id"] for card in data["cards"] if all(stage["status"] == "ok" for stage in card["stages"])]
    assert 0 < len(failed) < 12 and 0 < len(readable) < 12
    view = shown()
    control(view, "Answers").select_option("=truncated")
    control(view, "of").select_option("0")
    assert cards(view) == failed and counts(view) == f"{len(failed)} of 12 images"
    view.get_by_role("button", name="Show all").click()
    assert len(cards(view)) == 12
    control(view, "Answers").select_option("ok")
    assert cards(view) == readable


def test_predicates_are_filtered_by_what_became_of_them(shown, page):
    data = json.loads(page.partition('id="gallery-data">')[2].partition("</script>")[0])
    name = "left of"
    view = shown()
    control(view, "Predicate").select_option(f"={name}")
    control(view, "of").select_option("2")
    for state, fits in {
        "target": lambda card: any(line[1] == name for line in card["target"]["relations"]),
        "miss": lambda card: any(line[1] == name and not line[3][2] for line in card["target"]["relations"]),
        "false": lambda card: any(line[1] == name and line[3] == "false" for line in card["stages"][2]["relations"]),
    }.items():
        control(view, "that is").select_option(state)
        expected = [card["id"] for card in data["cards"] if fits(card)]
        assert 0 < len(expected) < 12, state
        assert cards(view) == expected


def test_images_are_ordered_by_the_difference_of_two_runs(shown, page):
    data = json.loads(page.partition('id="gallery-data">')[2].partition("</script>")[0])
    gaps = {card["id"]: card["stages"][2]["f1"][0] - card["stages"][1]["f1"][0] for card in data["cards"]}
    behind = sorted((image for image, gap in gaps.items() if gap < 0), key=lambda image: gaps[image])
    apart = sorted((image for image, gap in gaps.items() if gap), key=lambda image: -abs(gaps[image]))
    assert behind and len(apart) > len(behind)
    view = shown()
    control(view, "first").select_option("1")
    control(view, "second").select_option("2")
    control(view, "Order").select_option("worse")
    assert cards(view) == behind
    assert "F1 SFT" in view.locator(".card .apart").first.text_content()
    control(view, "Order").select_option("either")
    assert [abs(gaps[image]) for image in cards(view)] == [abs(gaps[image]) for image in apart]


def test_runs_can_be_hidden(shown):
    view = shown()
    view.get_by_role("checkbox", name="SFT", exact=True).uncheck()
    view.locator(".card").first.focus()
    names = view.locator(".card").first.locator(".panel h4 bdi").all_text_contents()
    assert names == ["Base", "SFT + RL"]


def test_keys_move_between_images_and_leave_every_list(shown):
    view = shown()
    focused = "document.activeElement.id"
    for key, expected in [
        ("j", "card-0"),
        ("j", "card-1"),
        ("ArrowRight", "card-2"),
        ("k", "card-1"),
        ("ArrowLeft", "card-0"),
    ]:
        view.keyboard.press(key)
        assert view.evaluate(focused) == expected
    # What has the focus can be seen.
    assert view.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    view.keyboard.press("g")
    view.locator("#card-0 .graph").first.wait_for()
    # A list of relations takes the arrows, shows the two boxes, and lets go at the next Tab.
    relations = view.locator("#card-0 .relations").first
    relations.focus()
    view.keyboard.press("ArrowDown")
    assert relations.locator(".on").count() == 1 and view.locator("#card-0 .picking .box.on").count() == 2
    view.keyboard.press("Tab")
    assert relations.locator(".on").count() == 0
    # Tab gets from the first control of the gallery out of its last card, every stop being another.
    control(view, "Answers").select_option("=truncated")
    assert 1 <= view.locator(".card").count() <= 6
    control(view, "Answers").focus()
    for _ in range(200):
        before = view.evaluate_handle("document.activeElement")
        view.keyboard.press("Tab")
        assert not view.evaluate("before => before === document.activeElement", before)
        if view.evaluate("document.activeElement === document.body"):
            break
    else:
        pytest.fail("Tab does not leave the gallery")


def overlap(a, b) -> bool:
    """Whether two boxes have more than a rounded border in common."""
    return all(
        min(a[at] + a[size], b[at] + b[size]) - max(a[at], b[at]) > 0.1
        for at, size in (("x", "width"), ("y", "height"))
    )


def test_five_columns_fit_and_a_click_or_a_key_enlarges_a_picture(visit, tmp_path):
    rows = graph_rows(random.Random(3), 1)
    view = visit(graph_report(tmp_path / "wide", rows, Image.new("RGB", (640, 480)), "ABCD").as_uri())
    view.locator("#card-0").focus()
    panels = view.locator("#card-0 .panel").evaluate_all("all => all.map(node => node.getBoundingClientRect())")
    assert len({box["y"] for box in panels}) == 1 and max(box["x"] + box["width"] for box in panels) <= 1280
    scene = view.locator("#card-0 .scene").nth(1)
    width = scene.bounding_box()["width"]
    scene.click()
    assert scene.bounding_box()["width"] > 3 * width
    tags = scene.locator(".tag rect").evaluate_all("all => all.map(node => node.getBoundingClientRect())")
    assert len(tags) == OBJECTS and not any(map(overlap, *zip(*combinations(tags, 2), strict=True)))
    scene.click()
    assert scene.bounding_box()["width"] == width
    view.locator("#card-0").focus()
    view.keyboard.press("z")
    assert view.locator("#card-0 .large").count() == 5


def test_letters_typed_into_a_control_stay_there(shown):
    view = shown()
    control(view, "Predicate").focus()
    view.keyboard.press("j")
    assert view.evaluate("document.activeElement.tagName") == "SELECT"


CONTRAST = """selector => {
  const bright = (part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const light = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map((part) => bright(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const text = document.querySelector(selector);
  let back = text;
  while (getComputedStyle(back).backgroundColor === "rgba(0, 0, 0, 0)") back = back.parentElement;
  const [a, b] = [getComputedStyle(text).color, getComputedStyle(back).backgroundColor].map(light);
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""
BOX_FORMATS = """(svg, selector) =>
  [...svg.querySelectorAll(selector)].map((node) => node.getBoundingClientRect().toJSON())"""


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_needs_no_sideways_scrolling_and_texts_stand_out(shown, dark):
    view = shown(width=390, height=844, dark=dark, touch=True)
    view.locator(".card").first.focus()
    assert view.evaluate("document.documentElement.scrollWidth") <= 390
    background = view.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert max(background) < 60 if dark else min(background) > 200
    for selector in ("h1", ".note", ".sums", ".relations .words", "#summary", "#filters select", ".unit", "summary"):
        assert view.evaluate(CONTRAST, selector) >= 4.5, selector
    sizes = view.evaluate(
        "[...document.querySelectorAll('p, li, select, td')].map(x => parseFloat(getComputedStyle(x).fontSize))"
    )
    assert min(sizes) >= 11


@pytest.mark.parametrize("width", [320, 390, 760])
def test_no_cell_of_a_table_is_out_of_sight_on_a_small_screen(shown, width):
    view = shown(width=width)
    places = view.evaluate(
        """() => [...document.querySelectorAll(".scroll")].map(table => [
            table.scrollWidth - table.clientWidth,
            Math.max(...[...table.querySelectorAll("td")].map(cell => cell.getBoundingClientRect().right))])"""
    )
    assert len(places) > 4 and all(hidden == 0 and right <= width for hidden, right in places)
    failures = view.locator("#failures tr").nth(1).locator("td")
    labels = failures.evaluate_all("cells => cells.map(cell => getComputedStyle(cell, '::before').content)")
    assert len(labels) == 3 and [label.split(" (")[0].strip('"') for label in labels] == list(STAGES)


@pytest.mark.parametrize("width", [1280, 390])
def test_a_graph_of_12_objects_and_20_relations_can_be_read(visit, tmp_path, width):
    rows = graph_rows(random.Random(3), 3)
    report = graph_report(tmp_path / "graphs", rows, Image.new("RGB", (640, 480), "#557"))
    view = visit(report.as_uri(), width=width)
    for number in range(3):
        draw_graphs(view, number)
    for graph in view.locator(".graph").all():
        assert graph.locator(".node").count() == OBJECTS and graph.locator(".edge").count() == RELATIONS
        box_format = graph.bounding_box()
        boxes = graph.evaluate(BOX_FORMATS, ".node rect, .label rect")
        texts = graph.evaluate(BOX_FORMATS, "text")
        assert len(boxes) == len(texts) == OBJECTS + RELATIONS
        assert all(
            box_format["x"] <= box["left"] and box["right"] <= box_format["x"] + box_format["width"] for box in boxes
        )
        for a, b in combinations(boxes, 2):
            beside = a["right"] <= b["left"] or b["right"] <= a["left"]
            assert beside or a["bottom"] <= b["top"] or b["bottom"] <= a["top"], (a, b)
        # Texts keep their size, whatever the width of the window, and fit into their boxes.
        assert all(text["height"] >= 12 for text in texts)
        assert sum(text["width"] for text in texts) < sum(box["width"] for box in boxes)
    assert view.evaluate("document.documentElement.scrollWidth") <= width


def test_a_graph_says_what_is_right(visit, tmp_path):
    report = graph_report(tmp_path / "graphs", graph_rows(random.Random(0), 1), Image.new("RGB", (640, 480)), ("A",))
    view = visit(report.as_uri())
    draw_graphs(view, 0)
    truth, answer = view.locator(".graph").all()
    assert answer.locator(".edge.false").count() == RELATIONS // 4
    assert answer.locator(".edge.hit").count() == RELATIONS - RELATIONS // 4
    # What the only answer missed is drawn as missed in the ground truth.
    assert truth.locator(".edge.miss").count() == RELATIONS // 4
    labels = answer.locator(".label.false text").all_text_contents()
    assert labels == ["✕ A"] * 5


def test_hostile_text_is_shown_as_text(visit, tmp_path):
    folder = build_run(tmp_path / "run", num_images=3, side=96, steps=20)
    path = folder / "predictions" / "rl.jsonl"
    make_hostile(path, "</script>")
    manifest = json.loads((folder / "report.json").read_text())
    for stage in manifest["stages"]:
        stage["name"] += HOSTILE
    for target in manifest["targets"]:
        target["name"] += HOSTILE
    for stage in manifest["stages"]:
        stage["metrics"] = {}
    (folder / "report.json").write_text(json.dumps(manifest))
    (folder / "predictions" / "rl.jsonl.yaml").write_text(f"model: {json.dumps(HOSTILE)}\n")
    out = tmp_path / "report.html"
    out.write_text(build_report(read_run(folder)), encoding="utf-8")
    view = visit(out.as_uri())
    view.on("dialog", lambda dialog: pytest.fail(f"a dialog: {dialog.message}"))
    for number in range(3):
        draw_graphs(view, number)
    view.evaluate("document.querySelectorAll('details').forEach((node) => { node.open = true; })")
    assert view.locator("b, img, #cards script, [onclick], [onerror]").count() == 0
    answer = view.locator(".card pre").last.text_content()
    assert answer.startswith('<script>alert("x")</script><img src=x onerror=alert(1)>"')
    assert "<script>" in view.locator(".graph .node text").last.text_content()
    assert "<script>" in control(view, "Predicate").text_content()


@pytest.mark.slow
def test_500_images_that_hardly_compress_stay_under_60_megabytes(visit, tmp_path):
    rng = random.Random(0)
    noise = Image.frombytes("RGB", (640, 480), rng.randbytes(640 * 480 * 3))
    report = graph_report(tmp_path / "many", graph_rows(rng, 500), noise)
    assert 10_000_000 < report.stat().st_size < 60_000_000
    view = visit(report.as_uri())
    view.keyboard.press("j")
    assert view.locator(".card").count() == 500 and view.locator("#card-0 .panel").count() == 4
    control(view, "Predicate").select_option("=A")
    assert counts(view) == "500 of 500 images"
