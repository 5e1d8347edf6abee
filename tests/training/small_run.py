"""A data set of a few small images and a model of a hundred thousand weights, for tests of training."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image, ImageDraw

from scenerl import data, tiny
from scenerl.answers import OutputFormat
from scenerl.models.loading import Checkpoint, load
from scenerl.types import Example

SHAPE = tiny.TinyShape(text_width=64, text_layers=2, vision_width=32, vision_layers=1)
STYLE = OutputFormat(format="compact", box_format="norm1000", step=20)
PREDICATES = ("left of", "near", "above")

QUICK = {
    "max_steps": 2,
    "per_device_train_batch_size": 2,
    "logging_steps": 1,
    "save_strategy": "no",
    "gradient_checkpointing": False,
    "report_to": "none",
    "bf16": False,
    "dataloader_pin_memory": False,
}
"""Fields of TRL's configurations that keep a test short."""

QUICK_GRPO = {**QUICK, "num_generations": 2, "max_completion_length": 8, "temperature": 1.0, "beta": 0.0}


def words(fields: dict) -> list[str]:
    """Fields as a command line."""
    return [word for key, value in fields.items() for word in (f"--{key}", str(value))]


def write_data(folder: Path, count: int = 6) -> Path:
    """``train.jsonl`` with images: two boxes and a relation each; every third image is wider than the others."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(count):
        width, height = (84, 56) if number % 3 == 2 else (56, 56)
        left, right = [4 + number, 10, 24 + number, 40], [30, 6, 50, 36 + number]
        image = Image.new("RGB", (width, height), (225, 225, 220))
        draw = ImageDraw.Draw(image)
        draw.rectangle(left, fill=(210, 40, 40))
        draw.rectangle(right, fill=(40, 60, 210))
        image.save(folder / "images" / f"{number}.png")
        relation = {"subject": "apple.1", "predicate": PREDICATES[number % 3], "object": "book.2"}
        rows.append(
            {
                "image_id": f"image-{number}",
                "file_name": f"{number}.png",
                "width": width,
                "height": height,
                "objects": [{"id": "apple.1", "bbox": left}, {"id": "book.2", "bbox": right}],
                "relationships": [relation],
            }
        )
    return write_rows(folder / "train.jsonl", rows)


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def read_rows(path: Path) -> list[dict]:
    """The rows of a JSONL file, read strictly: no NaN or infinity, which other readers of JSON refuse."""

    def refuse(name: str):
        raise AssertionError(f"{path} holds {name}")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text(encoding="utf-8").splitlines()]


def examples_of(rows: Path) -> list[Example]:
    return list(data.load(rows, need_images=True))


def save_base(folder: Path, examples: list[Example]) -> Path:
    """An untrained checkpoint whose tokenizer knows the answers to ``examples``."""
    tiny.create(folder, examples, STYLE, SHAPE)
    return folder


def load_checkpoint(folder: Path) -> Checkpoint:
    return load(folder, dtype="float32")
