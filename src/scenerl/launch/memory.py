"""Memory of a job per GPU, by what needs it."""

from __future__ import annotations

from scenerl.launch.costs import layer_bytes, lora_parameters
from scenerl.launch.job import Job
from scenerl.launch.sizes import ModelSize
from scenerl.launch.tokens import Tokens, checkpoints, completions, row_tokens

GIB = 2**30
ADAMW_BYTES = 12
"""Of one trained parameter: a 32-bit copy and two moments."""
NF4_BYTES = 0.55
"""Of one weight in 4 bits, with its share of the scales."""
CONTEXT_GIB = 1.5
"""CUDA's context, its libraries' workspaces and NCCL's buffers."""
FRAGMENTATION = 1.1
DIVIDES_WEIGHTS = ("zero3", "zero3_offload", "fsdp2")
LOGIT_BYTES = 2 + 4 + 4
"""The head's logits exist in 16 bits, in 32 bits, and as their gradient."""
CHUNK_TOKENS = 1024
"""TRL's GRPO runs the head on so many tokens at a time."""


def memory(job: Job, size: ModelSize, tokens: Tokens) -> dict[str, float]:
    """GiB per GPU at the peak, by what needs it: that of an update, or of sampling in process where that is higher."""
    profile = job.profile
    found = {key: value / GIB * FRAGMENTATION for key, value in state_bytes(job, size).items()}
    found["context"] = CONTEXT_GIB
    whole = 2 * size.parameters
    update = {"activations": activation_bytes(job, size, tokens)}
    if profile.sharding in DIVIDES_WEIGHTS:  # a block's weights are gathered when it runs; the embedding all the time
        update["gathered weights"] = 2 * (2 * size.layer_parameters / size.layers + 2 * size.embedding)
    sampling = {}
    if job.command == "grpo" and job.is_on("use_vllm"):
        if job.extra.get("vllm_mode", "colocate") == "colocate":
            found["vLLM"] = float(job.extra.get("vllm_gpu_memory_utilization", 0.3)) * profile.gpu_memory_gib
    elif job.command == "grpo":
        longest = tokens.prompt + tokens.image + job.value("max_completion_length")
        sampling["cache"] = job.value("per_device_train_batch_size") * longest * size.kv_bytes
        sampling["gathered weights"] = whole if profile.sharding in DIVIDES_WEIGHTS else 0
    peak = max(update, sampling, key=lambda phase: sum(phase.values()))
    return {**found, **{key: value / GIB * FRAGMENTATION for key, value in peak.items()}}


def state_bytes(job: Job, size: ModelSize) -> dict[str, float]:
    """Bytes per GPU of what is there all the time: weights, gradients, optimiser, a reference model."""
    profile, lora = job.profile, job.is_on("use_peft")
    embeddings = size.embedding * (1 if size.tied else 2)  # these stay in 16 bits when the rest is quantised
    base = NF4_BYTES if job.is_on("load_in_4bit") else 2
    weights = (size.parameters - embeddings) * base + embeddings * 2
    trained = lora_parameters(size, job.value("lora_r")) if lora else size.parameters
    if profile.sharding == "fsdp2":  # weights and gradients in 32 bits, so that the optimiser needs no copy of its own
        state = {"weights": 4 * size.parameters, "gradients": 4 * trained, "optimiser": 8 * trained}
    elif job.value("dtype") == "float32" and profile.sharding == "none":
        state = {"weights": 2 * weights, "gradients": 4 * trained, "optimiser": 8 * trained}
    else:
        state = {"weights": weights, "gradients": 2 * trained, "optimiser": ADAMW_BYTES * trained}
    if lora and profile.sharding == "none":
        state |= {"weights": weights + 4 * trained, "gradients": 4 * trained, "optimiser": 8 * trained}
    parts = profile.num_gpus
    divided = {
        "weights": parts if profile.sharding in DIVIDES_WEIGHTS else 1,
        "gradients": 1 if profile.sharding == "none" else parts,
        "optimiser": 1 if profile.sharding == "none" else parts,
    }
    found = {key: value / divided[key] for key, value in state.items()}
    if profile.sharding == "zero3_offload":
        found["optimiser"] = 0.0
    if job.command == "grpo" and job.value("beta") and not lora:  # adapters are switched off to get the reference
        found["reference model"] = 2 * size.parameters / divided["weights"]
    return found


def activation_bytes(job: Job, size: ModelSize, tokens: Tokens) -> float:
    """Bytes of activations at their peak, in the backward pass of the last layer behind the head.

    With checkpointing each layer keeps its input, and one layer at a time is run again in full.
    """
    batch = job.value("per_device_train_batch_size")
    images = batch / completions(job)
    text, image, answer = (count * images for count in row_tokens(job, tokens))
    if job.command == "grpo":  # the longest answers decide, not the mean
        longest = batch * job.value("max_completion_length")
        text, answer = text + longest - answer, longest
    layer = layer_bytes(size, text, 2)
    kept = text * size.width * size.layers * 2 if checkpoints(job) else layer * size.layers
    tower = 4 * image * size.vision_width * size.vision_layers * 2
    logits = text if job.command == "sft" else min(answer, CHUNK_TOKENS)
    return kept + tower + max(layer, logits * size.vocab * LOGIT_BYTES)
