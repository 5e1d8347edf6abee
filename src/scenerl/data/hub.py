"""Scene graphs in the hub schema of R1-SGG: Parquet files with an image, its objects and its relationships per row.

Columns: ``image_id``, ``image`` (encoded bytes, or the hub's struct of bytes and path), ``objects`` and
``relationships`` (JSON texts or lists, entries as in our own rows, boxes xyxy in pixels). ``prompt_open`` and
``prompt_close`` may be there and are not read: prompts are built by :mod:`scenerl.answers`. Width and height come from
the image. A source is a Parquet file, a folder of them (also one that ``save_to_disk`` wrote), or a name on the hub.

``pyarrow`` and ``datasets`` are imported when a source is read; nothing is read before the first row is taken.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from scenerl.answers.elements import excerpt
from scenerl.data.images import image_size, without_orientation
from scenerl.data.published import choose_split
from scenerl.data.records import Record
from scenerl.data.rows import example_to_row, read_row
from scenerl.errors import DataError
from scenerl.extras import require
from scenerl.files import whole_file
from scenerl.types import Example, StoredImage

COLUMNS = ("image_id", "image", "objects", "relationships")
_SHARD = re.compile(r"[-_]\d{4,}(?:-of-\d+)?\Z")
_SCHEMA = "data in the hub schema"
_BATCH = 16  # rows decoded at a time: images are large


def read(source: str, split: str | None = None, stored: bool = False) -> Iterator[Record]:
    """Every row of a source as a record, streamed.

    Args:
        source: a path, or ``owner/name`` on the hub.
        split: which split to read; not needed where there is one only.
        stored: leave images in an Arrow table on the disk, as :class:`~scenerl.types.StoredImage`, so that all
            examples can be kept. What is no such table is made one, in the cache of ``datasets``.

    Raises:
        DataError: there is no such source or split, it cannot be read, or columns are missing.
    """
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    if path.exists() and not is_saved(path) and not stored:
        for where, row in _parquet_rows(path, split):
            yield _record(row, where, folder)
        return
    table, name = _table(source, split, stored)
    images = table.select_columns(["image"]) if stored else None
    for index, row in enumerate(_rows_of(table, name)):
        record = _record(row, f"{name}, row {index + 1}", folder)
        if stored and record.example is not None and isinstance(record.example.image, bytes):
            example = dataclasses.replace(record.example, image=StoredImage(images, index))
            record = dataclasses.replace(record, example=example)
        yield record


def is_saved(path: Path) -> bool:
    """Whether ``save_to_disk`` wrote a folder: it has *.json and *.arrow files, no Parquet."""
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def parquet_files(folder: Path) -> dict[str, list[Path]]:
    """The Parquet files under a folder by split: ``data/train-00000-of-00002.parquet`` and ``train/0000.parquet`` both
    belong to ``train``."""
    splits: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        name = _SHARD.sub("", path.stem)
        if name.isdigit():
            name = path.parent.name
        splits.setdefault(name, []).append(path)
    return splits


def write(path: Path, examples: Iterable[Example]) -> int:
    """Write scene graphs as one Parquet file in the hub schema, whole or not at all, a few images at a time.

    Returns:
        The number of rows.

    Raises:
        DataError: an example has no image, or is a detection task.
    """
    pa, parquet = require("pyarrow", _SCHEMA), require("pyarrow.parquet", _SCHEMA)
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {name: {"dtype": "string", "_type": "Value"} for name in COLUMNS} | {"image": {"_type": "Image"}}
    schema = pa.schema(
        [(name, image if name == "image" else pa.string()) for name in COLUMNS],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    count = 0
    rows = map(_hub_row, examples)
    with whole_file(path) as aside, parquet.ParquetWriter(aside, schema) as writer:
        while batch := list(islice(rows, _BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            count += len(batch)
    return count


def _hub_row(example: Example) -> dict:
    if example.query is not None:
        raise DataError(f"image {example.image_id!r}: the hub schema holds scene graphs, not detections")
    if example.image is None:
        raise DataError(f"image {example.image_id!r}: the hub schema holds images, and this row names none")
    image = without_orientation(example).image
    try:
        data = image.read_bytes() if isinstance(image, Path) else image
    except OSError as error:
        raise DataError(f"image {example.image_id!r} ({image}): cannot be read ({error.strerror})") from error
    row = example_to_row(example)
    return {
        "image_id": example.image_id,
        "image": {"bytes": data, "path": image.name if isinstance(image, Path) else None},
        "objects": json.dumps(row["objects"]),
        "relationships": json.dumps(row["relationships"]),
    }


def _parquet_rows(path: Path, split: str | None) -> Iterator[tuple[str, dict]]:
    pa, parquet = require("pyarrow", _SCHEMA), require("pyarrow.parquet", _SCHEMA)
    for file in _files(path, split):
        number = 0
        try:
            with parquet.ParquetFile(file) as table:
                _require_columns(table.schema_arrow.names, file)
                for batch in table.iter_batches(_BATCH, columns=list(COLUMNS)):
                    for row in batch.to_pylist():
                        number += 1
                        yield f"{file}, row {number}", row
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file}: cannot be read as Parquet after row {number} ({_one_line(error)})") from error


def _files(path: Path, split: str | None) -> list[Path]:
    """The Parquet files of a split; a file is all of itself."""
    if not path.is_dir():
        return [path]
    splits = parquet_files(path)
    return splits[choose_split(split, sorted(splits), path)]


def _table(source: str, split: str | None, stored: bool) -> tuple[Any, str]:
    """The columns of a ``datasets`` table, images left encoded, and what the table is called."""
    path = Path(source)
    if not path.exists() and not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise DataError(
            f"{source}: no such file or folder, and no hub name; allowed: a Parquet file, a folder of them, or "
            "owner/name"
        )
    datasets = require("datasets", _SCHEMA)
    name = source
    try:
        if is_saved(path):
            problem = f"{path}: not a whole data set of save_to_disk"
            table = datasets.load_from_disk(source)
            if isinstance(table, datasets.DatasetDict):
                table = table[choose_split(split, sorted(table), path)]
        elif path.exists():
            problem = f"{path}: cannot be read as Parquet"
            files = {"rows": [str(file) for file in _files(path, split)]}
            table = datasets.load_dataset("parquet", data_files=files, split="rows")
        else:
            problem = f"hub:{source}: cannot be loaded"
            split = choose_split(split, sorted(datasets.get_dataset_split_names(source)), f"hub:{source}")
            name = f"hub:{source}, split {split}"
            table = datasets.load_dataset(source, split=split, streaming=not stored)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        # What is missing, forbidden or offline on the hub comes as one of these.
        if isinstance(error, DataError):
            raise
        only_failed = isinstance(error, datasets.exceptions.DatasetGenerationError)
        raise DataError(f"{problem} ({_one_line(error.__cause__ if only_failed else error)})") from error
    if table.features is not None:
        _require_columns(table.features, name)
        table = table.select_columns(list(COLUMNS))
        if isinstance(table.features["image"], datasets.Image):
            table = table.cast_column("image", datasets.Image(decode=False))
    return table, name


def _rows_of(table: Any, name: str) -> Iterator[dict]:
    """The rows of a table; a stream may break off."""
    try:
        yield from table
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: cannot be read on ({_one_line(error)})") from error


def _require_columns(names, source: object) -> None:
    if missing := [column for column in COLUMNS if column not in names]:
        raise DataError(f"{source}: the columns {', '.join(missing)} are missing; it has {', '.join(names)}")


def _record(row: dict, where: str, folder: Path) -> Record:
    """One row; a list that is a JSON text is decoded, and null stands for none."""
    errors = []
    ours = {"image_id": row["image_id"], "width": 1, "height": 1}
    for column in ("objects", "relationships"):
        value = row.get(column)
        try:
            ours[column] = json.loads(value) if isinstance(value, str) else [] if value is None else value
        except (ValueError, RecursionError) as error:
            errors.append(f"{column} is not JSON ({error}): {excerpt(value)}")
    try:
        image = _image(row.get("image"), folder)
        ours["width"], ours["height"] = image_size(image, "image")
    except DataError as error:
        errors.append(str(error))
    if errors:
        return Record(where, None, tuple(errors))
    record = read_row(ours, where)
    if record.example is None:
        return record
    return dataclasses.replace(record, example=dataclasses.replace(record.example, image=image))


def _image(value: object, folder: Path) -> Path | bytes:
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if isinstance(value, str) and value:
        return folder / value  # an absolute path stays itself
    raise DataError(f"image must be encoded bytes or a path, found {excerpt(value)}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
