"""Rewards of one answer as text, for trainers other than ours (examples/)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from scenerl.answers import OutputFormat
from scenerl.answers.dialogue import Conversation
from scenerl.data.rows import read_row
from scenerl.errors import DataError
from scenerl.json_files import decode
from scenerl.rewards.comparison import Comparison
from scenerl.rewards.options import RewardOptions
from scenerl.rewards.registry import select_rewards
from scenerl.types import Example


def score_text(
    answer: str | None,
    target: Example | Mapping | str,
    rewards: Mapping[str, float] | Iterable[str],
    output_format: OutputFormat | None = None,
    options: RewardOptions | None = None,
    *,
    input_wh: tuple[int, int] | None = None,
    num_tokens: int | None = None,
    truncated: bool = False,
) -> dict[str, float]:
    """The rewards that GRPO here would give an answer; needs no torch.

    Args:
        answer: the model's text.
        target: the ground truth: an example, or a row of our JSONL (boxes xyxy in pixels of the original image), also
            as JSON text. Its image is not read.
        rewards: names from :data:`scenerl.rewards.REWARDS`, with their weights or each with 1.
        output_format: as the model was prompted; R1-SGG's JSON with boxes from 0 to 1000 by default.
        options: conventions; the papers' by default.
        input_wh: size in pixels of the resized input, for boxes in pixels of it (Qwen2.5-VL).
        num_tokens: length of the answer; None: its words and signs are counted instead.
        truncated: the answer was cut off at the token limit.

    Returns:
        ``score``, the weighted sum, and each reward by its name.

    Raises:
        UserError: an unknown reward, or a target that cannot be used.

    >>> dog = {"image_id": "1", "width": 500, "height": 500, "objects": [{"id": "dog.1", "bbox": [50, 50, 250, 250]}]}
    >>> text = '{"objects": [{"id": "dog.1", "bbox": [100, 100, 500, 500]}], "relationships": []}'
    >>> score_text(text, dog | {"relationships": []}, {"format": 0.5, "node_box": 2})
    {'score': 2.5, 'format': 1.0, 'node_box': 1.0}
    """
    options = options or RewardOptions()
    weights = dict(rewards) if isinstance(rewards, Mapping) else dict.fromkeys(rewards, 1.0)
    chosen = select_rewards(weights)
    example = target if isinstance(target, Example) else _example(target)
    conversation = Conversation(output_format or OutputFormat(), None if input_wh is None else lambda _: input_wh)
    result = conversation.parse(answer, example, truncated=truncated, strict=options.strict_format)
    comparison = Comparison.of(result, example, options, answer, num_tokens)
    values = {name: reward(comparison) for name, reward in chosen.items()}
    total = sum(weight * value for weight, value in zip(weights.values(), values.values(), strict=True))
    return {"score": total, **values}


def _example(target: Mapping | str) -> Example:
    if isinstance(target, str):
        try:
            target = decode(target.encode())
        except (ValueError, RecursionError) as error:
            raise DataError(f"the target is no JSON ({error})") from error
    row = {"image_id": "target", **target} if isinstance(target, Mapping) else target
    return read_row(row, "the target").unwrap()
