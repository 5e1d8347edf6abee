"""What one image costs in tokens, and which model a recipe trains."""

from __future__ import annotations

from dataclasses import dataclass

from scenerl.errors import UserError
from scenerl.launch.job import Job
from scenerl.launch.sizes import MODELS, ModelSize, size_named

ANSWER_TOKENS = {"json": 524, "compact": 240, "detections": 120}
"""A graph of 11 objects and 7 relations in both forms; five boxes with labels."""
PROMPT_TOKENS = {"vg150": 1131, "psg": 1210, None: 420, "d3": 200}
"""With the class lists of a vocabulary, without any, and for eight phrases to look for. Other lists count as PSG's."""
IMAGES = {"vg150": 56_224, "psg": 46_563, "d3": 10_578}
"""Training images as R1-SGG split VG150 and PSG; all of D³ (arXiv 2307.12813)."""
MAX_IMAGE_TOKENS = 512


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


def model_size(job: Job) -> ModelSize:
    """The shape of the model that a recipe trains.

    Raises:
        UserError: it is in no table.
    """
    name = str(job.value("model"))
    if (size := size_named(name)) is None:
        allowed = ", ".join(MODELS)
        raise UserError(f"{job.recipe}: no shape of model {name!r} is known; allowed: {allowed}, --set model=…")
    return size


def tokens_of(job: Job) -> Tokens:
    """What one image costs in a recipe."""
    data, vocabulary = str(job.value("data")), job.value("vocabulary")
    source = next((name for name in IMAGES if name in data.lower()), None)
    prompt = PROMPT_TOKENS.get("d3" if source == "d3" else vocabulary and vocabulary.stem, PROMPT_TOKENS["psg"])
    image = min(MAX_IMAGE_TOKENS, (job.value("max_pixels") or 10**9) // (28 * 28))
    images = job.value("limit") or IMAGES.get(source, 0)
    answer = ANSWER_TOKENS[job.value("format") or "json"]
    if job.command == "grpo":
        answer = min(answer, job.value("max_completion_length"))
    return Tokens(prompt, image, answer, images)


def completions(job: Job) -> int:
    """Answers to one image in a step."""
    return job.value("num_generations") if job.command == "grpo" else 1


def row_tokens(job: Job, tokens: Tokens) -> tuple[float, float, float]:
    """(text, image, answer) tokens that one image costs in an update, its group packed behind one prompt."""
    group = completions(job)
    shared = job.command == "sft" or str(job.value("shared_prefix")) != "off"
    prompts = 1 if shared else group
    return (
        prompts * (tokens.prompt + tokens.image) + group * tokens.answer,
        prompts * tokens.image,
        group * tokens.answer,
    )


def checkpoints(job: Job) -> bool:
    return job.extra.get("gradient_checkpointing") is None or job.is_on("gradient_checkpointing")
