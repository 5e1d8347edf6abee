"""The study's data: what training never shows is in the test sets for it, and nowhere else."""

from __future__ import annotations

import pytest

from scenerl import data
from scenerl.study import worlds


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    ticks = []
    worlds.make_graphs(folder, 60, 24, seed=0, progress=ticks.append, keep=0.25)
    assert sum(ticks) == worlds.num_graphs(60, 24)
    names = ("train", "test", "test_complete", "triplets", "places", "other")
    return {name: list(data.load(folder / f"{name}.jsonl")) for name in names}


def triplets(example) -> set[tuple[str, str, str]]:
    objects = example.graph.objects
    return {(objects[r.subject].label, r.predicate, objects[r.object].label) for r in example.graph.relations}


def lamps_on_the_right(example) -> bool:
    return any(o.label == "lamp" and o.box[0] + o.box[2] > example.width for o in example.graph.objects)


def test_training_and_its_test_show_nothing_unseen(graphs):
    for example in (*graphs["train"], *graphs["test_complete"]):
        assert not triplets(example) & worlds.UNSEEN_TRIPLETS and not lamps_on_the_right(example)


def test_each_unseen_kind_is_in_every_scene_of_its_set_alone(graphs):
    assert len(graphs["triplets"]) == len(graphs["places"]) == len(graphs["other"]) == 12
    for example in graphs["triplets"]:
        assert triplets(example) & worlds.UNSEEN_TRIPLETS and not lamps_on_the_right(example)
    for example in graphs["places"]:
        assert lamps_on_the_right(example) and not triplets(example) & worlds.UNSEEN_TRIPLETS


def test_the_other_world_is_more_crowded(graphs):
    assert max(len(example.graph.objects) for example in graphs["other"]) == 4
    assert max(len(example.graph.objects) for example in graphs["train"]) == 3


def test_sizes_that_training_does_not_show(tmp_path):
    worlds.make_graphs(tmp_path, 40, 24, seed=0, kinds=("sizes",))
    assert worlds.num_graphs(40, 24, ("sizes",)) == 40 + 24 + 12

    def unseen(example) -> bool:
        edge = example.width / 10
        cells = [
            (o.label, round((o.box[2] - o.box[0]) * (o.box[3] - o.box[1]) / edge**2)) for o in example.graph.objects
        ]
        return ("lamp", 9) in cells or ("book", 4) in cells

    rows = {name: list(data.load(tmp_path / f"{name}.jsonl")) for name in ("train", "test", "sizes")}
    assert not any(map(unseen, (*rows["train"], *rows["test"])))
    assert len(rows["sizes"]) == 12 and all(map(unseen, rows["sizes"]))


def test_density_is_that_of_the_annotator(graphs):
    sparse = sum(len(example.graph.relations) for example in graphs["test"])
    complete = sum(len(example.graph.relations) for example in graphs["test_complete"])
    assert len(graphs["test"]) <= sparse < 0.6 * complete  # one is always there
    assert all(len(example.graph.relations) >= 1 for example in graphs["train"])
