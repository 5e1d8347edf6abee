"""Recall and counting against the slow second implementation, on random data sets."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics import reference
from metrics.graphs import LABELS, PREDICATES, QUICK, data_sets, graph, pairs_of, values
from scenerl.types import SceneGraph

KS = (1, 2, 5, 20)


@given(
    data_sets(scored=True),
    st.sampled_from(("one_to_many", "one_to_one")),
    st.sampled_from(("scored", "always", "never")),
    st.booleans(),
)
def test_recall(data, hits, constraint, plus_one):
    options = dataclasses.replace(QUICK, ks=KS, hits=hits, graph_constraint=constraint, plus_one=plus_one)
    seen = {("dog", "on", "cat"), ("dog", "near", "dog")}
    found = values(pairs_of(*data), options, seen)
    rest = {"one_to_one": hits == "one_to_one", "extra": float(plus_one)}

    def check(name, expected):
        assert found[name] == (None if expected is None else pytest.approx(expected, abs=1e-12)), name

    check("Recall", reference.recall(*data, None, constraint="never", **rest))
    check("mRecall", reference.mean_recall(*data, None, constraint="never", **rest))
    for k in KS:
        check(f"R@{k}", reference.recall(*data, k, constraint=constraint, **rest))
        check(f"ng-R@{k}", reference.recall(*data, k, constraint="never", **rest))
        check(f"mR@{k}", reference.mean_recall(*data, k, constraint=constraint, **rest))
        if hits == "one_to_many":  # one to one leaves open which of two equal targets is the hit one

            def unseen(target, relation):
                return target.triplet(relation) not in seen

            check(f"zR@{k}", reference.recall(*data, k, keep=unseen, constraint=constraint, **rest))


@given(data_sets(scored=True))
def test_precision_hallucination_and_greedy_matching(data):
    found = values(pairs_of(*data))
    expected = {}
    for kind, name in (("relations", "triplet"), ("objects", "object")):
        measures = reference.precision_recall_f1(*data, kind)
        expected |= dict(zip((f"{name}_precision", f"{name}_recall", f"{name}_f1"), measures, strict=True))
        expected[f"{kind[:-1]}_hallucination"] = reference.hallucination(*data, kind)
    hits, predicted, wanted = reference.greedy_hits(*data, 0.5)
    expected["greedy_precision"] = hits / predicted if predicted else None
    expected["greedy_recall"] = hits / wanted if wanted else None
    strict, _, _ = reference.greedy_hits(*data, 0.95)
    expected["F1@0.95"] = 2 * strict / (predicted + wanted) if predicted + wanted else None
    for name, value in expected.items():
        assert found[name] == (None if value is None else pytest.approx(value, abs=1e-12)), name


@given(data_sets(), st.randoms(use_true_random=False))
def test_order_of_objects_and_targets_does_not_matter(data, random):
    """Reordering a prediction's objects and a target's objects and relations; the ranking of predictions stays."""

    def shuffled(found, keep_ranking):
        order = list(range(len(found.objects)))
        random.shuffle(order)
        place = {old: new for new, old in enumerate(order)}
        relations = [
            entry._replace(subject=place[entry.subject], object=place[entry.object]) for entry in found.relations
        ]
        if not keep_ranking:
            random.shuffle(relations)
        objects = tuple(found.objects[old] for old in order)
        return dataclasses.replace(found, objects=objects, relations=tuple(relations))

    before = values(pairs_of(*data))
    after = values(
        pairs_of([shuffled(found, True) for found in data[0]], [shuffled(found, False) for found in data[1]])
    )
    # AP and greedy matching of equal scores follow the order of emission, as COCO's do; nothing else may.
    ordered = ("AP", "AR", "greedy", "F1", "duplicate_objects", "duplicates")
    for name, value in before.items():
        if not name.startswith(ordered):
            assert after[name] == (None if value is None else pytest.approx(value, abs=1e-12)), name


@given(data_sets())
def test_gold(data):
    """Ground truth as its own prediction is perfect under every metric that can be perfect."""
    targets = data[1]
    found = values(pairs_of(targets, targets), triplets=set())
    for name, value in found.items():
        if name.endswith(("_rate", "_hallucination")):
            assert value in (0, None)
        elif not name.endswith("_per_image"):
            assert value in (1, None), name
    if any(target.relations for target in targets):
        assert found["R@20"] == found["mR@50"] == found["zR@100"] == found["triplet_f1"] == 1
    if any(target.objects for target in targets):
        assert found["AP"] == found["object_f1"] == found["F1_mean"] == 1


@pytest.mark.parametrize("seed", range(3))
def test_large_graphs_with_repetitions_ties_and_empty_images(seed):
    """Up to 300 relations an image; few boxes and few scores, so that repetitions and ties abound."""
    generator = np.random.default_rng(seed)

    def scene(most, scored):
        objects = [
            (LABELS[int(generator.integers(3))], (x, y, x + 10.0 * w, y + 10.0))
            for x, y, w in generator.integers(0, 4, (int(generator.integers(0, 12)), 3)).tolist()
            if w
        ]
        relations = []
        for _ in range(int(generator.integers(0, most + 1)) if objects else 0):
            ends = generator.integers(0, len(objects), 2).tolist()
            score = [float(generator.integers(1, 4)) / 4] if scored else []
            relations.append((ends[0], PREDICATES[int(generator.integers(3))], ends[1], *score))
        return graph(objects, relations)

    targets = [scene(8, False) for _ in range(6)]
    guesses = [scene(300, n % 2 == 0) for n in range(6)]
    for n in range(0, 6, 2):  # half of them hold what is right, after much that is not
        shift = len(guesses[n].objects)
        moved = [
            entry._replace(subject=entry.subject + shift, object=entry.object + shift) for entry in targets[n].relations
        ]
        guesses[n] = SceneGraph(guesses[n].objects + targets[n].objects, (*guesses[n].relations, *moved))
    data = guesses, targets
    for hits in ("one_to_many", "one_to_one"):
        found = values(pairs_of(*data), dataclasses.replace(QUICK, hits=hits, ks=(20, 100)))
        rest = {"one_to_one": hits == "one_to_one"}
        for k in (20, 100):
            assert found[f"R@{k}"] == pytest.approx(reference.recall(*data, k, **rest), abs=1e-12)
            assert found[f"mR@{k}"] == pytest.approx(reference.mean_recall(*data, k, **rest), abs=1e-12)
    precision, recall, _ = reference.precision_recall_f1(*data, "relations")
    assert 0 < recall < 1
    assert (found["triplet_precision"], found["triplet_recall"]) == (pytest.approx(precision), pytest.approx(recall))
