"""The ``plan`` command: memory and time of a recipe on the machines of a profile. docs/plan.md derives the formulas."""

from __future__ import annotations

from dataclasses import dataclass

from scenerl.config import PlanOptions
from scenerl.launch.costs import forward_flops, layer_bytes, lora_parameters
from scenerl.launch.job import Job, make_job
from scenerl.launch.profiles import find_profile, profile_files
from scenerl.launch.sizes import GPUS, MODELS, SHORT_NAMES, ModelSize

GIB = 2**30
ADAMW_BYTES = 12
"""Of one trained parameter: a 32-bit copy and two moments."""
CONTEXT_GIB = 1.5
"""CUDA's context, its libraries' workspaces and NCCL's buffers."""
FRAGMENTATION = 1.1
NF4_BYTES = 0.55
"""Of one weight in 4 bits, with its share of the scales."""
VLLM_STEP, PROCESS_STEP = 0.003, 0.03
"""Seconds that a sampling step takes beside reading weights and caches: with CUDA graphs, and driven from Python."""
BANDWIDTH_SHARE = 0.6
"""Share of its memory's bandwidth that a GPU reaches when it samples."""


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
    gpu = GPUS[job.profile.gpu]
    computing = train_flops(job, size, tokens) * images / (job.profile.num_gpus * gpu.tflops * 1e12 * efficiency)
    training = max(computing, steps * exchange_seconds(job, size))  # the two overlap
    sampling = steps * sample_seconds(job, size, tokens, efficiency) if job.command == "grpo" else 0.0
    return Estimate(memory(job, size, tokens), steps, training / 3600, sampling / 3600)


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
    # A backward pass costs two forward passes, one of them for the weights' gradients, which frozen ones do not have.
    passes = (2.0 if job.is_on("use_peft") else 3.0) + 1.0 * _checkpoints(job)
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


NETWORK = 25.0
"""GB/s of each GPU between machines: one port of 200 Gbit/s."""


def _checkpoints(job: Job) -> bool:
    return job.extra.get("gradient_checkpointing") is None or job.is_on("gradient_checkpointing")


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


DIVIDES_WEIGHTS = ("zero3", "zero3_offload", "fsdp2")


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
    images = batch / _completions(job)
    text, image, answer = (count * images for count in row_tokens(job, tokens))
    if job.command == "grpo":  # the longest answers decide, not the mean
        longest = batch * job.value("max_completion_length")
        text, answer = text + longest - answer, longest
    layer = layer_bytes(size, text, 2)
    kept = text * size.width * size.layers * 2 if _checkpoints(job) else layer * size.layers
    tower = 4 * image * size.vision_width * size.vision_layers * 2
    logits = text if job.command == "sft" else min(answer, CHUNK_TOKENS)
    return kept + tower + max(layer, logits * size.vocab * LOGIT_BYTES)


LOGIT_BYTES = 2 + 4 + 4
"""The head's logits exist in 16 bits, in 32 bits, and as their gradient."""
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
    read = tokens.prompt + tokens.image
    prompt_flops = forward_flops(size, read, tokens.image, 1, read)
    prefill = prompt_flops * per_gpu / _completions(job) / (gpu.tflops * 1e12 * efficiency)
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
