"""Boxes as model families write them. Answers are real ones or follow their source; docs/answers.md names it."""

from __future__ import annotations

import pytest

from scenerl.answers import OutputFormat, locate_elements, parse_answer

SQUARE = (1000, 1000)
"""An image on which 0 to 1000 is pixels."""


def read(fmt, text, image_wh=SQUARE, **options):
    return parse_answer(text, OutputFormat(fmt, **options), image_wh)


def found(fmt, text, image_wh=SQUARE, **options):
    result = read(fmt, text, image_wh, **options)
    assert result.ok and not result.issues, result
    return [(item.label, pytest.approx(item.box)) for item in result.graph.objects]


DOG, CAT = ("dog", (100, 200, 300, 400)), ("cat", (500, 600, 700, 800))
TWO = {
    "qwen2-vl": "<|object_ref_start|>dog<|object_ref_end|><|box_start|>(100,200),(300,400)<|box_end|>"
    "<|object_ref_start|> cat <|object_ref_end|><|box_start|>(500,600),(700,800)<|box_end|>",
    "internvl": "<ref>dog</ref><box>[[100, 200, 300, 400]]</box><ref>cat</ref><box>[[500, 600, 700, 800]]</box>",
    "glm-4v": 'Here: <|begin_of_box|>[{"bbox_2d": [100, 200, 300, 400], "label": "dog"}, '
    '{"bbox_2d": [500,600,700,800], "label": "cat"}]<|end_of_box|>',
    # numbers from 0 to 999: 999 is the edge
    "deepseek-vl2": "<|ref|>dog<|/ref|><|det|>[[100, 200, 300, 400]]<|/det|><|ref|>cat<|/ref|><|det|>[[500, 600, 700, "
    "800]]<|/det|>",
    "rex-omni": "<|object_ref_start|>dog<|object_ref_end|><|box_start|><100><200><300><400><|box_end|>, "
    "<|object_ref_start|>cat<|object_ref_end|><|box_start|><500><600><700><800><|box_end|>",
    "gemini": '```json\n[{"box_2d": [200, 100, 400, 300], "label": "dog"}, '
    '{"box_2d": [600, 500, 800, 700], "label": "cat"}]\n```',
    # bins of 1/1000, whose middle counts
    "florence-2": "</s><s>dog<loc_100><loc_200><loc_300><loc_400>cat<loc_500><loc_600><loc_700><loc_800></s>",
    # y before x, in 1024ths
    "paligemma": "<loc0200><loc0100><loc0400><loc0300> dog ; <loc0600><loc0500><loc0800><loc0700> cat",
}
SIDE = {"deepseek-vl2": 999, "rex-omni": 999, "paligemma": 1024}
SHIFT = {"florence-2": 0.5}


@pytest.mark.parametrize("fmt", TWO)
def test_two_objects(fmt):
    side = (SIDE.get(fmt, 1000),) * 2
    expected = [(label, tuple(value + SHIFT.get(fmt, 0) for value in box)) for label, box in (DOG, CAT)]
    assert found(fmt, TWO[fmt], side) == expected
    # width and height count for x and y each
    (_, box), *_ = found(fmt, TWO[fmt], (2 * side[0], side[1] / 2))
    assert box == tuple(value * factor for value, factor in zip(expected[0][1], (2, 0.5, 2, 0.5), strict=True))


@pytest.mark.parametrize("fmt", TWO)
def test_reasoning_around_it_and_nothing_found(fmt):
    assert len(found(fmt, f"<think>a dog [1] <box> and</think><answer>{TWO[fmt]}</answer>", template="think")) == 2
    assert found(fmt, "None") == []
    assert read(fmt, "I see a dog.").status in ("wrong_schema", "invalid_json")
    assert read(fmt, "").status == "empty"


@pytest.mark.parametrize("fmt", TWO)
def test_what_breaks_off_is_truncated(fmt):
    text = TWO[fmt]
    end = text.rindex("700") + 2
    assert read(fmt, text[:end]).status == "truncated", text[:end]


def test_kosmos():
    """The example of transformers' documentation, and its boxes."""
    text = (
        "<grounding> An image of<phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object> "
        "warming himself by<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>."
    )
    assert found("kosmos-2", text, (1, 1)) == [
        ("a snowman", (0.390625, 0.046875, 0.984375, 0.828125)),
        ("a fire", (0.171875, 0.015625, 0.484375, 0.890625)),
    ]
    # two corners in one row: all of both cells; several boxes of a phrase
    several = (
        "<phrase>dogs</phrase><object><patch_index_0000><patch_index_0001></delimiter_of_multi_objects/>"
        "<patch_index_0033><patch_index_0066></object>"
    )
    assert found("kosmos-2", several, (32, 32)) == [("dogs", (0, 0, 2, 1)), ("dogs", (1.5, 1.5, 2.5, 2.5))]
    assert [issue.kind for issue in read("kosmos-2", several.replace("0033", "1024")).issues] == ["bad_box"]
    assert read("kosmos-2", several[: several.rindex("<patch")]).status == "truncated"


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ("[[1, 2, 30, 40], [5, 6, 70, 80]]", [(1, 2, 30, 40), (5, 6, 70, 80)]),
        ("[1,2,30,40]", [(1, 2, 30, 40)]),
        ("(1,2),(30,40)", [(1, 2, 30, 40)]),
        ("(1,2),(30,40)(5,6),(70,80)", [(1, 2, 30, 40), (5, 6, 70, 80)]),
        ("1 2 30 40", [(1, 2, 30, 40)]),
        ("[[0.5, 2.25, 30, 40]]", [(0.5, 2.25, 30, 40)]),
        ("[[.5, 2.25e0, 3e1, 40.]]", [(0.5, 2.25, 30, 40)]),
        ("1,2,30,40; 5,6,70,80", [(1, 2, 30, 40), (5, 6, 70, 80)]),
        ("None", []),
        ("[]", []),
        ("", []),
    ],
)
def test_boxes_in_tags(boxes, expected):
    text = f"The <ref>big dog</ref><box>{boxes}</box> sleeps."
    assert found("internvl", text) == [("big dog", box) for box in expected]


def test_what_is_no_box_in_tags_is_an_issue():
    text = "<ref>dog</ref><box>[[1, 2, 30, 40], [1, 2, 3], [1, 2], [9, 9, 1, 1]]</box><box>[[5, 5, 9, 9]]</box>"
    result = read("internvl", text)
    assert [item.label for item in result.graph.objects] == ["dog", "dog"]
    assert [issue.kind for issue in result.issues] == ["bad_box", "point", "no_area"]
    assert read("internvl", "<box>[[1, 2, 30, 40]]</box>").issues[0].kind == "malformed_object"


@pytest.mark.parametrize(
    ("fmt", "text"),
    [
        ("glm-4v", "It is at <|begin_of_box|>[[94,598,177,991]]<|end_of_box|>."),  # an answer of GLM-4.6V
        ("internvl", "<box>[[94,598,177,991]]</box>"),
        ("detections", "[94, 598, 177, 991]"),
        ("detections", "[[94, 598, 177, 991]]"),
        ("detections", '{"bbox_2d": [94, 598, 177, 991]}'),
    ],
)
def test_a_box_without_a_label_has_the_only_one_that_was_requested(fmt, text):
    assert found(fmt, text, objects=("bottle",)) == [("bottle", (94, 598, 177, 991))]
    for objects in (None, ("bottle", "dog")):
        result = read(fmt, text, objects=objects)
        assert not result.ok or not result.graph.objects


def test_rex_omni_lists_boxes_behind_a_label_and_points_are_none():
    text = (
        "<|object_ref_start|>person<|object_ref_end|><|box_start|><0><35><980><999>, <646><0><999><940><|box_end|>, "
        "<|object_ref_start|>nose<|object_ref_end|><|box_start|><540><351><|box_end|>"
    )
    result = read("rex-omni", text, (999, 999))
    assert [item.box for item in result.graph.objects] == [(0, 35, 980, 999), (646, 0, 999, 940)]
    assert [issue.kind for issue in result.issues] == ["point"] and result.in_template


def test_location_tokens_go_with_their_label():
    text = "car<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8>a door<loc_9><loc_9><loc_99><loc_99>"
    assert [label for label, _ in found("florence-2", text)] == ["car", "car", "a door"]
    masks = " ".join("<seg001>" for _ in range(16))
    text = f"<loc0001><loc0002><loc0003><loc0004> {masks} red car\n<loc0001><loc0002><loc0003><loc0004>dog;"
    assert [label for label, _ in found("paligemma", text)] == ["red car", "dog"]
    assert [issue.kind for issue in read("florence-2", "a<loc_1><loc_2><loc_3>b" + text).issues] == ["bad_box"]


@pytest.mark.parametrize(
    "fmt", ["qwen2-vl", "internvl", "deepseek-vl2", "rex-omni", "glm-4v", "florence-2", "paligemma"]
)
def test_tags_in_upper_case(fmt):
    text = TWO[fmt].upper()
    text = text.replace("DOG", "dog").replace("CAT", "cat").replace("BBOX_2D", "bbox_2d").replace("LABEL", "label")
    assert read(fmt, text).graph == read(fmt, TWO[fmt]).graph and len(found(fmt, text)) == 2


@pytest.mark.parametrize("fmt", ["qwen2-vl", "internvl", "deepseek-vl2", "rex-omni"])
def test_a_label_in_tags_may_hold_a_less_than_sign(fmt):
    assert found(fmt, TWO[fmt].replace("dog", "a < b <3"))[0][0] == "a < b <3"


def test_a_part_of_a_tag_at_the_end_is_cut_off():
    assert read("qwen2-vl", TWO["qwen2-vl"] + "<|object_ref_start|>cow<|object_ref_end|><|box_s").status == "truncated"
    assert len(found("internvl", TWO["internvl"] + " and <")) == 2


def test_qwen2_vl_without_its_special_tokens():
    text = "dog(100,200),(300,400)(1,2),(3,4)\ncat: (500,600),(700,800)"
    assert found("qwen2-vl", text) == [DOG, ("dog", (1, 2, 3, 4)), CAT]
    assert found("qwen2-vl", "(100,200),(300,400)", objects=("dog",)) == [DOG]
    assert [issue.kind for issue in read("qwen2-vl", "(100,200),(300,400)").issues] == ["malformed_object"]


def test_sentences_of_qwen2_vl_without_its_special_tokens():
    text = "The dog is at (100,200),(300,400) and a cat is at (500,600),(700,800)."
    for objects in (None, ("dog", "cat")):
        assert found("qwen2-vl", text, objects=objects) == [DOG, CAT]
    text = "I see a dog(100,200),(300,400) and cat(500,600),(700,800)"
    assert found("qwen2-vl", text, objects=("dog", "cat")) == [DOG, CAT]


@pytest.mark.parametrize(
    ("fmt", "text"),
    [
        ("internvl", "A dog<box>[[100, 200, 300, 400]]</box> and a cat<box>[[500, 600, 700, 800]]</box>"),
        ("internvl", "<ref>dog</ref><box>[[100, 200, 300, 400]]</box> and a cat<box>[[500, 600, 700, 800]]</box>"),
        ("qwen2-vl", "dog<|box_start|>(100,200),(300,400)<|box_end|> cat<|box_start|>(500,600),(700,800)<|box_end|>"),
    ],
)
def test_names_that_touch_the_tags_of_a_box(fmt, text):
    assert found(fmt, text) == [DOG, CAT]
    result = read(fmt, text, objects=("cat",))
    assert [(item.label, item.box) for item in result.graph.objects] == [CAT]
    assert [issue.kind for issue in result.issues] == ["unknown_label"]


def test_names_that_touch_the_tags_of_kosmos():
    text = "dog<object><patch_index_0000><patch_index_0033></object>"
    assert found("kosmos-2", text, (32, 32)) == [("dog", (0.5, 0.5, 1.5, 1.5))]
    assert [issue.kind for issue in read("kosmos-2", text, objects=("cat",)).issues] == ["unknown_label"]


def test_names_before_glms_tags():
    text = "dog: <|begin_of_box|>[[100, 200, 300, 400]]<|end_of_box|> and cat <|begin_of_box|>[500,600,700,800]"
    text += "<|end_of_box|>"
    assert found("glm-4v", f"In [1, 2, 3, 4]: {text}", objects=("dog", "cat")) == [DOG, CAT]
    in_box = '<|begin_of_box|>[{"bbox_2d": [100, 200, 300, 400], "label": "a < b"}]<|end_of_box|>'
    assert found("glm-4v", in_box) == [("a < b", DOG[1])]


def test_rex_omni_says_that_nothing_is_there():
    absent = "<|object_ref_start|>cow<|object_ref_end|><|box_start|>None<|box_end|>"
    assert found("rex-omni", absent) == []
    assert len(found("rex-omni", f"{TWO['rex-omni']}, {absent}")) == 2


def test_location_tokens_with_spaces_and_beyond_their_range():
    for fmt in ("florence-2", "paligemma"):
        assert read(fmt, TWO[fmt].replace("><loc", "> <loc")).graph == read(fmt, TWO[fmt]).graph
    for fmt, token in (("florence-2", "<loc_1000>"), ("paligemma", "<loc1024>")):
        last = "<loc_800>" if fmt == "florence-2" else "<loc0800>"
        assert [issue.kind for issue in read(fmt, TWO[fmt].replace(last, token)).issues] == ["bad_box"]


@pytest.mark.parametrize("fmt", TWO)
def test_places(fmt):
    """Of labels and coordinates, where coordinates are numbers in the text."""
    places = locate_elements(f"So: {TWO[fmt]}", OutputFormat(fmt)).objects
    if fmt in ("florence-2", "paligemma"):
        assert places == (None, None)
        return
    text = f"So: {TWO[fmt]}"
    shown = [[text[slice(*span)].strip("<>") for spans in place.values() for span in spans] for place in places]
    assert [label for label, *_ in shown] == ["dog", "cat"]
    assert [sorted(box) for _, *box in shown] == [["100", "200", "300", "400"], ["500", "600", "700", "800"]]


@pytest.mark.parametrize("fmt", TWO)
def test_no_other_format_takes_it_for_its_own(fmt):
    """Two formats that both explain an answer must not differ in its boxes."""
    boxes = found(fmt, TWO[fmt])
    for other in {*TWO, "kosmos-2", "json", "compact", "toon", "detections"} - {fmt}:
        result = read(other, TWO[fmt])
        if result.ok and result.graph.objects:
            assert [(item.label, item.box) for item in result.graph.objects] == boxes, other
