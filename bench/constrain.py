"""Decoding under constraints against free decoding, token by token.

    OMP_NUM_THREADS=1 python bench/constrain.py [--answers 16] [--rounds 3] [--smoke]

Needs the package with its extra `train`; no checkpoint, no data. A Qwen2-VL of the demo's size, untrained, with a
vocabulary of VG150's size (150 objects, 50 predicates) is made to write given answers of 11 objects and 7 relations:
one token's logit is raised at every step, with the constraint and without, so that both do the same work and the texts
can be compared. The two take turns; times are CPU time, the best round counts, images and prompts included. *First*
is the first batch, in which grammars are compiled and nothing is known of any place in an answer.
"""

from __future__ import annotations

import argparse
import random
import time

import torch
from common import print_conditions, print_head, print_row
from transformers import LogitsProcessor, LogitsProcessorList

from scenerl.answers import GrammarSpec, OutputFormat, build_prompt, write_answer
from scenerl.constrain import ConstrainedDecoding, Vocabulary
from scenerl.models import tiny
from scenerl.models.branching import BranchSampler
from scenerl.types import Example, Relation, SceneGraph, SceneObject

FORMATS = ("json", "compact", "detections")
SIDE = 112
PACKAGES = ("torch", "transformers", "xgrammar")


class Script(LogitsProcessor):
    """Makes each answer of a batch the one that is given, whatever the model thinks."""

    def __init__(self, answers: list[list[int]]):
        self.rows, self.step = answers, 0

    def pick_rows(self, rows: torch.Tensor) -> None:
        self.rows = [self.rows[row] for row in rows.tolist()]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        tokens = torch.tensor([row[min(self.step, len(row) - 1)] for row in self.rows])
        self.step += 1
        return scores.scatter_add(1, tokens[:, None], scores.new_full((len(tokens), 1), 1e6))


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


def measure(fmt: str, is_closed: bool, answers: int, rounds: int, sizes: tuple[int, int]) -> None:
    """A row of the table: tokens a second without and with the constraint."""
    rng = random.Random(0)
    objects, predicates = words(rng, 150), words(rng, 50)
    scenes = [scene(rng, objects, predicates, sizes) for _ in range(max(answers, 200))]
    closed = {"objects": objects, "predicates": predicates} if is_closed else {}
    output_format = OutputFormat(fmt, **closed)
    query = objects if fmt == "detections" else None
    examples = [Example(str(number), SIDE, SIDE, graph, query=query) for number, graph in enumerate(scenes)]
    model, processor = tiny.build(examples, output_format)
    model.eval()
    tokenizer = processor.tokenizer
    stop = tokenizer.eos_token_id
    texts = [write_answer(graph, output_format, (SIDE, SIDE)) for graph in scenes[:answers]]
    script = [[*tokenizer(text)["input_ids"], stop] for text in texts]
    limit = max(map(len, script)) + 200
    picture = torch.zeros(SIDE, SIDE, 3).numpy().astype("uint8")
    from PIL import Image

    content = [
        {"type": "image", "image": Image.fromarray(picture)},
        {"type": "text", "text": build_prompt(output_format, query)},
    ]
    inputs = processor.apply_chat_template(
        [[{"role": "user", "content": content}]] * answers,
        add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
    )  # fmt: skip
    vocabulary = Vocabulary(tokenizer, model.config.get_text_config().vocab_size, [stop])
    shapes = [GrammarSpec(output_format, (1000, 1000))] * answers

    def write(constrain: bool) -> float:
        started = time.process_time()
        processors = [Script(script), *([ConstrainedDecoding(shapes, vocabulary, limit)] if constrain else [])]
        with torch.inference_mode():
            written = model.generate(
                **inputs, do_sample=False, max_new_tokens=limit, eos_token_id=stop,
                logits_processor=LogitsProcessorList(processors), custom_generate=BranchSampler([1] * answers),
            )[:, inputs["input_ids"].shape[1] :]  # fmt: skip
        seconds = time.process_time() - started
        assert tokenizer.batch_decode(written, skip_special_tokens=True) == texts
        return seconds

    write(False)
    first = write(True)
    free, held = (min(times) for times in zip(*((write(False), write(True)) for _ in range(rounds)), strict=True))
    count = sum(map(len, script))
    vocabulary_size = f"{len(tokenizer):,}"
    print_row(
        fmt, "closed" if is_closed else "open", vocabulary_size, f"{count / answers:.0f}",
        f"{free / count * 1e6:.0f} µs", f"{held / count * 1e6:.0f} µs", f"{held / free - 1:.0%}",
        f"{first / free:.1f} ×",
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--answers", type=int, default=16, help="in a batch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="see that it runs; the figures mean nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)
    answers, rounds, sizes = (2, 1, (3, 2)) if args.smoke else (args.answers, args.rounds, (11, 7))
    print_conditions("CPU time, one thread", PACKAGES)
    print(f"\n{answers} answers at a time, {sizes[0]} objects and {sizes[1]} relations each")
    print_head(
        "format",
        "vocabulary",
        "tokens known",
        "tokens an answer",
        "free, a token",
        "constrained",
        "overhead",
        "first",
        left=2,
    )
    for fmt in FORMATS:
        for is_closed in (True, False):
            measure(fmt, is_closed, answers, rounds, sizes)


if __name__ == "__main__":
    main()
