"""Whole answers: typed failures, response templates, text around, second answers, answers that break off."""

from __future__ import annotations

from pathlib import Path

import pytest

from scenerl.answers import TEMPLATES, TRAINED, OutputFormat, build_prompt, parse_answer
from scenerl.types import FAILURES

IMAGE_WH = (100, 100)
DOG = '{"objects": [{"id": "dog.1", "bbox": [0, 0, 10, 10]}], "relationships": []}'
CAT = DOG.replace("dog", "cat")
DOG_BOX = '[{"bbox_2d": [0, 0, 10, 10], "label": "dog"}]'
CAT_BOX = DOG_BOX.replace("dog", "cat")
DOG_LINE = "dog 0 0 10 10\nend"
CAT_LINE = "cat 0 0 10 10\nend"
DOG_TABLE = "obj[1]{id,name,x1,y1,x2,y2}:\n  1,dog,0,0,10,10\nrel[0]{subj,pred,obj}:"
CAT_TABLE = DOG_TABLE.replace("dog", "cat")
ANSWERS = {
    "json": (DOG, CAT),
    "detections": (DOG_BOX, CAT_BOX),
    "compact": (DOG_LINE, CAT_LINE),
    "toon": (DOG_TABLE, CAT_TABLE),
}


def read(text, fmt="json", template="plain", **options):
    return parse_answer(text, OutputFormat(fmt, template, box_format="pixels"), IMAGE_WH, **options)


def label(result):
    assert result.ok, result
    return [item.label for item in result.graph.objects]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("fmt", TRAINED)
def test_no_answer_and_empty(fmt, template):
    assert read(None, fmt, template).status == "no_answer"
    assert read(12, fmt, template).status == "no_answer"
    for text in ("", " \n\t ", "<answer></answer>", "<think>so</think>", "<think></think><answer> \n</answer>"):
        assert read(text, fmt, template).status == "empty", text


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("I see a dog.", "invalid_json"),
        ("12", "wrong_schema"),
        ('"dog"', "wrong_schema"),
        ("null", "wrong_schema"),
        ("NaN", "wrong_schema"),
        ("[]", "wrong_schema"),
        ("{}", "wrong_schema"),
        ('{"objects": []}', "wrong_schema"),
        ('{"relationships": []}', "wrong_schema"),
        ('{"objects": {}, "relationships": []}', "wrong_schema"),
        ('{"objects": [], "relationships": "none"}', "wrong_schema"),
        (f"[{DOG}]", "wrong_schema"),
        (f'{{"answer": {DOG}}}', "wrong_schema"),
        ("Here: [1] {}", "wrong_schema"),
        ("{'objects': [], 'relationships': []}", "invalid_json"),
        ('{"objects": [], "relationships": [],}', "invalid_json"),
        ('{"objects": [] "relationships": []}', "invalid_json"),
        ('{"objects": [{"id": "dog.1", "bbox": [0, 0, 010, 10]}], "relationships": []}', "invalid_json"),
        ('{"objects": [{"id": "a\x00.1", "bbox": [0, 0, 10, 10]}], "relationships": []}', "invalid_json"),
        ('{"objects": [{"id": "a\n.1", "bbox": [0, 0, 10, 10]}], "relationships": []}', "invalid_json"),
        ('{"objects": [{"id": "a\\x.1", "bbox": [0, 0, 10, 10]}], "relationships": []}', "invalid_json"),
        ('```json\n{"objects": [\n```', "invalid_json"),
        ('<answer>{"objects": [</answer>', "invalid_json"),
        (DOG_LINE, "invalid_json"),
        (DOG_BOX, "wrong_schema"),
    ],
)
def test_json_failures(text, status):
    assert read(text).status == status
    assert read(text, truncated=True).status == "truncated"
    assert read(text).graph is None


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("A dog on the left.", "invalid_json"),
        ("None of them is there.", "invalid_json"),
        ("null", "wrong_schema"),
        ("{}", "wrong_schema"),
        ("[1, 2, 3, 4]", "wrong_schema"),
        ("[[1, 2, 3, 4]]", "wrong_schema"),
        ('{"x": 1, "label": "dog"}', "wrong_schema"),
        (DOG, "wrong_schema"),
        # an empty list or a None behind broken JSON is a splinter of it, not "nothing found"
        ('[{"label": dog, "bbox_2d": []}]', "invalid_json"),
        ('[{"label": dog, "bbox_2d": \nNone\n}]', "invalid_json"),
        ("[{'label': 'dog', 'bbox_2d': []}, {'lab", "truncated"),
        ('[{"label": "dog", "bbox_2d": []}, {"lab', "truncated"),
        ('[{"bbox_2d": [0, 0, 10, 10], "label": "dog"}, {"bbox_2d": [0, 0', "truncated"),
        ('[{"bbox_2d": [0, 0, 10, 10] "label": "dog"}]', "invalid_json"),
    ],
)
def test_detection_failures(text, status):
    assert read(text, "detections").status == status


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("A dog on the left.", "wrong_schema"),
        ("A dog on the left.\nend", "wrong_schema"),
        ("1 riding 2\nend", "wrong_schema"),
        (DOG, "wrong_schema"),
        ("dog 0 0 10 10", "truncated"),
        ("dog 0 0 10 10\ncat 5 5", "truncated"),
        ("dog 0 0 10 10\n\n1 chas", "truncated"),
        ("dog 0 0 10 10\nen", "truncated"),
        ("```\ndog 0 0 10 10\n```", "truncated"),
        ("dog 0 0 10 10\n```\nend", "truncated"),
    ],
)
def test_compact_failures(text, status):
    assert read(text, "compact").status == status
    assert read(text, "compact", truncated=True).status == "truncated"


def test_every_prefix_of_an_answer_is_broken_off_not_broken():
    graph = (
        '{"objects": [{"id": "d\\u00e9\\"g.1", "bbox": [-1.5e+1, 0, 10, 10]}, {"id": "b.2", "bbox": [NaN, true, null, '
        'false]}], "relationships": [{"subject": "b.2", "predicate": "on", "object": "a.1"}]}'
    )
    assert read(graph).ok
    for cut in range(1, len(graph)):
        assert read(graph[:cut]).status == "truncated", graph[:cut]
        assert read("Sure:\n```json\n" + graph[:cut]).status == "truncated", graph[:cut]
        assert read(f"<think>ok</think><answer>{graph[:cut]}", template="think").status == "truncated", graph[:cut]
    for cut in range(1, len(DOG_BOX)):
        assert read(DOG_BOX[:cut], "detections").status == "truncated", DOG_BOX[:cut]


@pytest.mark.parametrize("fmt", TRAINED)
def test_the_last_complete_answer_counts(fmt):
    dog, cat = ANSWERS[fmt]
    # Lists of boxes without a tag between them are one answer (tests/answers/test_lists.py).
    drafts = (
        f"{dog}\n{cat}",
        f"```json\n{dog}\n```\nNo, rather:\n```json\n{cat}\n```\nThat is all.",
        f"First thought:\n{dog}\nBetter:\n{cat}\nDone.",
    )
    for text in (
        *(drafts if fmt != "detections" else ()),
        f"<answer>{dog}</answer><answer>{cat}</answer>",
        f"<think>{dog}</think><answer>{cat}</answer> {dog}",
        f"<think>a</think><answer>{dog}</answer><think>b</think><answer>{cat}</answer>",
        f"a thought without its first tag: {dog}</think>\n{cat}",
        f"{cat}\n{dog[:14]}",
        f"<think>a</think><answer>{cat}</answer><answer>{dog[:14]}",
    ):
        for template in TEMPLATES:
            result = read(text, fmt, template)
            assert label(result) == ["cat"], (text, template)
            assert not result.in_template


@pytest.mark.parametrize("fmt", TRAINED)
def test_templates(fmt):
    dog, _ = ANSWERS[fmt]
    fenced = f"```json\n{dog}\n```"
    plain = [dog, f"\n {dog} \n", fenced, f"```\n{dog}\n```", f"```JSON \r\n{dog}\n```"]
    think = [f"<think>so</think><answer>{body}</answer>" for body in plain]
    think += [f" <think></think>\n\n<answer>\n{dog}\n</answer>\n", f"<think>{{ [ ```</think> <answer>{fenced}</answer>"]
    neither = [
        f"Sure:\n{dog}",
        f"{dog}\nDone.",
        f"Sure: {fenced}" if fmt != "compact" else f"Sure:\n{fenced}",
        f"{fenced}\nDone.",
        f"```json\n{dog}",
        f"<answer>{dog}</answer>",
        f"<answer>{dog}",
        f"<think>so</think>{dog}",
        f"<think>so</think><answer>{dog}",
        f"<think>so</think>then<answer>{dog}</answer>",
        f"<think>so</think><answer>{dog}</answer>Done.",
        f"Hm.<think>so</think><answer>{dog}</answer>",
        f"<think>so</think><think>so</think><answer>{dog}</answer>",
        f"<think>so</think><answer>Look:\n{dog}</answer>",
        f"<think>so<answer>{dog}</answer>",
    ]
    for template in TEMPLATES:
        for text in plain + think + neither:
            result = read(text, fmt, template)
            assert label(result) == ["dog"], (text, template)
            assert result.in_template == (text in (plain if template == "plain" else think)), (text, template)


def test_unclosed_reasoning_is_parsed_only_if_the_model_stopped_by_itself():
    text = f"<think>perhaps {DOG}"
    assert label(read(text, template="think")) == ["dog"]
    assert read(text, template="think", truncated=True).status == "truncated"
    assert read("<think>perhaps", template="think").status == "truncated"
    assert read("<think>", template="think").status == "truncated"


def test_a_complete_answer_counts_even_if_the_engine_stopped_later():
    assert label(read(f"{DOG} and so on and", truncated=True)) == ["dog"]
    assert label(read(f"{DOG_LINE}\nand so on", "compact", truncated=True)) == ["dog"]


@pytest.mark.parametrize("text", ["None", " NONE.\n", "```json\nNone\n```", "```\nNone\n```", "[]", "```\n[]```"])
def test_detection_none_is_nothing_found(text):
    result = read(text, "detections", strict=True)
    assert (label(result), result.in_template) == ([], True)
    assert label(read(f"<think>no [dog] here</think><answer>{text}</answer>", "detections", "think")) == []


def test_detection_none_among_other_text():
    assert label(read("I looked. The answer is:\nNone", "detections")) == []
    assert label(read(f"<answer>{DOG_BOX}</answer>Wait.<answer>\nNone\n</answer>", "detections")) == []
    assert label(read(f"{DOG_BOX}\ncat:\nNone", "detections")) == ["dog"]
    assert label(read(f"None\nWait.\n{DOG_BOX}", "detections")) == ["dog"]
    assert not read("The answer is:\nNone", "detections").in_template


def test_braces_and_quotes_in_prose_do_not_mislead():
    for text in (
        f"See [1] and {{this}}: {DOG}",
        f'The "dog [is here: {DOG}',
        f"{{ {DOG} }}",
        f"{DOG}}}]",
        f"[see {DOG}",
        f"It's {{ {{ (' {DOG}",
    ):
        assert label(read(text)) == ["dog"], text


def test_brackets_inside_strings_are_text():
    text = DOG.replace("dog", "]}[{<d>")
    assert label(read(text)) == label(read(f"So: {text}!")) == ["]}[{<d>"]


def test_a_repeated_key_keeps_its_last_value():
    text = '{"objects": [1, 2], "objects": [{"id": "dog.1", "bbox": [9], "bbox": [0, 0, 10, 10]}], "relationships": []}'
    assert label(read(text, strict=True)) == ["dog"]


def test_compact_text_around_is_not_counted_as_objects():
    text = "Here is the graph:\n\ndog 0 0 10 10\ncat 5 5 9 9\n\n1 near 2\nend\nI hope that helps.\n1 near 3"
    result = read(text, "compact", strict=True)
    assert [result.graph.triplet(r) for r in result.graph.relations] == [("dog", "near", "cat")]
    assert not result.in_template


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("fmt", TRAINED)
@pytest.mark.parametrize("step", [1, 20])
def test_a_repeated_prompt_is_no_answer(fmt, template, step):
    output_format = OutputFormat(fmt, template, box_format="norm1000", step=step, objects=("dog", "ball"))
    prompt = build_prompt(output_format)
    assert not parse_answer(prompt, output_format, IMAGE_WH).ok
    dog, _ = ANSWERS[fmt]
    echoed = f"{prompt}\n<think>so</think><answer>{dog}</answer>" if template == "think" else f"{prompt}\n{dog}"
    result = parse_answer(echoed, output_format, IMAGE_WH)
    assert (label(result), result.in_template) == (["dog"], False)


def test_failures_here_are_all_there_are():
    source = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in FAILURES if f'"{name}"' not in source] == []


def test_the_callers_mistakes_do_raise():
    with pytest.raises(ValueError, match="resized"):
        parse_answer(None, OutputFormat(box_format="resized"), IMAGE_WH)
