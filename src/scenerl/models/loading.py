"""Load a checkpoint: recognise its family, check that the folder is whole, and give model and processor."""

from __future__ import annotations

import difflib
import importlib
import json
from dataclasses import dataclass
from pathlib import Path

from scenerl.models import FAMILIES
from scenerl.models.family import Family

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded model with its processor and family. ``name`` is the folder or hub name it came from."""

    name: str
    family: Family
    model: object
    processor: object

    @property
    def banned_ids(self) -> list[int]:
        """Ids of the tokens that may never be sampled."""
        tokenizer = self.processor.tokenizer
        ids = tokenizer.convert_tokens_to_ids(list(self.family.banned_tokens))
        return sorted({i for i in ids if i is not None and i != tokenizer.unk_token_id})


def family_of(name: str | Path) -> Family:
    """The family of a checkpoint folder or hub name, by its configuration's ``model_type`` and nothing else.

    Raises:
        ValueError: the folder lacks its configuration, or the type is not supported; names what is.
    """
    folder = Path(name)
    if folder.is_dir():
        path = folder / "config.json"
        if not path.is_file():
            raise ValueError(f"{folder}: no config.json, so this is not a checkpoint folder")
        try:
            model_type = json.loads(path.read_text()).get("model_type")
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
            raise ValueError(f"{path}: not a JSON object ({error})") from error
    else:
        if folder.suffix or str(name).startswith((".", "/", "~")) or str(name).count("/") != 1:
            raise ValueError(f"model {str(name)!r}: no such folder, and not a hub name (owner/name)")
        from transformers import AutoConfig

        try:
            model_type = AutoConfig.from_pretrained(str(name)).model_type
        except OSError as error:
            raise ValueError(
                f"model {str(name)!r}: no such folder, and the hub gives no such model ({_first_line(error)})"
            ) from error
    if model_type not in FAMILIES:
        near = difflib.get_close_matches(str(model_type), FAMILIES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{name}: model_type {model_type!r} is not supported; allowed: {', '.join(FAMILIES)}{hint}")
    return importlib.import_module(FAMILIES[model_type]).FAMILY


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def check_folder(folder: Path) -> None:
    """Raise ValueError naming every file that a checkpoint folder lacks (configuration, weights, tokenizer, images)."""
    missing = [
        name
        for name in ("config.json", "tokenizer_config.json", "tokenizer.json", "preprocessor_config.json")
        if not (folder / name).is_file()
    ]
    if not any((folder / name).is_file() for name in WEIGHTS):
        missing.append(" or ".join(WEIGHTS))
    index = folder / WEIGHTS[1]
    if index.is_file():
        shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        missing.extend(name for name in shards if not (folder / name).is_file())
    if missing:
        raise ValueError(f"{folder}: incomplete checkpoint, missing {', '.join(missing)}")


def load(
    name: str | Path,
    dtype: str = "auto",
    device: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> Checkpoint:
    """Model and processor of a checkpoint folder or hub name.

    Weights come from safetensors only and no code of the checkpoint is run.

    Args:
        dtype: ``auto`` (as saved), ``float32``, ``bfloat16`` or ``float16``.
        device: where to put the model; None leaves it on the CPU (trainers move it themselves).
        min_pixels, max_pixels: bounds of the resized input in pixels; None keeps the checkpoint's own.

    Raises:
        ValueError: the folder is incomplete, damaged or of an unsupported family.
    """
    family = family_of(name)
    folder = Path(name)
    if folder.is_dir():
        check_folder(folder)
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText

    try:
        model = AutoModelForImageTextToText.from_pretrained(
            name, dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
        processor = family.load_processor(name, min_pixels, max_pixels)
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{name}: cannot be loaded ({_first_line(error)})") from error
    if device:
        model.to(device)
    return Checkpoint(str(name), family, model, processor)
