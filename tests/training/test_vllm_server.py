"""GRPO with a real vLLM server on the CPU that gets its weights as files: ``make test-vllm``."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from peft import LoraConfig

from inference.loopback import free_port
from inference.real_server import running_vllm
from scenerl import cli
from training.small_run import save_base
from training.vllm_run import EXACT, build, difference, fine_tuned, grpo_run, grpo_words, shake

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]

FLAGS = ["--max-model-len", "256", "--max-num-seqs", "8", "--enable-scale-out", "--enable-lora", "--max-lora-rank", "8"]
SETTINGS = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}
SETTINGS["PYTHONPATH"] = str(Path(__file__).with_name("plain_weights"))


@pytest.fixture(scope="module")
def trained(base, rows, tmp_path_factory):
    return fine_tuned(base, rows, tmp_path_factory.mktemp("sft") / "trained", 80)


@pytest.fixture(scope="module")
def server(trained, tmp_path_factory):
    """Process and address of a server that takes adapters and whole checkpoints."""
    with running_vllm(trained, "policy", tmp_path_factory.mktemp("server") / "log.txt", *FLAGS, **SETTINGS) as running:
        yield running


def served(server, **more) -> dict:
    return {"vllm_mode": "server", "vllm_server_base_url": server[1], "vllm_server_timeout": 300, **more}


def failing(capsys, line) -> str:
    capsys.readouterr()
    assert cli.main(line) == 2
    [message] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("scenerl: error: ")]
    return message.removeprefix("scenerl: error: ")


def test_log_probabilities_follow_adapters(server, trained, examples, tmp_path):
    """First of all tests: the server runs the checkpoint that it was started with."""
    adapter = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=r".*language_model.*_proj")
    trainer = build(trained, tmp_path, examples, adapter, "adapter", **served(server))
    assert difference(trainer) < EXACT
    for _ in range(2):
        shake(trainer.model, "lora", 0.1)
        assert difference(trainer) > 0.5
        assert difference(trainer, sync=True) < EXACT
    assert len(list((tmp_path / "vllm_sync").glob("*/*"))) == 1


def test_an_adapter_is_trained(server, trained, rows, tmp_path):
    fields = served(server, vllm_sync="adapter", use_peft=True, lora_r=4, lora_dropout=0, max_steps=4)
    log = grpo_run(trained, rows, tmp_path / "run", **fields, learning_rate=1e-2)
    assert max(row["reward_std"] for row in log) > 0.02 and len({row["reward"] for row in log}) > 2
    assert [row["sampling/importance_sampling_ratio/mean"] for row in log] == pytest.approx([1.0] * 4, abs=1e-3)


def test_log_probabilities_follow_checkpoints(server, trained, examples, tmp_path):
    trainer = build(trained, tmp_path, examples, vllm_sync="checkpoint", **served(server))
    assert difference(trainer, sync=True) < EXACT
    shake(trainer.model, "language_model")
    assert difference(trainer) > 0.5
    assert difference(trainer, sync=True) < EXACT
    shake(trainer.model, "visual")
    assert difference(trainer, sync=True) < EXACT


def test_constrained_rollouts(server, base, rows, tmp_path):
    """Of a beginner, whose weights the server gets before the first rollout."""
    beginner = fine_tuned(base, rows, tmp_path / "beginner", 30)
    fields = served(server, vllm_sync="checkpoint", max_steps=2, max_completion_length=140)
    free = grpo_run(beginner, rows, tmp_path / "free", **fields)
    held = grpo_run(beginner, rows, tmp_path / "held", constrain=True, **fields)
    assert max(row["scene/failures/wrong_schema"] for row in free) > 0
    assert {row["scene/failures/wrong_schema"] for row in held} == {0}


def test_all_weights_are_trained(server, trained, rows, tmp_path):
    log = grpo_run(trained, rows, tmp_path / "run", **served(server, vllm_sync="checkpoint", max_steps=4))
    assert max(row["reward_std"] for row in log) > 0.02
    assert [row["sampling/importance_sampling_ratio/mean"] for row in log] == pytest.approx([1.0] * 4, abs=1e-3)


def test_a_server_that_is_not_there_or_another(server, trained, rows, examples, tmp_path, capsys):
    start = time.monotonic()
    nobody = {"vllm_server_base_url": f"http://127.0.0.1:{free_port()}", "vllm_server_timeout": 3}
    line = grpo_words(trained, rows, tmp_path / "run", **served(server, vllm_sync="checkpoint", **nobody))
    message = failing(capsys, line)
    assert message.startswith("no vLLM server answers at http://127.0.0.1:") and "within 3 s" in message
    other = save_base(tmp_path / "other", examples[:1])
    message = failing(
        capsys, grpo_words(other, rows, tmp_path / "run_of_other", **served(server, vllm_sync="checkpoint"))
    )
    assert f"{server[1]} serves another model, {trained}: vocab_size " in message
    message = failing(capsys, grpo_words(trained, rows, tmp_path / "adapter", **served(server, vllm_sync="adapter")))
    assert message == "vllm_sync: adapter needs --use_peft; without an adapter: vllm_sync checkpoint"
    hot = served(server, vllm_sync="checkpoint", temperature=0.7)
    assert "--logprobs-mode processed_logprobs" in failing(capsys, grpo_words(trained, rows, tmp_path / "hot", **hot))
    assert time.monotonic() - start < 120


def test_a_server_that_stands_still_or_dies_in_the_middle(server, trained, rows, tmp_path, capsys):
    """The last test: it ends the server."""
    process, _ = server

    def when_training(out: Path, number: int) -> None:
        def act():
            while not (out / "log.jsonl").exists() or not (out / "log.jsonl").read_text():
                time.sleep(0.05)
            os.killpg(process.pid, number)

        threading.Thread(target=act, daemon=True).start()

    fields = served(server, vllm_sync="checkpoint", max_steps=500, vllm_server_timeout=20)
    for name, number, said in (
        ("still", signal.SIGSTOP, "no answer within 20 s"),
        ("dead", signal.SIGKILL, "the vLLM server is gone"),
    ):
        when_training(tmp_path / name, number)
        start = time.monotonic()
        message = failing(capsys, grpo_words(trained, rows, tmp_path / name, **fields))
        assert said in message and time.monotonic() - start < 180
        if number == signal.SIGSTOP:
            os.killpg(process.pid, signal.SIGCONT)
