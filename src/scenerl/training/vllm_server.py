"""Rollouts by vLLM servers that get new weights as files in a folder which they read too.

TRL sends weights by NCCL, which needs CUDA in both. Here the trainer writes a LoRA adapter or all weights and tells the
server over HTTP to load them: on one machine, on a CPU, and on machines that share a folder.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import torch
from accelerate.utils import is_peft_model
from peft import get_peft_model_state_dict
from safetensors.torch import save_file

from scenerl.errors import UserError
from scenerl.files import whole_folder
from scenerl.models.folders import one_line
from scenerl.training.vllm_engine import Client, VLLMEngine, forget_features

Sync = Literal["adapter", "checkpoint"]
_WAIT = 2.0
_TRIES = 3


class VLLMServer(VLLMEngine):
    """TRL's engine in the mode ``server``.

    Args:
        sync: what is handed over: the LoRA adapter that is trained, or all weights.
        folder: where; the server finds it under the same path. Each run has a folder of its own in it, with the
            newest version.

    Raises:
        UserError: no server answers, it serves another model or lacks a setting, or an adapter cannot be served.
    """

    def __init__(self, *args, sync: Sync, folder: Path, **kwargs):
        self._sync, self._folder = sync, folder.absolute() / uuid.uuid4().hex[:8]
        self._newest, self._count = None, 0
        super().__init__(*args, **kwargs)

    def _init_vllm(self) -> None:
        if self._sync == "adapter":
            self._check_adapter()
        if self.accelerator.is_main_process:
            urls = (self.server_base_url or f"http://{self.server_host}:{self.server_port}").split(",")
            clients = [_Client(url.strip(), self.server_timeout) for url in urls]
            for client in clients:
                self.vllm_client = client
                self.check_server()
            if len(clients) > 1:
                self.vllm_client = Servers(clients)
        self.accelerator.wait_for_everyone()

    def _check_adapter(self) -> None:
        if not is_peft_model(self.model):
            raise UserError("vllm_sync: adapter needs --use_peft; without an adapter: vllm_sync checkpoint")
        if self.model.active_peft_config.modules_to_save:
            raise UserError("vllm_sync: vLLM serves no adapter with lora_modules_to_save; use vllm_sync checkpoint")
        vision = self._checkpoint.family.vision_modules
        trained = [name for name, weights in self.model.named_parameters() if weights.requires_grad]
        if any(f"{module}." in name for module in vision for name in trained):
            raise UserError("vllm_sync: vLLM serves no adapter of the vision tower; use vllm_sync checkpoint")

    def sync_weights(self) -> None:
        """Write the weights and have the server load them; nothing that it remembers is older."""
        files = self._adapter() if self._sync == "adapter" else self._weights()
        if self.accelerator.is_main_process:
            self._count += 1
            version = self._folder / f"{self._folder.name}-{self._count}"
            with whole_folder(version) as draft:
                save_file(files, draft / ("adapter_" * (self._sync == "adapter") + "model.safetensors"))
                if self._sync == "adapter":
                    self.model.active_peft_config.save_pretrained(draft)
            if self._sync == "adapter":
                self.vllm_client.load_adapter(version)
            else:
                self.vllm_client.load_weights(version)
            if self._newest:
                shutil.rmtree(self._newest)
            self._newest = version
        self.accelerator.wait_for_everyone()

    def _weights(self) -> dict[str, torch.Tensor]:
        """All weights, in the main process; the others take part in gathering them."""
        is_main = self.accelerator.is_main_process
        return {name: _stored(weights) for name, weights in self._iter_named_params() if is_main}

    def _adapter(self) -> dict[str, torch.Tensor]:
        weights = {}
        for name, parameter in self.model.named_parameters():
            if self.model.prefix in name:
                with self._dist.gather_params([parameter]):
                    whole = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
                    weights[name] = _stored(whole)
        return get_peft_model_state_dict(self.model, weights)


def _stored(weights: torch.Tensor) -> torch.Tensor:
    """A copy on the CPU: the next weights may be gathered in the same memory."""
    return weights.detach().to("cpu", copy=True).contiguous()


class _Session(httpx.Client):
    """Requests that end: in an answer, or in a UserError that says how the server failed."""

    def __init__(self, timeout: float):
        # vLLM closes a connection that was idle for 5 s; one that it closes just now would lose the next request
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=64, keepalive_expiry=2)
        super().__init__(timeout=timeout, transport=httpx.HTTPTransport(retries=_TRIES, limits=limits))

    def request(self, method, url, **kwargs):
        try:
            response = super().request(method, url, **kwargs)
        except httpx.TimeoutException as error:
            raise UserError(f"{url}: no answer within {self.timeout.read:g} s (vllm_server_timeout)") from error
        except httpx.TransportError as error:
            raise UserError(f"the vLLM server is gone: {url}: {one_line(error)}") from error
        if response.is_error:
            hint = "; the server was not started as docs/cluster.md says" if response.status_code == 404 else ""
            raise UserError(f"{url}: status {response.status_code}: {one_line(response.text)}{hint}")
        return response


class _Client(Client):
    """TRL's client without NCCL. It does not call TRL's constructor, whose requests may wait for ever."""

    def __init__(self, base_url: str, timeout: float):
        self.base_url = base_url.rstrip("/")
        self.session = _Session(timeout)
        self._adapter: str | None = None
        self._wait(timeout)
        self.model = self._get(f"{self.base_url}/v1/models")["data"][0]["id"]

    def _wait(self, timeout: float) -> None:
        """Until the server answers."""
        end = time.monotonic() + timeout
        while True:
            try:
                httpx.get(f"{self.base_url}/health", timeout=min(timeout, 10)).raise_for_status()
                return
            except httpx.HTTPError as error:
                if time.monotonic() > end:
                    raise UserError(
                        f"no vLLM server answers at {self.base_url} within {timeout:g} s (vllm_server_timeout): "
                        f"{one_line(error)}"
                    ) from error
            time.sleep(_WAIT)

    def post(self, path: str, **body) -> None:
        self.session.post(f"{self.base_url}/{path}", json=body)

    def load_adapter(self, folder: Path) -> None:
        """Answer with another adapter from now on; each has a name of its own, under which nothing is cached yet."""
        self.post("v1/load_lora_adapter", lora_name=folder.name, lora_path=str(folder))
        before, self.model, self._adapter = self._adapter, folder.name, folder.name
        if before:
            self.post("v1/unload_lora_adapter", lora_name=before)

    def load_weights(self, folder: Path) -> None:
        self.post("pause?mode=wait")
        try:
            self.post("collective_rpc", method="reload_weights", kwargs={"weights_path": str(folder)})
            self.post("reset_prefix_cache")
            forget_features(self)
        finally:
            self.post("resume")


class Servers:
    """Several servers in place of one client: prompts are spread over them, and all load new weights."""

    def __init__(self, clients: Sequence[_Client]):
        self._clients = clients

    def generate(self, prompts: Sequence[list[int]], features: Sequence | None = None, **settings) -> dict[str, Any]:
        """As TRL's client: what all have written, in the order of the prompts."""

        def send(client: _Client, part: Sequence[int]) -> dict[str, Any]:
            own = features and [features[index] for index in part]
            return client.generate(prompts=[prompts[index] for index in part], features=own, **settings)

        replies = self._spread(send, len(prompts))
        return {key: value and [item for reply in replies for item in reply[key]] for key, value in replies[0].items()}

    def image_features(self, images: Sequence[list | None]) -> list:
        """As TRL's client; the server that makes a prompt's features is the one that completes the prompt."""
        parts = self._spread(lambda client, part: client.image_features([images[index] for index in part]), len(images))
        return [features for part in parts for features in part]

    def load_adapter(self, folder: Path) -> None:
        self._spread(lambda client, _: client.load_adapter(folder), len(self._clients))

    def load_weights(self, folder: Path) -> None:
        self._spread(lambda client, _: client.load_weights(folder), len(self._clients))

    def _spread(self, send: Callable[[_Client, Sequence[int]], Any], count: int) -> list:
        """What each server replies to its part of so many prompts; with fewer prompts some servers have none."""
        parts = [part.tolist() for part in np.array_split(np.arange(count), len(self._clients)) if len(part)]
        with ThreadPoolExecutor(len(parts)) as executor:
            return list(executor.map(send, self._clients, parts))
