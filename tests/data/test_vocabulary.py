"""Vocabularies: built, written, read, required."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scenerl.data.vocabulary import Vocabulary, category_names
from scenerl.errors import DataError
from scenerl.types import Example, Relation, SceneGraph, SceneObject

SHARED = Path(__file__).parents[3] / "shared" / "data" / "vocab"
KINDS = (("label", 150), ("predicate", 50))


def example(labels: str, *relations: tuple[int, str, int], query=None) -> Example:
    objects = tuple(SceneObject(label, (0, 0, 1, 1)) for label in labels.split())
    return Example("a", 10, 10, SceneGraph(objects, tuple(Relation(*relation) for relation in relations)), query=query)


EXAMPLES = [
    example("man dog man", (0, "on", 1), (1, "by", 2)),
    example("cat", query=("cat", "unicorn")),
    example("dog ant", (0, "on", 1)),
]


def test_a_file_is_read_with_white_space_tidied(tmp_path):
    (tmp_path / "v.json").write_text('{"objects": ["ä", " b  c"], "predicates": [], "other": 1}', encoding="utf-8")
    assert Vocabulary.read(tmp_path / "v.json") == Vocabulary(("ä", "b c"), ())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "null",
        '{"objects": ["a"]}',
        '{"objects": "ab", "predicates": []}',
        '{"objects": ["a", 3], "predicates": []}',
        '{"objects": ["a", " "], "predicates": []}',
        '{"objects": ["a", "a"], "predicates": []}',
        "[" * 100_000,
        "\xff",
    ],
)
def test_bad_file(tmp_path, text):
    path = tmp_path / "v.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"v\.json.*(expected JSON|twice)"):
        Vocabulary.read(path)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        Vocabulary.read(tmp_path / "v.json")


def test_examples_outside_it_are_refused_with_counts():
    Vocabulary(("dog", "man", "ant", "cat", "unicorn"), ("on", "by")).require(EXAMPLES)
    with pytest.raises(DataError) as caught:
        Vocabulary(("man", "ant", "cat"), ("by",)).require(EXAMPLES, "rows.jsonl")
    assert str(caught.value) == (
        "rows.jsonl has object labels that are not in the vocabulary: 'dog' (2 times); allowed: 'man', 'ant', 'cat'. "
        "It has predicates that are not in the vocabulary: 'on' (2 times); allowed: 'by'"
    )


def test_a_long_list_of_offenders_is_bounded():
    with pytest.raises(DataError, match="and 90 more"):
        Vocabulary(("a",), ()).require([example(" ".join(f"x{n}" for n in range(100)))])


def test_other_keys_are_ignored(tmp_path):
    (tmp_path / "v.json").write_text(json.dumps({"objects": ["a"], "predicates": ["b"], "num_images": 3}))
    assert Vocabulary.read(tmp_path / "v.json") == Vocabulary(("a",), ("b",))


@pytest.mark.parametrize(
    ("name", "num_objects", "num_predicates"), [("vg150", 150, 50), ("psg", 133, 56), ("coco", 80, 0)]
)
def test_those_with_names(name, num_objects, num_predicates):
    vocabulary = Vocabulary.read(name)
    assert Vocabulary.read(Path(name)) == vocabulary  # as options hold it
    assert (len(vocabulary.objects), len(vocabulary.predicates)) == (num_objects, num_predicates)
    assert list(category_names(name).values()) == list(vocabulary.objects)


def test_numbers_of_categories():
    assert category_names("vg150")[1] == "airplane" and category_names("vg150")[150] == "zebra"
    assert category_names("psg")[0] == "person" and category_names("psg")[132] == "rug-merged"
    # COCO's numbers go to 90 and leave out ten
    assert category_names("coco")[13] == "stop sign" and category_names("coco")[90] == "toothbrush"
    assert not {12, 26, 29, 30, 45, 66, 68, 69, 71, 83} & category_names("coco").keys()


def test_a_file_has_no_numbers_of_its_own(tmp_path):
    (tmp_path / "v.json").write_text('{"objects": ["a"], "predicates": []}')
    assert category_names(tmp_path / "v.json") == {}


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(DataError, match="vg160: cannot be read .*the name of a vocabulary: vg150, psg, coco"):
        Vocabulary.read("vg160")


def test_the_public_lists():
    if not SHARED.is_dir():
        pytest.skip("there are no public lists to compare with")
    vg150, psg = (json.loads((SHARED / f"{name}.json").read_text()) for name in ("vg150", "psg"))
    ranked = [[vg150[f"idx_to_{kind}"][str(n)] for n in range(1, count + 1)] for kind, count in KINDS]
    assert Vocabulary.read("vg150") == Vocabulary(*map(tuple, ranked))
    classes = (*psg["thing_classes"], *psg["stuff_classes"])
    assert Vocabulary.read("psg") == Vocabulary(classes, tuple(psg["predicate_classes"]))
    assert Vocabulary.read("coco").objects == tuple(psg["thing_classes"])


def test_numbers_of_a_file_that_is_no_vocabulary(tmp_path):
    (tmp_path / "v.json").write_text("[1]")
    with pytest.raises(DataError, match="'objects' is missing"):
        category_names(tmp_path / "v.json")
