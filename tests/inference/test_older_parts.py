"""Parts of a prediction that an earlier version made: an option that it did not know was as its default is."""

from __future__ import annotations

import json

import pytest
from scenerl.inference.marks import write_mark

from scenerl.answers import OutputFormat
from scenerl.config import plain
from scenerl.inference.shards import gather
from scenerl.types import Example, SceneGraph

EXAMPLES = [Example(name, 8, 8, SceneGraph((), ())) for name in "ab"]
MARK = {"model": "m", "seed": 0, "logprobs": False, "constrain": False, "output_format": plain(OutputFormat(step=20))}


def write_parts(folder, first: dict, second: dict):
    for number, (example, mark) in enumerate(zip(EXAMPLES, (first, second), strict=True), start=1):
        path = folder / f"p.{number}-of-2.jsonl"
        path.write_text(json.dumps({"image_id": example.image_id, "sample": 0}) + "\n")
        write_mark(path, {**mark, "shard": f"{number}/2"})
    return folder / "p.jsonl"


def without(mark: dict, *keys: str) -> dict:
    output_format = {key: value for key, value in mark["output_format"].items() if key not in keys}
    return {key: value for key, value in mark.items() if key not in keys} | {"output_format": output_format}


def test_what_they_do_not_say_is_the_default(tmp_path):
    out = write_parts(tmp_path, without(MARK, "constrain", "logprobs", "provided"), MARK)
    assert gather(out, 2, EXAMPLES, 1, MARK).problems == []
    assert [json.loads(line)["image_id"] for line in out.read_text().splitlines()] == ["a", "b"]


@pytest.mark.parametrize(
    ("missing", "now", "named"),
    [
        ("constrain", {"constrain": True}, "constrain"),
        ("provided", {"output_format": {**MARK["output_format"], "provided": "boxes"}}, "output_format"),
        ("step", {}, "output_format"),  # it was 20 and 1 is the default
        ("model", {}, "model"),  # has none
    ],
)
def test_and_nothing_else(tmp_path, missing, now, named):
    mark = {**MARK, **now}
    out = write_parts(tmp_path, mark, without(mark, missing))
    with pytest.raises(ValueError, match=rf"p\.2-of-2\.jsonl: belongs to another run; differing: {named}$"):
        gather(out, 2, EXAMPLES, 1, mark)
    assert not out.exists()
