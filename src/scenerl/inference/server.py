"""The engine that requests answers from a server with OpenAI's API: vLLM, SGLang, ``transformers serve`` and others.

The openai package makes the requests. It tries again after lost connections, time-outs, replies that are no chat
completion or too long, and the statuses 408, 409, 429 and 5xx (at the start, not after 500), backs off in between, and
honours ``Retry-After``.
"""

from __future__ import annotations

import json
import logging
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_address
from itertools import chain
from urllib.parse import urlsplit

import httpx2
import openai
from PIL import Image
from pydantic import ValidationError

from scenerl.answers import GrammarSpec, build_grammar
from scenerl.errors import UserError
from scenerl.inference.chat import Completion, ModelList, ServedModel, replies_of, to_messages
from scenerl.inference.engine import GenerationError, Reply, Sampling
from scenerl.inference.server_kinds import KINDS, ServerCapabilities
from scenerl.inference.workers import Workers
from scenerl.models.folders import one_line
from scenerl.models.loading import Checkpoint

MAX_BYTES = 64 << 20
"""Longest reply that is read. 64 answers of 4,000 tokens with their log-probabilities are half of it."""
_PROMPTS_COMPARED = 16
_WORD = "qzjx"  # what no model says of itself, so that a server which ignores grammars is found out
_log = logging.getLogger(__name__)


class ServerEngine:
    """Answers prompts with a model that a server runs. Any number of threads may call it.

    A small request at the start shows whether the server can do what every image needs.

    Args:
        server: its address, such as ``http://127.0.0.1:8000/v1``; without a path, ``/v1`` is meant.
        model: its name there.
        checkpoint: what the server runs, as far as it is known here: the model is None, and the processor may be. With
            a processor, tokens that stand for visual input are barred, images are resized here, and the first prompts
            are compared with those that the server reports.
        constrain: answers will be held to grammars.
        kind: a name from :data:`KINDS`; ``auto``: by what the server says of itself.
        key: sent as a bearer token.
        timeout: seconds that the server may be silent.
        tries: how often a request is made at most.
        concurrency: requests under way at a time for one call of ``answer`` or several.

    Raises:
        UserError: the address or the key cannot be one; no server answers, it does not know the model, or it cannot do
            what is requested.
    """

    def __init__(
        self,
        server: str,
        model: str,
        sampling: Sampling,
        checkpoint: Checkpoint,
        constrain: bool = False,
        kind: str = "auto",
        key: str | None = None,
        timeout: float = 300.0,
        tries: int = 5,
        concurrency: int = 16,
    ):
        url = _parse_address(server)
        self.address = url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()  # without a password
        self._model, self._sampling, self._checkpoint, self._timeout = model, sampling, checkpoint, timeout
        self._is_ready = False
        self._client = openai.OpenAI(
            base_url=url.geturl(),
            api_key=_checked_key(key) or "none",
            timeout=timeout,
            max_retries=tries - 1,
            default_headers={"Accept-Encoding": "identity"},  # a small reply cannot become a large one
            http_client=openai.DefaultHttpxClient(
                event_hooks={"response": [_check_response, self._say_whether_to_retry]},
                trust_env=not _is_loopback(url.hostname),  # a proxy does not know this machine's own servers
                follow_redirects=False,  # a key must not travel to another server
            ),
        )
        self._banned = checkpoint.banned_ids if checkpoint.processor is not None else []
        self._to_compare = _PROMPTS_COMPARED if checkpoint.processor is not None else 0
        self._tokenizer_lock = threading.Lock()
        self._workers = Workers(concurrency)
        try:
            self._capabilities = self._check_capabilities(kind, constrain)
        except BaseException:
            self.close()
            raise
        self._is_ready = True

    def answer(
        self, prompts: Sequence[list[dict]], seed: int = 0, shapes: Sequence[GrammarSpec] | None = None
    ) -> list[list[Reply]]:
        """See :class:`scenerl.inference.engine.Engine`. The server gets the grammar of a specification: that relations
        name objects which are there, and that an answer ends before the token limit, is not in it."""
        draws = random.Random(seed)
        grammars = [None] * len(prompts) if shapes is None else [_grammar(shape) for shape in shapes]
        requests = [
            self._requests(prompt, draws.getrandbits(31), grammar)
            for prompt, grammar in zip(prompts, grammars, strict=True)
        ]
        try:
            return [[reply for future in own for reply in future.result()] for own in requests]
        finally:
            for future in chain.from_iterable(requests):
                future.cancel()  # those that are left when one has failed

    def check(self, shape: GrammarSpec) -> None:
        """See :class:`scenerl.inference.engine.Engine`."""
        _grammar(shape)

    def close(self) -> None:
        """Close the connections."""
        self._workers.close()
        self._client.close()

    def _say_whether_to_retry(self, response: httpx2.Response) -> None:
        """Until the server has answered once, status 500 means that it cannot (503 and 429: not yet), and it says why
        at once. The openai package obeys this header."""
        if response.status_code == 500 and not self._is_ready:
            response.headers["x-should-retry"] = "false"

    def _requests(self, prompt: list[dict], seed: int, grammar: str | None) -> list[Future[list[Reply]]]:
        """The requests for a prompt's replies: one for all of them, or one for each."""
        messages = to_messages(prompt, self._checkpoint)
        fields = self._capabilities.fields(self._sampling, self._banned, grammar)
        count = self._sampling.num_samples

        def request(seed: int, number: int) -> list[Reply]:
            completion = self._complete(messages, fields, seed, number)
            replies = self._read(completion, number)
            self._compare(prompt, completion)
            return replies

        if count == 1 or self._capabilities.multiple:
            return [self._workers.submit(request, seed, count)]
        draws = random.Random(seed)
        return [self._workers.submit(request, draws.getrandbits(31), 1) for _ in range(count)]

    def _read(self, completion: Completion, count: int) -> list[Reply]:
        try:
            return replies_of(completion, count, self._sampling.logprobs)
        except GenerationError as error:
            raise GenerationError(f"{self.address}: {error}") from error

    def _complete(self, messages: list[dict], fields: dict, seed: int, count: int = 1) -> Completion:
        """One request for ``count`` answers, made again where it fails.

        Raises:
            GenerationError: every try failed, or the server refuses; says how.
            UserError: no server answers any more, it does not know the model, or it wants another key.
        """
        several = {"n": count} if count > 1 else {}
        try:
            response = self._client.chat.completions.with_raw_response.create(
                model=self._model, messages=messages, seed=seed, extra_body={**fields, **several}
            )
            return Completion.model_validate_json(response.content)
        except openai.NotFoundError as error:
            raise UserError(f"{self.address} does not know the model {self._model!r} ({_reason(error)})") from error
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise UserError(
                f"{self.address}: {_reason(error)}; a key is read from the environment variable OPENAI_API_KEY"
            ) from error
        except openai.APIStatusError as error:
            raise GenerationError(f"{self.address}: {_reason(error)}") from error
        except openai.APITimeoutError:
            reason = f"no answer within {self._timeout:g} s"
        except openai.APIConnectionError as error:
            reason = one_line(error.__cause__)
            if not isinstance(error.__cause__, httpx2.DecodingError):
                reason = f"connection lost ({reason})"
                self._models()  # raises where no server answers any more
        raise GenerationError(f"{self.address}: {reason}")

    def _models(self) -> dict[str, ServedModel]:
        """What the server says of each of its models; nothing where it gives no list.

        Raises:
            UserError: no server answers.
        """
        client = self._client.with_options(max_retries=1)  # a server may have closed the connection that is kept open
        try:
            listed = ModelList.model_validate_json(client.models.with_raw_response.list().content)
            return {model.id: model for model in listed.data}
        except (openai.APIStatusError, ValidationError):  # transformers serve has no list without a cache of the hub
            return {}
        except openai.APITimeoutError as error:
            raise UserError(f"{self.address}: no answer within {self._timeout:g} s") from error
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, httpx2.DecodingError):
                return {}
            cause = one_line(error.__cause__)
            raise UserError(
                f"no server answers at {self.address} ({cause}); start it, or give its address: --server"
            ) from error

    def _check_capabilities(self, kind: str, constrain: bool) -> ServerCapabilities:
        """What the server can do, once a small request with all that an image's has was answered as it should be."""
        models, sampling = self._models(), self._sampling
        found = KINDS[self._kind(models) if kind == "auto" else kind]
        longest = models[self._model].max_model_len if self._model in models else None
        if longest is not None and sampling.max_new_tokens >= longest:
            raise UserError(
                f"{self.address}: prompt and answer together have at most {longest} tokens, so max_new_tokens "
                f"{sampling.max_new_tokens} leaves no room for the prompt"
            )
        image = Image.new("RGB", (56, 56), (128, 128, 128))
        prompt = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "Ready?"}]}]
        grammar = f'root ::= "{_WORD}"' if constrain else None
        count = sampling.num_samples if found.multiple else 1
        listed = ", ".join(map(repr, list(models)[:10])) + (" …" if len(models) > 10 else "")
        try:
            found.check(sampling, constrain)
            fields = found.fields(replace(sampling, max_new_tokens=8 if constrain else 1), self._banned, grammar)
            text = self._read(self._complete(to_messages(prompt), fields, 0, count), count)[0].text
        except (GenerationError, UserError) as error:
            hint = f"; it has {listed}" if models and isinstance(error.__cause__, openai.NotFoundError) else ""
            if isinstance(error.__cause__, openai.InternalServerError):
                hint = "; the server's log says why"
                if found is KINDS["transformers"]:
                    self._load()
            raise UserError(f"{error}{hint}") from error
        if constrain and text.strip() != _WORD:
            problem = f"ignores grammars: instead of {_WORD!r} it says {text!r:.40}; leave out --constrain"
            raise UserError(f"{self.address} ({found.name}) {problem}")
        if models and self._model not in models and not found.generation_config:  # which lists its cache instead
            _log.warning("%s answers as %r, but lists other models only: %s", self.address, self._model, listed)
        return found

    def _load(self) -> None:
        """Make ``transformers serve`` load the model again: it then says why it cannot, where an answer does not.

        Only after status 500: loading is not held to the model that the server was started with, answers are.

        Raises:
            UserError: it cannot.
        """
        client = self._client.with_options(max_retries=1)  # after status 500 the connection that is kept open is closed
        try:
            url = str(client.base_url.join("/load_model"))
            events = client.post(url, body={"model": self._model}, cast_to=str).splitlines()
            last = json.loads([line for line in events if line.startswith("data: ")][-1].removeprefix("data: "))
            failure = last["message"] if last["status"] == "error" else None
        except (openai.OpenAIError, ValueError, TypeError, LookupError):
            return
        if failure is not None:
            raise UserError(f"{self.address} cannot load {self._model!r}: {one_line(failure)}")

    def _kind(self, models: dict[str, ServedModel]) -> str:
        """The kind of the server, by whom it calls the owner of its models, or by a path that only one kind has."""
        owners = {model.owned_by for model in models.values()}
        if known := owners & {"vllm", "sglang"}:
            return known.pop()
        try:
            paths = self._client.get(str(self._client.base_url.join("/openapi.json")), cast_to=object)["paths"]
            return "transformers" if "/load_model" in paths else "openai"
        except (openai.OpenAIError, ValueError, TypeError, KeyError):
            return "openai"

    def _compare(self, prompt: list[dict], completion: Completion) -> None:
        """Warn once where the server read another prompt than the checkpoint's processor makes."""
        ids = completion.prompt_token_ids
        count = len(ids) if ids else completion.usage and completion.usage.prompt_tokens
        with self._tokenizer_lock:
            if count is None or self._to_compare <= 0:
                return
            self._to_compare -= 1
            processor = self._checkpoint.processor
            ours = processor.apply_chat_template([prompt], add_generation_prompt=True, tokenize=True, return_dict=True)
            ours = [int(token) for token in ours["input_ids"][0]]
            if count == len(ours) and (not ids or ids == ours):
                return
            self._to_compare = 0
        _log.warning(
            f"{self.address} read a prompt as {count} tokens, where the processor of {self._checkpoint.name} makes "
            f"{len(ours) if count != len(ours) else 'others'} of it: the server runs another model, or has another "
            "chat template, tokenizer or pixel bounds (--min_pixels, --max_pixels)"
        )


def _check_response(response: httpx2.Response) -> None:
    """Read a response as far as it may be long, and see that it is what was requested.

    Raises:
        httpx2.DecodingError: it is not. The openai package then makes the request again.
    """
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise httpx2.DecodingError("a compressed reply, which was not requested", request=response.request)
    response.stream = _LimitedStream(response.stream)
    response.read()
    if response.is_success and response.request.url.path.endswith("/chat/completions"):
        try:
            Completion.model_validate_json(response.content)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, problem["loc"]))
            reason = f"not a chat completion: {f'{place}: ' * bool(place)}{problem['msg']}"
            raise httpx2.DecodingError(reason, request=response.request) from error


class _LimitedStream(httpx2.SyncByteStream):
    """The bytes of a response, an error after :data:`MAX_BYTES`."""

    def __init__(self, stream: httpx2.SyncByteStream):
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for part in self._stream:
            size += len(part)
            if size > MAX_BYTES:
                raise httpx2.DecodingError(f"a reply of more than {MAX_BYTES} bytes")
            yield part

    def close(self) -> None:
        self._stream.close()


@lru_cache(maxsize=256)
def _grammar(shape: GrammarSpec) -> str:
    return build_grammar(shape.output_format, shape.bounds_wh)


def _parse_address(server: str):
    try:
        url = urlsplit(server)
        if url.scheme in ("http", "https") and url.hostname and url.port != 0:
            return url._replace(path=url.path.rstrip("/") or "/v1", query="", fragment="")
    except ValueError:  # of urlsplit, or of a port that is no number
        pass
    raise UserError(f"server {server!r}: not an address; allowed: http://HOST:PORT/v1 or https://…")


def _checked_key(key: str | None) -> str:
    key = (key or "").strip()  # a key that comes from a file often ends in a line break
    if not (key.isascii() and key.isprintable()):
        raise UserError("OPENAI_API_KEY: holds characters that no key has")  # which are not for a terminal or log
    return key


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reason(error: openai.APIStatusError) -> str:
    """The status and what the server says: under ``message``, ``detail`` or ``error``, or as mere text."""
    said = error.body
    if isinstance(said, dict):
        said = next((said[key] for key in ("message", "detail", "error") if said.get(key)), said)
    return f"status {error.status_code}: {one_line(said if isinstance(said, str) else json.dumps(said))}"
