"""Every kind of element issue in every format that can have it: the element goes, the rest stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scenerl.answers import OutputFormat, parse_answer
from scenerl.answers.elements import MAX_EXCERPT, MAX_LABEL, MAX_OBJECTS, MAX_RELATIONS
from scenerl.types import ISSUES, OBJECT_ISSUES, Issue, ParseResult, SceneGraph

IMAGE_WH = (100, 100)
GRAPH = OutputFormat("json", box_format="pixels")
COMPACT = OutputFormat("compact", box_format="pixels")
DETECTIONS = OutputFormat("detections", box_format="pixels")

MAN = {"id": "man.1", "bbox": [0, 0, 10, 10]}
BIKE = {"id": "bike.2", "bbox": [5, 5, 20, 20]}
RIDES = {"subject": "man.1", "predicate": "riding", "object": "bike.2"}


def read(objects, relationships=(), output_format=GRAPH, **options):
    text = json.dumps({"objects": list(objects), "relationships": list(relationships)})
    return parse_answer(text, output_format, IMAGE_WH, **options)


def kinds(result):
    return [(issue.kind, issue.where) for issue in result.issues]


def labels(result):
    return [item.label for item in result.graph.objects]


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (3, "malformed_object"),
        (None, "malformed_object"),
        ([1, 2], "malformed_object"),
        ({"bbox": [0, 0, 1, 1]}, "malformed_object"),
        ({"id": "cat.9"}, "malformed_object"),
        ({"id": 9, "bbox": [0, 0, 1, 1]}, "malformed_object"),
        ({"id": "", "bbox": [0, 0, 1, 1]}, "malformed_object"),
        ({"id": " .9", "bbox": [0, 0, 1, 1]}, "malformed_object"),
        ({"id": "a\nb.9", "bbox": [0, 0, 1, 1]}, "malformed_object"),
        ({"id": "a\x00.9", "bbox": [0, 0, 1, 1]}, "malformed_object"),
        ({"id": "\ud800.9", "bbox": [0, 0, 1, 1]}, "malformed_object"),
        ({"id": "a" * (MAX_LABEL + 1), "bbox": [0, 0, 1, 1]}, "malformed_object"),
        ({"id": "man.1", "bbox": [0, 0, 1, 1]}, "duplicate_id"),
        ({"id": "cat.9", "bbox": None}, "bad_box"),
        ({"id": "cat.9", "bbox": [0, 0, 1]}, "bad_box"),
        ({"id": "cat.9", "bbox": [0, 0, 1, 1, 1]}, "bad_box"),
        ({"id": "cat.9", "bbox": {"x": 1}}, "bad_box"),
        ({"id": "cat.9", "bbox": "0 0 1 1"}, "bad_box"),
        ({"id": "cat.9", "bbox": ["0", "0", "1", "1"]}, "bad_box"),
        ({"id": "cat.9", "bbox": [False, False, True, True]}, "bad_box"),
        ({"id": "cat.9", "bbox": [0, 0, 1, [1]]}, "bad_box"),
        ({"id": "cat.9", "bbox": [0, 0, 1, None]}, "bad_box"),
        ({"id": "cat.9", "bbox": [0, 0, float("nan"), 1]}, "bad_box"),
        ({"id": "cat.9", "bbox": [0, 0, float("inf"), 1]}, "bad_box"),
        ({"id": "cat.9", "bbox": [float("-inf"), 0, 1, 1]}, "bad_box"),
        ({"id": "cat.9", "bbox": [0, 0, 1e308, 1]}, "bad_box"),
        ({"id": "cat.9", "bbox": [0, 0, 10**40, 1]}, "bad_box"),
        ({"id": "cat.9", "bbox": [5, 5, 5, 9]}, "no_area"),
        ({"id": "cat.9", "bbox": [9, 5, 5, 9]}, "no_area"),
        ({"id": "cat.9", "bbox": [5, 9, 9, 5]}, "no_area"),
    ],
)
def test_a_bad_object_is_dropped_and_the_rest_kept(raw, kind):
    result = read([MAN, raw, BIKE], [RIDES])
    assert kinds(result) == [(kind, "objects[1]")]
    assert labels(result) == ["man", "bike"]
    assert [result.graph.triplet(r) for r in result.graph.relations] == [("man", "riding", "bike")]
    strict = read([MAN, raw, BIKE], [RIDES], strict=True)
    assert (strict.status, strict.graph, strict.issues) == ("wrong_schema", None, result.issues)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        ("man.1 riding bike.2", "malformed_relation"),
        (["man.1", "riding", "bike.2"], "malformed_relation"),
        ({"subject": "man.1", "object": "bike.2"}, "malformed_relation"),
        ({"subject": "man.1", "predicate": " ", "object": "bike.2"}, "malformed_relation"),
        ({"subject": "man.1", "predicate": 3, "object": "bike.2"}, "malformed_relation"),
        ({"subject": 1, "predicate": "on", "object": "bike.2"}, "malformed_relation"),
        ({"subject": ["man.1"], "predicate": "on", "object": "bike.2"}, "malformed_relation"),
        ({"subject": "man.1", "predicate": "on", "object": "car.3"}, "dangling_relation"),
        ({"subject": "man", "predicate": "on", "object": "bike.2"}, "dangling_relation"),
        ({"subject": "man.1 ", "predicate": "on", "object": "bike.2"}, "dangling_relation"),
        ({"subject": "MAN.1", "predicate": "on", "object": "bike.2"}, "dangling_relation"),
        ({"subject": "man.1", "predicate": "on", "object": "man.1"}, "self_relation"),
        ({"subject": "man.1", "predicate": " riding", "object": "bike.2"}, "duplicate_relation"),
    ],
)
def test_a_bad_relation_is_dropped_and_the_rest_kept(raw, kind):
    result = read([MAN, BIKE], [RIDES, raw])
    assert kinds(result) == [(kind, "relationships[1]")]
    assert len(result.graph.relations) == 1
    assert read([MAN, BIKE], [RIDES, raw], strict=True).status == "wrong_schema"


def test_the_same_pair_may_have_two_predicates_and_both_directions():
    more = [RIDES, RIDES | {"predicate": "on"}, {"subject": "bike.2", "predicate": "riding", "object": "man.1"}]
    assert len(read([MAN, BIKE], more, strict=True).graph.relations) == 3


def test_a_reference_to_a_dropped_object_dangles():
    bad = MAN | {"bbox": [3, 3, 3, 3]}
    result = read([bad, BIKE], [RIDES])
    assert kinds(result) == [("no_area", "objects[0]"), ("dangling_relation", "relationships[0]")]


def test_an_id_stays_with_its_first_object_even_if_that_is_dropped():
    result = read([{"id": "man.1"}, MAN, BIKE], [RIDES])
    assert [kind for kind, _ in kinds(result)] == ["malformed_object", "duplicate_id", "dangling_relation"]


def test_closed_vocabularies_compare_exactly():
    output_format = OutputFormat("json", box_format="pixels", objects=("man", "bike"), predicates=("riding",))
    objects = [MAN, BIKE, {"id": "Man.3", "bbox": [0, 0, 5, 5]}, {"id": " man .4", "bbox": [0, 0, 5, 5]}]
    result = read(objects, [RIDES, RIDES | {"predicate": "Riding"}], output_format)
    assert kinds(result) == [("unknown_label", "objects[2]"), ("unknown_predicate", "relationships[1]")]
    assert labels(result) == ["man", "bike", "man"]


def test_a_relation_of_an_object_outside_the_vocabulary_is_well_formed():
    """R1-SGG's evaluator skips it with its object; a relation of an object that never was is invalid there."""
    output_format = OutputFormat("json", box_format="pixels", objects=("man",))
    edges = [RIDES, RIDES | {"object": "cat.9"}, {"subject": "bike.2", "predicate": "on", "object": "cat.9"}]
    result = read([MAN, BIKE], edges, output_format)
    assert [kind for kind, _ in kinds(result)] == [
        "unknown_label",
        "unknown_end",
        "dangling_relation",
        "dangling_relation",
    ]
    compact = OutputFormat("compact", box_format="pixels", objects=("man",))
    result = parse_answer("man 0 0 9 9\nbike 5 5 20 20\n\n1 on 2\n1 on 3\nend", compact, IMAGE_WH)
    assert [kind for kind, _ in kinds(result)] == ["unknown_label", "unknown_end", "dangling_relation"]


def test_labels_lose_outer_and_repeated_white_space_and_nothing_else():
    result = read([{"id": "  Red  Ball.1", "bbox": [0, 0, 5, 5]}, {"id": "tree", "bbox": [0, 0, 5, 5]}])
    assert labels(result) == ["Red Ball", "tree"]


def test_elements_beyond_the_bound_are_one_issue():
    objects = [{"id": f"a.{n}", "bbox": [0, 0, 5, 5]} for n in range(MAX_OBJECTS + 3)]
    relations = [{"subject": "a.0", "predicate": f"p{n}", "object": "a.1"} for n in range(MAX_RELATIONS + 2)]
    result = read(objects, relations)
    assert kinds(result) == [("too_many", f"objects[{MAX_OBJECTS}:]"), ("too_many", f"relationships[{MAX_RELATIONS}:]")]
    assert (result.num_dropped_objects, result.num_dropped_relations) == (3, 2)
    assert (len(result.graph.objects), len(result.graph.relations)) == (MAX_OBJECTS, MAX_RELATIONS)
    lines = [f"a 0 0 5 {n + 1}" for n in range(MAX_OBJECTS + 3)] + [""]
    lines += [f"1 p{n}q 2" for n in range(MAX_RELATIONS + 2)] + ["end"]
    result = parse_answer("\n".join(lines), COMPACT, IMAGE_WH)
    assert [issue.kind for issue in result.issues] == ["too_many", "too_many"]
    assert (result.num_dropped_objects, result.num_dropped_relations) == (3, 2)
    assert (len(result.graph.objects), len(result.graph.relations)) == (MAX_OBJECTS, MAX_RELATIONS)
    many = [{"bbox_2d": [0, 0, 5, 5], "label": "a"}] * (MAX_OBJECTS + 1)
    result = parse_answer(json.dumps(many), DETECTIONS, IMAGE_WH)
    assert kinds(result) == [("too_many", f"detections[{MAX_OBJECTS}:]")]
    assert (result.num_dropped_objects, result.num_dropped_relations) == (1, 0)


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (3, "malformed_object"),
        ({"label": "cat"}, "malformed_object"),
        ({"bbox_2d": [0, 0, 5, 5]}, "malformed_object"),
        ({"bbox_2d": [0, 0, 5, 5], "label": None}, "malformed_object"),
        ({"bbox_2d": [0, 0, 5], "label": "cat"}, "bad_box"),
        ({"bbox_2d": ["0", 0, 5, 5], "label": "cat"}, "bad_box"),
        ({"bbox_2d": [5, 0, 5, 5], "label": "cat"}, "no_area"),
        ({"point_2d": [5, 5], "label": "cat"}, "point"),
        ({"bbox_2d": [0, 0, 5, 5], "label": "dog"}, "unknown_label"),
    ],
)
def test_a_bad_detection_is_dropped_and_the_rest_kept(raw, kind):
    output_format = OutputFormat("detections", box_format="pixels", objects=("cat", "red ball"))
    ball = {"bbox_2d": [1, 2, 3, 4], "label": " red ball "}
    result = parse_answer(json.dumps([ball, raw, ball]), output_format, IMAGE_WH)
    assert kinds(result) == [(kind, "detections[1]")]
    assert labels(result) == ["red ball", "red ball"]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("cat", "malformed_object"),
        ("10 20 30 40", "malformed_object"),
        ("cat 10 20 30", "bad_box"),
        ("cat 10 20 nan 40", "bad_box"),
        ("cat 10 20 1e400 40", "bad_box"),
        ("cat -inf 20 30 40", "bad_box"),
        ("cat 10 20 3e9 40", "bad_box"),
        ("cat 10 2x 30 40", "bad_box"),
        ("cat 1_0 20 30 4_0", "malformed_object"),
        ("cat ١ ٢ ٣ ٤", "malformed_object"),
        ("cat 10 20 5 40", "no_area"),
        ("cow 10 20 30 40", "unknown_label"),
    ],
)
def test_a_bad_object_line_keeps_its_number(line, kind):
    output_format = OutputFormat("compact", box_format="pixels", objects=("man", "cat", "bike"))
    text = f"man 0 0 9 9\n{line}\nbike 5 5 20 20\n\n1 riding 3\n2 under 1\nend"
    result = parse_answer(text, output_format, IMAGE_WH)
    end = "unknown_end" if kind == "unknown_label" else "dangling_relation"
    assert kinds(result) == [(kind, "line 2"), (end, "line 6")]
    assert [result.graph.triplet(r) for r in result.graph.relations] == [("man", "riding", "bike")]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("1 riding", "malformed_relation"),
        ("man riding bike", "malformed_relation"),
        ("1 2", "malformed_relation"),
        ("1.0 riding 2", "malformed_relation"),
        ("1 riding 9999999999", "malformed_relation"),
        ("1 riding 3", "dangling_relation"),
        ("0 riding 1", "dangling_relation"),
        ("2 on 2", "self_relation"),
        ("1 riding 2", "duplicate_relation"),
        ("1 eats 2", "unknown_predicate"),
    ],
)
def test_a_bad_relation_line_is_dropped(line, kind):
    output_format = OutputFormat("compact", box_format="pixels", predicates=("riding", "on"))
    result = parse_answer(f"man 0 0 9 9\nbike 5 5 20 20\n\n1 riding 2\n{line}\nend", output_format, IMAGE_WH)
    assert kinds(result) == [(kind, "line 5")]
    assert len(result.graph.relations) == 1


@pytest.mark.parametrize(
    "text",
    [
        "man 0 0 9 9\nbike 5 5 20 20\n1 riding 2\nend",
        "man 0 0 9 9\n\nbike 5 5 20 20\n\n\n1 riding 2\n\nend\n",
        "  man 0 0 9 9\r\nbike   5 5 20 20\r\n\r\n1  riding  2\r\nend\r\n",
        "man 0 0 9 9\n1 riding 2\nbike 5.0 5e0 +20 20\nend",
    ],
)
def test_compact_allows_blank_lines_spaces_and_any_order(text):
    result = parse_answer(text, COMPACT, IMAGE_WH, strict=True)
    assert [result.graph.triplet(r) for r in result.graph.relations] == [("man", "riding", "bike")]
    assert result.in_template


def test_labels_and_predicates_may_hold_numbers_in_compact():
    text = "2 door car 0 0 9 9\nhighway 66 5 5 20 20\n\n1 2 feet from 2\nend"
    result = parse_answer(text, COMPACT, IMAGE_WH, strict=True)
    assert [result.graph.triplet(r) for r in result.graph.relations] == [("2 door car", "2 feet from", "highway 66")]


@pytest.mark.parametrize("value", ["\x00" * 500, "\ud800" * 500, "<script>" * 500, [[[[[["x"]]]]]] * 99, {"a": 10**40}])
def test_excerpts_are_short_and_can_be_written_to_a_file(value):
    result = read([MAN, value, {"id": value, "bbox": [0, 0, 1, 1]}], [value])
    assert len(result.issues) == 3
    for issue in result.issues:
        assert len(issue.detail) <= MAX_EXCERPT
        assert issue.detail.isprintable()
        issue.detail.encode("utf-8")


def test_every_issue_kind_has_a_case_here():
    source = Path(__file__).read_text(encoding="utf-8")
    assert [kind for kind in ISSUES if f'"{kind}"' not in source] == []


def test_every_dropped_element_is_an_object_or_a_relation():
    for kind in ISSUES:
        result = ParseResult("ok", SceneGraph(), (Issue(kind, "objects[3:]", "4 elements beyond the bound"),))
        expected = {"too_many": (4, 0)}.get(kind, (1, 0) if kind in OBJECT_ISSUES else (0, 1))
        assert (result.num_dropped_objects, result.num_dropped_relations) == expected
    # a kind from another version's file, and an answer that failed as a whole, drop nothing that could be counted
    assert ParseResult("ok", SceneGraph(), (Issue("novel", ""),)).num_dropped_relations == 0
    assert ParseResult("wrong_schema", None, (Issue("no_area", ""),)).num_dropped_objects == 0
