"""What can be tested of rollouts by vLLM where vLLM is not installed; the rest: ``make test-vllm``."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trl import GRPOConfig
from trl.generation.vllm_client import parse_logprobs

from inference.loopback import free_port
from models.other_families import tile_of
from scenerl import tiny
from scenerl.errors import UserError
from scenerl.models.loading import load
from scenerl.training import grpo, vllm_engine
from scenerl.training.vllm_engine import check_tiles, check_version, collapse_runs, set_importance_sampling
from scenerl.training.vllm_server import VLLMServer, _Client
from training.small_run import QUICK_GRPO, SHAPE, STYLE


def test_runs_of_image_tokens_become_one():
    assert collapse_runs([1, 9, 9, 9, 2, 2, 9, 3], 9) == [1, 9, 2, 2, 9, 3]
    assert collapse_runs([9, 9], 9) == [9] and collapse_runs([], 9) == [] and collapse_runs([4, 4], 9) == [4, 4]


@given(st.lists(st.integers(0, 3)), st.integers(1, 5))
def test_expanding_collapsed_runs_gives_the_prompt_again(tokens, length):
    """Images are never neighbours: each has a token before and after it."""
    prompt = [part for token in tokens for part in ([9] * length + [5] if token == 0 else [token])]
    collapsed = collapse_runs(prompt, 9)
    assert [part for token in collapsed for part in ([9] * length if token == 9 else [token])] == prompt


@pytest.mark.parametrize(
    "version, said", [("0.32.0", ""), ("0.32.1+cu129", ""), ("0.33.0", "not among"), ("0.31.2", "not among")]
)
def test_a_version_that_was_not_tested_is_said(monkeypatch, caplog, version, said):
    monkeypatch.setattr(vllm_engine, "is_vllm_available", lambda: True)
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(__version__=version))
    check_version()
    assert said in caplog.text and bool(caplog.text) == bool(said)


def test_an_old_version_is_refused(monkeypatch):
    monkeypatch.setattr(vllm_engine, "is_vllm_available", lambda: True)
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(__version__="0.29.0"))
    with pytest.raises(UserError, match=r"^use_vllm: vLLM 0.29.0 is too old; allowed: 0.30 or later, tested: 0.32"):
        check_version()


@pytest.mark.parametrize(
    "fields, constrained, corrected",
    [
        ({"temperature": 1.0, "top_p": 0.9, "top_k": 50}, False, True),  # probabilities before the limits are at hand
        ({"temperature": 0.7}, False, True),
        ({"temperature": 0.7, "top_p": 0.9}, False, False),
        ({"temperature": 0.7, "top_k": 50}, False, False),
        ({"temperature": 0.7, "repetition_penalty": 1.1}, False, False),
        ({"temperature": 1.0}, True, False),
    ],
)
def test_importance_sampling_where_probabilities_can_be_compared(tmp_path, fields, constrained, corrected):
    args = GRPOConfig(output_dir=str(tmp_path), **{**QUICK_GRPO, "use_vllm": True, **fields})
    set_importance_sampling(args, constrained)
    assert args.vllm_importance_sampling_correction == corrected


def test_tiled_images_of_smolvlm_are_refused(examples, tmp_path):
    tiny.save(*tiny.build(examples, STYLE, SHAPE, model_type="smolvlm"), tmp_path)
    checkpoint = load(tmp_path)
    args = GRPOConfig(output_dir=str(tmp_path), **{**QUICK_GRPO, "use_vllm": True})
    with pytest.raises(UserError, match="^use_vllm: TRL 1.16 expands prompts with tiled images of smolvlm twice; "):
        grpo.build_trainer(checkpoint, checkpoint.conversation(STYLE), examples, args, ["format"])
    check_tiles(load(tmp_path, max_pixels=tile_of(SHAPE) ** 2))  # an image is one tile


def test_weights_as_files_are_for_servers(checkpoint, conversation, examples, tmp_path):
    args = GRPOConfig(output_dir=str(tmp_path), **QUICK_GRPO)
    with pytest.raises(UserError, match="^vllm_sync adapter: is of servers; add --use_vllm true --vllm_mode server"):
        grpo.build_trainer(checkpoint, conversation, examples, args, ["format"], vllm_sync="adapter")


class Server:
    """Answers with what it is told to; counts requests."""

    def __init__(self, replies: dict[str, tuple[int, object]]):
        self.paths = paths = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                paths.append(self.path)
                status, body = replies.get(self.path, (200, {}))
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def log_message(self, *args):
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def serve():
    servers = []

    def start(**replies):
        replies = {"/v1/models": (200, {"data": [{"id": "policy"}]}), **replies}
        servers.append(Server(replies))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_an_adapter_replaces_the_one_before(serve, tmp_path):
    server = serve()
    client = _Client(server.url, 5)
    assert client.model == "policy"
    client.load_adapter(tmp_path / "one")
    client.load_adapter(tmp_path / "two")
    assert client.model == "two"
    assert server.paths[2:] == ["/v1/load_lora_adapter", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"]


def test_a_checkpoint_is_loaded_while_the_server_pauses_and_forgets(serve, tmp_path):
    server = serve()
    _Client(server.url, 5).load_weights(tmp_path)
    pause, load, *forget, resume = server.paths[2:]
    assert (pause, load, resume) == ("/pause?mode=wait", "/collective_rpc", "/resume")
    assert sorted(forget) == ["/reset_encoder_cache", "/reset_mm_cache", "/reset_prefix_cache"]


def test_a_refusal_is_said_with_the_servers_words_and_the_server_goes_on(serve, tmp_path):
    server = serve(**{"/collective_rpc": (500, {"error": "no such folder"})})
    with pytest.raises(UserError, match=r"/collective_rpc: status 500: .*no such folder"):
        _Client(server.url, 5).load_weights(tmp_path)
    assert server.paths[-1] == "/resume"


def test_nobody_and_a_server_that_hangs_end_in_time(serve):
    start = time.monotonic()
    with pytest.raises(UserError, match=r"^no vLLM server answers at .* within 0.1 s"):
        _Client(f"http://127.0.0.1:{free_port()}", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(UserError, match="within 0.2 s"):
            _Client(f"http://127.0.0.1:{silent.getsockname()[1]}", 0.2)
        client = _Client(serve().url, 5)
        client.session.timeout = 0.2
        client.base_url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UserError, match=r"no answer within 0.2 s \(vllm_server_timeout\)"):
            client.post("pause")
    assert time.monotonic() - start < 20


def test_a_server_that_is_gone(serve):
    server = serve()
    client = _Client(server.url, 5)
    server.close()
    with pytest.raises(UserError, match="^the vLLM server is gone: "):
        client.post("resume")


def test_tokens_that_are_named_by_number_only(serve):
    """As vLLM 0.32 names them; TRL 1.16 reads those of 0.31."""
    top = [{"token_id": 7, "logprob": -0.5}, {"token_id": 3, "logprob": -2.0}]
    position = {"token_id": 7, "logprob": -0.5, "top_logprobs": top}
    choice = {"token_ids": [7], "logprobs": {"content": [position]}}
    server = serve(**{"/inference/v1/generate": (200, {"choices": [choice]})})
    reply = _Client(server.url, 5)._post(f"{server.url}/inference/v1/generate", json={})
    assert parse_logprobs([reply["choices"][0]["logprobs"]]) == ([[[-0.5, -2.0]]], [[[7, 3]]])


def test_another_model_is_refused(base, checkpoint):
    def engine(model: str, **config) -> VLLMServer:
        config = {"model": model, "logprobs_mode": "raw_logprobs", **config}
        engine = VLLMServer.__new__(VLLMServer)
        engine.model, engine.temperature = checkpoint.model, 1.0
        engine.vllm_client = SimpleNamespace(base_url="http://x:1", get_server_info=lambda: {"model_config": config})
        return engine

    engine(str(base)).check_server()
    engine("Qwen/elsewhere").check_server()
    with pytest.raises(
        UserError, match="gives processed_logprobs; with temperature 1 start it with --logprobs-mode raw"
    ):
        engine(str(base), logprobs_mode="processed_logprobs").check_server()
    checkpoint.model.config.text_config.num_hidden_layers = 3
    with pytest.raises(UserError, match=r"^http://x:1 serves another model, .*: num_hidden_layers 2, not 3$"):
        engine(str(base)).check_server()
