"""The in-process engine: transformers' ``generate`` on a loaded checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import LogitsProcessorList

from scenerl.answers import GrammarSpec
from scenerl.constrain import ConstraintMask, RunSampler, Vocabulary
from scenerl.inference.alignment import spans_of_tokens
from scenerl.inference.engine import Reply, Sampling
from scenerl.models.branching import BranchSampler
from scenerl.models.generation import encode_prompts, generation_settings, until_stop
from scenerl.models.loading import Checkpoint


class HFEngine:
    """Answers batches of prompts with one model in this process.

    Each prompt is read once however many answers it gets. Tokens that stand for visual input are never sampled. A batch
    that does not fit the memory of the GPU is answered in halves, and so are those after it; the samples are the same.
    """

    def __init__(self, checkpoint: Checkpoint, sampling: Sampling):
        self.checkpoint = checkpoint
        self.sampling = sampling
        self._most: int | None = None  # prompts at a time, once the memory has been too small
        self._stop_ids = checkpoint.stop_ids
        self._tokenizer = checkpoint.processor.tokenizer
        self._vocabulary: Vocabulary | None = None
        checkpoint.model.eval()

    def answer(
        self, prompts: Sequence[list[dict]], seed: int = 0, shapes: Sequence[GrammarSpec] | None = None
    ) -> list[list[Reply]]:
        """See :class:`scenerl.inference.engine.Engine`.

        Raises:
            UserError: an answer of one of these shapes cannot be written within the token limit.
        """
        replies: list[list[Reply]] = []
        while len(replies) < len(prompts):
            part = slice(len(replies), None if self._most is None else len(replies) + self._most)
            torch.manual_seed(seed)  # every part draws the random numbers of the whole batch and uses its own of them
            try:
                replies += self._generate(prompts[part], shapes and shapes[part], len(replies), len(prompts))
            except torch.cuda.OutOfMemoryError:
                if len(prompts[part]) == 1:
                    raise
                self._most = len(prompts[part]) // 2
                torch.cuda.empty_cache()
        return replies

    def check(self, shape: GrammarSpec) -> None:
        """See :class:`scenerl.inference.engine.Engine`."""
        self._constrained([shape])

    def encode(self, prompts: Sequence[list[dict]]):
        """The model's inputs for prompts of any lengths, padded on the left: token ids, mask, pixels."""
        return encode_prompts(self.checkpoint.processor, prompts)

    def generation_settings(self) -> dict:
        """Arguments of ``generate``, see :func:`scenerl.models.generation.generation_settings`."""
        sampling = self.sampling
        return generation_settings(
            self.checkpoint, sampling.max_new_tokens, sampling.temperature, sampling.top_p, sampling.top_k
        )

    @torch.inference_mode()
    def _generate(
        self, prompts: Sequence[list[dict]], shapes: Sequence[GrammarSpec] | None, first: int, total: int
    ) -> list[list[Reply]]:
        """Replies to a part of a batch: ``prompts`` from number ``first`` on of ``total``."""
        model = self.checkpoint.model
        inputs = self.encode(prompts).to(model.device)
        settings = self.generation_settings()
        count = self.sampling.num_samples
        parts = [count] * len(prompts), 1.0 if self.sampling.logprobs else None, first * count, total * count
        if shapes is not None:
            held = self._constrained(shapes)
            settings["logits_processor"] = LogitsProcessorList([held])
            sampler: BranchSampler = RunSampler(held, *parts)
        else:
            sampler = BranchSampler(*parts)
        output = model.generate(**inputs, **settings, custom_generate=sampler)
        completions = output[:, inputs["input_ids"].shape[1] :].tolist()
        rows = [None] * len(completions) if sampler.logps is None else sampler.logps.tolist()
        replies = [self._reply(*row) for row in zip(completions, rows, strict=True)]
        return [replies[start : start + count] for start in range(0, len(replies), count)]

    def _constrained(self, shapes: Sequence[GrammarSpec]) -> ConstraintMask:
        """What holds an answer to each shape."""
        if self._vocabulary is None:
            self._vocabulary = Vocabulary.of(self.checkpoint, self._stop_ids)
        return ConstraintMask(shapes, self._vocabulary, self.sampling.max_new_tokens)

    def _reply(self, ids: list[int], logprobs: list[float] | None) -> Reply:
        kept, cut_off = until_stop(ids, self._stop_ids)
        text = self._tokenizer.decode(kept, skip_special_tokens=True)
        reply = Reply(text, len(kept), "length" if cut_off else "stop")
        if logprobs is None:
            return reply
        spans = spans_of_tokens(self._tokenizer.backend_tokenizer, kept, text, self._tokenizer.all_special_ids)
        return replace(reply, logprobs=tuple(logprobs[: len(kept)]), spans=spans)
