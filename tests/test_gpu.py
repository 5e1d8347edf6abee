"""On a GPU: attention, the update, and the commands of a run give there what they give on the CPU.

Run with ``make test-gpu`` or ``-m gpu``; ``GPU_TESTS_DEVICE=cpu`` rehearses the same tests where there is no GPU.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

import torch.nn.functional as F  # noqa: E402

from scenerl.cli import main  # noqa: E402
from scenerl.training.shared_prefix import support  # noqa: E402
from scenerl.training.shared_prefix.attention import portable_attention  # noqa: E402
from training.shared_prefix.test_packing import packed_from, visible  # noqa: E402
from training.shared_prefix.test_trainer import both_ways, build, close, gradients, of_kind  # noqa: E402
from training.small_run import QUICK, QUICK_GRPO, read_rows, words  # noqa: E402

DEVICE = os.environ.get("GPU_TESTS_DEVICE", "cuda")
ACCELERATE = Path(__file__).parents[1] / "recipes" / "profiles" / "accelerate"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no GPU here"),
]

SIZES = [(40, [7, 0, 19, 3]), (1, [5]), (64, [33, 64, 1])]
"""Of each group the length of the prompt and those of the completions."""


@pytest.fixture(autouse=True)
def exact_products():
    """Float32 products in float32: with TF32 a GPU keeps ten bits."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("heads, kv_heads", [(2, 2), (12, 2)])
def test_attention_is_that_of_the_mask(dtype, tolerance, heads, kv_heads):
    from scenerl.training.shared_prefix.packing import pack

    row = pack(*packed_from(SIZES))
    length, generator = row.input_ids.shape[1], torch.Generator().manual_seed(0)
    shapes = [(1, heads, length, 64), (1, kv_heads, length, 64), (1, kv_heads, length, 64)]
    exact = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).double() for shape in shapes]
    weight = torch.randn(shapes[0], generator=generator, dtype=torch.float64)
    inputs = [states.requires_grad_() for states in exact]
    query, key, value = inputs
    masked = F.scaled_dot_product_attention(
        query, key.repeat_interleave(heads // kv_heads, 1), value.repeat_interleave(heads // kv_heads, 1),
        attn_mask=visible(row.groups), scale=0.125,
    )  # fmt: skip
    wanted = torch.autograd.grad((masked * weight).sum(), inputs)
    there = [states.detach().to(DEVICE, dtype).requires_grad_() for states in inputs]
    output = portable_attention(*there, row.groups, 0.125)
    assert output.device.type == DEVICE
    torch.testing.assert_close(output.double().cpu(), masked, rtol=0, atol=tolerance)
    for got, right in zip(torch.autograd.grad((output * weight.to(DEVICE, dtype)).sum(), there), wanted, strict=True):
        assert (got.double().cpu() - right).norm() <= tolerance * right.norm()


@pytest.mark.parametrize("kind", support.PACKED + support.CACHED)
def test_the_update_is_trls(kind, base, examples, tmp_path):
    fields = {"per_device_train_batch_size": 8, "num_generations": 4, "use_cpu": DEVICE == "cpu"}
    trainer = build(of_kind(kind, base, examples), examples, tmp_path, gradient_checkpointing=True, **fields)
    trainer.current_gradient_accumulation_steps = 1
    assert trainer.model.device.type == DEVICE
    trainer.model.train()
    rows = [trainer.train_dataset[index] for index in (0, 0, 0, 0, 2, 2, 2, 2)]
    batch = trainer._generate_and_score_completions(rows)

    def compute():
        loss = trainer._compute_loss(trainer.model, dict(batch))
        return loss.detach(), gradients(loss, trainer.model)

    ours, trls = both_ways(trainer, compute)
    torch.testing.assert_close(ours[0], trls[0], rtol=0, atol=1e-5)
    assert close(ours[1], trls[1]) and trls[1].norm() > 0


def run(*line: object) -> None:
    assert main([str(word) for word in line]) == 0, line


@pytest.fixture(scope="module")
def trained(base, rows, tmp_path_factory):
    """A model after a hundred steps of SFT on the device, so that its greedy answers are no ties."""
    folder = tmp_path_factory.mktemp("sft") / "run"
    fields = {**QUICK, "max_steps": 100, "learning_rate": 2e-3, "use_cpu": DEVICE == "cpu"}
    run("sft", "--model", base, "--data", rows, "--out", folder, "--dtype", "float32", *words(fields))
    log = [row["loss"] for row in read_rows(folder / "log.jsonl") if "loss" in row]
    assert log[-1] < log[0] / 2
    return folder


def test_predictions_are_those_of_the_cpu(trained, rows, tmp_path):
    for device in ("cpu", DEVICE):
        line = ["predict", "--model", trained, "--data", rows, "--out", tmp_path / f"{device}.jsonl"]
        run(*line, "--device", device, "--dtype", "float32", "--max_new_tokens", 64, "--logprobs", "--fresh")
    for on_cpu, there in zip(*(read_rows(tmp_path / f"{device}.jsonl") for device in ("cpu", DEVICE)), strict=True):
        assert there["answer"] == on_cpu["answer"] and there["graph"]["objects"]
        for one, other in zip(there["graph"]["objects"], on_cpu["graph"]["objects"], strict=True):
            assert one["logprobs"] == pytest.approx(other["logprobs"], abs=1e-3)


@pytest.mark.parametrize("extra", [(), ("--constrain",), ("--use_peft", "--beta", "0.04"), ("--shared_prefix", "off")])
def test_grpo_trains(extra, trained, rows, tmp_path):
    fields = {**QUICK_GRPO, "per_device_train_batch_size": 4, "use_cpu": DEVICE == "cpu", "bf16": DEVICE != "cpu"}
    rewards = ["--rewards", "format", "node_box", "--max_completion_length", 32]
    run("grpo", "--model", trained, "--data", rows, "--out", tmp_path / "run", *rewards, *words(fields), *extra)
    losses = [row["loss"] for row in read_rows(tmp_path / "run" / "log.jsonl") if "loss" in row]
    assert len(losses) == 2 and all(loss == loss for loss in losses)
    assert (tmp_path / "run" / "scenerl.json").exists()


@pytest.mark.parametrize("kind", ["fsdp2", "zero2", "zero3_offload"])
def test_an_engine_trains_in_one_process(kind, trained, rows, tmp_path):
    """The profile's accelerate file as it is; several processes are the business of tests/engines."""
    if kind != "fsdp2" and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    if DEVICE == "cpu":
        pytest.skip("on a CPU accelerate would run one process without the engine")
    fields = {**QUICK_GRPO, "per_device_train_batch_size": 4, "bf16": True}
    line = [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", ACCELERATE / f"{kind}.yaml",
        "--num_processes", 1, "--num_machines", 1, "-m", "scenerl", "grpo", "--model", trained, "--data", rows,
        "--out", tmp_path / "run", "--rewards", "format", "node_box", "--max_completion_length", 32, *words(fields),
    ]  # fmt: skip
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert json.loads((tmp_path / "run" / "scenerl.json").read_text())
    losses = [row["loss"] for row in read_rows(tmp_path / "run" / "log.jsonl") if "loss" in row]
    assert len(losses) == 2 and all(loss == loss for loss in losses)


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_adapters_train_on_four_bits(trained, rows, tmp_path):
    fields = {**QUICK_GRPO, "per_device_train_batch_size": 4, "use_cpu": DEVICE == "cpu", "bf16": DEVICE != "cpu"}
    line = ["grpo", "--model", trained, "--data", rows, "--out", tmp_path / "run", "--rewards", "format", "node_box"]
    run(*line, "--use_peft", "--load_in_4bit", "--dtype", "bfloat16", *words(fields))
    assert (tmp_path / "run" / "adapter_model.safetensors").exists()
