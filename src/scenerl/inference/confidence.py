"""How sure a model was of each element of its answer: from log-probabilities of tokens to scores."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

from scenerl.answers import Located
from scenerl.answers.locate import Places
from scenerl.inference.engine import Reply
from scenerl.types import SceneGraph

Parts = dict[str, float] | None
"""Name of a part (``label``, ``box``, ``subject``, ``predicate``, ``object``) to the sum of the log-probabilities of
its tokens; None where the element's tokens are unknown."""


@dataclass(frozen=True, slots=True)
class Confidence:
    """A graph with scores in [0, 1], and the parts that they come from, one for each object and relation."""

    graph: SceneGraph
    objects: tuple[Parts, ...]
    relations: tuple[Parts, ...]


def score_graph(graph: SceneGraph, located: Located, reply: Reply) -> Confidence:
    """Give every element of an answer's graph a score.

    A token belongs to a part of an element when it wrote any of the part's characters; one that wrote of both label and
    box counts for the label only. With L a sum of log-probabilities over a part's tokens:

    - object: exp(L(label) + L(box) / 4), the label's probability times the geometric mean of its coordinates'.
    - relation: exp(L(predicate)) times the scores of its subject and object. The tokens that name these two are parts
      of their own and do not count: they say which relation comes next, which is open where several are true.

    An element whose tokens are unknown, or whose log-probabilities are not finite, gets score 0: next to it, one
    without a score would rank first.

    Args:
        graph: what the parser made of the reply. located: where in its text the elements stand.
        reply: with ``logprobs``.
    """
    tokens = _Tokens(reply)
    objects = tuple(map(tokens.parts, located.objects))
    relations = tuple(tokens.parts(item, shared=True) for item in located.relations)
    scores = [0.0 if parts is None else math.exp(parts["label"] + parts["box"] / 4) for parts in objects]
    of_predicates = [0.0 if parts is None else math.exp(parts["predicate"]) for parts in relations]
    scored = SceneGraph(
        tuple(item._replace(score=score) for item, score in zip(graph.objects, scores, strict=True)),
        tuple(
            item._replace(score=score * scores[item.subject] * scores[item.object])
            for item, score in zip(graph.relations, of_predicates, strict=True)
        ),
    )
    return Confidence(scored, objects, relations)


class _Tokens:
    """The tokens of a reply, in the order of the characters that they wrote."""

    def __init__(self, reply: Reply):
        written = zip(reply.spans or (), reply.logprobs or (), strict=reply.spans is not None)
        self._tokens = [(*span, logprob) for span, logprob in written if span[1] > span[0]]
        self._ends = [end for _, end, _ in self._tokens]

    def parts(self, wanted: Places | None, shared: bool = False) -> Parts:
        """Sums over parts in the order of the text; unless ``shared``, a token counts for the first part only."""
        if wanted is None or not self._tokens:
            return None
        found, first = {}, 0
        for name, spans in wanted.items():
            total = 0.0
            first = 0 if shared else first
            for start, end in spans:
                first = max(first, bisect_right(self._ends, start))
                while first < len(self._tokens) and self._tokens[first][0] < end:
                    total += min(self._tokens[first][2], 0.0)
                    first += 1
            found[name] = total
        return found if all(map(math.isfinite, found.values())) else None
