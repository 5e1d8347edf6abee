"""The model card of a checkpoint: what it was made from, on which data, by which recipe, and how well it does.

Everything in it is read from files of the run: ``config.yaml``, ``log.jsonl`` and the metrics files of ``eval``.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scenerl import __version__
from scenerl.answers import OutputFormat, build_prompt
from scenerl.commands import options_of
from scenerl.config import dump_yaml, load_yaml
from scenerl.errors import UserError
from scenerl.json_files import read_json
from scenerl.runs import CONFIG_NAME

FILE_NAME = "README.md"
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_NOT_RECIPE = ("out", "fresh", "trust_remote_code", "allow_pickle")
_SHOWN = (
    "failure_rate", "Recall", "mRecall", "R@50", "mR@50", "zR@50", "triplet_precision", "triplet_recall", "triplet_f1",
    "AP", "AP50", "NMS-AP", "greedy_precision", "greedy_recall", "F1_mean", "relations_per_image", "objects_per_image",
    "relation_hallucination", "object_hallucination",
)  # fmt: skip
"""Metrics on the card, in this order; the files hold the rest."""


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """What a run folder says about a checkpoint.

    Attributes:
        command: ``sft`` or ``grpo``.
        recipe: options that differ from their defaults; paths outside the run's folder by their last part.
        steps, epochs: how far it was trained, where the log says so.
    """

    command: str
    recipe: dict[str, Any]
    steps: int | None
    epochs: float | None


def origin_of(run: str | Path) -> Origin | None:
    """What made a checkpoint, from the run folder; None where there is no ``config.yaml``.

    Raises:
        UserError: a file of the run cannot be read.
    """
    path = Path(run) / CONFIG_NAME
    if not path.is_file():
        return None
    resolved = load_yaml(path)
    command = "grpo" if "rewards" in resolved else "sft"
    defaults = {
        item.name: item.default_factory() if item.default is dataclasses.MISSING else item.default
        for item in dataclasses.fields(options_of(command))
        if item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING
    }
    recipe = {
        key: _shortened(value)
        for key, value in resolved.items()
        if key not in _NOT_RECIPE and (key == "rewards" or key not in defaults or defaults[key] != value)
    }
    rows = _log_rows(Path(run) / "log.jsonl")
    last = {key: row[key] for row in rows for key in ("step", "epoch") if isinstance(row.get(key), int | float)}
    return Origin(command, recipe, last.get("step"), last.get("epoch"))


def _shortened(value: Any) -> Any:
    """Absolute paths, which say more about a machine than about data, by their last part."""
    is_path = isinstance(value, str) and (value.startswith(("/", "~")) or value[1:3] in (":\\", ":/"))
    return Path(value.replace("\\", "/")).name if is_path else value


def _log_rows(path: Path) -> list[dict]:
    """The rows of a training log; a row that a kill has cut off is none."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows += [row] if isinstance(row, dict) else []
    return rows


def metrics_of(files: Sequence[Path]) -> dict[str, dict]:
    """Metrics files of ``eval`` by name, one row of the card each.

    Raises:
        UserError: a file that is not one; names it.
    """
    found = {}
    for path in files:
        content = read_json(path, "a metrics.json of `scenerl eval`")
        metrics = content.get("metrics") if isinstance(content, dict) else None
        if not isinstance(metrics, dict) or not all(
            isinstance(metric, dict) and isinstance(metric.get("value"), int | float | None)
            for metric in metrics.values()
        ):
            raise UserError(f"{path}: no metrics of one evaluation; expected a metrics.json of `scenerl eval`")
        name = path.stem if path.stem != "metrics" else path.parent.name
        found[name if name not in found else str(path)] = content
    return found


def model_card(
    name: str,
    model_type: str,
    output_format: OutputFormat,
    base: str | None = None,
    origin: Origin | None = None,
    metrics: Mapping[str, dict] | None = None,
    is_adapter: bool = False,
) -> str:
    """The card as Markdown with the hub's header.

    Args:
        name: what the model is called.
        model_type: its family.
        output_format: how it is asked and answers.
        base: what it was trained from, where that is known.
        origin: what made it; None: not known.
        metrics: what :func:`metrics_of` found.
        is_adapter: it is LoRA weights that need ``base``.
    """
    tags = ["scenerl", "object-detection" if output_format.format == "detections" else "scene-graph-generation"]
    tags += [origin.command] if origin else []
    tags += ["lora"] if is_adapter or (origin and origin.recipe.get("use_peft")) else []
    head: dict[str, Any] = {
        "library_name": "peft" if is_adapter else "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": tags,
    }
    if base and _HUB_NAME.fullmatch(base) and not Path(base).exists():
        head["base_model"] = base
    lines = ["---", dump_yaml(head).rstrip(), "---", "", f"# {name}", ""]
    what = "LoRA weights" if is_adapter else "A checkpoint"
    lines += [
        f"{what} of the family `{model_type}`, made with SceneRL {__version__}"
        + (f" from `{_shortened(base)}`" if base else "")
        + ".",
        "",
        "## How it is asked",
        "",
        f"Format `{output_format.format}`, envelope `{output_format.template}`, boxes in the frame `{output_format.box_format}`, coordinates in "
        f"multiples of {output_format.step}; {_vocabulary(output_format)}. `scenerl.json` holds this, and `scenerl predict` reads it:",
        "",
        "```bash",
        f"scenerl predict --model {name} --data images.jsonl --out predictions.jsonl",
        "```",
        "",
        *_quoted(
            build_prompt(output_format, ("label", "another label") if output_format.format == "detections" else None)
        ),
    ]
    lines += ["", "## Data and recipe", ""]
    if origin is None:
        lines += ["Not known: the run's `config.yaml` was not there when this card was written."]
    else:
        how = "supervised fine-tuning" if origin.command == "sft" else "GRPO"
        far = [] if origin.steps is None else [f"{origin.steps} steps"]
        far += [] if origin.epochs is None else [f"{origin.epochs:g} epochs"]
        lines += [
            f"Trained by {how} on `{origin.recipe.get('data')}`" + (f", {', '.join(far)}" if far else "") + ". "
            f"Options that differ from the defaults of `scenerl {origin.command}`:",
            "",
            "```yaml",
            dump_yaml(origin.recipe).rstrip(),
            "```",
        ]
    lines += ["", "## Metrics", ""]
    if not metrics:
        lines += ["None were given when this card was written."]
    for title, content in (metrics or {}).items():
        lines += [*_table(title, content), ""]
    return "\n".join(lines).rstrip() + "\n"


def _vocabulary(output_format: OutputFormat) -> str:
    counts = [
        f"{len(labels)} {name}"
        for name, labels in (("objects", output_format.objects), ("predicates", output_format.predicates))
        if labels
    ]
    return f"closed vocabulary of {' and '.join(counts)}" if counts else "any label"


def _quoted(prompt: str) -> list[str]:
    longest = 1500
    shown = prompt if len(prompt) <= longest else f"{prompt[:longest]} …"
    return ["The text of the prompt:", "", "```text", shown.replace("```", "'''"), "```"]


def _table(title: str, content: Mapping[str, Any]) -> list[str]:
    """One evaluation: the metrics it has of those shown, with their intervals."""
    metrics, options = content["metrics"], content.get("options") or {}
    count = (content.get("counts") or {}).get("images")
    data = _shortened(options.get("data")) if isinstance(options, dict) else None
    where = ", ".join([f"`{data}`"] * bool(data) + [f"{count} images"] * bool(count))
    lines = [f"### {title}", "", *([f"On {where}, with 95 % bootstrap intervals over images.", ""] if where else [])]
    lines += ["| metric | value | interval |", "| --- | --- | --- |"]
    for name in [name for name in _SHOWN if name in metrics] or sorted(metrics):
        metric = metrics[name]
        if metric["value"] is not None:
            low_high = metric.get("interval")
            interval = f"{low_high[0]:.3f} to {low_high[1]:.3f}" if low_high else ""
            lines.append(f"| {name} | {metric['value']:.3f} | {interval} |")
    return lines
