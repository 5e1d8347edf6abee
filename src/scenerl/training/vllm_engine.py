"""Rollouts by vLLM: TRL's engine, with what it lacks for image prompts and for weights that change.

TRL 1.16 hands vLLM prompts whose image tokens are already expanded, which vLLM expands again; it names no dtype; and
after a weight update it empties the prefix cache only, so that an image seen before keeps its old features.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from packaging.version import Version
from transformers import AutoConfig
from trl import GRPOConfig
from trl.generation import vllm_generation
from trl.generation.vllm_client import VLLMClient
from trl.generation.vllm_generation import VLLMGeneration
from trl.import_utils import is_vllm_available
from trl.trainer import grpo_trainer

from scenerl.errors import UserError
from scenerl.models.loading import Checkpoint

_log = logging.getLogger(__name__)
# TRL recommends another --logprobs-mode than check_server requires
logging.getLogger("trl.trainer.grpo_trainer").addFilter(lambda record: "--logprobs-mode" not in record.getMessage())

TESTED = ("0.32",)
"""Minor versions of vLLM with which ``make test-vllm`` passed."""
OLDEST = "0.30"
"""The first version that has what is called here."""


def check_version() -> None:
    """Warn where the installed version of vLLM is not one of :data:`TESTED`.

    Raises:
        UserError: vLLM is not installed, or older than :data:`OLDEST`.
    """
    if not is_vllm_available():
        raise UserError("use_vllm: the package vllm is not installed; leave the option out to roll out without it")
    import vllm

    version, tested = Version(vllm.__version__), ", ".join(TESTED)
    if version < Version(OLDEST):
        raise UserError(f"use_vllm: vLLM {version} is too old; allowed: {OLDEST} or later, tested: {tested}")
    if f"{version.major}.{version.minor}" not in TESTED:
        _log.warning("vLLM %s is not among the versions that the tests ran with: %s", version, tested)


def check_tiles(checkpoint: Checkpoint) -> None:
    """Check that an image is one run of image tokens: TRL 1.16 expands prompts, and vLLM does it again.

    Raises:
        UserError: images are cut into tiles with tokens of their own between them, as SmolVLM's are.
    """
    images = checkpoint.processor.image_processor
    if (
        checkpoint.family.model_type == "smolvlm"
        and images.size["longest_edge"] > images.max_image_size["longest_edge"]
    ):
        raise UserError(
            "use_vllm: TRL 1.16 expands prompts with tiled images of smolvlm twice; leave out use_vllm, or take "
            "another family"
        )


def collapse_runs(ids: Sequence[int], token: int) -> list[int]:
    """Token ids with every run of one token shortened to a single one: the prompt before its images were expanded."""
    return [kept for value, run in groupby(ids) for kept in ([value] if value == token else run)]


def set_importance_sampling(args: GRPOConfig, constrained: bool) -> None:
    """Leave out TRL's importance sampling where vLLM's log-probabilities are not those of the whole distribution.

    TRL multiplies the loss of a completion by the ratio of its probabilities under trainer and vLLM. Where vLLM's are
    of the tokens that a grammar or ``top_p`` leaves, the ratio of a long completion is nearly 0 and nothing is learnt.
    """
    is_limited = args.top_p < 1 or args.top_k or args.min_p or args.repetition_penalty != 1
    if constrained or (is_limited and logprobs_mode(args.temperature) != "raw_logprobs"):
        args.vllm_importance_sampling_correction = False


def logprobs_mode(temperature: float) -> str:
    """At temperature 1 vLLM's log-probabilities before bans and limits, which are those that the trainer computes."""
    return "raw_logprobs" if temperature == 1 else "processed_logprobs"


class Client(VLLMClient):
    """TRL's client. From 0.32 on vLLM names the tokens of an answer by number only."""

    def _post(self, url: str, **kwargs) -> dict:
        reply = super()._post(url, **kwargs)
        for choice in reply.get("choices", ()):
            for position in (choice.get("logprobs") or {}).get("content") or ():
                for token in (position, *position["top_logprobs"]):
                    token.setdefault("token", f"token_id:{token.get('token_id')}")
        return reply


class VLLMEngine(VLLMGeneration):
    """TRL's engine. ``checkpoint`` is the one that is trained; the other arguments are TRL's."""

    def __init__(self, *args, checkpoint: Checkpoint, **kwargs):
        self._checkpoint = checkpoint
        super().__init__(*args, **kwargs)

    def _init_vllm(self) -> None:
        if self.mode == "server":
            with _replaced(vllm_generation, "VLLMClient", Client):
                super()._init_vllm()
            if self.accelerator.is_main_process:
                self.check_server()
            return
        settings = {"dtype": self._dtype(), "logprobs_mode": logprobs_mode(self.temperature)}
        build = vllm_generation.LLM
        with _replaced(vllm_generation, "LLM", lambda **kwargs: build(**{**kwargs, **settings})):
            super()._init_vllm()

    def _dtype(self) -> str:
        """What the trainer's forward pass computes in."""
        mixed = {"bf16": "bfloat16", "fp16": "float16"}
        return mixed.get(self.accelerator.mixed_precision) or str(self.model.dtype).removeprefix("torch.")

    def generate(self, prompts, images, num_generations, profiler=None) -> tuple:
        """As TRL. Images are resized as the trainer's processor does it, which leaves nothing to do for vLLM's.

        Raises:
            UserError: vLLM makes another prompt of tokens and images than the trainer's processor.
        """
        if images is not None:
            images = [own and [self._checkpoint.resized(image) for image in own] for own in images]
        if self.mode != "colocate":
            return super().generate(prompts, images, num_generations, profiler)
        token = self.processing_class.image_token_id
        collapsed = [collapse_runs(prompt, token) for prompt in prompts]
        read, *outputs = super().generate(collapsed, images, num_generations, profiler)
        for ours, theirs in zip(prompts, read, strict=True):
            if list(ours) != list(theirs):
                raise UserError(
                    f"vLLM read a prompt of {len(ours)} tokens as {len(theirs)}: another image size (min_pixels, "
                    "max_pixels) than the checkpoint's, or a family whose images it does not expand in this way; leave "
                    "out use_vllm"
                )
        return read, *outputs

    def sync_weights(self) -> None:
        """As TRL, and no image keeps the features that older weights gave it."""
        super().sync_weights()
        if self.mode == "colocate":
            self.llm.llm_engine.reset_encoder_cache()
            self.llm.reset_mm_cache()
        elif self.accelerator.is_main_process:
            forget_features(self.vllm_client)

    def check_server(self) -> None:
        """Check in the main process that the server runs a model like the one that is trained, and how it must.

        That the weights are the same is seen by the check of the first rollout.

        Raises:
            UserError: it does not; names what differs.
        """
        address, config = self.vllm_client.base_url, self.vllm_client.get_server_info()["model_config"]
        mode = logprobs_mode(self.temperature)
        if config["logprobs_mode"] != mode:
            raise UserError(
                f"{address} gives {config['logprobs_mode']}; with temperature {self.temperature:g} start it with "
                f"--logprobs-mode {mode}"
            )
        if Path(config["model"]).is_dir():  # where it is seen from here
            ours, theirs = _sizes(self.model.config), _sizes(AutoConfig.from_pretrained(config["model"]))
            differing = [f"{key} {theirs[key]}, not {ours[key]}" for key in ours if theirs[key] != ours[key]]
            if differing:
                raise UserError(f"{address} serves another model, {config['model']}: {', '.join(differing)}")


def _sizes(config) -> dict[str, Any]:
    text = config.get_text_config()
    names = ("hidden_size", "num_hidden_layers", "vocab_size")
    return {"model_type": config.model_type, **{name: getattr(text, name) for name in names}}


def forget_features(client: VLLMClient) -> None:
    """Have a server forget what it made of images. TRL's client empties the prefix cache only."""
    for cache in ("mm", "encoder"):
        client.session.post(f"{client.base_url}/reset_{cache}_cache")


@contextmanager
def engine_in(make: Callable[..., VLLMGeneration]) -> Iterator[None]:
    """While it lasts, TRL's trainers take the engine that ``make`` builds; they have no argument for one."""
    with _replaced(grpo_trainer, "VLLMGeneration", make):
        yield


@contextmanager
def _replaced(module, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
