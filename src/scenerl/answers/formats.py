"""The registry of answer formats: those that models are trained in, and those that other families write.

The second are read by `score`, `eval` and `predict`; docs/answers.md has the source of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from scenerl.answers import compact, detections, json_graph, location_tokens, tagged, toon
from scenerl.answers.elements import GraphBuilder, Reading

Writer = Callable[[Sequence[str], Sequence[list], Sequence[tuple[int, str, int]]], str]


@dataclass(frozen=True, slots=True)
class Format:
    """``read(body, builder)`` fills a graph builder from text.

    Attributes:
        graph: it holds relations.
        write: (labels, boxes, relations) to the text; None where answers are only read.
        instruction: describes the format in a prompt; None where no prompt requests it.
        referring: the same where the box of one object is requested; None: as for any query.
        box_format: in which ``read`` gives boxes where the format fixes it; None: that of the output format.
    """

    meaning: str
    read: Callable[[str, GraphBuilder], Reading]
    graph: bool = False
    write: Writer | None = None
    instruction: str | None = None
    box_format: str | None = None
    referring: str | None = None


def _tagged(family: str, tags: tagged.Tags, shape: str) -> Format:
    box_format = None if tags.largest is None else "norm1"
    instruction = tagged.INSTRUCTION.format(shape) if box_format is None else None
    return Format(f"{family}: {shape}", partial(tagged.read, tags), False, None, instruction, box_format)


FORMATS: dict[str, Format] = {
    "json": Format("scene graph in R1-SGG's JSON", json_graph.read, True, json_graph.write, json_graph.INSTRUCTION),
    "compact": Format("scene graph in lines", compact.read, True, compact.write, compact.INSTRUCTION),
    "detections": Format(
        "boxes with labels in VLM-R1's JSON; Qwen2.5-VL, Qwen3-VL and others write lists like it",
        detections.read,
        False,
        detections.write,
        detections.INSTRUCTION,
        referring=detections.REFERRING_INSTRUCTION,
    ),
    "toon": Format("scene graph in SceneGraphVLM's tables", toon.read, True, toon.write, toon.INSTRUCTION),
    "gemini": Format(
        "Gemini's JSON: box_2d, y before x",
        detections.read_gemini,
        instruction=detections.GEMINI_INSTRUCTION,
        box_format="norm1000",
    ),
    "qwen2-vl": _tagged(
        "Qwen2-VL",
        tagged.QWEN2_VL,
        "<|object_ref_start|>label<|object_ref_end|><|box_start|>(x1,y1),(x2,y2)<|box_end|>",
    ),
    "internvl": _tagged("InternVL, Qwen-VL", tagged.INTERNVL, "<ref>label</ref><box>[[x1, y1, x2, y2]]</box>"),
    "glm-4v": Format("GLM-4.xV: boxes in <|begin_of_box|>", tagged.read_glm),
    "deepseek-vl2": _tagged(
        "DeepSeek-VL2", tagged.DEEPSEEK_VL2, "<|ref|>label<|/ref|><|det|>[[x1, y1, x2, y2]]<|/det|>"
    ),
    "rex-omni": _tagged(
        "Rex-Omni",
        tagged.REX_OMNI,
        "<|object_ref_start|>label<|object_ref_end|><|box_start|><x1><y1><x2><y2><|box_end|>",
    ),
    "kosmos-2": Format("Kosmos-2's <patch_index_0044>", location_tokens.read_kosmos, box_format="norm1"),
    "florence-2": Format("Florence-2's <loc_52>", location_tokens.read_florence, box_format="norm1"),
    "paligemma": Format("PaliGemma's <loc0052>, y before x", location_tokens.read_paligemma, box_format="norm1"),
}
"""Format name to what it is."""

TRAINED = tuple(name for name, fmt in FORMATS.items() if fmt.write is not None)
"""The formats that models are trained in."""
