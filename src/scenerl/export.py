"""The ``export`` command: a checkpoint for others, whole or not there, with its model card."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from scenerl.answers import OutputFormat
from scenerl.answers.dialogue import save_output_format
from scenerl.card import FILE_NAME as CARD
from scenerl.card import metrics_of, model_card, origin_of
from scenerl.errors import UserError
from scenerl.files import atomic_write_text, check_out_folder
from scenerl.models import adapters
from scenerl.models.folders import check_folder
from scenerl.models.loading import base_of, family_of, load
from scenerl.models.output_formats import saved_output_format

if TYPE_CHECKING:
    from scenerl.commands.export import ExportOptions

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
    base = base_of(options.model)
    if options.keep_adapter and (base is None or not Path(options.model).is_dir()):
        raise UserError(f"keep_adapter: {options.model} is no folder of an adapter")
    family, saved = family_of(options.model), saved_output_format(options.model)
    output_format = replace(saved or OutputFormat(), box_format=family.box_format)
    origin = origin_of(options.run or options.model)
    if options.run is not None and origin is None:
        raise UserError(f"run: {options.run} holds no config.yaml of a run")
    card = model_card(
        options.push_to_hub or options.out.name,
        family.model_type,
        output_format,
        base or (origin.recipe.get("model") if origin else None),
        origin,
        metrics_of(options.metrics),
        is_adapter=options.keep_adapter,
    )
    draft = options.out.with_name(f".{options.out.name}.{os.getpid()}.tmp")
    draft.mkdir(parents=True)
    try:
        if options.keep_adapter:
            _copy_adapter(Path(options.model), draft)
        else:
            loading = {"trust_remote_code": options.trust_remote_code, "allow_pickle": options.allow_pickle}
            checkpoint = load(options.model, options.dtype, **loading)
            checkpoint.processor.save_pretrained(draft)
            checkpoint.model.save_pretrained(draft)
        if saved:
            save_output_format(output_format, draft)
        atomic_write_text(draft / CARD, card)
        check_folder(draft)
        draft.rename(options.out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    _log.info("written to %s", options.out)
    if options.push_to_hub:
        push(options.out, options.push_to_hub, options.private)


def _copy_adapter(source: Path, target: Path) -> None:
    """An adapter's own files and those of its processor, nothing of the run."""
    check_folder(source)
    kept = (adapters.CONFIG, adapters.WEIGHTS, "chat_template.jinja", "*token*.json", "vocab.json", "merges.txt")
    for pattern in (*kept, "preprocessor_config.json", "processor_config.json"):
        for path in source.glob(pattern):
            shutil.copy2(path, target / path.name)


def push(folder: Path, name: str, private: bool = False) -> str:
    """Upload a folder to the hub; gives the repository's address.

    Raises:
        UserError: the hub refuses or cannot be reached; what is written stays.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    api = HfApi()
    try:
        address = str(api.create_repo(name, private=private, exist_ok=True))
        api.upload_folder(repo_id=name, folder_path=str(folder), commit_message="SceneRL export")
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        reason = " ".join(str(error).split())
        again = f"`hf upload {name} {folder}` tries again"
        raise UserError(f"push_to_hub: {name}: {reason}; {folder} is whole, {again}") from error
    _log.info("uploaded to %s", address)
    return address
