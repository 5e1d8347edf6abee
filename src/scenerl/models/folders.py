"""What stands in the folder of a checkpoint or adapter, and whether it is whole, before anything large is loaded."""

from __future__ import annotations

import json
from pathlib import Path

from scenerl.errors import UserError

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "adapter_model.bin")
PROCESSOR_FILES = (
    ("tokenizer_config.json",),
    ("tokenizer.json", "vocab.json"),
    ("preprocessor_config.json", "processor_config.json"),
)
REQUIRED = (("config.json",), *PROCESSOR_FILES, (WEIGHTS, INDEX))
"""What a checkpoint folder must hold: of each group one file."""

BASE = "base"
"""The value of ``--model`` that names the small base model in this package, unless a folder has that name."""
BASE_FOLDER = Path(__file__).parent / BASE

JSON_OBJECTS = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template.json",
)


def located(name: str | Path) -> str | Path:
    """The folder or hub name of a model: as given, but for :data:`BASE`.

    Raises:
        UserError: this installation lacks the base model.
    """
    if name != BASE or Path(name).is_dir():
        return name
    if not (BASE_FOLDER / "config.json").is_file():
        raise UserError(f"model {BASE!r}: missing from this installation ({BASE_FOLDER}); install SceneRL again")
    return BASE_FOLDER


def one_line(error: object) -> str:
    """What an error or server says in one line of 300 characters at most."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]} …"


def json_object(path: Path) -> dict:
    """The JSON object in a file; raises ValueError, which names the file, where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: not a JSON object but a {type(value).__name__}")
    return value


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter and no model."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / "config.json").is_file()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of the folder of a checkpoint or adapter, whether they are there or not.

    Raises:
        UserError: the index of a checkpoint in several files cannot be read.
    """
    if is_adapter(folder):
        return [folder / ADAPTER_WEIGHTS]
    index = folder / INDEX
    if (folder / WEIGHTS).is_file() or not index.is_file():
        return [folder / WEIGHTS]
    shards = json_object(index).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise UserError(f"{index}: 'weight_map' is not an object of tensor names to files")
    return [folder / name for name in sorted(set(shards.values()))]


def check_folder(folder: Path, allow_pickle: bool = False) -> None:
    """See that the folder of a checkpoint, or of an adapter, is whole, before anything large is loaded.

    Args:
        allow_pickle: weights may be pickled (.bin), which can run code when they are read.

    Raises:
        UserError: names every file that is missing, or the first that is damaged.
    """
    from safetensors import SafetensorError, safe_open

    required = ((ADAPTER_CONFIG,), (ADAPTER_WEIGHTS,)) if is_adapter(folder) else REQUIRED
    is_pickled = allow_pickle and not any((folder / name).is_file() for name in (WEIGHTS, INDEX, ADAPTER_WEIGHTS))
    if is_pickled:
        required = (*required[:-1], PICKLED)
    missing = [" or ".join(names) for names in required if not any((folder / name).is_file() for name in names)]
    if (folder / INDEX).is_file():
        missing += [path.name for path in weight_files(folder) if not path.is_file()]
    if missing:
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        hint = f" ({', '.join(pickles[:3])}: pickled weights are not loaded without --allow_pickle)" if pickles else ""
        raise UserError(f"{folder}: incomplete checkpoint, missing {', '.join(missing)}{hint}")
    for path in (folder / name for name in JSON_OBJECTS):
        if path.is_file():
            json_object(path)
    if is_pickled:
        return
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: damaged or cut off ({one_line(error)})") from error
