"""Vocabularies: built, written, read, required."""

from __future__ import annotations

import json

import pytest

from scenerl.data.rows import DataError
from scenerl.data.vocabulary import Vocabulary
from scenerl.types import Example, Relation, SceneGraph, SceneObject


def example(labels: str, *relations: tuple[int, str, int], query=None) -> Example:
    objects = tuple(SceneObject(label, (0, 0, 1, 1)) for label in labels.split())
    return Example("a", 10, 10, SceneGraph(objects, tuple(Relation(*relation) for relation in relations)), query=query)


EXAMPLES = [
    example("man dog man", (0, "on", 1), (1, "by", 2)),
    example("cat", query=("cat", "unicorn")),
    example("dog ant", (0, "on", 1)),
]


def test_built_by_frequency_then_name_with_absent_queries_last():
    # man 2, dog 2, ant 1, cat 1, unicorn 0; on 2, by 1
    assert Vocabulary.from_examples(EXAMPLES) == Vocabulary(("dog", "man", "ant", "cat", "unicorn"), ("on", "by"))


def test_written_and_read(tmp_path):
    vocabulary = Vocabulary(("ä", "b c"), ())
    vocabulary.write(tmp_path / "new" / "v.json")
    assert Vocabulary.read(tmp_path / "new" / "v.json") == vocabulary


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
    Vocabulary.from_examples(EXAMPLES).require(EXAMPLES)
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
