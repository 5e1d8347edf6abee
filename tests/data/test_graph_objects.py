"""Scene graphs in other tools: networkx, supervision, FiftyOne, RDF and Cypher."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenerl.cli import main
from scenerl.data.graph_files import _quoted, cypher, turtle
from scenerl.data.graph_objects import to_fiftyone, to_networkx, to_supervision
from scenerl.errors import UserError
from scenerl.types import Example, Relation, SceneGraph, SceneObject

GRAPH = SceneGraph(
    (SceneObject("dog", (10, 20, 60, 100), 0.75), SceneObject("red ball", (50, 80, 100, 100), 0.5)),
    (Relation(0, "looking at", 1, 0.25), Relation(0, "near", 1), Relation(1, "near", 0)),
)
EXAMPLE = Example("a/1 é", 200, 100, GRAPH)
EMPTY = Example("empty", 200, 100, SceneGraph())
HOSTILE = "x\"} ) <script> \\u0022 \\ \n\t\x00\x7f ' ` > . \ud800 \u202e"


def test_networkx_keeps_parallel_relations_and_their_direction():
    pytest.importorskip("networkx")
    made = to_networkx(GRAPH)
    assert made.nodes(data=True)[1] == {"label": "red ball", "box": (50, 80, 100, 100), "score": 0.5}
    assert sorted(made.edges(data="predicate")) == [(0, 1, "looking at"), (0, 1, "near"), (1, 0, "near")]
    assert [made.out_degree(place) for place in (0, 1)] == [2, 1]
    assert len(to_networkx(SceneGraph())) == 0


def test_supervision():
    pytest.importorskip("supervision")
    found = to_supervision(GRAPH)
    assert found.xyxy.tolist() == [[10, 20, 60, 100], [50, 80, 100, 100]]
    assert found.confidence.tolist() == [0.75, 0.5] and found.class_id.tolist() == [0, 1]
    assert found["class_name"].tolist() == ["dog", "red ball"]
    assert to_supervision(GRAPH, ["red ball", "cat", "dog"]).class_id.tolist() == [2, 0]
    partly = SceneGraph((GRAPH.objects[0], GRAPH.objects[1]._replace(score=None)))
    assert to_supervision(partly).confidence is None
    empty = to_supervision(SceneGraph())
    assert len(empty) == 0 and empty.xyxy.shape == (0, 4)
    with pytest.raises(UserError, match="'dog' is not among the 1 given"):
        to_supervision(GRAPH, ["cat"])


def test_fiftyone(tmp_path):
    pytest.importorskip("fiftyone")
    example = Example("1", 200, 100, GRAPH, tmp_path / "1.png")
    sample = to_fiftyone(example, SceneGraph(GRAPH.objects[:1]))
    assert sample.filepath == str(tmp_path / "1.png") and sample["image_id"] == "1"
    dog, ball = sample["ground_truth"].detections
    # 10/200, 20/100, (60-10)/200, (100-20)/100
    assert dog.bounding_box == pytest.approx([0.05, 0.2, 0.25, 0.8]) and dog.label == "dog" and dog.index == 0
    assert ball.confidence == 0.5
    first = sample["ground_truth_relations"][0]
    assert (first.subject, first.predicate, first.object) == (0, "looking at", 1)
    assert (first.subject_label, first.object_label, first.confidence) == ("dog", "red ball", 0.25)
    assert len(sample["predictions"].detections) == 1 and sample["predictions_relations"] == []


def test_fiftyone_needs_a_file():
    pytest.importorskip("fiftyone")
    with pytest.raises(UserError, match="needs an image file"):
        to_fiftyone(EXAMPLE)


def test_turtle_by_hand():
    text = "".join(turtle([EXAMPLE, EMPTY]))
    image = "<urn:scenerl:image:a%2F1%20%C3%A9"
    assert f'{image}> a s:Image ; s:id "a/1 é" ; s:width 200 ; s:height 100 .' in text
    box = "s:x1 10.0 ; s:y1 20.0 ; s:x2 60.0 ; s:y2 100.0 ; s:score 0.75"
    assert f'{image}#1> a s:Object ; s:image {image}> ; rdfs:label "dog" ; {box} .' in text
    assert f"{image}#1> <urn:scenerl:predicate:looking%20at> {image}#2> ." in text
    assert text.count("a rdf:Property") == 2  # near is named once, though it stands in two relations
    assert text.count("rdf:Statement") == 1  # of the one with a score
    assert '<urn:scenerl:image:empty> a s:Image ; s:id "empty" ; s:width 200 ; s:height 100 .' in text


@pytest.mark.parametrize("label", ["dog", HOSTILE])
def test_turtle_is_what_rdflib_reads(label):
    rdflib = pytest.importorskip("rdflib")
    graph = SceneGraph((SceneObject(label, (0, 0, 1e-7, 1e20)),) * 2, (Relation(0, label, 1, 0.5),))
    read = rdflib.Graph().parse(data="".join(turtle([Example(label, 3, 4, graph)])), format="turtle")
    expected = label.replace("\ud800", "\ufffd")
    labels = {str(value) for value in read.objects(None, rdflib.RDFS.label)}
    assert labels == {expected}
    (image,) = read.subjects(rdflib.RDF.type, rdflib.URIRef("urn:scenerl:term:Image"))
    assert str(next(read.objects(image, rdflib.URIRef("urn:scenerl:term:id")))) == expected
    assert len(list(read.subjects(rdflib.RDF.type, rdflib.RDF.Statement))) == 1
    ends = [(subject, object_) for subject, predicate, object_ in read if "predicate:" in predicate]
    assert ends == [(rdflib.URIRef(f"{image}#1"), rdflib.URIRef(f"{image}#2"))]


def test_cypher_by_hand():
    first, second = cypher([EXAMPLE, EMPTY])
    assert first == (
        'CREATE (image:Image {id: "a/1 é", width: 200, height: 100}),\n'
        '  (image)-[:SHOWS]->(o1:Object {number: 1, label: "dog", x1: 10.0, y1: 20.0, x2: 60.0, y2: 100.0, '
        "score: 0.75}),\n"
        '  (image)-[:SHOWS]->(o2:Object {number: 2, label: "red ball", x1: 50.0, y1: 80.0, x2: 100.0, y2: 100.0, '
        "score: 0.5}),\n"
        '  (o1)-[:RELATION {predicate: "looking at", score: 0.25}]->(o2),\n'
        '  (o1)-[:RELATION {predicate: "near"}]->(o2),\n'
        '  (o2)-[:RELATION {predicate: "near"}]->(o1);\n'
    )
    assert second == 'CREATE (image:Image {id: "empty", width: 200, height: 100});\n'


@given(st.text() | st.just(HOSTILE))
def test_quoted_text_is_one_string(text):
    """Nothing ends it early, and its escapes give the text back."""
    quoted = _quoted(text)
    assert re.fullmatch(r'"(?:[^"\\\x00-\x1f]|\\[nrt"\\]|\\u[0-9A-F]{4})*"', quoted)
    assert r"\u0022" not in quoted.replace(r"\\", "") and r"\u005C" not in quoted.replace(r"\\", "")
    names = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
    back = re.sub(
        r'\\(u[0-9A-F]{4}|[nrt"\\])',
        lambda found: names.get(found.group(1)) or chr(int(found.group(1)[1:], 16)),
        quoted[1:-1],
    )
    assert back == re.sub("[\ud800-\udfff]", "\ufffd", text)


def test_convert_writes_both(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = "synthetic:count=3,seed=1"
    for kind, suffix, start in (("turtle", "ttl", "@prefix"), ("cypher", "cypher", "CREATE ")):
        assert main(["data", "convert", source, "--to", kind, "--out", f"scenes.{suffix}"]) == 0
        assert Path(f"scenes.{suffix}").read_text().startswith(start)
        assert f"3 rows in scenes.{suffix}" in capsys.readouterr().out
    assert main(["data", "convert", source, "--to", "turtle", "--out", "scenes.rdf"]) == 2
