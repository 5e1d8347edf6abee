"""The page in a headless browser, from the upload to drawn boxes, with answers that a test decides on."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from app.conftest import FewCheckpoints
from app.image_files import png
from scenerl.app.command import build
from scenerl.commands.app import AppOptions

HOSTILE = '<img src=x onerror="document.title=1">'


def row(objects, relations=(), answer="text", **more) -> dict:
    graph = {
        "objects": [
            {"id": f"{label}.{n}", "bbox": box, "score": score} for n, (label, box, score) in enumerate(objects)
        ],
        "relationships": [
            {"subject": f"{objects[a][0]}.{a}", "predicate": name, "object": f"{objects[b][0]}.{b}", "score": score}
            for a, name, b, score in relations
        ],
    }
    return {
        "status": "ok",
        "graph": graph,
        "answer": answer,
        "issues": [],
        "num_tokens": 7,
        "finish_reason": "stop",
    } | more


MAN, HORSE, HAT = ("man", [10, 5, 30, 39], 0.9), ("horse", [5, 10, 55, 38], 0.8), ("hat", [12, 2, 20, 9], 0.3)
RIDING = row([MAN, HORSE, HAT], [(0, "riding", 1, 0.7), (0, "wearing", 2, 0.2)])


@pytest.fixture
def open_page(serve, visit, tmp_path):
    """``open_page(answer, ...)``: the page with an image of 60 x 40 chosen."""

    def start(answer, *, content=None, models=("small", "other"), changes=(), **view):
        app = serve(answer, FewCheckpoints(*models), **dict(changes))
        page = visit(app.url, hosts=["127.0.0.1"], **view)
        path = tmp_path / "photo.png"
        path.write_bytes(content or png(60, 40))
        page.set_input_files("#file", path)
        page.locator("#preview").wait_for()
        return page

    return start


def reply(*rows, prompt="How?"):
    return lambda *_: {"result": rows[0], "answers": list(rows), "prompt": prompt, "style": {}}


def boxes(page, panel=0) -> list[list[float]]:
    drawn = page.locator(".panel").nth(panel).locator(".scene .over")
    return drawn.evaluate_all("found => found.map(r => ['x','y','width','height'].map(k => +r.getAttribute(k)))")


def test_from_upload_to_drawn_boxes(open_page, tmp_path):
    page = open_page(reply(RIDING))
    page.click("#go")
    page.locator(".panel .body").wait_for()
    assert boxes(page) == [[10, 5, 20, 34], [5, 10, 50, 28], [12, 2, 8, 7]]
    assert page.locator(".scene text").all_text_contents() == ["1 man", "2 horse", "3 hat"]
    assert page.locator(".scene").get_attribute("viewBox") == "0 0 60 40"
    assert page.locator(".graph .node").count() == 3
    assert page.locator(".graph .edge text").all_text_contents() == ["riding", "wearing"]
    assert page.locator(".relations li").all_inner_texts() == [
        "man 1 riding horse 2\n0.70",
        "man 1 wearing hat 3\n0.20",
    ]
    assert page.locator(".objects .score").all_inner_texts() == ["0.90", "0.80", "0.30"]
    assert page.locator(".facts").first.inner_text().startswith("read · 3 objects · 2 relations · 0 issues · 7 tokens")
    page.click(".raw summary")
    assert page.locator(".raw pre").inner_text() == "text"
    with page.expect_download() as download:
        page.click(".download")
    assert download.value.suggested_filename == "photo.small.json"
    download.value.save_as(tmp_path / "saved.json")
    assert json.loads((tmp_path / "saved.json").read_text())["result"] == RIDING


def test_a_real_checkpoint_held_to_the_form(visit, base, image):
    """Untrained, so that only the form of its answers is right."""
    app = build(AppOptions(models=[f"real={base}"], port=0, device="cpu", max_new_tokens=60))
    thread = threading.Thread(target=app.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        page = visit(app.url, hosts=["127.0.0.1"])
        page.set_input_files("#file", {"name": "photo.png", "mimeType": "image/png", "buffer": image})
        page.locator("#preview").wait_for()
        page.select_option("#task", "det")
        page.fill("#labels", "apple, book")
        page.check("#constrain")
        page.fill("#samples", "4")
        page.click("#go")
        page.locator(".panel .body").wait_for()
        assert page.locator(".facts").first.inner_text().startswith("4 answers, 0 failed")
        with page.expect_download() as download:
            page.click(".download")
        objects = json.loads(Path(download.value.path()).read_text())["result"]["graph"]["objects"]
        corners = [[x, y, x + width, y + height] for x, y, width, height in boxes(page)]
        assert objects and corners == [pytest.approx(item["bbox"], abs=0.01) for item in objects]
    finally:
        app.shutdown()
        thread.join()
        app.finish(10)


def test_the_image_on_the_page_is_the_one_that_was_sent(open_page):
    page = open_page(reply(RIDING), content=png(60, 40, "lime"))
    page.click("#go")
    page.locator(".panel .body").wait_for()
    assert page.locator("#preview").evaluate("image => [image.naturalWidth, image.naturalHeight]") == [60, 40]
    shown = page.locator(".scene image").get_attribute("href")
    assert shown.startswith("/api/images/") and page.locator("#preview").get_attribute("src") == shown


def test_the_least_score_hides_elements_and_their_relations(open_page):
    page = open_page(reply(RIDING))
    page.click("#go")
    page.locator(".panel .body").wait_for()
    page.locator(".threshold input").fill("0.5")
    assert len(boxes(page)) == 2
    assert page.locator(".relations li").count() == 1 and page.locator(".graph .node").count() == 2
    page.locator(".threshold input").fill("0.85")
    assert len(boxes(page)) == 1 and page.locator(".relations li").count() == 0


def test_by_keyboard_a_relation_stands_out(open_page):
    page = open_page(reply(RIDING))
    page.focus("#go")
    page.keyboard.press("Enter")
    page.locator(".panel .body").wait_for()
    page.focus(".threshold input")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "man 1 riding horse 20.70"
    on = page.locator(".picking .on").evaluate_all("found => found.map(e => e.dataset.objects)")
    assert on == ["1", "2", "1 2", "1", "2"]
    page.keyboard.press("Shift+Tab")
    assert page.locator(".picking").count() == 0


def test_two_checkpoints_side_by_side(open_page):
    asked = []

    def answer(ask, picture, engine, saved):
        asked.append((ask.model, ask.num_samples, ask.temperature, ask.vocabulary, ask.seed))
        rows = [RIDING if ask.model == "small" else row([HORSE])] * ask.num_samples
        merged = {**rows[0], "answers": ask.num_samples, "failed": 0}
        return {"result": merged, "answers": rows, "prompt": "", "style": {}}

    page = open_page(answer)
    page.select_option("#other", "other")
    page.select_option("#vocabulary", "vg150")
    page.fill("#samples", "3")
    page.fill("#temperature", "0.7")
    page.click("#go")
    page.locator(".panel .body").nth(1).wait_for()
    assert asked == [("small", 3, 0.7, "vg150", 0), ("other", 3, 0.7, "vg150", 0)]
    assert page.locator(".panel h2").all_inner_texts() == ["small", "other"]
    assert [len(boxes(page, n)) for n in (0, 1)] == [3, 1]
    first, second = (page.locator(".panel").nth(n).bounding_box() for n in (0, 1))
    assert first["y"] == second["y"] and first["x"] + first["width"] <= second["x"]
    of_horse = page.locator(".box", has_text="horse").evaluate_all("found => found.map(e => e.classList[1])")
    assert len(set(of_horse)) == 1  # one colour in both


def test_both_checkpoints_get_one_question_whatever_changes_meanwhile(open_page, tmp_path):
    asked, changed = [], threading.Event()

    def answer(ask, picture, *_):
        asked.append((picture.image_wh, ask.vocabulary))
        changed.wait(20)
        return reply(RIDING)()

    page = open_page(answer)
    page.select_option("#other", "other")
    page.click("#go")
    (tmp_path / "later.png").write_bytes(png(30, 20))
    page.set_input_files("#file", tmp_path / "later.png")
    page.get_by_text("later.png, 30 × 20").wait_for()
    page.select_option("#vocabulary", "open")
    changed.set()
    page.locator(".panel .body").nth(1).wait_for()
    assert asked == [((60, 40), "trained")] * 2


def test_detection_asks_for_labels(open_page):
    asked = []

    def answer(ask, *_):
        asked.append((ask.task, ask.labels))
        return reply(row([MAN]))()

    page = open_page(answer)
    assert not page.locator("#labels").is_visible() and page.locator("#vocabulary").is_visible()
    page.select_option("#task", "det")
    assert page.locator("#labels").is_visible() and not page.locator("#vocabulary").is_visible()
    page.click("#go")  # labels are required: nothing is sent
    assert asked == [] and page.locator(".panel").count() == 0
    page.fill("#labels", "man, red ball\n dog ,")
    page.click("#go")
    page.locator(".panel .body").wait_for()
    assert asked == [("det", ("man", "red ball", "dog"))]
    assert not page.locator(".graph").is_visible()


def test_own_lists(open_page):
    asked = []

    def answer(ask, *_):
        asked.append((ask.objects, ask.predicates))
        return reply(row([MAN]))()

    page = open_page(answer)
    assert not page.locator("#objects").is_visible()
    page.select_option("#vocabulary", "own")
    page.fill("#objects", "man, horse")
    page.click("#go")
    page.locator(".panel .body").wait_for()
    assert asked == [(("man", "horse"), ())]


def test_text_of_a_model_is_never_markup(open_page):
    hostile = row([(HOSTILE, [1, 1, 30, 30], 0.5), ("b", [3, 3, 9, 9], 0.4)], [(0, HOSTILE, 1, 0.1)], answer=HOSTILE)
    hostile["issues"] = [{"kind": HOSTILE, "where": HOSTILE, "detail": ""}]
    page = open_page(reply(hostile, prompt=HOSTILE), models=(HOSTILE,))
    page.click("#go")
    page.locator(".panel .body").wait_for()
    page.click(".raw summary")
    assert page.locator(".raw pre").inner_text() == HOSTILE
    assert page.locator("img").count() == 1 and page.title() == "SceneRL"


def test_an_answer_that_failed(open_page):
    failed = row([], answer="sorry") | {"status": "invalid_json", "graph": None}
    page = open_page(reply(failed))
    page.click("#go")
    page.locator(".panel .body").wait_for()
    assert page.locator(".facts").first.inner_text().startswith("failed: invalid_json")
    assert page.locator(".raw pre").inner_text() == "sorry" and boxes(page) == []


def test_on_a_phone_in_the_dark(open_page):
    page = open_page(reply(RIDING), width=390, height=800, dark=True, touch=True)
    page.click("#go")
    page.locator(".panel .body").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    brightness = "e => getComputedStyle(e).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 3"
    assert page.locator("body").evaluate(brightness) < 60
    assert min(page.locator(name).bounding_box()["height"] for name in ("#go", "#model", "#samples")) >= 40


def test_a_file_is_dropped(open_page):
    page = open_page(reply(RIDING))
    page.evaluate(
        """() => {
          const canvas = document.createElement("canvas");
          canvas.width = 30; canvas.height = 20;
          return new Promise(done => canvas.toBlob(blob => {
            const data = new DataTransfer();
            data.items.add(new File([blob], "dropped.png", { type: "image/png" }));
            document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
            done();
          }));
        }"""
    )
    page.get_by_text("dropped.png, 30 × 20").wait_for()


def test_a_file_that_is_too_large_is_not_sent(open_page):
    page = open_page(reply(RIDING), changes={"max_bytes": 1000})
    page.set_input_files("#file", {"name": "large.png", "mimeType": "image/png", "buffer": bytes(1001)})
    page.locator(".error").first.get_by_text("large.png: the file has 1001 bytes; allowed: 1000").wait_for()
    assert page.locator("#go").is_disabled()


@pytest.fixture
def plain_page(browser, serve):
    """A page whose failed requests are expected; the browser notes these as errors."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(30_000)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))

    def start(answer):
        page.goto(serve(answer).url)
        page.locator("#model option").first.wait_for(state="attached")
        return page

    yield start
    context.close()
    assert not errors, errors


def test_a_broken_image_gives_a_message(plain_page):
    page = plain_page(reply(RIDING))
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": png(60, 40)[:60]})
    page.get_by_text("a.png: the file: the image cannot be decoded, it is truncated").wait_for()
    assert page.locator("#go").is_disabled() and not page.locator("#preview").is_visible()
    page.set_input_files("#file", {"name": "b.png", "mimeType": "image/png", "buffer": png(60, 40)})
    page.locator("#preview").wait_for()
    assert page.locator("#error").inner_text() == "" and page.locator("#go").is_enabled()


def test_an_answer_that_is_refused_leaves_the_other(plain_page):
    turn = threading.Event()

    def answer(ask, *_):
        if not turn.is_set():
            turn.set()
            raise ValueError("the model takes no such image")
        return reply(RIDING)()

    page = plain_page(answer)
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": png(60, 40)})
    page.locator("#preview").wait_for()
    page.select_option("#other", "other")
    page.click("#go")
    page.locator(".panel").nth(1).locator(".body").wait_for()
    assert page.locator(".panel .error").first.inner_text() == "the model takes no such image"
    assert page.locator("#go").is_enabled()
