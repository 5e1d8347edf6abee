"""What goes to a server with OpenAI's chat API and what comes back: messages with images, completions, replies."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, Field

from scenerl.errors import counted
from scenerl.inference.alignment import spans_of_bytes
from scenerl.inference.engine import GenerationError, Reply
from scenerl.models.loading import Checkpoint

T = TypeVar("T")


def to_messages(prompt: list[dict], checkpoint: Checkpoint | None = None) -> list[dict]:
    """The messages of a prompt, each image inside as a data URL.

    Images are sent as PNG, which loses nothing, and resized as the checkpoint's processor would: the model sees the
    pixels that it would see in this process.
    """
    return [{**message, "content": [_part(part, checkpoint) for part in message["content"]]} for message in prompt]


def _part(part: dict, checkpoint: Checkpoint | None) -> dict:
    if part["type"] != "image":
        return part
    image = checkpoint.resized(part["image"]) if checkpoint else part["image"]
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


Items = Annotated[list[T], Field(fail_fast=True)]
"""A list of which the first bad item is named; of millions, all of them would fill the memory."""


class Token(BaseModel):
    """A token of an answer. ``bytes`` is empty for one that holds a part of a character only."""

    token: str = ""
    bytes: Items[Annotated[int, Field(ge=0, le=255)]] | None = None
    logprob: float


class Logprobs(BaseModel):
    """The tokens of an answer, where log-probabilities were requested."""

    content: Items[Token] | None = None


class Message(BaseModel):
    """What the model wrote. The two fields of reasoning are filled by servers that split it off."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class Choice(BaseModel):
    """One answer. ``token_ids`` is vLLM's, and includes the token that ended the answer."""

    index: int = 0
    message: Message
    finish_reason: Literal["stop", "length"]
    token_ids: Items[int] | None = None
    logprobs: Logprobs | None = None


class Usage(BaseModel):
    """Numbers of tokens."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Completion(BaseModel):
    """The fields of a chat completion that count here; a server may send anything, so they are validated."""

    choices: Items[Choice] = Field(min_length=1)
    usage: Usage | None = None
    prompt_token_ids: Items[int] | None = None


class ServedModel(BaseModel):
    """What a server says of one of its models."""

    id: str
    owned_by: str | None = None
    max_model_len: int | None = None


class ModelList(BaseModel):
    """The answer to ``/v1/models``."""

    data: Items[ServedModel]


def replies_of(completion: Completion, count: int, logprobs: bool) -> list[Reply]:
    """The first ``count`` answers in a chat completion, in order.

    The token that ended an answer is not counted where the server lists the tokens. Where it only gives their number,
    it is counted; of several answers, or without a number, 0 stands for it.

    Raises:
        GenerationError: answers or log-probabilities are missing, or the server split off the reasoning.
    """
    choices = sorted(completion.choices, key=lambda choice: choice.index)
    if len(choices) < count:
        raise GenerationError(f"{counted(len(choices), 'answer')} in place of {count}")
    total = completion.usage.completion_tokens if completion.usage and len(choices) == 1 else None
    return [_reply(choice, total or 0, logprobs) for choice in choices[:count]]


def _reply(choice: Choice, total: int, logprobs: bool) -> Reply:
    if choice.message.reasoning or choice.message.reasoning_content:
        raise GenerationError("the server keeps reasoning apart from answers; start it without a reasoning parser")
    text, has_end = choice.message.content or "", choice.finish_reason == "stop"
    num_ids = len(choice.token_ids) - has_end if choice.token_ids else None
    reply = Reply(text, total if num_ids is None else num_ids, choice.finish_reason)
    if not logprobs:
        return reply
    if choice.logprobs is None or choice.logprobs.content is None:
        raise GenerationError("an answer without log-probabilities; leave out --logprobs")
    tokens = choice.logprobs.content[:num_ids]
    pieces = [token.token.encode("utf-8", "replace") if token.bytes is None else bytes(token.bytes) for token in tokens]
    values, spans = tuple(token.logprob for token in tokens), spans_of_bytes(pieces, text)
    if num_ids is None and has_end and spans and spans[-1][0] == spans[-1][1]:
        values, spans = values[:-1], spans[:-1]
    return replace(reply, num_tokens=len(values), logprobs=values, spans=spans)
