"""The first question to a server: how it wants to be asked, and whether it can do what will be asked of it.

Servers differ in which fields they take beside OpenAI's own, and in what they do with the others: refuse the request or
ignore the field. So they are shown a request with everything in it, and judged by what comes back.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from scenerl.errors import UserError
from scenerl.inference.engine import Sampling, Unanswered
from scenerl.inference.openai_client import Client, Refused, Unreadable
from scenerl.inference.openai_dialects import DIALECTS, Dialect
from scenerl.inference.openai_messages import to_messages
from scenerl.inference.openai_reply import read_replies, tells_lengths

_WORD = "qzjx"
"""What no model says of itself."""
_GRAMMAR = f'root ::= "{_WORD}"'
_WORD_TOKENS = 8
_PIXELS = 56
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """How a server is asked.

    Attributes:
        model: its name there.
        dialect: the fields that the server takes.
        banned: tokens that it is told never to sample.
        several: it gives several answers to one request and counts the tokens of each.
        grammar: the field in which it is sent a grammar; None: not at all.
    """

    model: str
    dialect: Dialect
    banned: tuple[int, ...] = ()
    several: bool = False
    grammar: str | None = None

    def body(
        self, messages: list[dict], sampling: Sampling, seed: int, count: int = 1, grammar: str | None = None
    ) -> dict:
        """A request for ``count`` answers."""
        return {
            "model": self.model,
            "messages": messages,
            "seed": seed,
            **({"n": count} if count > 1 else {}),
            **self.dialect.fields(sampling, self.banned),
            **({self.grammar: self.dialect.grammars[self.grammar](grammar)} if grammar and self.grammar else {}),
        }


async def meet(
    client: Client, model: str, sampling: Sampling, banned: Sequence[int] = (), constrain: bool = False
) -> Terms:
    """Find out how to ask a server.

    Raises:
        UserError: nothing listens there; it does not know the model, and which it knows; it takes no grammars, gives
            no log-probabilities or has no top_k, where these are wanted; the token limit is beyond the model's length.
    """
    try:
        known = await _models(client)
        _check_length(client, known.get(model, {}), sampling)
        terms, answer = await _agree(client, model, known, sampling, banned)
        if sampling.top_k and not terms.dialect.top_k:
            raise UserError(f"{client.shown} takes no top_k; allowed with it: top_k 0")
        if sampling.num_samples > 1:
            terms = replace(terms, several=tells_lengths(answer, 2))
        if constrain:
            terms = replace(terms, grammar=await _way_of_grammars(client, terms, sampling))
    except Unanswered as error:
        raise UserError(str(error)) from error
    if known and model not in known:
        _log.warning("%s answers as %r, but lists other models only: %s", client.shown, model, _names(known))
    return terms


async def _models(client: Client) -> dict[str, dict]:
    """What the server says of each of its models; nothing where it gives no list."""
    try:
        listed = (await client.request("/models", tries=1)).get("data")
    except (Refused, Unanswered):  # of transformers serve where the hub's cache has no folder yet
        return {}
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return {str(entry.get("id")): entry for entry in entries}


def _names(known: dict[str, dict]) -> str:
    names = [repr(name) for name in known]
    return ", ".join(names[:10]) + (" …" if len(names) > 10 else "")


def _check_length(client: Client, entry: dict, sampling: Sampling) -> None:
    longest = entry.get("max_model_len")
    if type(longest) is int and sampling.max_new_tokens >= longest:
        raise UserError(
            f"{client.shown}: prompt and answer together have at most {longest} tokens, so max_new_tokens "
            f"{sampling.max_new_tokens} leaves no room for the prompt"
        )


async def _agree(
    client: Client, model: str, known: dict[str, dict], sampling: Sampling, banned: Sequence[int]
) -> tuple[Terms, dict]:
    """Terms that the server does not refuse, the best first, with its answer under them."""
    refused: Refused | None = None
    for terms, count in _offers(model, sampling, banned):
        try:
            answer = await _try(client, terms, sampling, count)
        except Refused as error:
            refused = error
            if error.status == 404:
                break
            continue
        if banned and not terms.banned:
            _log.warning("%s bars no tokens: some that stand for images may stand in answers", client.shown)
        if sampling.logprobs and not _gives_logprobs(answer):
            raise UserError(
                f"{client.shown} ({terms.dialect.servers}) gives no log-probabilities; leave out --logprobs"
            )
        return terms, answer
    if sampling.logprobs and refused.status != 404:
        await _agree(client, model, known, replace(sampling, logprobs=False), banned)
        raise UserError(f"{client.shown} gives no log-probabilities ({refused}); leave out --logprobs")
    if model not in known:
        has = f"; it has {_names(known)}" if known else ""
        raise UserError(f"{client.shown} does not know the model {model!r}{has} ({refused})")
    raise UserError(f"{client.shown} refuses what every image would be asked with: {refused}")


def _offers(model: str, sampling: Sampling, banned: Sequence[int]) -> Iterator[tuple[Terms, int]]:
    """Terms with the number of answers to ask for, the best first."""
    several = [2, 1] if sampling.num_samples > 1 else [1]
    bars = [tuple(banned), ()] if banned else [()]
    for barred, count, dialect in itertools.product(bars, several, DIALECTS):
        yield Terms(model, dialect, barred), count


async def _try(client: Client, terms: Terms, sampling: Sampling, count: int = 1, grammar: str | None = None) -> dict:
    """The answer to a small question."""
    image = Image.new("RGB", (_PIXELS, _PIXELS), (128, 128, 128))
    prompt = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "Ready?"}]}]
    few = replace(sampling, max_new_tokens=_WORD_TOKENS if grammar else 1)
    return await client.request("/chat/completions", terms.body(to_messages(prompt), few, 0, count, grammar))


def _gives_logprobs(answer: dict) -> bool:
    try:
        return bool(read_replies(answer, 1, logprobs=True))
    except Unreadable as error:
        if "log-probabilities" not in str(error):
            raise Unanswered(f"the server's first answer: {error}") from error
        return False


async def _way_of_grammars(client: Client, terms: Terms, sampling: Sampling) -> str:
    """The field under which the server keeps to a grammar that leaves one word to say."""
    heard = []
    for field in terms.dialect.grammars:
        try:
            answer = await _try(client, replace(terms, grammar=field), sampling, grammar=_GRAMMAR)
            text = read_replies(answer, 1, sampling.logprobs)[0].text
        except (Refused, Unreadable) as error:
            heard.append(f"{field}: {error}")
            continue
        if text.strip() == _WORD:
            return field
        heard.append(f"{field}: told to say {_WORD!r} it says {text!r:.40}")
    raise UserError(
        f"{client.shown} ({terms.dialect.servers}) does not keep to grammars ("
        f"{'; '.join(heard) or 'none of its kind does'}); leave out --constrain"
    )
