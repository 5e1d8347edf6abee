"""The command line of a job's vLLM servers. Training waits by itself until every server answers."""

from __future__ import annotations

from scenerl.errors import UserError
from scenerl.launch.job import Job

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM 0.32 takes as ``--max-lora-rank``."""
TIMEOUT = 1200
"""Seconds in which a server has to answer; it may load a model of many GB first."""


def server_words(job: Job, host: str) -> list[str]:
    """vLLM's command line, without the port, with the settings that training expects (vLLM 0.30 or later).

    Args:
        host: the address at which it listens; whoever reaches it can change the server.

    Raises:
        UserError: the adapter that is trained has a rank that vLLM cannot serve.
    """
    sync = job.value("vllm_sync")
    variables, more = ["VLLM_SERVER_DEV_MODE=1"], []
    if sync == "nccl":
        more = ["--weight-transfer-config", '{"backend": "nccl"}']
    if sync == "adapter":
        rank = job.value("lora_r")
        if rank > LORA_RANKS[-1]:
            raise UserError(f"lora_r: vLLM serves no adapter of rank {rank}; allowed: at most {LORA_RANKS[-1]}")
        variables.append("VLLM_ALLOW_RUNTIME_LORA_UPDATING=1")
        more = ["--enable-lora", "--max-lora-rank", str(min(known for known in LORA_RANKS if known >= rank))]
    mode = "raw_logprobs" if float(job.value("temperature") or 1) == 1 else "processed_logprobs"
    words = ["env", *variables, "vllm", "serve", str(job.value("model")), "--host", host]
    words += ["--tensor-parallel-size", str(len(job.servers[0].gpus)), *more, "--logprobs-mode", mode]
    words += ["--max-logprobs", "-1", "--enable-scale-out"]
    if job.value("vllm_max_model_length"):
        words += ["--max-model-len", str(job.value("vllm_max_model_length"))]
    return words
