"""The engine that asks a server with OpenAI's API: vLLM, SGLang, ``transformers serve`` and others."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import CancelledError
from functools import lru_cache

from scenerl.answers import GrammarSpec, build_grammar
from scenerl.inference.alignment import TokenAligner
from scenerl.inference.engine import Reply, Sampling, Unanswered
from scenerl.inference.openai_client import Client, Refused
from scenerl.inference.openai_meeting import Terms, meet
from scenerl.inference.openai_messages import to_messages
from scenerl.inference.openai_reply import prompt_tokens, read_replies
from scenerl.models.loading import Checkpoint

_PROMPTS_COMPARED = 16
_log = logging.getLogger(__name__)


class OpenAIEngine:
    """Answers prompts with a model that a server runs. Any number of threads may ask it.

    At the start the server shows, on one small question, what it can do of what will be asked (``openai_meeting``).

    Args:
        client: of the server.
        model: its name there.
        sampling: of the answers.
        checkpoint: what the server runs, as far as it is known here: the model is None, and the processor may be.
            With it, tokens that stand for visual input are barred, images are resized here, and the first prompts are
            compared with what the server reads.
        constrain: answers will be asked for with shapes.

    Raises:
        UserError: there is no server, it does not know the model, or it cannot do what is asked of it.
    """

    def __init__(self, client: Client, model: str, sampling: Sampling, checkpoint: Checkpoint, constrain: bool = False):
        self._client, self._sampling, self._checkpoint = client, sampling, checkpoint
        self._aligner = None
        self._to_compare, self._warned = 0, False
        banned = []
        if checkpoint.processor is not None:
            tokenizer = checkpoint.processor.tokenizer
            self._aligner = TokenAligner(
                lambda ids: tokenizer.decode(ids, skip_special_tokens=True), tokenizer.all_special_ids
            )
            self._to_compare = _PROMPTS_COMPARED
            banned = checkpoint.banned_ids
        self._gate, self._closed = threading.Lock(), False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="requests")
        self._thread.start()
        try:
            self._terms: Terms = self._run(meet(client, model, sampling, banned, constrain))
        except BaseException:
            self.close()
            raise

    def answer(
        self, prompts: Sequence[list[dict]], seed: int = 0, shapes: Sequence[GrammarSpec] | None = None
    ) -> list[list[Reply]]:
        """See :class:`scenerl.inference.engine.Engine`. Of a shape the server gets the grammar: that relations name
        objects which are there, and that an answer ends before the token limit, is not in it."""
        grammars = [None] * len(prompts) if shapes is None else [_grammar(shape) for shape in shapes]

        async def every() -> list[list[Reply]]:
            draws = random.Random(seed)
            pairs = zip(prompts, grammars, strict=True)
            return await _all([self._answers(prompt, draws.getrandbits(31), grammar) for prompt, grammar in pairs])

        return self._run(every())

    def check(self, shape: GrammarSpec) -> None:
        """See :class:`scenerl.inference.engine.Engine`."""
        _grammar(shape)

    def close(self) -> None:
        """Drop what is under way; those who wait for it get :class:`concurrent.futures.CancelledError`."""
        with self._gate:
            if self._closed:
                return
            self._closed = True
            dropped = asyncio.run_coroutine_threadsafe(self._drop(), self._loop)
        dropped.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _drop(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()

    def _run(self, work: Coroutine):
        """The result of ``work``, done in the engine's event loop."""
        with self._gate:
            if self._closed:
                work.close()
                raise CancelledError
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result()

    async def _answers(self, prompt: list[dict], seed: int, grammar: str | None) -> list[Reply]:
        messages = await asyncio.to_thread(to_messages, prompt, self._checkpoint)
        count = self._sampling.num_samples
        if self._terms.several:
            return await self._ask(prompt, messages, seed, count, grammar)
        draws = random.Random(seed)
        asked = [self._ask(prompt, messages, draws.getrandbits(31), 1, grammar) for _ in range(count)]
        return [reply for replies in await _all(asked) for reply in replies]

    async def _ask(
        self, prompt: list[dict], messages: list[dict], seed: int, count: int, grammar: str | None
    ) -> list[Reply]:
        def read(answer: dict) -> tuple[list[Reply], list[int] | int | None]:
            return read_replies(answer, count, self._sampling.logprobs, self._aligner), prompt_tokens(answer)

        try:
            body = self._terms.body(messages, self._sampling, seed, count, grammar)
            replies, tokens = await self._client.request("/chat/completions", body, read)
        except Refused as error:
            raise Unanswered(f"{self._client.shown}: refused: {error}") from error
        if self._to_compare > 0 and tokens is not None:
            self._to_compare -= 1
            difference = self._difference(prompt, tokens)  # here, as a tokenizer is not for several threads at a time
            if difference and not self._warned:
                self._warned = True
                _log.warning(difference)
        return replies

    def _difference(self, prompt: list[dict], read: list[int] | int) -> str | None:
        """What to say where the server reads another prompt than the checkpoint's processor makes."""
        processor = self._checkpoint.processor
        ours = processor.apply_chat_template([prompt], add_generation_prompt=True, tokenize=True, return_dict=True)
        ours = [int(token) for token in ours["input_ids"][0]]
        count = read if isinstance(read, int) else len(read)
        if read == (len(ours) if isinstance(read, int) else ours):
            return None
        makes = len(ours) if count != len(ours) else "others"
        return (
            f"{self._client.shown} read a prompt as {count} tokens, where the processor of {self._checkpoint.name} "
            f"makes {makes} of it: the server runs another model, or has another chat template, tokenizer or pixel "
            "bounds (--min_pixels, --max_pixels)"
        )


@lru_cache(maxsize=256)
def _grammar(shape: GrammarSpec) -> str:
    return build_grammar(shape.output_format, shape.bounds_wh)


async def _all(work: Sequence[Coroutine]) -> list:
    """The results of several, in order; when one of them fails, the others are given up."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
