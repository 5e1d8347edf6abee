"""Training logs to charts: which of a trainer's many numbers are worth a drawing, and in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scenerl.data.jsonl import read_jsonl
from scenerl.metrics.file import is_number
from scenerl.metrics.registry import spec_or_plain
from scenerl.report.charts import LineChart, line_chart

Points = list[tuple[float, float]]

TITLES = {
    "reward": "Reward, weighted total",
    "loss": "Loss",
    "eval_loss": "Loss on validation images",
    "mean_token_accuracy": "Token accuracy",
    "eval_mean_token_accuracy": "Token accuracy on validation images",
    "entropy": "Entropy",
    "reward_std": "Reward spread in a group",
    "frac_reward_zero_std": "Share of completions whose rewards have no spread",
    "completions/mean_length": "Completion length, tokens",
    "completions/clipped_ratio": "Share of completions cut off",
    "scene/relations_per_image": "Relations per image",
    "scene/objects_per_image": "Objects per image",
    "scene/failure_rate": "Failure rate",
    "kl": "KL to the reference",
    "grad_norm": "Gradient norm",
    "learning_rate": "Learning rate",
}

_VALIDATED = ("eval_Recall", "eval_mRecall", "eval_triplet_f1", "eval_AP", "eval_F1_mean", "eval_failure_rate")

SHOWN = {
    "Supervised fine-tuning": ("loss", "eval_loss", *_VALIDATED, "mean_token_accuracy", "entropy"),
    "Reinforcement learning": (
        "reward",
        "rewards/",
        *_VALIDATED,
        "entropy",
        "completions/mean_length",
        "scene/relations_per_image",
        "scene/failure_rate",
        "scene/failures/",
    ),
}
"""Kind of training to what is drawn at once; a name with a slash at its end stands for all that start so."""

SKIPPED = (
    "epoch", "step", "num_tokens", "step_time", "total_flos", "num_input_tokens_seen", "eval_num_tokens",
    "eval_runtime", "eval_samples_per_second", "eval_steps_per_second",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Curve:
    """One quantity of a trainer over its steps, a line per stage."""

    key: str
    title: str
    chart: LineChart


@dataclass(frozen=True, slots=True)
class CurveGroup:
    """The curves of the stages that were trained in one way. ``flat`` names quantities that were 0 all the time."""

    name: str
    shown: tuple[Curve, ...]
    more: tuple[Curve, ...]
    flat: tuple[str, ...]


def read_log(path: Path) -> dict[str, Points]:
    """The series of a log, one TRL log dict per line: key to points (step, value), finite numbers only.

    A line without "step" is numbered by its place. A step that is logged again (a run that was resumed) keeps the
    later value.

    Raises:
        UserError: a line is not a JSON object; the message names file and row.
    """
    series: dict[str, dict[float, float]] = {}
    for number, row in read_jsonl(path):
        step = row.get("step")
        step = float(step) if is_number(step) else float(number)
        for key, value in row.items():
            if is_number(value) and key not in SKIPPED and not key.startswith("train_"):
                series.setdefault(key, {})[step] = float(value)
    return {key: sorted(points.items()) for key, points in series.items()}


def curve_groups(logs: Sequence[tuple[str, int, Mapping[str, Points]]]) -> list[CurveGroup]:
    """Charts of all stages' logs. Stages whose log has a reward are drawn together, and so are the others.

    Args:
        logs: (stage name, palette index, series as :func:`read_log` gives them).
    """
    groups = []
    for kind, first in SHOWN.items():
        stages = [item for item in logs if ("reward" in item[2]) == ("reward" in first)]
        shown, more, flat = [], [], []
        for place, key in sorted({_rank(key, first) for _, _, series in stages for key in series}):
            drawn = [(stage, index, series[key]) for stage, index, series in stages if len(series.get(key, ())) > 1]
            if not drawn:
                continue
            if not any(value for _, _, points in drawn for _, value in points):
                flat.append(key)
                continue
            (shown if place < len(first) else more).append(Curve(key, title_of(key), line_chart(drawn)))
        if shown or more:
            groups.append(CurveGroup(kind, tuple(shown), tuple(more), tuple(flat)))
    return groups


def title_of(key: str) -> str:
    """A title that a person can read for a key of a log.

    >>> title_of("rewards/triplet_f1/mean")
    'Reward: triplet f1'
    >>> title_of("eval_psg/triplet_f1")
    'Triplet F1 on validation images of psg'
    """
    if key in TITLES:
        return TITLES[key]
    if key.startswith("eval_"):
        source, _, name = key.removeprefix("eval_").rpartition("/")
        where = f"validation images of {source}" if source else "validation images"
        return f"{spec_or_plain(name).title} on {where}"
    parts = key.split("/")
    if parts[0] == "rewards" and parts[-1] == "mean":
        return f"Reward: {' '.join(parts[1:-1])}".replace("_", " ")
    if parts[:2] == ["scene", "failures"]:
        return f"Failures: {' '.join(parts[2:])}".replace("_", " ")
    return key.replace("/", ": ").replace("_", " ")


def _rank(key: str, first: Sequence[str]) -> tuple[int, str]:
    plain = f"eval_{key.rpartition('/')[2]}" if key.startswith("eval_") and "/" in key else key  # of one of several
    for place, name in enumerate(first):
        # The spread of a reward ("rewards/<name>/std") is not among what is drawn at once.
        if plain == name or name.endswith("/") and key.startswith(name) and not key.endswith("/std"):
            return place, key
    return len(first), key
