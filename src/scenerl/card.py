"""The model card of a checkpoint: what it was made from, on which data, by which recipe, and how well it does.

Everything in it comes from files of the run: ``config.yaml``, ``log.jsonl`` and the metrics files of ``eval``. The
results stand in the card's header too, where the hub reads them (``model-index``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment

from scenerl import __version__
from scenerl.answers import OutputFormat, build_prompt
from scenerl.commands import options_of
from scenerl.config import dump_yaml, load_yaml
from scenerl.json_files import read_as
from scenerl.metrics.file import Metrics
from scenerl.metrics.registry import headline, ordered, spec_or_plain
from scenerl.runs import CONFIG_NAME, default_values

FILE_NAME = "README.md"
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_NOT_RECIPE = ("out", "fresh", "trust_remote_code", "allow_pickle")
_LONGEST_PROMPT = 1500

_BODY = """\
# {{ name }}

{{ "LoRA weights" if is_adapter else "A checkpoint" }} of the family `{{ model_type }}`, made with SceneRL \
{{ version }}{% if base %} from `{{ base }}`{% endif %}.

## Prompt and output format

Format `{{ output.format }}`, response template `{{ output.template }}`, boxes as `{{ output.box_format }}`, \
coordinates in multiples of {{ output.step }}; {{ vocabulary }}. \
`scenerl predict` takes all of this from `scenerl.json`:

```bash
scenerl predict --model {{ name }} --data images.jsonl --out predictions.jsonl
```

The text of the prompt:

```text
{{ prompt }}
```

## Data and recipe

{% if origin %}
Trained by {{ "supervised fine-tuning" if origin.command == "sft" else "GRPO" }} on `{{ origin.recipe.data }}`\
{% if origin.steps is not none %}, {{ origin.steps }} steps{% endif %}
{%- if origin.epochs is not none %}, {{ "{:g}".format(origin.epochs) }} epochs{% endif %}. \
Options that differ from the defaults of `scenerl {{ origin.command }}`:

```yaml
{{ recipe }}
```
{% else %}
Not known: the run's `config.yaml` was not there when this card was written.
{% endif %}

## Metrics
{% for title, data, count, metrics in evaluations %}

### {{ title }}
{% if data or count %}

On {% if data %}`{{ data }}`{% endif %}{{ ", " if data and count }}{% if count %}{{ count }} images{% endif %}, with \
95 % bootstrap intervals over images.
{% endif %}

| metric | value | interval |
| --- | --- | --- |
{% for name, metric in metrics.items() %}
| {{ name }} | {{ "%.3f" % metric.value }} | \
{% if metric.interval %}{{ "%.3f to %.3f" | format(*metric.interval) }}{% endif %} |
{% endfor %}
{% else %}

None were given when this card was written.
{% endfor %}
"""


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
        key: _sources(value) if key in ("data", "eval_data") else _shortened(value)
        for key, value in resolved.items()
        if key not in _NOT_RECIPE and (key == "rewards" or key not in defaults or defaults[key] != value)
    }
    last: dict[str, Any] = {}
    log = Path(run) / "log.jsonl"
    for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else ():
        with suppress(ValueError, AttributeError):  # a row that a kill has cut off
            last |= {key: value for key, value in json.loads(line).items() if isinstance(value, int | float)}
    return Origin(command, recipe, last.get("step"), last.get("epoch"))


def _shortened(value: Any) -> Any:
    """Absolute paths, which say more about a machine than about data, by their last part."""
    is_path = isinstance(value, str) and (value.startswith(("/", "~")) or value[1:3] in (":\\", ":/"))
    return Path(value.replace("\\", "/")).name if is_path else value


def _sources(value: Any) -> str:
    """Data, one source or several, in words."""
    entries = value if isinstance(value, list) else [value]
    names = [entry.get("source") if isinstance(entry, dict) else entry for entry in entries]
    return ", ".join(str(_shortened(name)) for name in names)


def metrics_of(files: Sequence[Path]) -> dict[str, Metrics]:
    """Metrics files of ``eval`` by name, one section of the card each.

    Raises:
        UserError: a file that is not one; names it.
    """
    found = {}
    for path in files:
        content = read_as(Metrics, path)
        name = path.stem if path.stem != "metrics" else path.parent.name
        found[name if name not in found else str(path)] = content
    return found


def model_card(
    name: str,
    model_type: str,
    output_format: OutputFormat,
    base: str | None = None,
    origin: Origin | None = None,
    metrics: Mapping[str, Metrics] | None = None,
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
    is_detection = output_format.format == "detections"
    evaluations = [_evaluation(title, content) for title, content in (metrics or {}).items()]
    tags = ["scenerl", "object-detection" if is_detection else "scene-graph-generation"]
    tags += [origin.command] if origin else []
    tags += ["lora"] if is_adapter or (origin and origin.recipe.get("use_peft")) else []
    data = ModelCardData(
        model_name=name,
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag="image-text-to-text",
        tags=tags,
        base_model=base if base and _HUB_NAME.fullmatch(base) and not Path(base).exists() else None,
        eval_results=[result for _, results in evaluations for result in results] or None,
    )
    labels = {"objects": output_format.objects, "predicates": output_format.predicates}
    counts = " and ".join(f"{len(names)} {kind}" for kind, names in labels.items() if names)
    prompt = build_prompt(output_format, ("label", "another label") if is_detection else None)
    prompt = prompt if len(prompt) <= _LONGEST_PROMPT else f"{prompt[:_LONGEST_PROMPT]} …"
    body = (
        Environment(trim_blocks=True, lstrip_blocks=True)
        .from_string(_BODY)
        .render(
            name=name,
            model_type=model_type,
            version=__version__,
            base=base and _shortened(base),
            is_adapter=is_adapter,
            output=output_format,
            vocabulary=f"closed vocabulary of {counts}" if counts else "any label",
            prompt=prompt.replace("```", "'''"),
            origin=origin,
            recipe=origin and dump_yaml(origin.recipe).rstrip(),
            evaluations=[table for table, _ in evaluations],
        )
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body.rstrip()}\n").content


def _evaluation(title: str, content: Metrics) -> tuple[tuple, list[EvalResult]]:
    """An evaluation as (title, data, number of images, metrics that have a value), and what the hub lists of it: the
    headline metrics, as in metrics.json."""
    options, known = content.options, content.known
    data = _shortened(options.get("data"))
    metrics = {name: known[name] for name in ordered(known)}
    task = ("image-text-to-text", "Scene graph generation")
    task = ("object-detection", "Detection") if options.get("task") == "det" else task
    results = [
        EvalResult(
            task_type=task[0],
            task_name=task[1],
            dataset_type=str(data or title),
            dataset_name=str(data or title),
            metric_type=name,
            metric_name=spec_or_plain(name).title,
            metric_value=metrics[name].value,
        )
        for name in headline(metrics) or metrics
    ]
    return (title, data, content.counts.get("images"), metrics), results
