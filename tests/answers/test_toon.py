"""TOON as an answer format; SceneGraphVLM's files of it are in tests/predictions/test_other_projects.py."""

from __future__ import annotations

import pytest

from scenerl.answers import OutputFormat, build_prompt, locate_elements, parse_answer, write_answer
from scenerl.types import Relation, SceneGraph, SceneObject

PIXELS = OutputFormat("toon", box_format="pixels")
GRAPH = SceneGraph(
    (SceneObject("dog, big", (0, 0, 20, 20)), SceneObject("cat", (50, 50, 90, 90))), (Relation(0, "next to", 1),)
)
TEXT = (
    'obj[2]{id,name,x1,y1,x2,y2}:\n  1,"dog, big",0,0,20,20\n  2,cat,50,50,90,90\nrel[1]{subj,pred,obj}:\n  1,next to,2'
)


def read(text, **options):
    return parse_answer(text, PIXELS, (100, 100), **options)


def test_written_and_read():
    assert write_answer(GRAPH, PIXELS, (100, 100)) == TEXT
    assert read(TEXT, strict=True).graph == GRAPH and read(TEXT).in_template
    assert write_answer(SceneGraph(), PIXELS, (100, 100)) == "obj[0]{id,name,x1,y1,x2,y2}:\nrel[0]{subj,pred,obj}:"


def test_an_empty_table_needs_no_fields():
    """So do TOON's encoders write empty lists."""
    assert read("obj[0]:\nrel[0]:", strict=True).graph == SceneGraph()
    objects = TEXT.partition("rel[")[0]
    assert read(f"{objects}rel[0]:", strict=True).graph == SceneGraph(GRAPH.objects)
    assert read(f"{objects}rel[1]:").status == "truncated"


def test_the_header_says_which_coordinate_is_which():
    text = "obj[1]{id,name,y1,x1,y2,x2}:\n  1,dog,1,2,30,40\nrel[0]{subj,pred,obj}:"
    assert read(text).graph.objects[0].box == (2, 1, 40, 30)
    place = locate_elements(text, PIXELS).objects[0]
    assert [text[slice(*span)] for spans in place.values() for span in spans] == ["dog", "2", "1", "40", "30"]


def test_lines_may_be_separated_otherwise_than_their_header():
    for header in ("obj[2\t]{id,name,x1,y1,x2,y2}:", "obj[2]{id\tname\tx1\ty1\tx2\ty2}:"):
        text = TEXT.replace("obj[2]{id,name,x1,y1,x2,y2}:", header)
        assert read(text, strict=True).graph == GRAPH
    tabs = TEXT.replace("1,next to,2", "1\tnext to\t2").replace("2,cat,50,50,90,90", "2\tcat\t50\t50\t90\t90")
    assert read(tabs, strict=True).graph == GRAPH


def test_half_a_relation_is_an_issue():
    result = read(TEXT.replace("rel[1]", "rel[2]") + "\n  2,on")
    assert result.graph == GRAPH and [issue.kind for issue in result.issues] == ["malformed_relation"]


@pytest.mark.parametrize(
    ("label", "field"),
    [
        ("closet/cabinet", "closet/cabinet"),
        ("window-other", "window-other"),
        ("traffic light", "traffic light"),
        ("a:b", '"a:b"'),
        ("7", '"7"'),
        ("true", '"true"'),
        ('say "hi"', r'"say \"hi\""'),
        ("back\\slash", r'"back\\slash"'),
        ("-", '"-"'),
        ("[x]", '"[x]"'),
    ],
)
def test_names_are_quoted_where_they_must_be(label, field):
    graph = SceneGraph((SceneObject(label, (0, 0, 9, 9)),))
    text = write_answer(graph, PIXELS, (100, 100))
    assert f"  1,{field},0,0,9,9" in text
    assert read(text, strict=True).graph == graph


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("\n", "\r\n"),
        f"```\n{TEXT}\n```",
        "\t" + TEXT.replace("\n", "\n\t"),
        TEXT.replace("obj[2]", "obj [ 2 ]").replace("rel[", "REL["),
        TEXT.replace(",", "\t").replace("dog\t", "dog,").replace("[2]", "[2\t]").replace("[1]", "[1\t]"),
        TEXT.replace(",", "\t").replace("dog\t", "dog,"),
        TEXT.replace(",", "|").replace("dog|", "dog,").replace("[2]", "[2|]").replace("[1]", "[1|]"),
        f"Here it is:\n<answer>\n{TEXT}\n</answer>\nIt has a, b, c, d.",
        f"{TEXT.replace('cat', 'cow')}\n\nNo:\n{TEXT}",
    ],
)
def test_other_spellings(text):
    result = read(text)
    assert result.graph == GRAPH and not result.issues


def test_failures_and_issues():
    assert read(TEXT[: TEXT.index("rel")]).status == "truncated"
    assert read(TEXT[: TEXT.index("rel")] + "</answer>").status == "wrong_schema"
    assert read("obj[2]{id,name,x1,y1,x2,y2}:\nrel[0]{subj,pred,obj}:").status == "wrong_schema"
    assert read("A dog, a cat, a cow.").status == "wrong_schema"
    lines = "\n  3,cow,0,0,x,9\n  4,cow,9,9,0,0\n  2,cow,0,0,9,9\n  five,cow,0,0,9,9\nrel"
    result = read(TEXT.replace("\nrel", lines).replace("1,next to,2", "1,next to,2\n  1,on,3\n  1,on,1\n  1,next to,2"))
    kinds = ["malformed_object", "bad_box", "no_area", "duplicate_id", "dangling_relation", "self_relation"]
    assert sorted(issue.kind for issue in result.issues) == sorted([*kinds, "duplicate_relation"])
    assert result.graph == GRAPH


def test_places():
    found = locate_elements(TEXT, PIXELS)
    parts = [*found.objects, *found.relations]
    assert [[TEXT[slice(*span)] for spans in part.values() for span in spans] for part in parts] == [
        ["dog, big", "0", "0", "20", "20"],
        ["cat", "50", "50", "90", "90"],
        ["1", "next to", "2"],
    ]


def test_the_prompt_shows_the_tables():
    prompt = build_prompt(PIXELS)
    assert "obj[2]{id,name,x1,y1,x2,y2}:\n  1,dog,x1,y1,x2,y2" in prompt and "rel[1]{subj,pred,obj}:" in prompt
    assert not read(prompt).ok
    assert read(f"{prompt}\n{TEXT}").graph == GRAPH
