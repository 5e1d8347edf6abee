"""Load a checkpoint: recognise its family, check that the folder is whole, and give model and processor."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import re
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from scenerl.answers import OutputFormat
from scenerl.answers.dialogue import Conversation
from scenerl.errors import UserError, near_files
from scenerl.models import FAMILIES, adapters
from scenerl.models.family import Family
from scenerl.models.folders import (
    ADAPTER_CONFIG,
    BASE,
    PROCESSOR_FILES,
    check_folder,
    json_object,
    located,
    one_line,
    weight_files,
)

_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_DIGEST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded model with its processor and family. ``name`` is the folder or hub name it came from."""

    name: str
    family: Family
    model: object
    processor: object

    def conversation(self, output_format: OutputFormat) -> Conversation:
        """How this model is prompted and its text is read."""
        resize = None if self.processor is None else partial(self.family.input_wh, self.processor)
        return Conversation(output_format, resize, self.family.banned_tokens)

    @property
    def banned_ids(self) -> list[int]:
        """Ids of the tokens that may never be sampled."""
        tokenizer = self.processor.tokenizer
        ids = tokenizer.convert_tokens_to_ids(list(self.family.banned_tokens))
        return sorted({i for i in ids if i is not None and i != tokenizer.unk_token_id})

    def resized(self, image: Image.Image) -> Image.Image:
        """An image as the processor resizes it, with its own filter; processors that cut tiles get it as it is.

        Other code that resizes gives pixels that differ a little. With the same pixel bounds it leaves this one alone.
        """
        images = getattr(self.processor, "image_processor", None)
        if not hasattr(images, "merge_size"):  # patches of one resized input are merged, not tiles cut from it
            return image
        size = self.family.input_wh(self.processor, image.size)
        return image if size == image.size else image.resize(size, images.resample)

    @property
    def stop_ids(self) -> list[int]:
        """Ids of the tokens that end an answer: what the checkpoint declares, and the tokenizer's own."""
        declared = self.model.generation_config.eos_token_id
        stops = [declared] if isinstance(declared, int) else declared or ()
        return sorted({*stops, self.processor.tokenizer.eos_token_id})


def is_hub_name(name: str | Path) -> bool:
    """Whether a name has the form ``owner/name`` and is nothing on this machine."""
    return bool(_HUB_NAME.fullmatch(str(name))) and not Path(name).exists()


def family_of(name: str | Path) -> Family:
    """The family of a checkpoint folder or hub name; arguments and errors as for :func:`model_type_of`."""
    return family_named(model_type_of(name))


def model_type_of(name: str | Path) -> str:
    """The key in :data:`~scenerl.models.FAMILIES` of a checkpoint folder or hub name, by its configuration alone.

    An adapter is of its base model's family. For a folder nothing heavy is imported.

    Raises:
        UserError: there is no such folder or hub model, it lacks its configuration, or the type is not supported;
            names what is.
    """
    folder = Path(located(name))
    if folder.is_dir():
        if (base := base_of(name)) is not None:
            return model_type_of(base)
        path = folder / "config.json"
        if not path.is_file():
            raise UserError(f"{folder}: no config.json, so this is not a checkpoint folder")
        model_type = json_object(path).get("model_type")
    elif folder.exists():
        raise UserError(f"model {str(name)!r}: is a file; give the folder of the checkpoint")
    elif not is_hub_name(name):
        near = near_files(name)
        if not near and difflib.get_close_matches(str(name), [BASE]):
            near = f" (did you mean {BASE}?)"
        raise UserError(f"model {str(name)!r}: no such folder, and not a hub name (owner/name){near}")
    else:
        from transformers import PreTrainedConfig

        try:
            model_type = PreTrainedConfig.get_config_dict(str(name))[0].get("model_type")
        except OSError as error:
            if (base := base_of(name)) is not None:
                return model_type_of(base)
            raise UserError(
                f"model {str(name)!r}: no such folder{near_files(name)}, and the hub gives no such model "
                f"({one_line(error)})"
            ) from error
    if model_type not in FAMILIES:
        near = difflib.get_close_matches(str(model_type), FAMILIES, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{name}: model_type {model_type!r} is not supported; allowed: {', '.join(FAMILIES)}{hint}")
    return model_type


def base_of(name: str | Path) -> str | None:
    """The folder or hub name of the model that an adapter belongs to; None for what is no adapter.

    Raises:
        UserError: the adapter's configuration cannot be read, or its model is not there or an adapter itself.
    """
    if not Path(name).is_dir() and not is_hub_name(name):
        return None
    try:
        config = adapters.config_of(name)
    except OSError:  # the hub, or its local copy, has nothing of that name
        return None
    if config is None:
        return None
    base = config["base_model_name_or_path"]
    if not Path(base).is_dir() and not is_hub_name(base):
        raise UserError(
            f"{name}: the adapter's base model {base!r} is no folder; correct base_model_name_or_path in "
            f"{ADAPTER_CONFIG}"
        )
    if (Path(base) / ADAPTER_CONFIG).is_file():
        raise UserError(
            f"{name}: the adapter's base model {base} is an adapter itself; merge that first: scenerl export"
        )
    return base


def processor_source(name: str | Path) -> str | Path:
    """Where a checkpoint's processor is: an adapter that comes without one leaves it to its base model.

    Raises:
        UserError: as :func:`base_of`.
    """
    name = located(name)
    is_there = all(any((Path(name) / file).is_file() for file in group) for group in PROCESSOR_FILES)
    return name if is_there else base_of(name) or name


def family_named(model_type: str) -> Family:
    """The family of a ``model_type`` from :data:`scenerl.models.FAMILIES`."""
    return importlib.import_module(FAMILIES[model_type]).FAMILY


def weights_digest(name: str | Path, allow_pickle: bool = False) -> str | None:
    """A short digest by which the weights of a checkpoint folder are known again; None for a hub name.

    It reads the size and both ends of each file, not gigabytes: training changes every tensor. An adapter's depends on
    its base model's as well.

    Raises:
        UserError: as :func:`check_folder`.
    """
    folder = Path(located(name))
    if not folder.is_dir():
        return None
    check_folder(folder, allow_pickle)
    digest = hashlib.sha256()
    if (base := base_of(name)) is not None:
        digest.update(f"{weights_digest(base, allow_pickle) or base}\n".encode())
    files = [path for path in weight_files(folder) if path.is_file()]
    for path in files or sorted(folder.glob("*.bin")):
        with path.open("rb") as file:
            size = path.stat().st_size
            digest.update(f"{path.name} {size}\n".encode())
            digest.update(file.read(_DIGEST_BYTES))
            file.seek(max(0, size - _DIGEST_BYTES))
            digest.update(file.read(_DIGEST_BYTES))
    return digest.hexdigest()[:16]


def load(
    name: str | Path,
    dtype: str = "auto",
    device: str | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    *,
    trainable: bool = False,
    quantization=None,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
) -> Checkpoint:
    """Model and processor of the folder or hub name of a checkpoint, or of an adapter with its base model.

    Weights come from safetensors only and no code of the checkpoint is run, unless the last two arguments say so.

    Args:
        dtype: ``auto`` (as saved), ``float32``, ``bfloat16`` or ``float16``.
        device: where to put the model; None leaves it on the CPU (trainers move it themselves).
        min_pixels, max_pixels: bounds of the resized input in pixels; None keeps the checkpoint's own.
        trainable: leave an adapter beside the weights, to be trained on; otherwise it is merged into them.
        quantization: transformers' configuration of quantised weights.
        attn_implementation: transformers' name of the attention; None: its choice.

    Raises:
        UserError: the folder is incomplete, damaged or of an unsupported family; weights do not fit the
            configuration; the tokenizer knows tokens that the model does not.
    """
    name = located(name)
    family, base = family_of(name), base_of(name)
    weights = name if base is None else base
    for folder in {Path(name), Path(weights)}:
        if folder.is_dir():
            check_folder(folder, allow_pickle)
    if base is not None and not allow_pickle:
        adapters.require_safetensors(name)
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    settings = {"quantization_config": quantization, "attn_implementation": attn_implementation}
    try:
        processor = family.load_processor(
            processor_source(name), min_pixels, max_pixels, trust_remote_code=trust_remote_code
        )
        model, found = AutoModelForImageTextToText.from_pretrained(
            weights,
            dtype=dtype,
            use_safetensors=None if allow_pickle else True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            **{key: value for key, value in settings.items() if value is not None},
        )
    except (OSError, ValueError, TypeError, KeyError, SafetensorError, StrictDataclassError) as error:
        raise UserError(f"{weights}: cannot be loaded ({one_line(error)})") from error
    _refuse_bad_weights(weights, found)
    if conversions := getattr(model, "_weight_conversions", None):  # of names, which saving reverts
        # under ZeRO-3 transformers keeps those too that fit no tensor
        model._weight_conversions = [conversion for conversion in conversions if conversion.was_used()]
    num_tokens, num_rows = len(processor.tokenizer), model.get_input_embeddings().num_embeddings
    if num_tokens > num_rows:
        raise UserError(f"{name}: the tokenizer has {num_tokens} tokens, but the model knows {num_rows}")
    if base is not None:
        model = adapters.attach(model, name, trainable)
    if device:
        model.to(device)
    return Checkpoint(str(name), family, model, processor)


def _refuse_bad_weights(name: str | Path, found: dict) -> None:
    """transformers fills tensors that are missing or of another shape with noise; such a model must not be used."""
    mismatched = [key if isinstance(key, str) else key[0] for key in found["mismatched_keys"]]
    for problem, keys in (("lack", found["missing_keys"]), ("have another shape in", mismatched)):
        if keys:
            shown = ", ".join(sorted(keys)[:3]) + (" …" if len(keys) > 3 else "")
            raise UserError(f"{name}: the weights {problem} {len(keys)} tensors that config.json declares: {shown}")
