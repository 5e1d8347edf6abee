"""The ``plan`` command: memory and time of a recipe on the machines of a profile. docs/plan.md derives the formulas."""

from __future__ import annotations

from dataclasses import dataclass

from scenerl.config import PlanOptions
from scenerl.launch.job import Job, make_job
from scenerl.launch.profiles import find_profile, profile_files
from scenerl.launch.sizes import GPUS, MODELS, SHORT_NAMES, ModelSize

GIB = 2**30
ADAMW_BYTES = 12
"""Of one trained parameter: a 32-bit copy and two moments."""
CONTEXT_GIB = 1.5
"""CUDA's context, its libraries' workspaces and NCCL's buffers."""
FRAGMENTATION = 1.1
LORA_RANK_BYTES = 2 + 4 + ADAMW_BYTES
DECODE_STEP_OVERHEAD = 0.003
"""Seconds that a sampling step takes beside reading weights and cache."""


@dataclass(frozen=True)
class Tokens:
    """What one image costs. Counts are means with the Qwen2 vocabulary (docs/plan.md says where they come from).

    Attributes:
        prompt: of text, image tokens not counted.
        image: of the image; the vision tower reads four patches for each.
        answer: that the model writes.
        images: of the training set.
    """

    prompt: int
    image: int
    answer: int
    images: int


ANSWER_TOKENS = {"json": 524, "compact": 240, "detections": 120}
"""A graph of 11 objects and 7 relations in both forms; five boxes with labels."""
PROMPT_TOKENS = {"vg150": 1131, "psg": 1210, None: 420, "d3": 200}
"""With the class lists of a vocabulary, without any, and for eight phrases to look for."""
IMAGES = {"vg150": 56_224, "psg": 46_563, "d3": 10_578}
MAX_IMAGE_TOKENS = 512


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


def model_size(job: Job) -> ModelSize:
    """The shape of the model that a recipe trains.

    Raises:
        ValueError: it is in no table.
    """
    name = str(job.value("model"))
    if name in MODELS:
        return MODELS[name]
    for short, hub in SHORT_NAMES.items():  # the output of another recipe
        if f"_{short}_" in f"_{name.rpartition('/')[2]}_":
            return MODELS[hub]
    raise ValueError(f"{job.recipe}: no shape of model {name!r} is known; allowed: {', '.join(MODELS)}, --set model=…")


def tokens_of(job: Job) -> Tokens:
    """What one image costs in a recipe."""
    data, vocabulary = str(job.value("data")), job.value("vocabulary")
    source = next((name for name in IMAGES if name in data.lower()), None)
    prompt = PROMPT_TOKENS["d3" if source == "d3" else vocabulary and vocabulary.stem]
    image = min(MAX_IMAGE_TOKENS, (job.value("max_pixels") or 10**9) // (28 * 28))
    images = job.value("limit") or IMAGES.get(source, 0)
    answer = min(ANSWER_TOKENS[job.value("format") or "json"], job.value("max_completion_length") or 10**9)
    return Tokens(prompt, image, answer, images)


def estimate(job: Job, efficiency: float) -> Estimate:
    """Memory and time of a job.

    Args:
        efficiency: share of the GPU's peak that training reaches.

    Raises:
        ValueError: a model or data set whose figures are not known.
    """
    size, tokens = model_size(job), tokens_of(job)
    if not tokens.images:
        raise ValueError(f"{job.recipe}: how many images {job.value('data')} has is not known; give --set limit=N")
    steps_per_epoch = tokens.images * _completions(job) // job.value("global_batch_size")
    steps = job.extra_number("max_steps") or int(steps_per_epoch * job.value("num_train_epochs"))
    images = steps * job.value("global_batch_size") / _completions(job)
    seconds = train_flops(job, size, tokens) * images / (job.profile.num_gpus * GPUS[job.profile.gpu].tflops * 1e12)
    sampling = steps * sample_seconds(job, size, tokens, efficiency) if job.command == "grpo" else 0.0
    return Estimate(memory(job, size, tokens), steps, seconds / efficiency / 3600, sampling / 3600)


def _completions(job: Job) -> int:
    """Answers to one image in a step."""
    return job.value("num_generations") if job.command == "grpo" else 1


def row_tokens(job: Job, tokens: Tokens) -> tuple[float, float, float]:
    """(text, image, answer) tokens that one image costs in an update, its group packed behind one prompt."""
    group = _completions(job)
    shared = job.command == "sft" or str(job.value("shared_prefix")) != "off"
    prompts = 1 if shared else group
    return (
        prompts * (tokens.prompt + tokens.image) + group * tokens.answer,
        prompts * tokens.image,
        group * tokens.answer,
    )


def train_flops(job: Job, size: ModelSize, tokens: Tokens) -> float:
    """Floating-point operations of an update for one image: forward, backward, and forward again where activations are
    not kept; with β a forward of the reference model too. The head sees answers only."""
    text, image, answer = row_tokens(job, tokens)
    passes = 3.0 + 1.0 * _checkpoints(job)  # a backward pass costs two forward passes
    if job.command == "grpo" and job.value("beta"):
        passes += 1
    scored = answer if job.command == "grpo" else text  # TRL's SFT runs the head on every token
    forward = 2 * (size.layer_parameters * text + size.embedding * scored + size.vision_parameters * 4 * image)
    attention = 4 * size.layers * size.width * text * (tokens.prompt + tokens.image + tokens.answer) / 2
    return passes * (forward + attention)


def _checkpoints(job: Job) -> bool:
    return job.extra.get("gradient_checkpointing") is None or job.is_on("gradient_checkpointing")


def memory(job: Job, size: ModelSize, tokens: Tokens) -> dict[str, float]:
    """GiB per GPU, by what needs it."""
    profile = job.profile
    lora = job.is_on("use_peft")
    base_bytes = 0.55 if job.is_on("load_in_4bit") else 2  # NF4 with its scales
    matrices = size.parameters - size.embedding * (1 if size.tied else 2)
    weights = matrices * base_bytes + (size.parameters - matrices) * 2
    trained = lora_parameters(size, job.value("lora_r")) if lora else size.parameters
    divide = {"none": (1, 1, 1), "zero2": (1, profile.num_gpus, profile.num_gpus)}.get(
        profile.sharding, (profile.num_gpus,) * 3
    )
    if profile.sharding == "fsdp2":  # 32-bit weights and gradients are sharded, the optimiser needs no copy of its own
        state = {"weights": 4 * size.parameters, "gradients": 4 * trained, "optimiser": 8 * trained}
    else:
        state = {"weights": weights, "gradients": (4 if lora else 2) * trained, "optimiser": ADAMW_BYTES * trained}
    found = {key: value / parts for (key, value), parts in zip(state.items(), divide, strict=True)}
    if profile.sharding == "zero3_offload":
        found["optimiser"] = 0.0
    if profile.sharding in ("zero3", "zero3_offload", "fsdp2"):  # a block's weights are gathered when it runs
        found["gathered"] = 2 * (2 * size.layer_parameters / size.layers + 2 * size.embedding)
    if job.command == "grpo" and job.value("beta") and not lora:
        found["reference model"] = weights / divide[0]
    found["activations"] = activation_bytes(job, size, tokens)
    found = {key: value * FRAGMENTATION / GIB for key, value in found.items()}
    if job.is_on("use_vllm") and job.extra.get("vllm_mode", "colocate") == "colocate":
        found["vLLM"] = float(job.extra.get("vllm_gpu_memory_utilization", 0.3)) * profile.gpu_memory_gib
    elif job.command == "grpo" and not job.is_on("use_vllm"):
        longest = tokens.prompt + tokens.image + job.value("max_completion_length")
        found["cache"] = job.value("per_device_train_batch_size") * longest * size.kv_bytes / GIB
    return {**found, "context": CONTEXT_GIB}


def lora_parameters(size: ModelSize, rank: int) -> int:
    """Parameters of adapters on every linear layer of the language model."""
    head = size.width // size.heads
    sides = 2 * 2 * size.width + 2 * (size.width + size.kv_heads * head) + 3 * (size.width + size.intermediate)
    return size.layers * rank * sides


def activation_bytes(job: Job, size: ModelSize, tokens: Tokens) -> float:
    """Bytes of activations at their peak, in the backward pass of the last layer behind the head.

    With checkpointing each layer keeps its input; one layer is run again in full; the head's logits exist in 16 bits,
    in 32 bits, and as their gradient.
    """
    batch = job.value("per_device_train_batch_size")
    images = batch / _completions(job)
    text, image, answer = (count * images for count in row_tokens(job, tokens))
    if job.command == "grpo":  # the longest answers decide, not the mean
        longest = batch * job.value("max_completion_length")
        text, answer = text + longest - answer, longest
    layer = text * (LAYER_WIDTHS * size.width + LAYER_INTERMEDIATES * size.intermediate) * 2
    kept = text * size.width * size.layers * 2 if _checkpoints(job) else layer * size.layers
    patches = 4 * image
    tower = patches * size.vision_width * size.vision_layers * 2
    logits = text if job.command == "sft" else min(answer, CHUNK_TOKENS)
    return kept + tower + max(layer, logits * size.vocab * LOGIT_BYTES)


LAYER_WIDTHS, LAYER_INTERMEDIATES = 10, 4
"""Tensors of the model's width, and of the MLP's, that a layer keeps for its backward pass."""
LOGIT_BYTES = 2 + 4 + 4
CHUNK_TOKENS = 1024
"""TRL's GRPO runs the head on so many tokens at a time."""


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
    prompt_flops = 2 * (
        size.layer_parameters * (tokens.prompt + tokens.image) + size.vision_parameters * 4 * tokens.image
    )
    prefill = prompt_flops * per_gpu / _completions(job) / (gpu.tflops * 1e12 * efficiency)
    weights = 2 * (size.layer_parameters + size.embedding) * (0.3 if job.is_on("load_in_4bit") else 1)
    cache = at_once * (tokens.prompt + tokens.image + tokens.answer / 2) * size.kv_bytes
    step = (weights + cache) / (gpu.bandwidth * 1e9 * 0.6) + DECODE_STEP_OVERHEAD
    return prefill + rounds * min(2 * tokens.answer, job.value("max_completion_length")) * step


def run(options: PlanOptions) -> None:
    """Print a table of the profiles, and below it what the memory of each is for."""
    from rich.console import Console
    from rich.table import Table

    names = options.profile or list(profile_files(options.recipe))
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, title=f"{options.recipe}", title_justify="left")
    for name in ("profile", "GPUs", "GiB/GPU", "of", "", "accumulate", "steps", "hours", "training", "sampling"):
        table.add_column(name, justify="left" if name in ("profile", "") else "right")
    lines = []
    for name in names:
        profile = find_profile(name, options.recipe)
        job = make_job(options.recipe, profile, options.set)
        found = estimate(job, options.efficiency)
        fits = "" if found.total_gib <= profile.gpu_memory_gib else "does not fit"
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
