"""What holds for every reward: range, gold, invariance, failures, hostile graphs, options that are refused."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenerl.rewards import (
    RELATION_REWARDS,
    REWARDS,
    Comparison,
    RewardOptions,
    inverse_frequency_weights,
    select_rewards,
)
from scenerl.rewards.options import read_predicate_counts
from scenerl.types import FAILURES, ParseResult, Relation, SceneGraph, SceneObject

RANGES = dict.fromkeys(REWARDS, (0.0, 1.0)) | {"repetition": (-1.0, 0.0), "cosine_length": (-0.5, 1.0)}
# average precision ranks equal scores by order, and the one box of a referring expression is the first
IN_ORDER_OF_EMISSION = {"iou", "ap", "ap50", "od_length"}


def halves(a: str, b: str) -> float:
    return 1.0 if a == b else 0.5 if a[0] == b[0] else 0.0


OPTIONS = [
    RewardOptions(),
    RewardOptions(
        similarity=halves, one_to_one=True, beta=0.5, iou_threshold=0.3, predicate_weights={"on": 1.0, "off": 2.5}
    ),
]

# Few labels and places, so that equal objects, equal costs and competing relations are common.
POSITION = st.integers(0, 4).map(float)
BOX = st.tuples(POSITION, POSITION, st.sampled_from([4.0, 6.0]), st.sampled_from([4.0, 6.0])).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@st.composite
def graphs(draw, max_objects: int = 5) -> SceneGraph:
    labels = st.sampled_from(["cat", "cow", "dog"])
    objects = draw(st.lists(st.builds(SceneObject, labels, BOX, st.none()), max_size=max_objects))
    pairs = [(s, o) for s in range(len(objects)) for o in range(len(objects)) if s != o]
    relations = st.builds(
        lambda pair, predicate: (pair[0], predicate, pair[1]),
        st.sampled_from(pairs or [None]),
        st.sampled_from(["on", "off"]),
    )
    chosen = draw(st.lists(relations, max_size=6, unique=True)) if pairs else []
    return SceneGraph(tuple(objects), tuple(Relation(*relation) for relation in chosen))


def reorder(graph: SceneGraph, order: list[int], relation_order: list[int]) -> SceneGraph:
    """The same graph with object ``order[i]`` at place i."""
    place = {old: new for new, old in enumerate(order)}
    relations = [graph.relations[index] for index in relation_order]
    return SceneGraph(
        tuple(graph.objects[old] for old in order),
        tuple(Relation(place[r.subject], r.predicate, place[r.object]) for r in relations),
    )


def rewards_of(predicted: SceneGraph, target: SceneGraph, options: RewardOptions) -> dict[str, float]:
    comparison = Comparison(ParseResult("ok", predicted, (), True), target, (10, 10), options, num_tokens=100)
    return {name: reward(comparison) for name, reward in REWARDS.items()}


def shuffled(draw, graph: SceneGraph) -> SceneGraph:
    return reorder(
        graph,
        draw(st.permutations(range(len(graph.objects)))),
        draw(st.permutations(range(len(graph.relations)))),
    )


@pytest.mark.parametrize("options", OPTIONS, ids=["defaults", "others"])
@settings(max_examples=300)
@given(graphs(), graphs())
def test_every_reward_stays_in_its_range(options, predicted, target):
    for name, value in rewards_of(predicted, target, options).items():
        low, high = RANGES[name]
        assert isinstance(value, float), name
        assert low <= value <= high, name


@pytest.mark.parametrize("options", OPTIONS, ids=["defaults", "others"])
@settings(max_examples=300)
@given(data=st.data(), predicted=graphs(), target=graphs())
def test_order_and_names_do_not_matter(options, data, predicted, target):
    # Ids are not even stored: renaming them is reordering.
    before = rewards_of(predicted, target, options)
    after = rewards_of(shuffled(data.draw, predicted), shuffled(data.draw, target), options)
    for name in REWARDS.keys() - IN_ORDER_OF_EMISSION:
        assert after[name] == pytest.approx(before[name], abs=1e-12), name


@pytest.mark.parametrize("options", OPTIONS, ids=["defaults", "others"])
@settings(max_examples=200)
@given(data=st.data(), target=graphs())
def test_gold_the_target_as_answer_gets_the_best_of_every_reward(options, data, target):
    predicted = shuffled(data.draw, target)
    values = rewards_of(predicted, target, options)
    for name in REWARDS.keys() - {"hallucination", "repetition", "cosine_length"}:
        assert values[name] == pytest.approx(1.0, abs=1e-12), name
    assert values["hallucination"] == 0.0
    assert values["cosine_length"] > 0.5  # a right answer; only an empty text would get 1
    distinct = len(set(target.objects)) == len(target.objects)
    assert not distinct or values["repetition"] == 0.0


@pytest.mark.parametrize("status", FAILURES)
@pytest.mark.parametrize("target", [SceneGraph(), SceneGraph((SceneObject("cat", (0.0, 0.0, 1.0, 1.0)),))])
def test_a_failed_parse_gets_the_worst_of_every_reward(status, target):
    comparison = Comparison(ParseResult(status, None), target, (10, 10), text="", num_tokens=0)
    worst = dict.fromkeys(REWARDS, 0.0) | {"hallucination": 1.0, "cosine_length": -0.5}
    assert {name: reward(comparison) for name, reward in REWARDS.items()} == worst


HOSTILE_BOXES = st.tuples(
    *[st.sampled_from([-1e308, -1e9, -1.0, 0.0, 5e-324, 1e-160, 1.0, 10.0, 1e9, 1e160, 1e308])] * 4
)


@settings(max_examples=300)
@given(st.lists(HOSTILE_BOXES, max_size=4), st.lists(BOX, max_size=3))
def test_no_box_makes_a_reward_raise_or_become_nan(boxes, target_boxes):
    predicted = SceneGraph(tuple(SceneObject("cat", box) for box in boxes))
    target = SceneGraph(tuple(SceneObject("cat", box) for box in target_boxes))
    for name, value in rewards_of(predicted, target, OPTIONS[0]).items():
        assert math.isfinite(value), name
        assert RANGES[name][0] <= value <= RANGES[name][1], name


def test_a_thousand_objects_on_top_of_each_other():
    # The most that the parser keeps, all in one place and all related: slow code would show here.
    box = (0.0, 0.0, 10.0, 10.0)
    many = tuple(SceneObject("cat", box) for _ in range(1000))
    relations = tuple(Relation(index % 1000, "on", (index * 7 + 1 + index // 1000) % 1000) for index in range(5000))
    predicted = SceneGraph(many, tuple(r for r in relations if r.subject != r.object))
    target = SceneGraph(many[:20], tuple(Relation(s, "on", s + 1) for s in range(19)))
    values = rewards_of(predicted, target, OPTIONS[1])
    assert values["hard_recall"] == 1.0
    assert values["triplet_precision"] == pytest.approx(19 / len(predicted.relations))
    assert values["hallucination"] > 0.99


def test_saying_everything_pays_in_recall_and_costs_in_the_others():
    target = SceneGraph(
        (SceneObject("cat", (0.0, 0.0, 4.0, 4.0)), SceneObject("dog", (6.0, 6.0, 10.0, 10.0))), (Relation(0, "on", 1),)
    )
    predicates = [f"p{n}" for n in range(9)] + ["on"]
    everything = SceneGraph(target.objects, tuple(Relation(0, predicate, 1) for predicate in predicates))
    values = rewards_of(everything, target, OPTIONS[0])
    assert values["hard_recall"] == 1.0
    assert values["triplet_precision"] == pytest.approx(0.1)
    assert values["triplet_f1"] == pytest.approx(2 / 11)
    assert values["hallucination"] == pytest.approx(9 / 12)


def test_the_relation_rewards_are_those_that_relations_change():
    target = SceneGraph(
        (SceneObject("cat", (0.0, 0.0, 4.0, 4.0)), SceneObject("dog", (6.0, 6.0, 10.0, 10.0))), (Relation(0, "on", 1),)
    )
    right, bare = rewards_of(target, target, OPTIONS[0]), rewards_of(SceneGraph(target.objects), target, OPTIONS[0])
    assert {name for name in REWARDS if right[name] != bare[name]} == RELATION_REWARDS


def test_names_are_those_of_the_specification():
    names = """
        format node_label node_box hard_recall relaxed_recall soft_recall iou ap ap50 od_length weighted_sum repetition
        cosine_length triplet_f_beta triplet_f1 triplet_precision hallucination predicate_weighted_recall box_count
    """
    assert list(REWARDS) == names.split()


def test_every_reward_documents_its_range():
    for name, reward in REWARDS.items():
        assert reward.__doc__ and ("Returns:" in reward.__doc__ or "As :func:" in reward.__doc__), name


# options


def test_rewards_are_chosen_by_name():
    assert list(select_rewards(["hard_recall", "format"])) == ["hard_recall", "format"]
    with pytest.raises(ValueError, match="unknown reward 'recall' .did you mean soft_recall"):
        select_rewards(["recall"])
    with pytest.raises(ValueError, match="'format' is given twice"):
        select_rewards(["format", "format"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"iou_threshold": 0.0},
        {"iou_threshold": 1.5},
        {"iou_threshold": math.nan},
        {"beta": 0.0},
        {"beta": math.inf},
        {"beta": 1e200},
        {"cosine_max_tokens": 0},
        {"predicate_weights": {"on": -1.0}},
        {"predicate_weights": {"on": math.nan}},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RewardOptions(**wrong)


def test_inverse_frequency_weights():
    # sqrt(400 / 4) = 10; with power 1 the weights times the counts are equal
    assert inverse_frequency_weights({"on": 400, "riding": 4}) == {"on": 1.0, "riding": 10.0}
    assert inverse_frequency_weights({"on": 400, "riding": 4}, power=1.0) == {"on": 1.0, "riding": 100.0}
    with pytest.raises(ValueError, match="'on' has 1000.*; allowed: whole numbers"):
        inverse_frequency_weights({"on": 10**400, "riding": 4})


@pytest.mark.parametrize("counts", [{"on": 3, "riding": 12}, {"predicate_counts": {"on": 3, "riding": 12}}])
def test_predicate_counts_are_read_from_a_file(tmp_path, counts):
    path = tmp_path / "counts.json"
    path.write_text(json.dumps(counts), encoding="utf-8")
    assert inverse_frequency_weights(read_predicate_counts(path)) == {"on": 2.0, "riding": 1.0}


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"on": 0}', '{"on": true}', '{"on": "3"}', '{"on": 1.5}', "[" * 10**5]
)
def test_broken_predicate_counts_are_named(tmp_path, content):
    path = tmp_path / "counts.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match="counts.json"):
        read_predicate_counts(path)
    with pytest.raises(ValueError, match="missing.json"):
        read_predicate_counts(tmp_path / "missing.json")
