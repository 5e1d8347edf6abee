"""``scenerl data``: every action from options to files, and what stops it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.published_folders import VG150_IMAGES, write_psg, write_vcoco, write_vg150
from scenerl import data
from scenerl.commands.data import DataOptions
from scenerl.data.command import run
from scenerl.data.jsonl import read_jsonl, write_jsonl
from scenerl.data.triplets import read_training
from scenerl.rewards.options import read_predicate_counts

ROW = {
    "image_id": "a",
    "width": 10,
    "height": 10,
    "objects": [{"id": "x.1", "bbox": [0, 0, 5, 5]}],
    "relationships": [],
}

GRAPH = {
    **ROW,
    "objects": [{"id": "x.1", "bbox": [0, 0, 5, 5]}, {"id": "y.2", "bbox": [1, 1, 6, 6]}],
    "relationships": [
        {"subject": "x.1", "predicate": "on", "object": "y.2"},
        {"subject": "y.2", "predicate": "by", "object": "x.1"},
    ],
}


def test_make_writes_a_set_that_every_action_reads(tmp_path, capsys):
    folder = tmp_path / "set"
    run(DataOptions(action="make", out=folder, num_train=12, num_test=6, seed=3))
    run(DataOptions(action="check", source=str(folder), split="train"))
    assert "12 rows, 0 bad rows, 0 errors, 0 warnings" in capsys.readouterr().out
    run(
        DataOptions(
            action="stats",
            source=str(folder / "test.jsonl"),
            out=tmp_path / "stats.json",
            train_source=str(folder / "train.jsonl"),
        )
    )
    assert "Long tail" in capsys.readouterr().out
    stats = json.loads((tmp_path / "stats.json").read_text())
    assert stats["num_images"] == 6 and "zero_shot" in stats
    run(DataOptions(action="draw", source=str(folder), split="test", out=tmp_path / "drawn", num_images=2))
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 2
    with pytest.raises(ValueError, match="holds a data set already"):
        run(DataOptions(action="make", out=folder, num_train=1, num_test=1))


def test_triplets_of_training_data_are_what_evaluation_and_rewards_read(tmp_path, capsys):
    write_jsonl(
        tmp_path / "train.jsonl", [GRAPH, {**GRAPH, "image_id": "b", "relationships": GRAPH["relationships"][:1]}]
    )
    out = tmp_path / "triplets.json"
    run(DataOptions(action="triplets", source=str(tmp_path / "train.jsonl"), out=out))
    assert "2 triplet types of 2 predicates in 2 images" in capsys.readouterr().out
    assert json.loads(out.read_text()) == {
        "triplets": [["x", "on", "y"], ["y", "by", "x"]],
        "predicate_counts": {"on": 2, "by": 1},
    }
    assert read_training(str(out)) == ({("x", "on", "y"), ("y", "by", "x")}, {"on": 2, "by": 1})
    assert read_predicate_counts(out) == {"on": 2, "by": 1}


def test_what_is_not_in_training_by_its_data_or_its_triplets(tmp_path):
    test = [
        {**GRAPH, "relationships": [*GRAPH["relationships"], {"subject": "y.2", "predicate": "on", "object": "x.1"}]}
    ]
    write_jsonl(tmp_path / "test.jsonl", test)
    folder = tmp_path / "set"
    write_jsonl(folder / "train.jsonl", [GRAPH])
    write_jsonl(folder / "other.jsonl", [ROW])
    triplets, stats = tmp_path / "triplets.json", tmp_path / "stats.json"
    run(DataOptions(action="triplets", source=str(folder), split="train", out=triplets))
    for source, split in ((str(folder), "train"), (str(triplets), None)):
        options = {"source": str(tmp_path / "test.jsonl"), "out": stats, "train_source": source, "train_split": split}
        run(DataOptions(action="stats", **options))
        zero_shot = json.loads(stats.read_text())["zero_shot"]
        assert zero_shot == {"num_types": 1, "num_relations": 1, "triplets": [["y", "on", "x"]]}
    triplets.write_text('{"triplets": [["x"]]}')
    with pytest.raises(ValueError, match=r"triplets\.json, entry 0: expected a JSON list of"):
        run(DataOptions(action="stats", source=str(tmp_path / "test.jsonl"), train_source=str(triplets)))


def test_published_sets_take_the_common_path(tmp_path, capsys):
    """check, stats, triplets and convert of each; the converted rows read as the source does."""
    pytest.importorskip("h5py", reason="vg150 needs h5py")
    sources = {
        "vg150": (write_vg150(tmp_path / "vg", VG150_IMAGES), "test"),
        "psg": (write_psg(tmp_path / "psg"), "train"),
        "vcoco": (write_vcoco(tmp_path / "vcoco"), "test"),
    }
    for name, (folder, split) in sources.items():
        source = f"{name}:{folder}"
        run(DataOptions(action="check", source=source, split=split))
        assert " 0 bad rows, 0 errors" in capsys.readouterr().out
        run(DataOptions(action="stats", source=source, split=split, out=tmp_path / f"{name}.json"))
        run(DataOptions(action="triplets", source=source, split=split, out=tmp_path / f"{name}_triplets.json"))
        out = tmp_path / "rows" / f"{name}.jsonl"
        run(DataOptions(action="convert", source=source, split=split, out=out))
        assert list(data.load(out)) == list(data.load(source, split=split))


def test_convert_writes_images_and_rows_that_read_the_same(tmp_path):
    out = tmp_path / "new" / "rows.jsonl"
    run(DataOptions(action="convert", source="synthetic:count=4,seed=1", out=out))
    before, after = list(data.load("synthetic:count=4,seed=1")), list(data.load(out, need_images=True))
    assert [e.graph for e in before] == [e.graph for e in after]
    assert [e.image for e in before] == [e.image.read_bytes() for e in after]
    again = tmp_path / "again.jsonl"
    run(DataOptions(action="convert", source=str(out), out=again, limit=2))
    assert [e.image for e in data.load(again)] == [e.image for e in after][:2]
    with pytest.raises(ValueError, match="exists already"):
        run(DataOptions(action="convert", source=str(out), out=again))


def test_convert_never_overwrites_another_image(tmp_path):
    run(DataOptions(action="convert", source="synthetic:count=1,seed=1", out=tmp_path / "a.jsonl"))
    with pytest.raises(ValueError, match="is another image"):
        run(DataOptions(action="convert", source="synthetic:count=1,seed=2", out=tmp_path / "b.jsonl"))
    assert not (tmp_path / "b.jsonl").exists()


def test_check_lists_problems_and_fails_at_the_end(tmp_path, capsys):
    path = tmp_path / "rows.jsonl"
    write_jsonl(
        path,
        [
            ROW,
            {**ROW, "image_id": "b", "width": 0},
            {**ROW, "image_id": "c", "objects": [{"id": "[red]x.1", "bbox": [0, 0, 50, 5]}]},
        ],
    )
    with pytest.raises(ValueError, match="1 of 3 rows cannot be used"):
        run(DataOptions(action="check", source=str(path), out=tmp_path / "problems.jsonl"))
    printed = capsys.readouterr().out
    assert f"error {path}, row 2: width must be" in printed and "'[red]x.1'" in printed
    assert "3 rows, 1 bad row, 1 error, 1 warning" in printed
    assert [row["level"] for _, row in read_jsonl(tmp_path / "problems.jsonl")] == ["error", "warning"]
    run(DataOptions(action="check", source=str(path), limit=1))


def test_check_against_a_vocabulary(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [ROW])
    (tmp_path / "v.json").write_text('{"objects": ["y"], "predicates": []}')
    for action in ("check", "stats"):
        with pytest.raises(ValueError, match="cannot be used|not in the vocabulary: 'x'"):
            run(DataOptions(action=action, source=str(tmp_path / "rows.jsonl"), vocabulary=tmp_path / "v.json"))


def test_stats_read_on_as_check_does_and_say_what_they_leave_out(tmp_path, capsys):
    boxes = [{"id": f"x.{n}", "bbox": [0.1, 0.1, 0.5, 1.0]} for n in range(6)]
    rows = [{**ROW, "objects": boxes}, {**ROW, "image_id": "b", "width": 0}, {**ROW, "image_id": "c", "objects": 3}]
    write_jsonl(tmp_path / "rows.jsonl", [*rows, *({**ROW, "image_id": f"d{n}", "width": 0} for n in range(30))])
    run(DataOptions(action="stats", source=str(tmp_path / "rows.jsonl"), out=tmp_path / "stats.json"))
    printed = capsys.readouterr().out
    assert printed.count("width must be") == 21 and "11 more lines like that of" in printed
    assert "rows.jsonl, row 3: " in printed and "32 of 33 rows not counted, as unusable" in printed
    assert "warning all rows: no coordinate is above 1: are the boxes from 0 to 1" in printed
    value = json.loads((tmp_path / "stats.json").read_text())
    assert (value["num_images"], value["num_boxes"]) == (1, 6)
    write_jsonl(tmp_path / "rows.jsonl", rows[1:])
    with pytest.raises(ValueError, match="is empty: 2 rows, none of them usable"):
        run(DataOptions(action="stats", source=str(tmp_path / "rows.jsonl")))


def test_graphs_go_to_the_hub_and_back(tmp_path):
    pytest.importorskip("pyarrow", reason="the hub schema needs pyarrow")
    source = "synthetic:count=20,seed=1"
    hub = tmp_path / "train.parquet"
    run(DataOptions(action="convert", source=source, to="hub", out=hub))
    assert list(data.load(hub)) == list(data.load(source))
    with pytest.raises(ValueError, match="holds images, and this row names none"):
        run(DataOptions(action="convert", source=str(write_rows(tmp_path)), to="hub", out=tmp_path / "x.parquet"))
    assert not list(tmp_path.glob("*x.parquet*"))


def write_rows(folder: Path) -> Path:
    write_jsonl(folder / "rows" / "test.jsonl", [GRAPH])
    return folder / "rows"


def test_the_hub_schema_is_what_datasets_reads(tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets reads the hub schema")
    run(DataOptions(action="convert", source="synthetic:count=2", to="hub", out=tmp_path / "train.parquet"))
    table = datasets.Dataset.from_parquet(str(tmp_path / "train.parquet"), cache_dir=str(tmp_path / "cache"))
    assert isinstance(table.features["image"], datasets.Image) and table[0]["image"].size == (112, 112)
    assert json.loads(table[0]["objects"])[0].keys() == {"id", "bbox"}


def test_check_can_leave_images_alone(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [{**ROW, "file_name": "none.png"}])
    with pytest.raises(ValueError, match="cannot be used"):
        run(DataOptions(action="check", source=str(tmp_path / "rows.jsonl")))
    run(DataOptions(action="check", source=str(tmp_path / "rows.jsonl"), images=False))


def test_empty_set(tmp_path):
    (tmp_path / "rows.jsonl").write_text("")
    for action in ("check", "stats", "draw", "convert"):
        with pytest.raises(ValueError, match="is empty"):
            run(DataOptions(action=action, source=str(tmp_path / "rows.jsonl"), out=tmp_path / f"{action}.jsonl"))


def test_the_source_is_never_overwritten(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [ROW])
    before = path.read_bytes()
    for action in ("check", "stats", "triplets", "convert"):
        with pytest.raises(ValueError, match="^out: .*is read by this command and would be overwritten"):
            run(DataOptions(action=action, source=str(path), out=path))
    with pytest.raises(ValueError, match="^out: .*is read by this command"):
        run(DataOptions(action="stats", source="synthetic:count=1", train_source=str(path), out=path))
    with pytest.raises(ValueError, match="^out: .*is a file; expected the name of a folder"):
        run(DataOptions(action="draw", source=str(path), out=path))
    assert path.read_bytes() == before


@pytest.mark.parametrize("action", ["stats", "triplets", "check", "convert"])
def test_a_folder_is_no_file_to_write_and_that_is_said_first(action, tmp_path):
    with pytest.raises(ValueError, match="^out: .*is a folder; expected the name of a file"):
        run(DataOptions(action=action, source="no source", out=tmp_path))


@pytest.mark.parametrize("action", ["make", "draw"])
def test_a_file_is_no_folder_to_write_and_that_is_said_first(action, tmp_path):
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(ValueError, match="^out: .*is a file; expected the name of a folder"):
        run(DataOptions(action=action, source="no source", out=path))
    with pytest.raises(ValueError, match="^out: .*cannot be written: .*file is a file, not a folder"):
        run(DataOptions(action=action, source="no source", out=path / "folder"))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("make", "--out FOLDER"),
        ("stats", "SOURCE"),
        ("triplets", r"--out FILE\.json"),
        ("check", "SOURCE"),
        ("draw", "--out FOLDER"),
        ("convert", r"--out FILE\.jsonl"),
    ],
)
def test_what_an_action_needs(action, message):
    with pytest.raises(ValueError, match=f"scenerl data {action} needs {message}"):
        run(DataOptions(action=action))


def test_convert_needs_a_jsonl_name(tmp_path):
    with pytest.raises(ValueError, match=r"--to jsonl writes \.jsonl; give"):
        run(DataOptions(action="convert", source="synthetic:count=1", out=Path(tmp_path / "x.txt")))


def test_convert_only_some_rows(tmp_path):
    source = tmp_path / "rows.jsonl"
    write_jsonl(source, [ROW | {"image_id": name} for name in ("cat_1", "cat_2", "dog_1", "cow_1")])
    out = tmp_path / "out.jsonl"
    run(DataOptions(action="convert", source=str(source), out=out, only=["cat_*", "dog_1"]))
    assert [row["image_id"] for _, row in read_jsonl(out)] == ["cat_1", "cat_2", "dog_1"]
    with pytest.raises(ValueError, match="no image_id fits 'Cat_"):
        run(DataOptions(action="convert", source=str(source), out=tmp_path / "none.jsonl", only=["Cat_*"]))
    assert not (tmp_path / "none.jsonl").exists()


def test_split_keeps_rows_of_an_image_together_and_changes_little_when_data_grows(tmp_path, capsys):
    def row(number, image):
        return {**ROW, "image_id": f"row-{number}", "file_name": f"{image}.png"}

    def images_in(file):
        return [Path(row["file_name"]).name for _, row in read_jsonl(file)]

    def split(count, out, folder="data"):
        source = tmp_path / folder / "rows.jsonl"
        source.parent.mkdir(exist_ok=True)
        write_jsonl(source, [row(number, number // 2) for number in range(count)])
        run(DataOptions(action="split", source=str(source), out=tmp_path / out, test=0.25, seed=1))
        return images_in(tmp_path / out / "train.jsonl"), images_in(tmp_path / out / "test.jsonl")

    train, test = split(40, "one")
    assert "10 rows in" in capsys.readouterr().out
    assert len(train) == 30 and len(test) == 10 and len(set(test)) == 5 and not set(train) & set(test)
    assert split(40, "again") == (train, test) == split(40, "moved", folder="elsewhere")
    _, more = split(48, "grown")
    assert len(set(more)) == 6 and len(set(test) & set(more)) >= 4
    with pytest.raises(ValueError, match="train.jsonl exists already"):
        split(40, "one")
    with pytest.raises(ValueError, match="1 image cannot be divided with --test 0.25"):
        split(2, "few")
