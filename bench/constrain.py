"""Constrained against free decoding, per answer.

    OMP_NUM_THREADS=1 python bench/constrain.py [--answers 16] [--rounds 3] [--smoke]

Needs the package with its extra `train`; no checkpoint, no data. A Qwen2-VL of the demo's size, untrained, is made to
write given answers of 11 objects and 7 relations in a vocabulary of VG150's size (150 objects, 50 predicates): one
token's logit is raised whenever a token is sampled, with the constraint and without; the texts must be equal. The two
take turns; times are CPU time, images and prompts included, and the best round counts. *Passes* is how often the model
runs on a batch, of the free *tokens*. *First* is the first batch, for which tries of words are built.

Tokens are those of the small models (a coordinate is one token, and the text between two coordinates one or two), or
cut as Qwen2's tokenizer cuts text (a digit, a word, a run of punctuation each), which is what real checkpoints write.
"""

from __future__ import annotations

import argparse
import random
import time
from contextlib import nullcontext
from unittest.mock import patch

import numpy as np
import torch
from common import print_conditions, print_head, print_row
from PIL import Image
from transformers import LogitsProcessor, LogitsProcessorList

from scenerl import tiny
from scenerl.answers import GrammarSpec, OutputFormat, build_prompt, write_answer
from scenerl.constrain import Constraint, ConstraintMask, Row, RunSampler, Vocabulary, constraint_of
from scenerl.models.branching import BranchSampler
from scenerl.types import Example, Relation, SceneGraph, SceneObject

FORMATS = ("json", "compact", "detections")
SIDE = 112
PACKAGES = ("torch", "transformers")
QWEN2_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


CUTS = ("Qwen2's", "small models'")
"""How the tokenizer cuts text before it merges."""


class Script(LogitsProcessor):
    """Makes each answer of a batch the one that is given, whatever the model thinks."""

    def __init__(self, answers: list[list[int]]):
        self.rows, self.step = answers, 0

    def pick_rows(self, rows: torch.Tensor) -> None:
        self.rows = [self.rows[row] for row in rows.tolist()]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.step += 1
        return raised(scores, [row[min(self.step, len(row)) - 1] for row in self.rows])


class ConstrainedScript(ConstraintMask):
    """The same under constraints."""

    def __init__(self, specs: list[GrammarSpec], vocabulary: Vocabulary, limit: int, answers: list[list[int]]):
        super().__init__(specs, vocabulary, limit)
        self.limit = limit
        for row, answer in zip(self.rows, answers, strict=True):
            row.script = answer

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        wanted = [row.script[self.limit - row.left] for row in self.rows]
        return super().__call__(input_ids, raised(scores, wanted))


def raised(scores: torch.Tensor, tokens: list[int]) -> torch.Tensor:
    return scores.scatter_add(1, torch.tensor(tokens)[:, None], scores.new_full((len(tokens), 1), 1e6))


def constrained_tokens(constraint: Constraint, answer: list[int], limit: int) -> list[int]:
    """The tokens of an answer as the constraint has it: those given, or the longest that write the same text."""
    pieces = constraint.vocabulary.pieces

    def path(row: Row, text: bytes) -> list[int] | None:
        if not text:
            return [answer[-1]]
        allowed = [number for number in np.flatnonzero(row.mask()) if pieces[number]]
        fitting = [number for number in allowed if text.startswith(pieces[number])]
        for number in sorted(fitting, key=lambda number: (number not in answer, -len(pieces[number]))):
            further = row.copy()
            further.take(int(number))
            if (rest := path(further, text[len(pieces[number]) :])) is not None:
                return [int(number), *rest]
        return None

    return path(Row(constraint, limit), b"".join(pieces[token] for token in answer[:-1]))


def words(rng: random.Random, count: int) -> tuple[str, ...]:
    """So many different words of one to three syllables, every fourth with a second word behind it."""
    found: dict[str, None] = {}
    while len(found) < count:
        word = "".join(rng.choice("bdfgklmnprst") + rng.choice("aeiou") for _ in range(rng.randint(1, 3))) + "n"
        found[f"{word} {rng.choice('aou')}n" if len(found) % 4 == 3 else word] = None
    return tuple(found)


def scene(
    rng: random.Random, objects: tuple[str, ...], predicates: tuple[str, ...], sizes: tuple[int, int]
) -> SceneGraph:
    items = []
    for _ in range(sizes[0]):
        x, y = rng.randint(0, 80), rng.randint(0, 80)
        items.append(SceneObject(rng.choice(objects), (x, y, x + rng.randint(4, 32), y + rng.randint(4, 32))))
    edges: dict[tuple[int, str, int], None] = {}
    while len(edges) < sizes[1]:
        subject, other = rng.sample(range(sizes[0]), 2)
        edges[subject, rng.choice(predicates), other] = None
    return SceneGraph(tuple(items), tuple(Relation(*edge) for edge in edges))


def measure(
    pieces: str,
    fmt: str,
    is_closed: bool,
    answers: int,
    rounds: int,
    sizes: tuple[int, int],
    num_words: tuple[int, int],
) -> None:
    """A row of the table."""
    rng = random.Random(0)
    objects, predicates = words(rng, num_words[0]), words(rng, num_words[1])
    scenes = [scene(rng, objects, predicates, sizes) for _ in range(10 * answers + 40)]
    closed = {"objects": objects, "predicates": predicates} if is_closed else {}
    output_format = OutputFormat(fmt, **closed)
    query = objects if fmt == "detections" else None
    examples = [Example(str(number), SIDE, SIDE, graph, query=query) for number, graph in enumerate(scenes)]
    cut = patch("scenerl.tiny.tokenizer._PIECES", QWEN2_PIECES) if pieces == "Qwen2's" else nullcontext()
    with cut:
        model, processor = tiny.build(examples, output_format)
    model.eval()
    tokenizer = processor.tokenizer
    stop = tokenizer.eos_token_id
    texts = [write_answer(graph, output_format, (SIDE, SIDE)) for graph in scenes[:answers]]
    script = [[*tokenizer(text)["input_ids"], stop] for text in texts]
    limit = max(map(len, script)) + 200
    prompts = []
    for number in range(answers):  # images of two sizes: batches are padded, as real ones are
        image = {"type": "image", "image": Image.new("RGB", (SIDE, SIDE + number % 2 * 28))}
        text = {"type": "text", "text": build_prompt(output_format, query)}
        prompts.append([{"role": "user", "content": [image, text]}])
    inputs = processor.apply_chat_template(
        prompts, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
        processor_kwargs={"padding": True, "padding_side": "left"},
    )  # fmt: skip
    vocabulary = Vocabulary(tokenizer, model.config.get_text_config().vocab_size, [stop])
    spec = GrammarSpec(output_format, (1000, 1000))
    path = [constrained_tokens(Constraint(spec, vocabulary), answer, limit) for answer in script]
    vocabulary = Vocabulary(tokenizer, model.config.get_text_config().vocab_size, [stop])
    passes = 0

    def write(constrain: bool) -> float:
        nonlocal passes
        started = time.process_time()
        if constrain:
            processor = ConstrainedScript([spec] * answers, vocabulary, limit, path)
            sampler = RunSampler(processor, [1] * answers)
        else:
            processor, sampler = Script(script), BranchSampler([1] * answers)
        with torch.inference_mode():
            written = model.generate(
                **inputs, do_sample=False, max_new_tokens=limit, eos_token_id=stop,
                logits_processor=LogitsProcessorList([processor]), custom_generate=sampler,
            )[:, inputs["input_ids"].shape[1] :]  # fmt: skip
        seconds = time.process_time() - started
        assert tokenizer.batch_decode(written, skip_special_tokens=True) == texts
        passes = getattr(sampler, "num_passes", 0)
        return seconds

    write(False)
    constraint_of.cache_clear()
    first = write(True)
    times = [(write(False), write(True)) for _ in range(rounds)]
    num_passes = passes
    free, constrained = (min(column) for column in zip(*times, strict=True))
    print_row(
        pieces, fmt, "closed" if is_closed else "open", f"{sum(map(len, script)) / answers:.0f}", num_passes,
        f"{free / answers * 1e3:.1f} ms", f"{constrained / answers * 1e3:.1f} ms", f"{constrained / free:.2f}",
        f"{first / free:.2f}",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--answers", type=int, default=16, help="in a batch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="see that it runs; the figures mean nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    answers, rounds, sizes = (1, 1, (1, 0)) if args.smoke else (args.answers, args.rounds, (11, 7))
    num_words = (4, 2) if args.smoke else (150, 50)
    print_conditions("CPU time, one thread", PACKAGES)
    print(f"\n{answers} answers at a time, {sizes[0]} objects and {sizes[1]} relations each")
    print_head(
        "cut as", "format", "vocabulary", "tokens", "passes", "free, an answer", "constrained", "of free",
        "first, of free", left=3,
    )  # fmt: skip
    cases = [(pieces, fmt, is_closed) for pieces in CUTS for fmt in FORMATS for is_closed in (True, False)]
    for case in cases[::7] if args.smoke else cases:
        measure(*case, answers, rounds, sizes, num_words)


if __name__ == "__main__":
    main()
