"""No answer of a player who knows nothing fails to parse, refers to what is not there, or is too long."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from constrain.play import BOX_FORMATS, STYLES, graph, is_right, output_format_of, parse, play, shape_of
from scenerl.answers import OutputFormat, write_answer
from scenerl.constrain import Row, Vocabulary, constraint_of
from scenerl.constrain.nodes import walk

IDS = [
    f"{output_format.format}-{output_format.template}-{'open' if output_format.objects is None else 'closed'}"
    for output_format in STYLES
]


def check(output_format, tokens, limit, tokenizer) -> None:
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    assert len(tokens) <= limit and tokens[-1] == tokenizer.eos_token_id
    assert is_right(text, output_format), (parse(text, output_format), text)


@pytest.mark.parametrize("output_format", STYLES, ids=IDS)
def test_every_answer_is_whole(output_format, vocabulary, tokenizer):
    constraint = constraint_of(shape_of(output_format), vocabulary)
    for limit in (constraint.least, constraint.least + 1, 50, 120):
        for seed in range(2):
            check(output_format, play(constraint, limit, seed), limit, tokenizer)


@pytest.mark.parametrize("box_format", BOX_FORMATS)
@pytest.mark.parametrize("fmt", ["json", "compact", "detections"])
def test_every_frame(box_format, fmt, vocabulary, tokenizer):
    for is_closed in (True, False):
        output_format = output_format_of(fmt, "plain", is_closed, box_format)
        constraint = constraint_of(shape_of(output_format), vocabulary)
        for seed in range(2):
            check(output_format, play(constraint, 100, seed), 100, tokenizer)


@pytest.mark.parametrize("output_format", STYLES, ids=IDS)
def test_masks_are_what_walking_every_token_says(output_format, vocabulary):
    """What is kept of places and conditions is no more and no less than the automaton."""
    constraint = constraint_of(shape_of(output_format), vocabulary)
    every = [number for number, piece in enumerate(vocabulary.pieces) if piece]
    seen = step = 0

    def watch(row, mask):
        nonlocal seen, step
        step += 1
        node, inner, _ = row.state
        if seen == 15 or (is_full := node.is_full(inner)) and step % 20:
            return
        is_near = row.left <= constraint.most(row.state)
        walked = np.zeros_like(mask)
        for token in every:
            after = walk(row.state, vocabulary.pieces[token])
            walked[token] = after is not None and (not is_near or constraint.cost(after) < row.left)
        walked[vocabulary.stop_ids] = constraint.automaton.is_end(row.state)
        extra, missing = (mask & ~walked).nonzero()[0], (walked & ~mask).nonzero()[0]
        assert not len(extra), [vocabulary.pieces[token] for token in extra]
        if not (is_near or is_full or 0 < node.free_room(inner) < 64):  # there some tokens are left out to be safe
            seen += 1
            assert not len(missing), [vocabulary.pieces[token] for token in missing]

    for seed in range(40):
        play(constraint, 300, seed, watch)
    assert seen == 15


@pytest.mark.parametrize("output_format", STYLES, ids=IDS)
def test_a_right_answer_is_written_token_by_token(output_format, vocabulary, tokenizer):
    """Where the model was right nothing is barred, however little room the limit leaves."""
    constraint = constraint_of(shape_of(output_format), vocabulary)
    rng = np.random.default_rng(1)
    for _ in range(4):
        scene = graph(rng)
        text = write_answer(
            scene, output_format, (640, 427), reasoning="a dog, 3 < 4" if output_format.template == "think" else None
        )
        tokens = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        row = Row(constraint, len(tokens) + 100)
        for token in tokens:
            assert row.mask()[token], tokenizer.decode([token])
            row.take(token)
        assert row.is_done


def test_the_exact_limit_is_enough_for_a_right_answer(vocabulary, tokenizer):
    output_format = output_format_of("json", "plain", True)
    constraint = constraint_of(shape_of(output_format), vocabulary)
    text = write_answer(graph(np.random.default_rng(2)), output_format, (640, 427))
    tokens = [*vocabulary.spell(text.encode()), tokenizer.eos_token_id]
    row = Row(constraint, len(tokens))
    for token in tokens:
        assert row.mask()[token]
        row.take(token)


@pytest.mark.parametrize("output_format", STYLES, ids=IDS)
def test_a_limit_below_the_smallest_answer_is_refused(output_format, vocabulary):
    constraint = constraint_of(shape_of(output_format), vocabulary)
    with pytest.raises(ValueError, match=f"the smallest answer takes {constraint.least} tokens, but the limit is"):
        Row(constraint, constraint.least - 1)


def test_copies_go_their_own_ways(vocabulary, tokenizer):
    output_format = output_format_of("compact", "plain", True)
    row = Row(constraint_of(shape_of(output_format), vocabulary), 60)
    other = None
    for number in vocabulary.spell(b"dog 0 0 20 20\n"):
        row.mask()
        row.take(number)
    other = row.copy()
    for number in vocabulary.spell(b"cat 0 0 20 20\n"):
        row.mask()
        row.take(number)
    assert (len(row.state[2].ids), len(other.state[2].ids)) == (2, 1)
    for chosen in (row, other):
        for number in [*vocabulary.spell(b"end"), tokenizer.eos_token_id]:
            assert chosen.mask()[number]
            chosen.take(number)


def test_a_word_that_the_tokenizer_cannot_write(tokenizer):
    banned = tokenizer.convert_tokens_to_ids("z")
    vocabulary = Vocabulary(tokenizer, len(tokenizer), [tokenizer.eos_token_id], [banned])
    output_format = OutputFormat("json", objects=("dog", "zebra"))
    with pytest.raises(ValueError, match="the tokenizer cannot write 'zebra'"):
        constraint_of(shape_of(output_format), vocabulary)


def test_tokens_that_no_answer_may_hold(vocabulary, tokenizer):
    assert not any(vocabulary.pieces[number] for number in (tokenizer.eos_token_id, 3, 4, 5, 6))
    silent = [number for number in range(len(tokenizer)) if not tokenizer.decode([number], skip_special_tokens=True)]
    assert tokenizer.convert_tokens_to_ids("<|im_start|>") in silent
    assert not any(vocabulary.pieces[number] for number in silent)
    assert vocabulary.size == len(tokenizer) + 5 and not vocabulary.is_usable[-5:].any()


def test_a_tokenizer_whose_tokens_are_no_bytes_is_refused():
    """As SentencePiece's: the space before a word goes where the word comes first."""
    backend = Tokenizer(models.BPE({"</s>": 0, "\u2581dog": 1, "\u2581": 2}, [], unk_token="</s>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    message = "constrain: token 1 of this tokenizer writes '.dog' between others but 'dog' alone; only tokenizers whose"
    with pytest.raises(ValueError, match=message):
        Vocabulary(tokenizer, 3, [0])


@pytest.mark.slow
@pytest.mark.parametrize("fmt", ["json", "compact", "detections"])
def test_ten_thousand_answers(fmt, vocabulary, tokenizer):
    """Of a player who likes marks and digits, and so gets further than an untrained model."""
    for output_format in (output_format for output_format in STYLES if output_format.format == fmt):
        constraint = constraint_of(shape_of(output_format), vocabulary)
        for seed in range(840):
            limit = (constraint.least, constraint.least + 10, 48, 96)[seed % 4]
            check(output_format, play(constraint, limit, seed), limit, tokenizer)
