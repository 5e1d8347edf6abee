"""The page in a headless browser with the network cut, with answers that a test decides on."""

from __future__ import annotations

import json
import threading

import pytest

from app.image_files import png

HOSTILE = '<img src=x onerror="document.title=1">${document.title=2}{{7*7}}'


def row(objects, relations=(), answer="text", **more) -> dict:
    """A prediction row; ``relations`` are (subject, predicate, object, score) with places in ``objects``."""
    ids = [f"{label}.{n}" for n, (label, _, _) in enumerate(objects, start=1)]
    graph = {
        "objects": [{"id": i, "bbox": box, "score": score} for i, (_, box, score) in zip(ids, objects, strict=True)],
        "relationships": [
            {"subject": ids[a], "predicate": name, "object": ids[b], "score": score} for a, name, b, score in relations
        ],
    }
    row = {"image_id": "photo.png", "status": "ok", "graph": graph, "answer": answer, "issues": []}
    return row | {"num_tokens": 7, "finish_reason": "stop"} | more


MAN, HORSE, HAT = ("man", [10, 5, 30, 39], 0.9), ("horse", [5, 10, 55, 38], 0.8), ("hat", [12, 2, 20, 9], 0.3)
RIDING = row([MAN, HORSE, HAT], [(0, "riding", 1, 0.7), (0, "wearing", 2, 0.2)])


def value(*rows) -> dict:
    return {"result": rows[0], "answers": list(rows), "output_format": {}, "prompt": "Describe the image."}


@pytest.fixture
def open_page(serve, visit, tmp_path):
    """``open_page(answer, ...)``: the page with an image of 60 x 40 chosen."""

    def start(answer, *names, content=None, options=None, **view):
        page = visit(serve(answer, *names, **(options or {})), hosts=["127.0.0.1"], **view)
        path = tmp_path / "photo.png"
        path.write_bytes(content or png(60, 40))
        page.locator("input[type=file]").first.set_input_files(path)
        page.locator(".image-frame img").wait_for()
        return page

    return start


def press(page, name: str):
    page.get_by_role("button", name=name).click()


def boxes(page, panel=0) -> list[list[float]]:
    drawn = page.locator(f"#panel-{panel} .scene .over")
    drawn.first.wait_for()
    return drawn.evaluate_all("found => found.map(r => ['x','y','width','height'].map(k => +r.getAttribute(k)))")


def cells(page) -> list[str]:
    """Texts of the first panel's tables."""
    texts = page.locator("#panel-0 [data-testid^=cell-]")
    texts.first.wait_for()
    return [text.strip() for text in texts.all_inner_texts()]


def test_from_upload_to_drawn_boxes_and_back_to_a_file(open_page):
    requests = []
    page = open_page(
        lambda request, image, name, engine, saved: requests.append((request, image.size)) or value(RIDING)
    )
    press(page, "Run")
    assert boxes(page) == [[10, 5, 20, 34], [5, 10, 50, 28], [12, 2, 8, 7]]
    assert page.locator(".scene text").all_text_contents() == ["1 man", "2 horse", "3 hat"]
    assert sorted(page.locator(".graph .label text").all_text_contents()) == ["riding", "wearing"]
    assert cells(page)[:4] == ["man 1", "riding", "horse 2", "0.70"]
    ((request, size),) = requests
    assert size == (60, 40) and (request.task, request.num_samples, request.max_new_tokens) == ("sgdet", 1, 64)
    with page.expect_download() as download:
        press(page, "Download as JSON")
    with open(download.value.path()) as file:
        assert json.load(file)["result"] == RIDING
    slider = page.get_by_label("number input for Minimum score").first
    slider.fill("0.5")
    slider.press("Enter")
    page.wait_for_function("document.querySelectorAll('#panel-0 .scene .over').length === 2")
    assert page.locator(".graph .label text").all_text_contents() == ["riding"]


def test_two_checkpoints_side_by_side_and_one_that_fails(open_page, caplog):
    def answer(request, image, name, engine, saved):
        if engine.name == "other":
            raise ValueError("a bug of ours")
        return value(RIDING)

    page = open_page(answer)
    page.get_by_label("Compare with").click()
    page.get_by_role("option", name="other").click()
    press(page, "Run")
    page.locator("#panel-1 .scenerl-error").wait_for()
    assert len(boxes(page)) == 3
    assert page.locator("#panel-1 .scenerl-error").inner_text().startswith("other: This is an error of SceneRL")
    assert "a bug of ours" not in page.content()
    assert "ValueError: a bug of ours" in caplog.text and "Traceback" in caplog.text


def test_what_a_model_writes_stays_text(open_page):
    hostile = row([(HOSTILE, [1, 2, 30, 30], 0.5), MAN], [(0, HOSTILE, 1, 0.5)], HOSTILE)
    page = open_page(lambda *_: value(hostile))
    press(page, "Run")
    boxes(page)
    page.get_by_role("button", name="Raw answer and prompt").first.click()
    page.wait_for_timeout(300)
    assert HOSTILE in page.locator("#panel-0 textarea").first.input_value()
    assert page.title() == "SceneRL" and page.locator("img[src=x]").count() == 0
    assert cells(page)[1] == HOSTILE


def test_an_answer_that_failed_shows_its_text(open_page):
    page = open_page(lambda *_: value(row([], answer="no list", status="invalid_json", graph=None)))
    press(page, "Run")
    page.locator(".scenerl-facts").first.wait_for()
    assert page.locator(".scenerl-facts").first.inner_text().startswith("failed: invalid_json")


def test_cancel_stops_the_answer_and_the_next_one_runs(open_page):
    started, ended = threading.Event(), threading.Event()

    def answer(request, image, name, engine, saved):
        if request.seed == 1:
            return value(RIDING)
        started.set()
        try:
            while True:
                engine.checkpoint.model.step()
                threading.Event().wait(0.02)
        finally:
            ended.set()

    page = open_page(answer)
    press(page, "Run")
    assert started.wait(20)
    press(page, "Cancel")
    assert ended.wait(20)
    page.get_by_role("button", name="Sampling").click()
    page.get_by_label("Seed").fill("1")
    press(page, "Run")
    assert len(boxes(page)) == 3


def test_detection_shows_the_labels_and_needs_them(open_page):
    requests = []
    page = open_page(lambda request, *_: requests.append(request) or value(row([MAN])), width=390, height=800)
    assert page.get_by_label("Labels to look for").count() == 0
    page.get_by_label("Detection of given labels").check()
    field = page.get_by_label("Labels to look for")
    field.wait_for()
    press(page, "Run")
    page.locator(".scenerl-error").wait_for()
    assert "Detection needs the labels" in page.locator(".scenerl-error").inner_text()
    field.fill("man, red <b>ball</b>,man")
    press(page, "Run")
    boxes(page)
    assert requests[0].labels == ("man", "red <b>ball</b>")


@pytest.mark.parametrize("width, height", [(1280, 800), (1280, 600), (390, 800)])
def test_run_and_cancel_are_in_view_however_low_the_window(open_page, width, height):
    page = open_page(lambda *_: value(RIDING), width=width, height=height)
    for name in ("Run", "Cancel"):
        button = page.get_by_role("button", name=name)
        place = button.bounding_box()
        assert place["y"] > height / 2 and place["y"] + place["height"] <= height
        middle = [place["x"] + place["width"] / 2, place["y"] + place["height"] / 2]
        assert page.evaluate("([x, y]) => document.elementFromPoint(x, y).innerText", middle) == name
    press(page, "Run")
    boxes(page)
    if width > 1000:  # beside the inputs: nothing scrolls
        assert page.evaluate("scrollY") == 0


def test_on_a_phone_the_result_comes_into_view(open_page):
    page = open_page(lambda *_: value(RIDING), width=390, height=800)
    press(page, "Run")
    boxes(page)
    page.wait_for_function("document.querySelector('#panel-0 .scene').getBoundingClientRect().bottom < innerHeight")
    assert page.locator("#panel-0 .scene").bounding_box()["y"] > 0


def test_images_beyond_the_bounds_are_named(open_page):
    page = open_page(lambda *_: value(RIDING), content=png(1200, 1000), options={"max_megapixels": 1})
    press(page, "Run")
    page.locator(".scenerl-error").wait_for()
    assert "the image is 1200 x 1000; allowed: 1000000 pixels" in page.locator(".scenerl-error").inner_text()
