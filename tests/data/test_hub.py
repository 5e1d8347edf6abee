"""R1-SGG's hub schema, in files built here with the schema of the real ones: Parquet, save_to_disk, by name."""

from __future__ import annotations

import gc
import io
import json
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scenerl import data
from scenerl.data import hub
from scenerl.data.images import open_image
from scenerl.errors import DataError, UserError
from scenerl.types import Relation, SceneObject

pa = pytest.importorskip("pyarrow", reason="hub data needs pyarrow")
datasets = pytest.importorskip("datasets", reason="hub data needs datasets")
parquet = pytest.importorskip("pyarrow.parquet")

OBJECTS = [{"id": "man.1", "bbox": [0, 1, 20, 30]}, {"id": "bike.2", "bbox": [10, 5, 40, 30]}]
RELATIONS = [{"subject": "man.1", "predicate": "riding", "object": "bike.2"}]


def png(size=(40, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (10, 200, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def columns(count: int = 3, **changes) -> dict[str, list]:
    """Rows as R1-SGG has them: JSON texts, two prompts."""
    values = {
        "image_id": "{n}",
        "image": png(),
        "objects": json.dumps(OBJECTS),
        "relationships": json.dumps(RELATIONS),
        "prompt_open": "Say what is there.",
        "prompt_close": "Say what is there, of these.",
    } | changes
    return {
        key: [value.format(n=n) if key == "image_id" and isinstance(value, str) else value for n in range(count)]
        for key, value in values.items()
    }


def table(**changes) -> datasets.Dataset:
    """A ``datasets`` table with an Image feature, which becomes a struct of bytes and path in Parquet."""
    values = columns(**changes)
    values["image"] = [{"bytes": image, "path": None} for image in values["image"]]
    return datasets.Dataset.from_dict(values).cast_column("image", datasets.Image())


def check_examples(examples, count: int = 3) -> None:
    examples = list(examples)
    assert [example.image_id for example in examples] == [str(n) for n in range(count)]
    for example in examples:
        assert example.image_wh == (40, 30)
        assert example.graph.objects == (SceneObject("man", (0, 1, 20, 30)), SceneObject("bike", (10, 5, 40, 30)))
        assert example.graph.relations == (Relation(0, "riding", 1),)
        assert open_image(example).size == (40, 30)


def test_parquet_of_the_hub(tmp_path):
    table().to_parquet(tmp_path / "train-00000-of-00001.parquet")
    check_examples(data.load(tmp_path / "train-00000-of-00001.parquet"))
    check_examples(data.load(tmp_path))
    check_examples(data.load(f"hub:{tmp_path}", split="train"))


def test_lists_in_place_of_json_texts_and_whole_number_ids(tmp_path):
    values = columns(objects=OBJECTS, relationships=RELATIONS) | {"image_id": [0, 1, 2]}
    parquet.write_table(pa.table(values), tmp_path / "a.parquet")
    check_examples(data.load(tmp_path / "a.parquet"))


def test_image_by_path_beside_the_file(tmp_path):
    (tmp_path / "x.png").write_bytes(png())
    parquet.write_table(pa.table(columns(image="x.png")), tmp_path / "a.parquet")
    check_examples(data.load(tmp_path / "a.parquet"))


def test_no_relations_as_null(tmp_path):
    parquet.write_table(pa.table(columns(count=1, relationships=None)), tmp_path / "a.parquet")
    (example,) = data.load(tmp_path / "a.parquet")
    assert example.graph.relations == () and len(example.graph.objects) == 2


def test_shards_and_splits(tmp_path):
    for n in range(2):
        part = table()
        part.select([n]).to_parquet(tmp_path / f"train-0000{n}-of-00002.parquet")
    table(count=1).to_parquet(tmp_path / "val-00000-of-00001.parquet")
    check_examples(data.load(tmp_path, split="train"), 2)
    check_examples(data.load(tmp_path, split="val"), 1)
    with pytest.raises(DataError, match="needs a split; allowed: train, val"):
        list(data.load(tmp_path))
    with pytest.raises(DataError, match="has no split 'test'; allowed: train, val"):
        list(data.load(tmp_path, split="test"))


def test_shards_in_a_folder_per_split(tmp_path):
    (tmp_path / "train").mkdir()
    table().to_parquet(tmp_path / "train" / "0000.parquet")
    assert list(hub.parquet_files(tmp_path)) == ["train"]
    check_examples(data.load(tmp_path, split="train"))


def test_folder_of_save_to_disk(tmp_path):
    table().save_to_disk(tmp_path / "one")
    check_examples(data.load(tmp_path / "one"))
    datasets.DatasetDict({"train": table(), "val": table(count=1)}).save_to_disk(tmp_path / "two")
    check_examples(data.load(tmp_path / "two", split="val"), 1)
    with pytest.raises(DataError, match="needs a split; allowed: train, val"):
        list(data.load(tmp_path / "two"))
    (tmp_path / "one" / "dataset_info.json").write_text("{")
    with pytest.raises(DataError, match="not a whole data set"):
        list(data.load(tmp_path / "one"))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Where ``datasets`` makes its tables."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def test_by_name_through_datasets_streaming(tmp_path, monkeypatch, cache):
    """The hub cannot be reached in a test: its two functions are pointed at a local folder of the same layout."""
    (tmp_path / "set" / "data").mkdir(parents=True)
    table().to_parquet(tmp_path / "set" / "data" / "train-00000-of-00001.parquet")
    real_load, real_names = datasets.load_dataset, datasets.get_dataset_split_names
    asked = {}

    def load(name, **options):
        asked.update(options, name=name)
        return real_load(str(tmp_path / "set"), **options)

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name: real_names(str(tmp_path / "set")))
    check_examples(data.load("hub:somebody/some-set"))
    assert asked == {"name": "somebody/some-set", "split": "train", "streaming": True}
    check_examples(data.load("hub:somebody/some-set", stored=True))
    assert asked == {"name": "somebody/some-set", "split": "train", "streaming": False}
    with pytest.raises(DataError, match="hub:somebody/some-set has no split 'val'; allowed: train"):
        list(data.load("hub:somebody/some-set", split="val"))


def test_hub_failures_are_one_line(monkeypatch):
    def missing(name):
        raise FileNotFoundError("no such data set\non the hub")

    monkeypatch.setattr(datasets, "get_dataset_split_names", missing)
    with pytest.raises(DataError, match=r"hub:a/b: cannot be loaded \(no such data set on the hub\)"):
        list(data.load("hub:a/b"))
    with pytest.raises(DataError, match="no such file or folder, and no hub name"):
        list(data.load("hub:nothing"))


def test_missing_package(monkeypatch, tmp_path):
    table().to_parquet(tmp_path / "a.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"needs the package pyarrow: pip install 'scenerl\[hub\]'"):
        list(data.load(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objects": "{"}, "objects is not JSON"),
        ({"objects": "3"}, "objects must be a list, found a number"),
        ({"relationships": '[{"subject": "man.1", "predicate": "on", "object": "dog.3"}]'}, "no object has this id"),
        ({"objects": '[{"id": "man.1", "bbox": [0, 0, NaN, 1]}]'}, "four finite numbers"),
        ({"image": b"nonsense"}, "not an image"),
        ({"image": None}, "image must be encoded bytes or a path"),
        ({"image": "none.png"}, "there is no such image file"),
        ({"image_id": None}, "image_id must be a text"),
    ],
)
def test_bad_rows_name_file_and_row(tmp_path, changes, message):
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table(columns(**changes)), path)
    records = list(data.read(path))
    assert len(records) == 3 and all(record.example is None for record in records)
    with pytest.raises(DataError) as caught:
        list(data.load(path))
    assert str(caught.value).startswith(f"{path}, row 1: ") and message in str(caught.value)


def test_missing_columns(tmp_path):
    parquet.write_table(pa.table({"image_id": ["a"], "image": [png()]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="the columns objects, relationships are missing; it has image_id, image"):
        list(data.load(tmp_path / "a.parquet"))


@pytest.mark.parametrize("keep", [0, 4, 0.5, 0.95])
def test_damaged_parquet(tmp_path, keep):
    path = tmp_path / "a.parquet"
    table().to_parquet(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(DataError, match=r"a\.parquet: cannot be read as Parquet"):
        list(data.load(path))


def test_rows_are_read_in_small_batches(tmp_path, monkeypatch):
    parquet.write_table(pa.table(columns(count=100)), tmp_path / "a.parquet")
    sizes = []
    real = parquet.ParquetFile.iter_batches

    def watched(self, size, **options):
        for batch in real(self, size, **options):
            sizes.append(len(batch))
            yield batch

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", watched)
    next(iter(data.load(Path(tmp_path / "a.parquet"))))
    assert sizes == [16]


def noise(number: int, side: int) -> bytes:
    """A PNG that does not compress."""
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_noise(folder: Path, side: int, count: int = 60) -> Path:
    """A folder of two Parquet files of images; gives the folder."""
    values = columns(count, objects=json.dumps([{"id": "man.1", "bbox": [0, 0, 4, 4]}]), relationships="[]")
    values["image"] = [noise(number, side) for number in range(count)]
    folder.mkdir()
    for part in range(2):
        chosen = {key: value[part * count // 2 : (part + 1) * count // 2] for key, value in values.items()}
        parquet.write_table(pa.table(chosen), folder / f"train-0000{part}-of-00002.parquet")
    return folder


def held(source: Path, **options) -> tuple[int, list]:
    """Bytes that all examples of a source hold, in Python and in Arrow, and the examples."""
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    examples = list(data.load(source, **options))
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size + pa.total_allocated_bytes() - before, examples


def test_stored_images_do_not_fill_the_memory(tmp_path, cache, monkeypatch):
    """60 images of 3 KB and of 50 KB each: kept examples take the same, and nothing is decoded before it is used."""
    small, large = write_noise(tmp_path / "small", 32), write_noise(tmp_path / "large", 128)
    list(data.load(small, stored=True))  # what is imported is not counted
    num_bytes = sum(len(noise(number, 128)) for number in range(60))
    decoded = []
    with monkeypatch.context() as patch:
        patch.setattr("PIL.ImageFile.ImageFile.load", lambda image: decoded.append(image))
        sizes, examples = zip(*(held(path, stored=True, need_images=True) for path in (small, large)), strict=True)
        in_memory, _ = held(large)
    assert not decoded and in_memory > num_bytes > 2_000_000
    assert abs(sizes[1] - sizes[0]) < num_bytes / 20 and sizes[1] < num_bytes / 5
    for number in (59, 0, 31):
        wanted = np.asarray(Image.open(io.BytesIO(noise(number, 128))))
        assert (np.asarray(open_image(examples[1][number])) == wanted).all()


def test_stored_images_of_every_kind_of_source(tmp_path, cache):
    """Structs, bytes and paths; a folder of save_to_disk is a table already."""
    table().to_parquet(tmp_path / "a.parquet")
    check_examples(data.load(tmp_path / "a.parquet", stored=True))
    parquet.write_table(pa.table(columns()), tmp_path / "b.parquet")
    check_examples(data.load(tmp_path / "b.parquet", stored=True))
    (tmp_path / "x.png").write_bytes(png())
    parquet.write_table(pa.table(columns(image="x.png")), tmp_path / "c.parquet")
    examples = list(data.load(tmp_path / "c.parquet", stored=True))
    check_examples(examples)
    assert examples[0].image == tmp_path / "x.png"
    table().save_to_disk(tmp_path / "saved")
    check_examples(data.load(tmp_path / "saved", stored=True))
    again = pickle.loads(pickle.dumps(list(data.load(tmp_path / "saved", stored=True))))  # to a data loader's workers
    check_examples(again)


def test_stored_rows_are_checked_as_others(tmp_path, cache):
    values = columns()
    values["image"][1] = b"nonsense"
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table(values), path)
    with pytest.raises(DataError, match=r"a\.parquet, row 2: .*not an image"):
        list(data.load(path, stored=True))
    assert [example.image_id for example in data.load(path, stored=True, skip_bad=True)] == ["0", "2"]
    parquet.write_table(pa.table({"image_id": ["a"], "image": [png()]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet: the columns objects, relationships are missing"):
        list(data.load(tmp_path / "b.parquet", stored=True))
    (tmp_path / "c.parquet").write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"c\.parquet: cannot be read as Parquet \(.*Parquet"):
        list(data.load(tmp_path / "c.parquet", stored=True))
