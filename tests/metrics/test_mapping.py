"""Labels mapped into the vocabulary: which rule, how often, and nothing behind the reader's back."""

from __future__ import annotations

import json
import time

import pytest

from metrics.graphs import graph, pair
from scenerl.metrics import LabelMapper, WordNetSynonyms, map_pairs, misspelled, read_table

A, B = (0, 0, 10, 10), (20, 0, 30, 10)
OBJECTS, PREDICATES = ["couch", "traffic light", "dog"], ["wearing", "in front of"]

# Lines of WordNet 3.0's index files, as its database folder holds them.
NOUNS = """  1 This software and database is being provided to you, the LICENSEE, by
couch n 3 2 @ ~ 3 1 04256520 03115897 03115762
sofa n 1 2 @ ~ 1 1 04256520
traffic_light n 1 2 @ #p 1 0 06874185
stoplight n 2 1 @ 2 0 06874185 06874019
"""
VERBS = (
    "wear v 9 7 @ ~ * > $ ^ + 9 4 00052374 00050652 02629535 00053889 00053656 00469651 00469382 00469177 00075875\n"
)


@pytest.fixture
def wordnet(tmp_path):
    (tmp_path / "index.noun").write_text(NOUNS)
    (tmp_path / "index.verb").write_text(VERBS)
    return WordNetSynonyms(tmp_path)


def test_synonyms_share_a_synset(wordnet):
    assert wordnet("sofa", OBJECTS) == "couch"
    assert wordnet("Stoplight", OBJECTS) == "traffic light"
    assert wordnet("dog", ["couch"]) is None and wordnet("unheard of", OBJECTS) is None
    # the commoner sense of a vocabulary word wins
    assert wordnet("sofa", ["lounge", "couch"]) == "couch"


def test_a_folder_without_wordnet(tmp_path):
    with pytest.raises(ValueError, match="holds no index.noun"):
        WordNetSynonyms(tmp_path)
    (tmp_path / "index.noun").write_text("not a line\n")
    with pytest.raises(ValueError, match=r"index\.noun: not a line of WordNet's index"):
        WordNetSynonyms(tmp_path)


def test_rules_in_their_order(wordnet):
    def similarity(a, b):
        return 0.9 if (a, b) in {("puppy", "dog"), ("sofa", "dog")} else 0.5

    mapper = LabelMapper({"objects": {"Couch": "dog"}}, True, wordnet, (similarity, 0.8))
    expected = {
        "Couch": ("dog", "table"),
        "traffic_light": ("traffic light", "spelling"),
        "sofa": ("couch", "synonym"),
        "puppy": ("dog", "similarity 0.90"),
    }
    for label, (to, by) in expected.items():
        found = mapper.find("objects", label, OBJECTS)
        assert (found.to, found.by) == (to, by)
    assert mapper.find("objects", "zebra", OBJECTS) is None
    assert mapper.find("predicates", "In-Front_Of", PREDICATES).to == "in front of"


def test_every_mapping_is_counted_and_targets_stay():
    predicted = graph([("Dog", A), ("Dog", B), ("zebra", A)], [(0, "worn by", 1, 0.5), (1, "WEARING", 0)])
    target = graph([("Dog", A)])
    table = {"predicates": {"worn by": {"to": "wearing", "swap": True}}}
    pairs, used = map_pairs([pair(predicted, target, "1"), pair(None, target, "2", "empty")], LabelMapper(table),
                            OBJECTS, PREDICATES)  # fmt: skip
    assert [(entry.label, entry.to, entry.count, entry.by, entry.swap) for entry in used] == [
        ("Dog", "dog", 2, "spelling", False), ("worn by", "wearing", 1, "table", True),
        ("WEARING", "wearing", 1, "spelling", False),
    ]  # fmt: skip
    assert [entry.label for entry in pairs[0].result.graph.objects] == ["dog", "dog", "zebra"]
    swapped, kept = pairs[0].result.graph.relations
    assert (swapped.subject, swapped.object, swapped.score) == (1, 0, 0.5) and kept.predicate == "wearing"
    assert pairs[0].target == target and pairs[1].result.status == "empty"


def test_misspelled_labels_are_named_not_changed():
    predicted = graph([("DOG", A), ("puppy", B)], [(0, "in-front-of", 1)])
    found = misspelled([pair(predicted, predicted)], OBJECTS, PREDICATES)
    assert [(entry.label, entry.to) for entry in found] == [("DOG", "dog"), ("in-front-of", "in front of")]


@pytest.mark.parametrize("value", [[], {"labels": {}}, {"objects": {"a": 1}}, {"objects": []}, {"objects": {"a": {}}}])
def test_tables_that_cannot_be_used(tmp_path, value):
    path = tmp_path / "table.json"
    path.write_text(json.dumps(value))
    with pytest.raises(ValueError, match=r"table\.json: .*expected JSON"):
        read_table(path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_table(tmp_path / "gone.json")


def test_many_labels_outside_a_large_vocabulary_do_not_take_long():
    """A model may make up any number of labels; 20,000 against 2,000 took a minute when each pair was compared."""
    pairs = [pair(graph([(f"made up {n}", (0, 0, 9, 9)) for n in range(20_000)]), graph([]))]
    start = time.process_time()
    assert misspelled(pairs, [f"label {n}" for n in range(2_000)], []) == []
    assert time.process_time() - start < 5
