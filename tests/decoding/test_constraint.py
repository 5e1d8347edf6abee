"""No answer of a player who knows nothing fails to parse, refers to what is not there, or is too long."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from decoding.play import FRAMES, STYLES, parse, play, shape_of, style_of
from scenerl.decoding import constraint_of

IDS = [f"{style.format}-{style.envelope}-{'open' if style.objects is None else 'closed'}" for style in STYLES]


def check(style, tokens, limit, tokenizer) -> None:
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    assert len(tokens) <= limit and tokens[-1] == tokenizer.eos_token_id
    result = parse(text, style)
    assert result.ok and not result.issues and result.in_envelope, (result, text)
    width, height = (
        (640, 427) if style.grid == 1 else (660, 440)
    )  # a frame that is no multiple of the grid is rounded up
    for item in result.graph.objects:
        x1, y1, x2, y2 = item.box
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height, text


@pytest.mark.parametrize("style", STYLES, ids=IDS)
def test_every_answer_is_whole(style, vocabulary, tokenizer):
    constraint = constraint_of(shape_of(style), vocabulary)
    for limit in (constraint.least, constraint.least + 1, 40, 150):
        for seed in range(3):
            check(style, play(constraint, limit, seed), limit, tokenizer)


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("fmt", ["json", "compact", "detections"])
def test_every_frame(frame, fmt, vocabulary, tokenizer):
    for is_closed in (True, False):
        style = style_of(fmt, "plain", is_closed, frame)
        constraint = constraint_of(shape_of(style), vocabulary)
        for seed in range(3):
            check(style, play(constraint, 100, seed), 100, tokenizer)


@pytest.mark.parametrize("style", STYLES, ids=IDS)
def test_masks_are_what_walking_every_token_says(style, vocabulary):
    """What is kept of places and conditions is no more and no less than the automaton."""
    constraint = constraint_of(shape_of(style), vocabulary)
    every = [number for number, piece in enumerate(vocabulary.pieces) if piece]
    seen = step = 0

    def watch(row, mask):
        nonlocal seen, step
        step += 1
        node, inner, _ = row.state
        if seen == 50 or (is_full := node.is_full(inner)) and step % 20:
            return
        walked = np.zeros_like(mask)
        for token in every:
            after = constraint.automaton.walk(row.state, vocabulary.pieces[token])
            walked[token] = after is not None and constraint.cost(after) < row.left
        walked[vocabulary.stop_ids] = constraint.automaton.is_end(row.state)
        extra, missing = (mask & ~walked).nonzero()[0], (walked & ~mask).nonzero()[0]
        assert not len(extra), [vocabulary.pieces[token] for token in extra]
        is_near = row.left <= constraint.most(row.state) or is_full or 0 < node.free_room(inner) < 64
        if not is_near:  # there some tokens are left out to be safe
            seen += 1
            assert not len(missing), [vocabulary.pieces[token] for token in missing]

    for seed in range(40):
        play(constraint, 300, seed, watch)
    assert seen == 50
