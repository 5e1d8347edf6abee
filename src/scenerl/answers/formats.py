"""The registry of answer formats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scenerl.answers import compact, detections, json_graph
from scenerl.answers.elements import GraphBuilder, Reading

Writer = Callable[[Sequence[str], Sequence[list], Sequence[tuple[int, str, int]]], str]


@dataclass(frozen=True, slots=True)
class Format:
    """``write(labels, boxes, relations)`` gives the text, ``read(body, builder)`` fills a graph builder from text, and
    ``instruction`` describes the format in a prompt. ``graph``: it holds relations."""

    meaning: str
    write: Writer
    read: Callable[[str, GraphBuilder], Reading]
    instruction: str
    graph: bool


FORMATS: dict[str, Format] = {
    "json": Format(
        "scene graph in R1-SGG's JSON", json_graph.write, json_graph.read, json_graph.INSTRUCTION, graph=True
    ),
    "compact": Format("scene graph in lines", compact.write, compact.read, compact.INSTRUCTION, graph=True),
    "detections": Format(
        "boxes with labels in VLM-R1's JSON", detections.write, detections.read, detections.INSTRUCTION, graph=False
    ),
}
"""Format name to what it is."""
