"""One question about one picture put to one checkpoint: what the page shows and what it lets a person download."""

from __future__ import annotations

from dataclasses import asdict

from scenerl.answers import OutputFormat
from scenerl.answers.dialogue import Conversation
from scenerl.app.asks import Ask, output_format_of
from scenerl.app.pictures import Picture
from scenerl.inference.confidence import score_graph
from scenerl.inference.engine import Reply, Sampling
from scenerl.inference.hf import HFEngine
from scenerl.predictions.merge import merge_graphs
from scenerl.predictions.merge_file import merged_row
from scenerl.predictions.row import prediction_row
from scenerl.types import Example, ParseResult, SceneGraph

TOP_P = 0.9
"""Of sampled answers, as in the examples of the README."""


def answer(ask: Ask, picture: Picture, engine: HFEngine, saved: OutputFormat | None) -> dict:
    """``answers``: a row per answer as ``predict --logprobs`` writes it; ``result``: the row that counts, which is the
    only one or what ``merge`` makes of several; ``style``, ``prompt``: how the checkpoint was asked.

    Args:
        engine: its sampling is set to that of the question.
        saved: the style that the checkpoint was trained with.

    Raises:
        UserError: the model takes no image of this shape, or cannot be asked or held to a form like this.
    """
    checkpoint = engine.checkpoint
    conversation = checkpoint.conversation(output_format_of(ask, saved, checkpoint.family.box_format))
    query = ask.labels if ask.task == "det" else None
    example = Example(ask.name or "image", *picture.image_wh, SceneGraph(), query=query)
    input_wh = conversation.input_wh(example)
    messages = conversation.prompt(example, picture.image)
    shapes = {"shapes": [conversation.grammar_spec(example)]} if ask.constrain else {}
    engine.sampling = _sampling(ask)
    rows, results = [], []
    for sample, reply in enumerate(engine.answer([messages], ask.seed, **shapes)[0]):
        row, result = _row(conversation, example, reply, input_wh, sample)
        rows.append(row)
        results.append(result)
    result = rows[0]
    if len(rows) > 1:
        result = merged_row(rows, results, merge_graphs([item.graph for item in results]))
    return {
        "result": result,
        "answers": rows,
        "style": asdict(conversation.output_format),
        "prompt": messages[0]["content"][-1]["text"],
    }


def _sampling(ask: Ask) -> Sampling:
    if ask.num_samples == 1:
        return Sampling(ask.max_new_tokens, logprobs=True)
    return Sampling(ask.max_new_tokens, ask.temperature, TOP_P, num_samples=ask.num_samples, logprobs=True)


def _row(
    conversation: Conversation, example: Example, reply: Reply, input_wh: tuple[int, int], sample: int
) -> tuple[dict, ParseResult]:
    """The row of one answer, and the parse with scores."""
    result = conversation.parse(reply.text, example, truncated=reply.finish_reason == "length")
    confidence = None
    if result.graph is not None:
        confidence = score_graph(result.graph, conversation.locate(reply.text, example), reply)
    row = prediction_row(example, result, reply, conversation.output_format, input_wh, sample, confidence)
    return row, result if confidence is None else ParseResult("ok", confidence.graph, result.issues)
