"""LoRA adapters: folders with the weights that training added to a base model, and the name of that model."""

from __future__ import annotations

from pathlib import Path

from scenerl.errors import UserError
from scenerl.models.folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS, json_object, one_line


def config_of(name: str | Path) -> dict | None:
    """The adapter configuration of a folder or hub name; None where it is no adapter.

    Raises:
        UserError: it cannot be read, is of another kind than LoRA or names no base model, or the folder holds a whole
            model as well.
    """
    folder = Path(name)
    path = folder / ADAPTER_CONFIG
    if folder.is_dir() and path.is_file() and (folder / "config.json").is_file():
        raise UserError(f"{folder}: holds config.json of a model and {ADAPTER_CONFIG} of an adapter; keep one of them")
    if not folder.is_dir():
        from transformers.utils import cached_file

        found = cached_file(str(name), ADAPTER_CONFIG, _raise_exceptions_for_missing_entries=False)
        path = Path(found) if found else path
    if not path.is_file():
        return None
    config = json_object(path)
    if not isinstance(config.get("base_model_name_or_path"), str):
        raise UserError(f"{path}: not the configuration of an adapter (base_model_name_or_path is not text)")
    if config.get("peft_type") != "LORA":
        raise UserError(f"{path}: peft_type {config.get('peft_type')!r:.50} is not supported; allowed: LORA")
    return config


def require_safetensors(name: str | Path) -> None:
    """Check that an adapter's weights are in safetensors: PEFT would load pickled ones instead.

    Raises:
        UserError: the hub, or its local copy, has none, or cannot be reached.
    """
    if Path(name).is_dir():  # whose files are looked through as any checkpoint's
        return
    from transformers.utils import cached_file

    try:
        found = cached_file(str(name), ADAPTER_WEIGHTS, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        raise UserError(f"{name}: {ADAPTER_WEIGHTS} cannot be had ({one_line(error)})") from error
    if found is None:
        raise UserError(f"{name}: has no {ADAPTER_WEIGHTS}, and pickled weights are not loaded without --allow_pickle")


def attach(model, name: str | Path, trainable: bool = False):
    """A base model with an adapter: as a PEFT model to train on, or with the adapter merged into the weights.

    Raises:
        UserError: the adapter lacks tensors or does not fit the model.
    """
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils import load_peft_weights

    saved = load_peft_weights(str(name), device="cpu")
    try:
        peft_model = PeftModel.from_pretrained(model, str(name), is_trainable=trainable)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{name}: the adapter does not fit its base model ({one_line(error)})") from error
    loaded = get_peft_model_state_dict(peft_model)
    wrong = sorted(set(saved) ^ set(loaded))
    if wrong:  # PEFT leaves what is missing as it was initialised, and what is too much aside
        raise UserError(f"{name}: the adapter's tensors are not those of its configuration: {wrong[0]} …")
    if not all(bool(torch.isfinite(value).all()) for value in saved.values()):
        raise UserError(f"{name}: the adapter holds values that are no numbers")
    return peft_model if trainable else peft_model.merge_and_unload(safe_merge=True)
