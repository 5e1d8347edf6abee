"""Random scene graphs that can be said in every format."""

from __future__ import annotations

from hypothesis import strategies as st

from scenerl.answers.compact import split_object
from scenerl.answers.elements import clean_label
from scenerl.answers.template import TAGS
from scenerl.types import Relation, SceneGraph, SceneObject

IMAGE_WH = (640, 427)
INPUT_WH = (644, 420)


def _sayable(text: str) -> bool:
    return clean_label(text) == text and not any(tag in text for tag in TAGS)


labels = st.one_of(
    st.sampled_from(["person", "traffic light", "no. 1", "end", "None", "st.1.2", "7", '{"', "route 66", "é", "犬"]),
    st.text(min_size=1, max_size=12).filter(_sayable),
)
predicates = labels.filter(lambda name: split_object(f"1 {name} 2") is None)


@st.composite
def boxes(draw):
    x1, x2 = sorted(draw(st.tuples(st.floats(0, IMAGE_WH[0]), st.floats(0, IMAGE_WH[0]))))
    y1, y2 = sorted(draw(st.tuples(st.floats(0, IMAGE_WH[1]), st.floats(0, IMAGE_WH[1]))))
    return x1, y1, max(x2, x1 + 0.01), max(y2, y1 + 0.01)


@st.composite
def graphs(draw, with_relations: bool = True):
    objects = tuple(SceneObject(*item) for item in draw(st.lists(st.tuples(labels, boxes()), max_size=8)))
    relations: dict[tuple, None] = {}
    if with_relations and len(objects) > 1:
        index = st.integers(0, len(objects) - 1)
        for subject, predicate, object_ in draw(st.lists(st.tuples(index, predicates, index), max_size=8)):
            if subject != object_:
                relations[subject, predicate, object_] = None
    return SceneGraph(objects, tuple(Relation(*relation) for relation in relations))
