"""The ``export`` command: a checkpoint for others, whole or not there, with its model card."""

from __future__ import annotations

import logging
import shutil
import tomllib
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from itertools import chain
from pathlib import Path

import scenerl
from scenerl.answers import OutputFormat
from scenerl.answers.dialogue import save_output_format
from scenerl.card import FILE_NAME as CARD
from scenerl.card import metrics_of, model_card, origin_of
from scenerl.commands.export import ExportOptions
from scenerl.config import dump_yaml
from scenerl.errors import UserError
from scenerl.files import apply_umask, atomic_write_text, check_out_folder, whole_folder
from scenerl.models.folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_folder
from scenerl.models.loading import base_of, family_of, is_hub_name, load
from scenerl.models.output_formats import saved_output_format

PYPROJECT = Path(scenerl.__file__).parents[2] / "pyproject.toml"
"""Where a source tree has it."""

_log = logging.getLogger(__name__)


def run(options: ExportOptions) -> None:
    """The command.

    Raises:
        UserError: a checkpoint that cannot be loaded, an output that is there already, a bad metrics file, or an
            upload that failed.
    """
    if options.out.exists() or options.out.is_symlink():
        raise UserError(f"{options.out}: is there already; give a new folder")
    check_out_folder(options.out)
    with whole_folder(options.out) as draft:
        if options.space:
            _write_space(options, draft)
        else:
            _write_checkpoint(options, draft, _card(options))
    _log.info("written to %s", options.out)
    if options.push_to_hub:
        push(options.out, options.push_to_hub, options.private, options.space)


def _card(options: ExportOptions) -> str:
    """The model card; refuses what cannot be exported before anything large is loaded."""
    base = base_of(options.model)
    if options.keep_adapter and (base is None or not Path(options.model).is_dir()):
        raise UserError(f"keep_adapter: {options.model} is no folder of an adapter")
    origin = origin_of(options.run or options.model)
    if options.run is not None and origin is None:
        raise UserError(f"run: {options.run} holds no config.yaml of a run")
    family = family_of(options.model)
    return model_card(
        options.push_to_hub or options.out.name,
        family.model_type,
        _output_format(options.model) or OutputFormat(box_format=family.box_format),
        base or (origin.recipe.get("model") if origin else None),
        origin,
        metrics_of(options.metrics),
        is_adapter=options.keep_adapter,
    )


def _output_format(model: str) -> OutputFormat | None:
    saved = saved_output_format(model)
    return saved and replace(saved, box_format=family_of(model).box_format)


def _write_checkpoint(options: ExportOptions, folder: Path, card: str) -> None:
    if options.keep_adapter:
        _copy_adapter(Path(options.model), folder)
    else:
        loading = {"trust_remote_code": options.trust_remote_code, "allow_pickle": options.allow_pickle}
        checkpoint = load(options.model, options.dtype, **loading)
        checkpoint.processor.save_pretrained(folder)
        checkpoint.model.save_pretrained(folder)
    if output_format := _output_format(options.model):
        save_output_format(output_format, folder)
    atomic_write_text(folder / CARD, card)
    apply_umask(folder)
    check_folder(folder)


SPACE_APP = '''"""Serves a checkpoint on the hub; written by `scenerl export --space`."""

import os
import sys
from pathlib import Path

os.chdir(Path(__file__).parent)

from scenerl.cli import main  # noqa: E402 - the copy beside this file

host = os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0")
port = os.environ.get("GRADIO_SERVER_PORT", "7860")
sys.exit(main(["app", {model!r}, "--host", host, "--port", port]))
'''


def _write_space(options: ExportOptions, folder: Path) -> None:
    """A Space: this package, a script that starts its app, and the checkpoint or its hub name."""
    if options.keep_adapter:
        raise UserError("keep_adapter: a Space holds whole weights; leave it out")
    head: dict[str, object] = {"title": options.out.name, "sdk": "gradio", "app_file": "app.py"}
    with suppress(metadata.PackageNotFoundError):
        head["sdk_version"] = metadata.version("gradio")
    model = options.model
    if is_hub_name(model):
        family_of(model)  # there and of a family that is known
        head["models"] = [model]
    else:
        name, model = Path(model).resolve().name, "model"
        (folder / "model").mkdir()
        _write_checkpoint(options, folder / "model", _card(options))
        model = f"{name}=model"
    package = Path(scenerl.__file__).parent
    shutil.copytree(package, folder / "scenerl", ignore=shutil.ignore_patterns("__pycache__"))
    text = f"# {options.out.name}\n\nA scene-graph model in SceneRL's app.\n"
    atomic_write_text(folder / CARD, f"---\n{dump_yaml(head)}---\n\n{text}")
    atomic_write_text(folder / "requirements.txt", "".join(f"{line}\n" for line in _requirements()))
    atomic_write_text(folder / "app.py", SPACE_APP.format(model=model))


def _requirements() -> list[str]:
    """What this package needs to serve the app, from its own metadata or, in a source tree, from pyproject.toml.

    Raises:
        UserError: there is neither.
    """
    from packaging.requirements import Requirement

    extras = ("app", "train")
    try:
        found = [Requirement(line) for line in metadata.requires("scenerl") or ()]
    except metadata.PackageNotFoundError:
        if not PYPROJECT.is_file():
            raise UserError(
                f"space: what SceneRL needs is not known: it is not installed, and {PYPROJECT} is not there; "
                "pip install it, or run it from its source tree"
            ) from None
        project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
        optional = project["optional-dependencies"]
        found = [Requirement(line) for line in project["dependencies"] + [*chain(*map(optional.get, extras))]]
    needed = [
        entry
        for entry in found
        if entry.marker is None or any(entry.marker.evaluate({"extra": extra}) for extra in extras)
    ]
    return sorted({f"{entry.name}{entry.specifier}" for entry in needed})


def _copy_adapter(source: Path, target: Path) -> None:
    """An adapter's own files and those of its processor, nothing of the run."""
    check_folder(source)
    kept = (ADAPTER_CONFIG, ADAPTER_WEIGHTS, "chat_template.jinja", "*token*.json", "vocab.json", "merges.txt")
    for pattern in (*kept, "preprocessor_config.json", "processor_config.json"):
        for path in source.glob(pattern):
            shutil.copy2(path, target / path.name)


def push(folder: Path, name: str, private: bool = False, is_space: bool = False) -> str:
    """Upload a folder to the hub; gives the repository's address.

    Raises:
        UserError: the hub refuses or cannot be reached; what is written stays.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    api = HfApi()
    try:
        kind, sdk = ({"repo_type": "space"}, {"space_sdk": "gradio"}) if is_space else ({}, {})
        address = str(api.create_repo(name, private=private, exist_ok=True, **kind, **sdk))
        api.upload_folder(repo_id=name, folder_path=str(folder), commit_message="SceneRL export", **kind)
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        reason = " ".join(str(error).split())
        again = f"`hf upload {name} {folder}` tries again"
        raise UserError(f"push_to_hub: {name}: {reason}; {folder} is whole, {again}") from error
    _log.info("uploaded to %s", address)
    return address
