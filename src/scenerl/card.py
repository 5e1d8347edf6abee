"""The model card of a checkpoint: what it was made from, on which data, by which recipe, and how well it does.

Everything in it comes from files of the run: ``config.yaml``, ``log.jsonl`` and the metrics files of ``eval``. The
results stand in the card's header too, where the hub reads them (``model-index``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from scenerl import __version__
from scenerl.answers import OutputFormat, build_prompt
from scenerl.commands import options_of
from scenerl.config import dump_yaml, load_yaml
from scenerl.errors import UserError
from scenerl.json_files import read_json
from scenerl.metrics.registry import headline, ordered, spec_or_plain
from scenerl.runs import CONFIG_NAME, default_values

FILE_NAME = "README.md"
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_NOT_RECIPE = ("out", "fresh", "trust_remote_code", "allow_pickle")
_LONGEST_PROMPT = 1500


@dataclass(frozen=True, slots=True)
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
    defaults = default_values(options_of(command))
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
    """The rows of a training log; a row that a kill has cut off is skipped."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        rows += [row] if isinstance(row, dict) else []
    return rows


def metrics_of(files: Sequence[Path]) -> dict[str, dict]:
    """Metrics files of ``eval`` by name, one section of the card each.

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
        output_format: of its prompts and answers.
        base: what it was trained from, where that is known.
        origin: what made it; None: not known.
        metrics: what :func:`metrics_of` found.
        is_adapter: it is LoRA weights that need ``base``.
    """
    metrics = metrics or {}
    tags = ["scenerl", "object-detection" if output_format.format == "detections" else "scene-graph-generation"]
    tags += [origin.command] if origin else []
    tags += ["lora"] if is_adapter or (origin and origin.recipe.get("use_peft")) else []
    data = ModelCardData(
        model_name=name,
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag="image-text-to-text",
        tags=tags,
        base_model=base if base and _HUB_NAME.fullmatch(base) and not Path(base).exists() else None,
        eval_results=[result for title, content in metrics.items() for result in _results(title, content)] or None,
    )
    what = "LoRA weights" if is_adapter else "A checkpoint"
    made_from = f" from `{_shortened(base)}`" if base else ""
    lines = [
        f"# {name}",
        "",
        f"{what} of the family `{model_type}`, made with SceneRL {__version__}{made_from}.",
        "",
        *_prompt_section(name, output_format),
        "",
        *_recipe_section(origin),
        "",
        "## Metrics",
        "",
        *([] if metrics else ["None were given when this card was written."]),
    ]
    for title, content in metrics.items():
        lines += [*_table(title, content), ""]
    body = "\n".join(lines).rstrip()
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n").content


def _prompt_section(name: str, output_format: OutputFormat) -> list[str]:
    counts = [
        f"{len(labels)} {kind}"
        for kind, labels in (("objects", output_format.objects), ("predicates", output_format.predicates))
        if labels
    ]
    vocabulary = f"closed vocabulary of {' and '.join(counts)}" if counts else "any label"
    query = ("label", "another label") if output_format.format == "detections" else None
    prompt = build_prompt(output_format, query)
    prompt = prompt if len(prompt) <= _LONGEST_PROMPT else f"{prompt[:_LONGEST_PROMPT]} …"
    return [
        "## Prompt and output format",
        "",
        f"Format `{output_format.format}`, response template `{output_format.template}`, boxes as "
        f"`{output_format.box_format}`, coordinates in multiples of {output_format.step}; "
        f"{vocabulary}. "
        "`scenerl predict` takes all of this from `scenerl.json`:",
        "",
        "```bash",
        f"scenerl predict --model {name} --data images.jsonl --out predictions.jsonl",
        "```",
        "",
        "The text of the prompt:",
        "",
        "```text",
        prompt.replace("```", "'''"),
        "```",
    ]


def _recipe_section(origin: Origin | None) -> list[str]:
    lines = ["## Data and recipe", ""]
    if origin is None:
        return [*lines, "Not known: the run's `config.yaml` was not there when this card was written."]
    how = "supervised fine-tuning" if origin.command == "sft" else "GRPO"
    data = origin.recipe.get("data")
    far = [] if origin.steps is None else [f"{origin.steps} steps"]
    far += [] if origin.epochs is None else [f"{origin.epochs:g} epochs"]
    return [
        *lines,
        f"Trained by {how} on {', '.join([f'`{data}`', *far])}. "
        f"Options that differ from the defaults of `scenerl {origin.command}`:",
        "",
        "```yaml",
        dump_yaml(origin.recipe).rstrip(),
        "```",
    ]


def _evaluation(content: Mapping[str, Any]) -> tuple[str | None, str | None, dict[str, Mapping]]:
    """Data and task of an evaluation, where they are known, and its metrics that have a value."""
    options = content.get("options")
    options = options if isinstance(options, dict) else {}
    known = {name: metric for name, metric in content["metrics"].items() if metric["value"] is not None}
    return _shortened(options.get("data")), options.get("task"), {name: known[name] for name in ordered(known)}


def _results(title: str, content: Mapping[str, Any]) -> list[EvalResult]:
    """What the hub lists: the headline metrics, as in metrics.json."""
    data, task, metrics = _evaluation(content)
    is_detection = task == "det"
    return [
        EvalResult(
            task_type="object-detection" if is_detection else "image-text-to-text",
            task_name="Detection" if is_detection else "Scene graph generation",
            dataset_type=str(data or title),
            dataset_name=str(data or title),
            metric_type=name,
            metric_name=spec_or_plain(name).title,
            metric_value=metrics[name]["value"],
        )
        for name in headline(metrics) or metrics
    ]


def _table(title: str, content: Mapping[str, Any]) -> list[str]:
    """One evaluation: its metrics with their intervals."""
    data, _, metrics = _evaluation(content)
    count = (content.get("counts") or {}).get("images")
    where = ", ".join([f"`{data}`"] * bool(data) + [f"{count} images"] * bool(count))
    lines = [f"### {title}", "", *([f"On {where}, with 95 % bootstrap intervals over images.", ""] if where else [])]
    lines += ["| metric | value | interval |", "| --- | --- | --- |"]
    for name, metric in metrics.items():
        interval = metric.get("interval")
        interval = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
        lines.append(f"| {name} | {metric['value']:.3f} | {interval} |")
    return lines
