"""Which tokens may follow: every answer is whole, right ones can be written, nothing is left out that could be."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from constrain.play import (
    BOX_FORMATS,
    IDS,
    OUTPUT_FORMATS,
    graph,
    is_right,
    output_format_of,
    parse,
    play,
    spec_of,
    tokens_for,
    walk,
)
from scenerl.answers import OutputFormat, write_answer
from scenerl.constrain import Row, Vocabulary, constraint_of
from scenerl.constrain.row import Typing
from scenerl.types import Relation, SceneGraph, SceneObject


def check(output_format, tokens, limit, tokenizer) -> None:
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    assert len(tokens) <= limit and tokens[-1] == tokenizer.eos_token_id
    assert is_right(text, output_format), (parse(text, output_format), text)


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS, ids=IDS)
def test_every_answer_is_whole(output_format, vocabulary, tokenizer, qwen_like):
    for words, source in ((vocabulary, tokenizer), qwen_like[::-1]):
        constraint = constraint_of(spec_of(output_format), words)
        for limit in (*range(constraint.least, constraint.least + 50, 7), 120):
            for seed in range(2):
                check(output_format, play(constraint, limit, seed), limit, source)


@pytest.mark.parametrize("box_format", BOX_FORMATS)
@pytest.mark.parametrize("fmt", ["json", "compact", "detections"])
def test_every_box_format(box_format, fmt, vocabulary, tokenizer):
    for is_closed in (True, False):
        output_format = output_format_of(fmt, "plain", is_closed, box_format)
        constraint = constraint_of(spec_of(output_format), vocabulary)
        for seed in range(2):
            check(output_format, play(constraint, 100, seed), 100, tokenizer)


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS, ids=IDS)
def test_masks_are_what_the_bytes_say(output_format, vocabulary, bytewise):
    """Every token of the vocabulary, walked byte by byte: no token passes whose bytes do not, and in open text none is
    left out whose bytes stay in it."""
    constraint, by_bytes = (constraint_of(spec_of(output_format), words) for words in (vocabulary, bytewise))
    usable = [number for number, piece in enumerate(vocabulary.pieces) if piece]
    seen = 0

    def watch(row, mask, tokens):
        nonlocal seen
        if seen == 12 or len(tokens) % 3:
            return
        seen += 1
        before = walk(by_bytes, b"".join(vocabulary.pieces[token] for token in tokens))
        typed = texts_of(row)
        for token in usable:
            piece = vocabulary.pieces[token]
            after = walk(by_bytes, piece, before)
            if mask[token]:
                assert after is not None, (tokens, piece)
            elif after is not None:
                assert not {text + piece for text in typed} & texts_of(after), (tokens, piece)
        assert mask[vocabulary.stop_ids].any() == before.mask()[bytewise.stop_ids].any()
        forced = row.forced()
        assert (forced is not None) == (mask.sum() == 1) and (forced is None or mask[forced])

    for seed in range(4):
        play(constraint, 2000, seed, watch)
    assert seen


def texts_of(row: Row) -> set[bytes]:
    """The open text that an answer may be in the middle of."""
    return {thread.text for thread, _ in row._threads if isinstance(thread, Typing) and not thread.lead}


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS, ids=IDS)
def test_a_right_answer_can_be_written(output_format, vocabulary, qwen_like):
    """SFT's target, whatever the labels; close to the limit too."""
    rng = np.random.default_rng(1)
    for words in (vocabulary, qwen_like[1]):
        constraint = constraint_of(spec_of(output_format), words)
        for number in range(6):
            reasoning = "a dog, 3 < 4" if number % 2 and output_format.template == "think" else None
            text = write_answer(graph(rng), output_format, (640, 427), reasoning=reasoning)
            tokens = tokens_for(Row(constraint, 1000), text.encode())
            assert tokens is not None, text
            assert tokens_for(Row(constraint, len(tokens) + 60), text.encode()) == tokens


ORDINARY = SceneGraph(
    tuple(SceneObject(label, (10, 20, 300, 400)) for label in ("dog", "traffic light", "dog", "end table", "end")),
    (Relation(0, "on", 1), Relation(3, "on top of", 0), Relation(4, "e", 2)),
)


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS, ids=IDS)
def test_tokens_are_those_of_training(output_format, qwen_like):
    """Of a tokenizer that cuts text as Qwen2's does, an answer of ordinary labels has the tokens that SFT trains on."""
    tokenizer, words = qwen_like
    text = write_answer(ORDINARY, output_format, (640, 427))
    expected = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    row = Row(constraint_of(spec_of(output_format), words), 1000)
    num_forced = 0
    for token in expected:
        assert row.mask()[token], tokenizer.decode([token])
        num_forced += row.forced() is not None
        row.take(token)
    assert row.is_done
    if output_format.format == "json":
        assert num_forced > 0.5 * len(expected)


@pytest.mark.parametrize("fmt", ["json", "compact"])
def test_tokens_of_small_models(fmt, vocabulary, tokenizer):
    """The tokenizers of small models have tokens that run from forced text into a slot; open labels included."""
    for is_closed in (True, False):
        output_format = output_format_of(fmt, "plain", is_closed)
        row = Row(constraint_of(spec_of(output_format), vocabulary), 1000)
        for token in [
            *tokenizer(write_answer(ORDINARY, output_format, (640, 427)))["input_ids"],
            tokenizer.eos_token_id,
        ]:
            assert row.mask()[token], tokenizer.decode([token])
            row.take(token)


@pytest.mark.parametrize("output_format", OUTPUT_FORMATS, ids=IDS)
def test_a_limit_below_the_smallest_answer_is_refused(output_format, vocabulary):
    constraint = constraint_of(spec_of(output_format), vocabulary)
    with pytest.raises(ValueError, match=f"the smallest answer takes {constraint.least} tokens, but the limit is"):
        Row(constraint, constraint.least - 1)


def test_copies_go_their_own_ways(bytewise):
    constraint = constraint_of(spec_of(output_format_of("compact", "plain", True)), bytewise)
    row = walk(constraint, b"dog 0 0 20 20")
    other = row.copy()
    for number in bytewise.spell("\ncat 0 0 20 20"):
        row.take(number)
    second = bytewise.spell("\n\n")
    assert all(one.mask()[second[0]] for one in (row, other))
    for one in (row, other):
        one.take(second[0])
    assert (bool(row.mask()[second[1]]), bool(other.mask()[second[1]])) == (True, False)


def test_a_word_that_the_tokenizer_cannot_write(tokenizer):
    banned = tokenizer.convert_tokens_to_ids("z")
    vocabulary = Vocabulary(tokenizer, len(tokenizer), [tokenizer.eos_token_id], [banned])
    output_format = OutputFormat("json", objects=("dog", "zebra"))
    with pytest.raises(ValueError, match="the tokenizer cannot write 'zebra'"):
        constraint_of(spec_of(output_format), vocabulary)
    whole = [piece for piece in vocabulary.pieces if piece]
    assert whole and all(piece.decode() for piece in whole)  # a begun character could not always be finished


def test_tokens_that_no_answer_may_hold(vocabulary, tokenizer):
    assert not any(vocabulary.pieces[number] for number in (tokenizer.eos_token_id, 3, 4, 5, 6))
    silent = [number for number in range(len(tokenizer)) if not tokenizer.decode([number], skip_special_tokens=True)]
    assert tokenizer.convert_tokens_to_ids("<|im_start|>") in silent
    assert not any(vocabulary.pieces[number] for number in silent)
    assert vocabulary.size == len(tokenizer) + 5 and not any(vocabulary.pieces[-5:])


def test_a_tokenizer_whose_tokens_are_no_bytes_is_refused():
    """As SentencePiece's: the space before a word goes where the word comes first."""
    backend = Tokenizer(models.BPE({"</s>": 0, "\u2581dog": 1, "\u2581": 2}, [], unk_token="</s>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    with pytest.raises(
        ValueError, match=r"^constrain: token [12] of this tokenizer .* only tokenizers whose tokens are"
    ):
        Vocabulary(tokenizer, 3, [0])


@pytest.mark.slow
@pytest.mark.parametrize("fmt", ["json", "compact", "detections"])
def test_ten_thousand_answers(fmt, vocabulary, tokenizer):
    """Of a player who likes marks and digits, and so gets further than an untrained model."""
    for output_format in (output_format for output_format in OUTPUT_FORMATS if output_format.format == fmt):
        constraint = constraint_of(spec_of(output_format), vocabulary)
        for seed in range(840):
            limit = (constraint.least, constraint.least + 10, 48, 96)[seed % 4]
            check(output_format, play(constraint, limit, seed), limit, tokenizer)
