"""Every image gets its rows once, in order, whatever could be read, however often the work is stopped."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from scenerl.inference.engine import GenerationError, Reply
from scenerl.inference.predict import predict
from scenerl.types import Example, SceneGraph
from training.small_run import read_rows


class Stopped(Exception):
    """The process ends here."""


class Oracle:
    """An engine that gives the ideal answer, cut off for every third sample, and counts its work."""

    def __init__(self, conversation, examples, num_samples=1, stop_after=None):
        self.conversation = conversation
        self.by_pixels = {pixels_of(example.image): example for example in examples if readable(example.image)}
        self.num_samples = num_samples
        self.stop_after = stop_after
        self.calls: list[tuple[int, int]] = []

    def answer(self, prompts, seed):
        if self.stop_after is not None and len(self.calls) == self.stop_after:
            raise Stopped
        self.calls.append((len(prompts), seed))
        replies = []
        for prompt in prompts:
            example = self.by_pixels[prompt[0]["content"][0]["image"].tobytes()]
            text = self.conversation.completion(example)[0]["content"][0]["text"]
            samples = [Reply(text, len(text), "stop") for _ in range(self.num_samples)]
            if self.num_samples > 2:
                samples[2] = Reply(text[:-5], len(text) - 5, "length")
            replies.append(samples)
        return replies


def readable(path: Path) -> bool:
    return path.is_file()


def pixels_of(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


def test_rows_hold_the_graph_in_pixels_of_the_original(conversation, examples, tmp_path):
    engine = Oracle(conversation, examples, num_samples=3)
    done = []
    _, problems = predict(examples, conversation, engine, tmp_path / "out.jsonl", 3, 4, seed=1, progress=done.append)
    assert problems == [] and done == [4, 2]
    assert [size for size, _ in engine.calls] == [4, 2] and len({seed for _, seed in engine.calls}) == 2
    rows = read_rows(tmp_path / "out.jsonl")
    assert [(row["image_id"], row["sample"]) for row in rows] == [(e.image_id, k) for e in examples for k in range(3)]
    by_id = {example.image_id: example for example in examples}
    for row in rows:
        example = by_id[row["image_id"]]
        assert (row["width"], row["height"], row["file_name"]) == (*example.image_wh, str(example.image))
        assert (row["frame"], tuple(row["input_wh"])) == ("norm1000", conversation.input_wh(example))
        if row["sample"] == 2:
            assert (row["status"], row["graph"], row["finish_reason"]) == ("truncated", None, "length")
            continue
        assert (row["status"], row["issues"], row["finish_reason"]) == ("ok", [], "stop")
        for found, wanted in zip(row["graph"]["objects"], example.graph.objects, strict=True):
            assert found["id"].startswith(wanted.label)
            # coordinates in steps of 20 of 1000: half a step of the width or height
            assert all(
                abs(a - b) <= example.width * 0.01 + 0.01 for a, b in zip(found["bbox"], wanted.box, strict=True)
            )
        assert len(row["graph"]["relationships"]) == len(example.graph.relations)


def test_a_run_that_is_stopped_anywhere_ends_with_the_same_rows(conversation, examples, tmp_path):
    def run(out, stop_after=None):
        engine = Oracle(conversation, examples, 2, stop_after)
        predict(examples, conversation, engine, out, 2, 2)
        return engine

    run(tmp_path / "whole.jsonl")
    whole = (tmp_path / "whole.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    out = tmp_path / "out.jsonl"
    for kept in range(len(lines) + 1):
        out.write_bytes(b"".join(lines[:kept]) + (lines[kept][:40] if kept < len(lines) else b""))
        engine = run(out)
        assert out.read_bytes() == whole, kept
        # batches of 2 images with 2 rows each: those that are whole are not answered again
        assert len(engine.calls) == 3 - kept // 4
    out.unlink()
    for stop_after in (0, 1, 2):
        with pytest.raises(Stopped):
            run(out, stop_after=min(stop_after, 1))
    run(out)
    assert out.read_bytes() == whole


def test_a_batch_is_answered_whole_with_its_own_seed(conversation, examples, tmp_path):
    """So that a sampled run which was stopped ends with the samples of one that was not."""
    out = tmp_path / "out.jsonl"
    engine = Oracle(conversation, examples)
    predict(examples, conversation, engine, out, 1, 4, seed=5)
    out.write_bytes(b"".join(out.read_bytes().splitlines(keepends=True)[:5]))
    again = Oracle(conversation, examples)
    predict(examples, conversation, again, out, 1, 4, seed=5)
    assert again.calls == engine.calls[1:]


@pytest.fixture
def broken(examples, tmp_path):
    """The data set with an image that is missing, one that is cut off, one of another size, and one too thin."""
    images = tmp_path / "images"
    images.mkdir()
    copies = []
    for example in examples:
        path = images / example.image.name
        path.write_bytes(example.image.read_bytes())
        copies.append(replace(example, image=path))
    copies[0].image.unlink()
    whole = copies[2].image.read_bytes()
    copies[2].image.write_bytes(whole[: len(whole) // 2])
    copies[3] = replace(copies[3], width=57)
    Image.new("RGB", (1000, 4)).save(images / "thin.png")
    return [*copies, Example("thin", 1000, 4, SceneGraph(), images / "thin.png"), Example("none", 9, 9, SceneGraph())]


def test_a_label_that_the_model_takes_for_an_image_leaves_a_row(conversation, examples, tmp_path):
    example = replace(examples[0], query=("apple", "<|image_pad|>"))
    conversation = replace(conversation, output_format=replace(conversation.output_format, format="detections"))
    [problem] = predict([example], conversation, Oracle(conversation, []), tmp_path / "out.jsonl")[1]
    [row] = read_rows(tmp_path / "out.jsonl")
    assert row["error"] == problem and "image 'image-0': a label holds '<|image_pad|>'" in problem


def test_an_image_that_cannot_be_read_leaves_a_row_and_the_others_are_done(conversation, examples, broken, tmp_path):
    out = tmp_path / "out.jsonl"
    good = [broken[k] for k in (1, 4, 5)]
    problems = predict(broken, conversation, Oracle(conversation, good), out, batch_size=3)[1]
    rows = {row["image_id"]: row for row in read_rows(out)}
    assert list(rows) == [example.image_id for example in broken]
    failed = [row for row in rows.values() if "error" in row]
    assert [row["error"] for row in failed] == problems
    assert [row["image_id"] for row in failed] == ["image-0", "image-2", "image-3", "thin", "none"]
    for row, words in zip(
        failed, ("no such image", "truncated", "row says 57 x 56", "no size", "names no"), strict=True
    ):
        assert words in row["error"] and row["image_id"] in row["error"]
        assert (row["status"], row["answer"], row["graph"], row["input_wh"]) == ("no_answer", None, None, None)
    assert all(rows[example.image_id]["status"] == "ok" for example in good)

    # once more: nothing is answered again, no row is added, and the same problems are reported
    before = out.read_bytes()
    engine = Oracle(conversation, good)
    assert predict(broken, conversation, engine, out, batch_size=3)[1] == problems
    assert engine.calls == [] and out.read_bytes() == before

    # an image that is there now is answered now, in place of its error
    broken[0].image.write_bytes(examples[0].image.read_bytes())
    engine = Oracle(conversation, [broken[0], *good])
    assert predict(broken, conversation, engine, out, batch_size=3)[1] == problems[1:]
    rows = read_rows(out)
    assert len(rows) == len(broken) == len({row["image_id"] for row in rows})
    assert "error" not in next(row for row in rows if row["image_id"] == "image-0")


def test_an_image_that_the_engine_fails_on_is_tried_again(conversation, examples, tmp_path):
    class Failing(Oracle):
        def answer(self, prompts, seed):
            if prompts[0][0]["content"][0]["image"].tobytes() == pixels_of(examples[2].image):
                raise GenerationError("the server said no")
            return super().answer(prompts, seed)

    out = tmp_path / "out.jsonl"
    problems = predict(examples, conversation, Failing(conversation, examples, 2), out, 2, batch_size=2)[1]
    rows = read_rows(out)
    # batches of two: that of the third image has no answer, both of its images say why
    assert problems == [f"image 'image-{k}': the server said no" for k in (2, 3)]
    assert [(row["image_id"], row.get("error")) for row in rows[4:8:2]] == [
        ("image-2", problems[0]),
        ("image-3", problems[1]),
    ]
    engine = Oracle(conversation, examples, 2)
    assert predict(examples, conversation, engine, out, 2, batch_size=2)[1] == []
    rows = read_rows(out)
    assert len(engine.calls) == 1 and len(rows) == 12 and not any("error" in row for row in rows)


def test_answers_at_a_time_are_written_in_order(conversation, examples, tmp_path):
    """The first answer comes last: its row is the first all the same, and nobody waited for it meanwhile."""
    others = threading.Semaphore(0)

    class Slow(Oracle):
        def answer(self, prompts, seed):
            if prompts[0][0]["content"][0]["image"].tobytes() == pixels_of(examples[0].image):
                assert all(others.acquire(timeout=60) for _ in range(3))
            replies = super().answer(prompts, seed)
            others.release()
            return replies

    one_by_one, at_a_time = Oracle(conversation, examples), Slow(conversation, examples)
    predict(examples, conversation, one_by_one, tmp_path / "one.jsonl", batch_size=1)
    predict(examples, conversation, at_a_time, tmp_path / "many.jsonl", batch_size=1, concurrency=2)
    assert (tmp_path / "many.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    assert sorted(at_a_time.calls) == sorted(one_by_one.calls)


def test_images_that_recover_cost_one_rewrite_however_many(conversation, examples, tmp_path, monkeypatch):
    """Two fail for good, one of which failed before: their rows stay; the four others get answers."""
    twenty = [replace(examples[0], image_id=f"image-{k}") for k in range(20)]
    engine = Oracle(conversation, examples, 2)
    gone = tmp_path / "gone.png"
    out = tmp_path / "out.jsonl"
    first = [replace(example, image=gone) if k % 3 == 0 else example for k, example in enumerate(twenty)]
    assert len(predict(first[:19], conversation, engine, out, 2, batch_size=2)[1]) == 7

    renamed = []
    rename = os.replace
    monkeypatch.setattr("os.replace", lambda source, target: (renamed.append(target), rename(source, target)))
    second = [replace(example, image=gone) if k in (0, 12, 19) else example for k, example in enumerate(twenty)]
    second.insert(0, replace(second.pop(), image_id="new"))  # fails for the first time, before any other recovers
    counts, problems = predict(second, conversation, engine, out, 2, batch_size=2)
    assert renamed == [out]
    assert [problem.split("'")[1] for problem in problems] == ["new", "image-0", "image-12"]
    rows = read_rows(out)
    assert sorted((row["image_id"], row["sample"]) for row in rows) == sorted(
        (example.image_id, sample) for example in second for sample in (0, 1)
    )
    assert {row["image_id"] for row in rows if "error" in row} == {"new", "image-0", "image-12"}
    assert (counts.answers, counts.unanswered) == (34, 6)


@pytest.mark.parametrize("concurrency", [0, 2])
def test_two_images_of_one_id_are_refused(conversation, examples, tmp_path, concurrency):
    twice = [examples[0], examples[1], examples[0]]
    with pytest.raises(ValueError, match="two images of the data set have the image_id 'image-0'"):
        predict(
            twice,
            conversation,
            Oracle(conversation, examples),
            tmp_path / "out.jsonl",
            batch_size=1,
            concurrency=concurrency,
        )
    written = [row["image_id"] for row in read_rows(tmp_path / "out.jsonl")]
    assert written == (["image-0", "image-1"] if not concurrency else [])  # none had been waited for


def test_a_bug_in_an_engine_is_no_row(conversation, examples, tmp_path):
    """Only images are forgiven; anything else stops the run, and what is written stays."""

    class Broken:
        def answer(self, prompts, seed):
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        predict(examples, conversation, Broken(), tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_rows_are_json_that_others_read(conversation, examples, tmp_path):
    predict(examples, conversation, Oracle(conversation, examples), tmp_path / "out.jsonl")
    assert all(json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="ascii").splitlines())
