"""The ``plan`` command: memory and time of a recipe on the machines of a profile. docs/plan.md derives the formulas."""

from __future__ import annotations

from dataclasses import dataclass

from scenerl.config import PlanOptions
from scenerl.errors import UserError
from scenerl.launch.costs import forward_flops, lora_parameters
from scenerl.launch.job import Job, make_job
from scenerl.launch.memory import DIVIDES_WEIGHTS, memory
from scenerl.launch.profiles import find_profile, profile_files
from scenerl.launch.sizes import GPUS, ModelSize
from scenerl.launch.tokens import Tokens, checkpoints, completions, model_size, row_tokens, tokens_of

VLLM_STEP, PROCESS_STEP = 0.003, 0.03
"""Seconds that a sampling step takes beside reading weights and caches: with CUDA graphs, and driven from Python."""
BANDWIDTH_SHARE = 0.6
"""Share of its memory's bandwidth that a GPU reaches when it samples."""
NETWORK = 25.0
"""GB/s of each GPU between machines: one port of 200 Gbit/s."""


@dataclass(frozen=True)
class Estimate:
    """Figures of one recipe on one profile; memory in GiB per GPU, time in hours.

    Attributes:
        memory: by what needs it.
        steps: optimiser steps.
        train_hours, sample_hours: of forward and backward passes, and of sampling.
    """

    memory: dict[str, float]
    steps: int
    train_hours: float
    sample_hours: float

    @property
    def total_gib(self) -> float:
        return sum(self.memory.values())

    @property
    def hours(self) -> float:
        return self.train_hours + self.sample_hours


def estimate(job: Job, efficiency: float) -> Estimate:
    """Memory and time of a job.

    Args:
        efficiency: share of the GPU's peak that training reaches.

    Raises:
        UserError: a model or data set whose figures are not known.
    """
    size, tokens = model_size(job), tokens_of(job)
    if not tokens.images:
        raise UserError(f"{job.recipe}: how many images {job.value('data')} has is not known; give --set limit=N")
    steps_per_epoch = tokens.images * completions(job) // job.value("global_batch_size")
    steps = job.extra_number("max_steps") or int(steps_per_epoch * job.value("num_train_epochs"))
    images = steps * job.value("global_batch_size") / completions(job)
    gpu = GPUS[job.profile.gpu]
    computing = train_flops(job, size, tokens) * images / (job.profile.num_gpus * gpu.tflops * 1e12 * efficiency)
    training = max(computing, steps * exchange_seconds(job, size))  # the two overlap
    sampling = steps * sample_seconds(job, size, tokens, efficiency) if job.command == "grpo" else 0.0
    return Estimate(memory(job, size, tokens), steps, training / 3600, sampling / 3600)


def train_flops(job: Job, size: ModelSize, tokens: Tokens) -> float:
    """Floating-point operations of an update for one image: forward, backward, and forward again where activations are
    not kept; with β a forward of the reference model too. The head sees answers only."""
    text, image, answer = row_tokens(job, tokens)
    # A backward pass costs two forward passes, one of them for the weights' gradients, which frozen ones do not have.
    passes = (2.0 if job.is_on("use_peft") else 3.0) + 1.0 * checkpoints(job)
    if job.command == "grpo" and job.value("beta"):
        passes += 1
    scored = answer if job.command == "grpo" else text  # TRL's SFT runs the head on every token
    context = tokens.prompt + tokens.image + tokens.answer
    return passes * forward_flops(size, text, image, scored, context)


def exchange_seconds(job: Job, size: ModelSize) -> float:
    """Seconds in a step that weights and gradients are on their way between GPUs, in 16 bits.

    Divided weights are gathered for the forward and for the backward pass, and their gradients summed, in every batch;
    else gradients are summed once, and with ZeRO-2 the new weights handed out.
    """
    profile = job.profile
    if profile.num_gpus == 1:
        return 0.0
    moved = 2 * (lora_parameters(size, job.value("lora_r")) if job.is_on("use_peft") else size.parameters)
    times = 3 * job.accumulation if profile.sharding in DIVIDES_WEIGHTS else 2
    link = GPUS[profile.gpu].link if profile.nodes == 1 else min(NETWORK, GPUS[profile.gpu].link)
    return times * moved / (link * 1e9)


def sample_seconds(job: Job, size: ModelSize, tokens: Tokens, efficiency: float) -> float:
    """Seconds of sampling in a step: prompts are read once per group; then every step of the longest answer reads the
    weights and the caches of all answers from memory."""
    profile, gpu = job.profile, GPUS[job.profile.gpu]
    samplers = profile.num_gpus
    if job.server_nodes and job.extra.get("vllm_mode") == "server":
        samplers = job.server_nodes * profile.gpus_per_node
    per_gpu = job.value("global_batch_size") / samplers
    rounds = 1 if job.is_on("use_vllm") else per_gpu / min(per_gpu, job.value("per_device_train_batch_size"))
    at_once = per_gpu / rounds
    read = tokens.prompt + tokens.image
    prompt_flops = forward_flops(size, read, tokens.image, 1, read)
    prefill = prompt_flops * per_gpu / completions(job) / (gpu.tflops * 1e12 * efficiency)
    weights = 2 * (size.layer_parameters + size.embedding) * (0.3 if job.is_on("load_in_4bit") else 1)
    cache = at_once * (tokens.prompt + tokens.image + tokens.answer / 2) * size.kv_bytes
    overhead = VLLM_STEP if job.is_on("use_vllm") else PROCESS_STEP
    step = (weights + cache) / (gpu.bandwidth * 1e9 * BANDWIDTH_SHARE) + overhead
    return prefill + rounds * min(2 * tokens.answer, job.value("max_completion_length")) * step


def run(options: PlanOptions) -> None:
    """Print a table of the profiles, and below it what the memory of each is for."""
    from rich.console import Console
    from rich.table import Table

    names = options.profile or list(profile_files(options.recipe))
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, title=f"{options.recipe}", title_justify="left")
    for name in ("profile", "GPUs", "GiB", "of", "fits", "acc.", "steps", "hours", "train", "sample"):
        table.add_column(name, justify="left" if name == "profile" else "right", no_wrap=True)
    lines = []
    for name in names:
        profile = find_profile(name, options.recipe)
        job = make_job(options.recipe, profile, options.set)
        found = estimate(job, options.efficiency)
        fits = "yes" if found.total_gib <= profile.gpu_memory_gib else "no"
        table.add_row(
            profile.name,
            str(profile.num_gpus),
            f"{found.total_gib:.1f}",
            str(profile.gpu_memory_gib),
            fits,
            str(job.accumulation),
            str(found.steps),
            f"{found.hours:.1f}",
            f"{found.train_hours:.1f}",
            f"{found.sample_hours:.1f}",
        )
        parts = ", ".join(f"{key} {value:.1f}" for key, value in found.memory.items() if value >= 0.05)
        lines.append(f"{profile.name}: {parts}")
    console.print(table)
    console.print("\nGiB per GPU by what needs it:")
    for line in lines:
        console.print(f"  {line}", soft_wrap=True)
    console.print(f"\nEstimates at {options.efficiency:.0%} of the GPUs' peak; docs/plan.md has formulas and checks.")
