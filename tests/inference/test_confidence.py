"""Log-probabilities are the model's own, stand at the right characters, and become the scores that eval ranks by."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LogitsProcessor, LogitsProcessorList

from scenerl.answers import OutputFormat, locate_elements, parse_answer
from scenerl.cli import main
from scenerl.inference.confidence import score_graph
from scenerl.inference.engine import Reply, Sampling
from scenerl.inference.hf import HFEngine
from scenerl.inference.predict import predict
from scenerl.types import Example, SceneGraph
from training.small_run import read_rows, write_rows

SIZES = [(56, 56), (61, 37), (84, 56)]


def prompts_of(conversation):
    prompts = []
    for seed, (width, height) in enumerate(SIZES):
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        prompts.append(conversation.prompt(Example(str(seed), width, height, SceneGraph()), Image.fromarray(pixels)))
    return prompts


class Watched(HFEngine):
    """An engine that keeps the ids of what it sampled, and may make the model say something given."""

    forced: list[int] | None = None

    def generation_settings(self):
        settings = super().generation_settings()
        if self.forced is not None:
            settings["logits_processor"] = LogitsProcessorList([_Forcing(self.forced)])
        return settings

    def _reply(self, ids, logprobs):
        self.ids = [*getattr(self, "ids", []), ids]
        return super()._reply(ids, logprobs)


class _Forcing(LogitsProcessor):
    def __init__(self, ids):
        self.ids, self.num_prompt = ids, None

    def __call__(self, input_ids, scores):
        self.num_prompt = self.num_prompt or input_ids.shape[1]
        forced = torch.full_like(scores, -math.inf)
        forced[:, self.ids[input_ids.shape[1] - self.num_prompt]] = 0.0
        return forced


def teacher_forced(engine, prompt, ids) -> torch.Tensor:
    """Log-probabilities of ``ids`` after ``prompt`` in one plain forward pass."""
    inputs = engine.encode([prompt])
    length = len(ids)
    more = {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.ones(1, length, dtype=torch.long),
        "mm_token_type_ids": torch.zeros(1, length, dtype=torch.int),
    }
    inputs = {key: torch.cat([value, more[key]], 1) if key in more else value for key, value in inputs.items()}
    with torch.inference_mode():
        logits = engine.checkpoint.model(**inputs).logits[0, -length - 1 : -1]
    return logits.float().log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0]


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"temperature": 3.0, "top_k": 40, "num_samples": 3},
        {"temperature": 0.5, "top_p": 0.9, "num_samples": 2},
    ],
    ids=["greedy", "hot", "cold"],
)
def test_they_are_those_of_a_forward_pass_whatever_the_sampling(checkpoint, conversation, sampling):
    """Of the model itself: neither the temperature nor what is cut off or suppressed enters."""
    with torch.no_grad():
        for parameter in checkpoint.model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    engine = Watched(checkpoint, Sampling(12, **sampling, logprobs=True))
    prompts = prompts_of(conversation)
    replies = engine.answer(prompts, 3)
    count = sampling.get("num_samples", 1)
    assert [len(group) for group in replies] == [count] * 3
    flat = [(prompt, reply) for prompt, group in zip(prompts, replies, strict=True) for reply in group]
    for (prompt, reply), ids in zip(flat, engine.ids, strict=True):
        kept = ids[: reply.num_tokens]
        assert len(reply.logprobs) == len(reply.spans) == reply.num_tokens > 0
        wanted = teacher_forced(engine, prompt, kept)
        torch.testing.assert_close(torch.tensor(reply.logprobs), wanted, rtol=0, atol=1e-4)
    assert len({round(value, 3) for _, reply in flat for value in reply.logprobs}) > 10
    # the answers themselves are those of a run without
    plain = HFEngine(checkpoint, Sampling(12, **sampling)).answer(prompts, 3)
    assert [[(r.text, r.num_tokens, r.finish_reason) for r in group] for group in replies] == [
        [(r.text, r.num_tokens, r.finish_reason) for r in group] for group in plain
    ]
    assert all(reply.logprobs is None and reply.spans is None for group in plain for reply in group)


# scores

TEXT = "dog 1 2 3 40\nred cat 5 6 7 8\n\n1 on 2\nend"
TOKENS = [
    ("dog", -0.1), (" 1", -0.2), (" 2", -0.3), (" 3 4", -0.4), ("0", -0.5), ("\nred", -0.6), (" c", -0.7),
    ("at", -0.8), (" 5 6", -0.01), (" 7", -0.02), (" 8\n", -0.03), ("\n1", -0.04), (" on ", -0.05), ("", -9.0),
    ("2\ne", -0.06), ("nd", -9.0),
]  # fmt: skip


def reply_of(tokens) -> Reply:
    ends = np.cumsum([0, *(len(piece) for piece, _ in tokens)]).tolist()
    logprobs = tuple(value for _, value in tokens)
    spans = tuple(zip(ends[:-1], ends[1:], strict=True))
    return Reply("".join(piece for piece, _ in tokens), len(tokens), "stop", logprobs, spans)


def test_scores_by_hand():
    reply, output_format = reply_of(TOKENS), OutputFormat("compact", box_format="pixels")
    assert reply.text == TEXT
    graph = parse_answer(TEXT, output_format, (100, 100)).graph
    found = score_graph(graph, locate_elements(TEXT, output_format), reply)
    # a token across two coordinates counts once
    assert found.objects == (
        pytest.approx({"label": -0.1, "box": -0.2 - 0.3 - 0.4 - 0.5}),
        pytest.approx({"label": -0.6 - 0.7 - 0.8, "box": -0.01 - 0.02 - 0.03}),
    )
    assert found.relations == (pytest.approx({"subject": -0.04, "predicate": -0.05, "object": -0.06}),)
    scores = [math.exp(-0.1 - 1.4 / 4), math.exp(-2.1 - 0.06 / 4)]
    assert [item.score for item in found.graph.objects] == pytest.approx(scores)
    assert found.graph.relations[0].score == pytest.approx(math.exp(-0.05) * scores[0] * scores[1])

    # tokens across the parts: the label has its token alone, the predicate shares those of its neighbours
    pieces = [("dog 1", -1.0), (" 2 3 40\n", -2.0), ("red cat 5 6 7 8\n\n", -4.0), ("1 o", -0.5), ("n 2", -0.25)]
    found = score_graph(graph, locate_elements(TEXT, output_format), reply_of([*pieces, ("\nend", -8.0)]))
    assert found.objects == ({"label": -1.0, "box": -2.0}, {"label": -4.0, "box": 0.0})
    assert found.relations == ({"subject": -0.5, "predicate": -0.75, "object": -0.25},)


def test_elements_without_known_probabilities_rank_last():
    output_format = OutputFormat("compact", box_format="pixels")
    graph, located = parse_answer(TEXT, output_format, (100, 100)).graph, locate_elements(TEXT, output_format)
    unaligned = Reply(TEXT, len(TOKENS), "stop", tuple(value for _, value in TOKENS), None)
    found = score_graph(graph, located, unaligned)
    assert [item.score for item in (*found.graph.objects, *found.graph.relations)] == [0, 0, 0]
    assert found.objects == (None, None) and found.relations == (None,)
    for odd in (math.nan, -math.inf):
        broken = [(piece, odd if piece == " 2" else value) for piece, value in TOKENS]
        found = score_graph(graph, located, reply_of(broken))
        assert [item.score for item in found.graph.objects] == pytest.approx([0, math.exp(-2.1 - 0.06 / 4)])
        assert found.objects[0] is None and found.graph.relations[0].score == 0


# the command


def test_the_rows_of_the_command(base, rows, tmp_path):
    def words(out, *more):
        return ["predict", "--model", str(base), "--data", str(rows), "--out", str(out), "--max_new_tokens", "6",
                "--device", "cpu", "--temperature", "1", "--num_samples", "2", "--batch_size", "2", *more]  # fmt: skip

    scored, plain = tmp_path / "scored.jsonl", tmp_path / "plain.jsonl"
    assert main(words(scored, "--logprobs")) == 0 and main(words(plain)) == 0
    whole = scored.read_bytes()
    for with_logprobs, without in zip(read_rows(scored), read_rows(plain), strict=True):
        logprobs = with_logprobs.pop("logprobs")
        assert with_logprobs == without
        assert len(logprobs) == without["num_tokens"] and all(value <= 0 for value in logprobs)
    # stopped and gone on with
    lines = whole.splitlines(keepends=True)
    scored.write_bytes(b"".join(lines[:3]) + lines[3][:50])
    assert main(words(scored, "--logprobs")) == 0 and scored.read_bytes() == whole
    # the two kinds do not mix, and a file of before the option goes on
    assert main(words(scored)) == 2 and main(words(plain, "--logprobs")) == 2
    config = plain.with_name("plain.jsonl.yaml")
    config.write_text("".join(line for line in config.open() if not line.startswith("logprobs:")))
    assert main(words(plain)) == 0
    assert main(words(plain, "--logprobs")) == 2


class Ideal(Watched):
    """The model as it is, made to say the ideal answer to each image."""

    def __init__(self, checkpoint, conversation, examples, sampling):
        super().__init__(checkpoint, sampling)
        tokenizer = checkpoint.processor.tokenizer
        self.answers = {}
        for example in examples:
            text = conversation.completion(example)[0]["content"][0]["text"]
            with Image.open(example.image) as image:
                pixels = image.convert("RGB").tobytes()
            self.answers[pixels] = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]

    def answer(self, prompts, seed=0):
        replies = []
        for prompt in prompts:
            self.forced = self.answers[prompt[0]["content"][0]["image"].tobytes()]
            replies += super().answer([prompt], seed)
        return replies


def test_from_the_model_to_the_metrics(checkpoint, conversation, examples, rows, tmp_path):
    """A random model is unsure of all it says, and that is what eval and its calibration see."""
    out = tmp_path / "out.jsonl"
    engine = Ideal(checkpoint, conversation, examples, Sampling(60, 1.0, num_samples=2, logprobs=True))
    assert predict(examples, conversation, engine, out, 2, 4)[1] == []
    found = read_rows(out)
    assert len(found) == 2 * len(examples) and {row["status"] for row in found} == {"ok"}
    for row in found:
        objects, (relation,) = row["graph"]["objects"], row["graph"]["relationships"]
        for item in objects:
            label, box = item["logprobs"]["label"], item["logprobs"]["box"]
            assert item["score"] == pytest.approx(math.exp(label + box / 4), rel=1e-4)
            # of some 300 tokens, one for the label and one for each coordinate
            assert list(item["logprobs"]) == ["label", "box"] and 0 < item["score"] < 1e-3
        own = math.exp(relation["logprobs"]["predicate"])
        assert list(relation["logprobs"]) == ["subject", "predicate", "object"]
        assert relation["score"] == pytest.approx(own * objects[0]["score"] * objects[1]["score"], rel=1e-4)
        # nearly all that was said is an element's: spaces, line ends and `end` are not
        parts = [value for item in (*objects, relation) for value in item["logprobs"].values()]
        assert sum(row["logprobs"]) < sum(parts) < 0

    def metrics(rows_, name):
        path = write_rows(tmp_path / f"{name}.jsonl", rows_)
        words = ["eval", str(path), "--data", str(rows), "--out", str(tmp_path / f"{name}.json"), "--resamples", "0"]
        assert main(words) == 0
        return json.loads((tmp_path / f"{name}.json").read_text())

    first = [row for row in found if row["sample"] == 0]
    content = metrics(first, "first")
    curves = content["calibration"]
    assert curves["objects"]["counts"] == [2 * len(examples), *[0] * 9] and curves["objects"]["ece"] > 0.9
    assert curves["relations"]["counts"][0] == len(examples)
    # an object said with less confidence than all others takes nothing from AP; one without a score comes first
    for score, is_lower in ((0.0, False), (None, True)):
        wrong = json.loads(json.dumps(first))
        for row in wrong:
            row["graph"]["objects"].append({"id": "apple.9", "bbox": [0, 0, 1, 1], "score": score})
        lower = metrics(wrong, f"wrong-{score}")["metrics"]["AP50"]["value"] < content["metrics"]["AP50"]["value"]
        assert lower == is_lower
