"""Images and questions that cannot be, among good ones: each has a row that says why, and the run goes on."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from PIL import Image

from inference.loopback import WORD, said
from scenerl.cli import main
from scenerl.models.loading import Checkpoint
from training.small_run import read_rows, write_rows

BOXES = '[{"bbox_2d": [0, 0, 500, 1000], "label": "apple"}]'


def encoded(image: Image.Image, kind: str, **more) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def claiming(width: int, height: int) -> bytes:
    """A PNG of a hundred bytes that says it is large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def images() -> dict[str, tuple[bytes, tuple[int, int], str | None]]:
    """Name to file, the size that its row states, and what is wrong with it; None: nothing is."""
    plain = Image.effect_noise((56, 56), 90).convert("RGB")
    wide, turned = Image.new("RGB", (84, 56), "red"), Image.Exif()
    turned[0x0112] = 6
    png = encoded(plain, "PNG")
    bomb = png[:33] + chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000))) + png[33:]
    return {
        "one": (encoded(Image.new("RGB", (1, 1)), "PNG"), (1, 1), None),
        "20000": (claiming(20_000, 20_000), (20_000, 20_000), "more than 80000000 pixels"),
        "animated": (encoded(plain, "GIF", save_all=True, append_images=[plain.rotate(90)]), (56, 56), None),
        "cmyk": (encoded(plain.convert("CMYK"), "JPEG"), (56, 56), None),
        "16 bits": (encoded(Image.new("I;16", (56, 56), 40_000), "PNG"), (56, 56), None),
        "as stored": (encoded(wide, "JPEG", exif=turned), (84, 56), None),
        "as turned": (encoded(wide, "JPEG", exif=turned), (56, 84), None),
        "other size": (encoded(wide, "JPEG"), (56, 84), "the image is 84 x 56, but its row says 56 x 84"),
        "cut off": (png[: len(png) // 2], (56, 56), "truncated or damaged"),
        "no image": (b"hello", (56, 56), "not an image that can be read"),
        "bomb": (bomb, (56, 56), "cannot be read"),
        "thin": (encoded(Image.new("RGB", (900, 2)), "PNG"), (900, 2), "900 x 2 is no size for the model"),
        "last": (png, (56, 56), None),
    }


@pytest.fixture
def bad_images(tmp_path):
    folder = tmp_path / "data" / "images"
    folder.mkdir(parents=True)
    rows = []
    for name, (content, (width, height), _) in images().items():
        (folder / name).write_bytes(content)
        row = {"image_id": name, "file_name": name, "width": width, "height": height}
        rows.append({**row, "objects": [], "relationships": []})
    return write_rows(tmp_path / "data" / "rows.jsonl", rows)


@pytest.fixture(params=["hf", "openai"])
def predict(request, base, serve, tmp_path, capsys):
    """Runs the command; gives its exit status, what it said on the error stream, and the rows by image."""
    words = ["predict", "--model", str(base), "--out", str(tmp_path / "out.jsonl"), "--constrain"]
    if request.param == "hf":
        words += ["--device", "cpu", "--max_new_tokens", "40"]
    else:
        server = serve(
            lambda number, body: said(WORD if body["messages"][0]["content"][1]["text"] == "Ready?" else BOXES)
        )
        words += ["--engine", "openai", "--server", server.address, "--batch_size", "2"]

    def run(data, *more):
        capsys.readouterr()
        status = main([*words, "--data", str(data), *more])
        out = tmp_path / "out.jsonl"
        rows = {row["image_id"]: row for row in read_rows(out)} if out.exists() else {}
        return status, capsys.readouterr().err, rows

    return run


def test_images(predict, bad_images):
    status, error, rows = predict(bad_images)
    wrong = {name: what for name, (_, _, what) in images().items() if what}
    assert status == 2 and f"{len(wrong)} of 13 images have no answer" in error
    assert list(rows) == list(images())
    assert {name for name, row in rows.items() if "error" in row} == wrong.keys()
    for name, what in wrong.items():
        assert f"image {name!r}" in rows[name]["error"] and what in rows[name]["error"]
    for name in rows.keys() - wrong.keys():
        assert rows[name]["answer"] is not None and rows[name]["input_wh"]


def detection_rows(rows, folder, *queries: list[str]):
    detection = [
        {
            **{key: row[key] for key in ("image_id", "width", "height")},
            "file_name": str(rows.parent / "images" / row["file_name"]),
            "query": query,
            "detections": [],
        }
        for row, query in zip(read_rows(rows), queries, strict=False)
    ]
    return write_rows(folder / "det.jsonl", detection)


def test_a_query_for_nothing_is_the_fault_of_its_image(predict, rows, tmp_path):
    data = detection_rows(rows, tmp_path, ["apple"], [], ["apple"])
    status, error, found = predict(data, "--format", "detections")
    assert status == 2 and "1 of 3 images have no answer" in error
    assert [row["status"] for row in found.values()] == ["ok", "no_answer", "ok"]
    assert found["image-1"]["error"].startswith("image 'image-1': a detection prompt needs the labels to look for")


def test_and_so_is_a_label_that_the_tokenizer_cannot_write(base, rows, tmp_path, capsys, monkeypatch):
    data = detection_rows(rows, tmp_path, ["apple"], ["apple", "zebra"], ["book"])
    banned = Checkpoint.banned_ids.fget
    lacking = property(lambda self: [*banned(self), self.processor.tokenizer.convert_tokens_to_ids("z")])
    monkeypatch.setattr(Checkpoint, "banned_ids", lacking)
    words = ["predict", "--model", str(base), "--data", str(data), "--out", str(tmp_path / "out.jsonl"), "--constrain"]
    assert main([*words, "--format", "detections", "--device", "cpu", "--max_new_tokens", "40"]) == 2
    found = read_rows(tmp_path / "out.jsonl")
    assert [row["status"] for row in found] == ["ok", "no_answer", "ok"]
    assert "image 'image-1': constrain: the tokenizer cannot write 'zebra', so no answer" in found[1]["error"]


def test_a_vocabulary_that_no_answer_can_hold_ends_the_run_and_keeps_the_old_file(predict, rows, tmp_path):
    assert predict(rows, "--limit", "1")[0] == 0
    before = (tmp_path / "out.jsonl").read_bytes()
    vocabulary = tmp_path / "vocabulary.json"
    vocabulary.write_text('{"objects": ["apple", "' + "a" * 300 + '"], "predicates": ["near"]}')
    status, error, _ = predict(rows, "--vocabulary", str(vocabulary), "--fresh")
    assert status == 2 and "error: constrain: no answer can hold the object label 'aaa" in error
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_a_limit_that_no_answer_fits_into(base, rows, tmp_path, capsys):
    words = ["predict", "--model", str(base), "--data", str(rows), "--out", str(tmp_path / "out.jsonl")]
    assert main([*words, "--constrain", "--device", "cpu", "--max_new_tokens", "1"]) == 2
    assert "the limit is 1; raise it" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
