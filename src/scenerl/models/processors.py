"""What the families' processors share: a tokenizer with its chat template, and files that other tools read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from transformers import AutoTokenizer, ProcessorMixin

from scenerl.errors import UserError


def lora_targets(language_model: str, more: str = "") -> str:
    """Regular expression of the linear layers in the blocks of the submodule ``language_model``, wherever it stands.

    Args:
        more: of a block's layers with other names than most families give them.
    """
    layers = r"(self_attn|mlp)\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    if more:
        layers = f"({layers}|{more})"
    return rf"(.*\.)?{language_model}\.layers\.\d+\.{layers}"


def load_tokenizer(name: str | Path, image_token: str, trust_remote_code: bool = False):
    """A checkpoint's tokenizer and its chat template, wherever that is kept.

    Raises:
        UserError: there is no chat template, or the tokenizer has no token for an image.
    """
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    template = tokenizer.chat_template
    if template is None:  # older checkpoints keep it in a file of the processor
        template = ProcessorMixin.get_processor_dict(name)[0].get("chat_template")
    if template is None:
        raise UserError("no chat template: neither chat_template.jinja nor an entry of tokenizer_config.json")
    if tokenizer.convert_tokens_to_ids(image_token) in (None, tokenizer.unk_token_id):
        raise UserError(f"the tokenizer has no token {image_token}")
    return tokenizer, template


class WithoutVideo(ProcessorMixin):
    """For a family's processor whose video half, which alone would need torchvision, is left out.

    It is saved in the standard files (tokenizer, chat template, ``preprocessor_config.json``, and
    ``processor_config.json`` where there are settings), so other tools load the folder as an ordinary checkpoint of the
    family.

    Attributes:
        settings: names of the attributes and constructor's arguments that ``processor_config.json`` holds.
    """

    settings: tuple[str, ...] = ()

    def save_pretrained(self, save_directory, push_to_hub: bool = False, **kwargs):
        if push_to_hub:
            raise UserError("push the whole checkpoint folder instead: scenerl export FOLDER --push_to_hub OWNER/NAME")
        self.tokenizer.chat_template = self.chat_template
        self.tokenizer.save_pretrained(save_directory)
        self.image_processor.save_pretrained(save_directory)
        if self.settings:
            values = {"processor_class": type(self).__bases__[1].__name__}
            values |= {name: getattr(self, name) for name in self.settings}
            path = Path(save_directory) / "processor_config.json"
            path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def loader(
    processor_class: type[WithoutVideo], image_processor_class: type, image_token: str, set_pixel_bounds: Callable
) -> Callable:
    """A family's ``load_processor``, see :class:`scenerl.models.family.Family`."""

    def load_processor(
        name: str | Path, min_pixels: int | None = None, max_pixels: int | None = None, trust_remote_code: bool = False
    ) -> WithoutVideo:
        """The processor of a checkpoint folder or hub name; pixel bounds given here replace the checkpoint's.

        Raises:
            UserError: there is no chat template, the tokenizer has no token for an image, or the bounds cannot be met.
        """
        tokenizer, template = load_tokenizer(name, image_token, trust_remote_code)
        image_processor = image_processor_class.from_pretrained(name)
        set_pixel_bounds(image_processor, min_pixels, max_pixels)
        saved = ProcessorMixin.get_processor_dict(name)[0] if processor_class.settings else {}
        settings = {key: saved[key] for key in processor_class.settings if key in saved}
        return processor_class(image_processor, tokenizer, chat_template=template, **settings)

    return load_processor


_NO_THINKING = "{%- set enable_thinking = enable_thinking | default(false) %}\n"


def without_thinking(load: Callable) -> Callable:
    """A family's ``load_processor`` for chat templates that let a model think unless told otherwise.

    What a model may write before its answer is the response template's business, so that thinking is off unless a call
    says ``enable_thinking=True``.
    """

    def load_processor(*args, **kwargs) -> WithoutVideo:
        processor = load(*args, **kwargs)
        template = processor.chat_template
        if "enable_thinking" in template and not template.startswith(_NO_THINKING):
            processor.chat_template = _NO_THINKING + template
        return processor

    return load_processor


def tile_count(pixels: int, tile: int, name: str) -> int:
    """How many square tiles of ``tile`` pixels a side fit into a bound of pixels.

    Raises:
        UserError: not one; ``name`` is the option's.
    """
    if pixels < tile * tile:
        raise UserError(f"{name} {pixels} is less than one tile of {tile} x {tile} = {tile * tile} pixels")
    return pixels // (tile * tile)
