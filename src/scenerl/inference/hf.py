"""The in-process engine: transformers' ``generate`` on a loaded checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from scenerl.inference.engine import Reply, Sampling
from scenerl.models.loading import Checkpoint


class HFEngine:
    """Answers batches of prompts with one model in this process.

    Tokens that stand for visual input are never sampled. When a batch does not fit the memory of the GPU it is answered
    in halves.
    """

    def __init__(self, checkpoint: Checkpoint, sampling: Sampling):
        self.checkpoint = checkpoint
        self.sampling = sampling
        checkpoint.model.eval()

    def answer(self, prompts: Sequence[list[dict]], seed: int = 0) -> list[list[Reply]]:
        torch.manual_seed(seed)
        return self._answer(list(prompts))

    def _answer(self, prompts: list[list[dict]]) -> list[list[Reply]]:
        try:
            return self._generate(prompts)
        except torch.cuda.OutOfMemoryError:
            if len(prompts) == 1:
                raise
            torch.cuda.empty_cache()
            middle = len(prompts) // 2
            return self._answer(prompts[:middle]) + self._answer(prompts[middle:])

    @torch.inference_mode()
    def _generate(self, prompts: list[list[dict]]) -> list[list[Reply]]:
        model, processor, sampling = self.checkpoint.model, self.checkpoint.processor, self.sampling
        inputs = processor.apply_chat_template(
            prompts,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": "left"},
        ).to(model.device)
        settings = {"do_sample": False}
        if sampling.temperature > 0:
            settings = {
                "do_sample": True,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
                "num_return_sequences": sampling.num_samples,
            }
        output = model.generate(
            **inputs,
            **settings,
            max_new_tokens=sampling.max_new_tokens,
            suppress_tokens=self.checkpoint.banned_ids,
        )
        completions = output[:, inputs["input_ids"].shape[1] :].tolist()
        replies = [self._reply(ids) for ids in completions]
        count = sampling.num_samples
        return [replies[start : start + count] for start in range(0, len(replies), count)]

    def _reply(self, ids: list[int]) -> Reply:
        declared = self.checkpoint.model.generation_config.eos_token_id
        ends = {declared} if isinstance(declared, int) else set(declared or ())
        ends.add(self.checkpoint.processor.tokenizer.eos_token_id)
        length = next((k for k, token in enumerate(ids) if token in ends), None)
        kept = ids if length is None else ids[:length]
        text = self.checkpoint.processor.tokenizer.decode(kept, skip_special_tokens=True)
        return Reply(text, len(kept), "length" if length is None else "stop")
